"""Parameters and GFLOPs of the published models are those of the papers, to the last digit."""

import pytest

from minidat.info import describe_all, describe_model, format_model, format_models
from minidat.models import list_models

# parameters and multiply-adds of the authors' own PyTorch modules, counted by fvcore
EXPECTED = {
    "dat_tiny": (28_319_138, 4.588931392),
    "dat_small": (49_700_402, 9.008358976),
    "dat_base": (87_881_632, 15.787605432),
    "dat_base_384": (88_178_272, 49.771940032),
    "datpp_tiny": (23_962_876, 4.28772284),
    "datpp_small": (53_127_366, 9.42558368),
    "datpp_base": (93_690_640, 16.5594548),
    "datpp_base_384": (93_690_640, 49.73414928),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_parameters_and_gflops(name):
    model = describe_model(name)
    assert (model["parameters"], round(model["gflops"], 9)) == EXPECTED[name]


def test_datplus_tiny_has_the_parameters_of_the_authors():
    assert describe_model("datplus_tiny")["parameters"] == 22_772_796


def test_parts_add_up():
    for model in describe_all():
        assert sum(part["parameters"] for part in model["parts"]) == model["parameters"]
        assert sum(part["gflops"] for part in model["parts"]) == pytest.approx(model["gflops"], rel=1e-12)


def test_kinds_of_dat_tiny():
    kinds = {}
    for part in describe_model("dat_tiny")["parts"]:
        for kind, number in part["gflops_by_kind"].items():
            kinds[kind] = kinds.get(kind, 0) + number
    assert {kind: round(number, 3) for kind, number in kinds.items()} == {
        "convolution": 0.657,
        "layer norm": 0.019,
        "linear": 3.7,
        "attention": 0.207,
        "sampling": 0.007,
        "pooling": 0.0,
    }


def test_tables_name_every_model_and_part():
    table = format_models(describe_all())
    assert all(name in table for name in list_models())
    lines = {line.split()[0]: line for line in table.splitlines()}
    assert lines["dat_tiny"].endswith("  top-1 82.03%, top-5 95.85%")
    assert lines["mask_rcnn_datpp_tiny"].endswith("  box AP 50.5%, mask AP 45.1%")
    assert lines["upernet_datpp_base"].endswith("  mIoU 51.0%")
    assert lines["datplus_tiny"].endswith("224x224")
    text = format_model(describe_model("dat_tiny"))
    assert "(window, deformable) x 3" in text
    assert "classifier" in text


DENSE_PARAMETERS = {
    "retinanet_dat_small": {"backbone": 48_932_554, "pyramid": 4_474_880, "head": 6_463_220},
    "retinanet_datpp_tiny": {"backbone": 23_450_644, "pyramid": 3_770_368, "head": 6_463_220},
}


@pytest.mark.parametrize("name", DENSE_PARAMETERS)
def test_parameters_of_detectors(name):
    model, expected = describe_model(name), DENSE_PARAMETERS[name]
    of_part = {part["name"]: part["parameters"] for part in model["parts"]}
    found = {"pyramid": of_part.pop("pyramid"), "head": of_part.pop("head"), "backbone": sum(of_part.values())}
    assert found == expected
    assert model["parameters"] == sum(expected.values())


def test_datpp_small_has_the_parameters_of_the_authors():
    assert describe_model("retinanet_datpp_small")["parameters"] == 63_297_618


def test_gflops_of_a_detector_are_those_of_its_image():
    """At 1280 x 800 pixels; the head's are ten convolutions on 21,330 pixels of the pyramid's levels."""
    model = describe_model("retinanet_dat_tiny")
    gflops = {part["name"]: part["gflops"] for part in model["parts"]}
    assert model["image_size"] == [800, 1280]
    pixels = 100 * 160 + 50 * 80 + 25 * 40 + 13 * 20 + 7 * 10
    assert gflops["head"] == pytest.approx(pixels * 256 * 9 * (8 * 256 + 720 + 36) / 1e9, rel=1e-12)
    lateral = (100 * 160 * 192 + 50 * 80 * 384 + 25 * 40 * 768) * 256
    smooth = (100 * 160 + 50 * 80 + 25 * 40 + 7 * 10) * 256 * 256 * 9 + 13 * 20 * 768 * 256 * 9
    nearest = (100 * 160 + 50 * 80) * 256
    assert gflops["pyramid"] == pytest.approx((lateral + smooth + nearest) / 1e9, rel=1e-12)
