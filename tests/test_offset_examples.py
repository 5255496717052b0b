"""The examples about offsets: a frozen model against one that has no offsets, and what the tables say."""

import dataclasses
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minidat
from minidat.data.datasets import ArrayDataset
from minidat.training import Recipe

EXAMPLES = Path(__file__).parents[1] / "examples"
CLASSES = ("dark", "light")


def load(name):
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ablation():
    return load("ablate_offsets")


@pytest.fixture(scope="module")
def measuring():
    return load("measure_offsets")


@pytest.fixture
def model(ablation):
    config = dataclasses.replace(ablation.WITH, num_classes=2)
    model = minidat.create_model(config, seed=1)
    for name, parameter in model.named_parameters():
        if name.endswith("offset_projection.weight"):
            parameter.value *= 50  # random ones hardly move a point
    model.labels = list(CLASSES)
    return model


def pictures(count=6):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, (count, 32, 32, 3), np.uint8)
    labels = np.arange(count) % 2
    images[labels == 1] += 128
    return ArrayDataset(images, labels, CLASSES)


@pytest.fixture
def folder(tmp_path):
    dataset = pictures()
    for split in ("train", "test"):
        for i, (image, label) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
            place = tmp_path / "data" / split / CLASSES[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{i}.png")
    return tmp_path


def test_only_the_offset_networks_are_left_out(ablation):
    with_offsets, without = (
        minidat.create_model(config) for config in (ablation.WITH, ablation.without_offsets(ablation.WITH))
    )
    names, rest = (set(model.state_dict()) for model in (with_offsets, without))
    assert rest < names
    assert names - rest == {name for name in names if ".offset_" in name}
    assert len({name.rsplit(".offset_")[0] for name in names - rest}) == 3  # deformable blocks


def test_frozen_without_offsets_is_a_model_without_offsets(ablation, measuring, model):
    """The same weights in a model that has none give the same logits; with its own offsets, others."""
    (pixels,) = measuring.batches(model, pictures())
    trace = measuring.Trace()
    own = model.forward(pixels, minidat.Context(trace=trace))[0]
    plain = minidat.create_model(ablation.without_offsets(model.config))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if ".offset_" not in name})
    expected = plain(pixels)
    assert not np.allclose(own, expected, atol=1e-4)
    for path, records in trace.items():
        grid = records[0].reference
        measuring.freeze(model, path, np.broadcast_to(grid, records[0].positions.shape[1:]))
    np.testing.assert_allclose(model(pixels), expected, rtol=1e-6, atol=1e-6)


def test_frozen_at_its_own_points_a_model_stays_what_it_is(measuring, model):
    dataset = pictures(1)
    (pixels,) = measuring.batches(model, dataset)
    trace = measuring.Trace()
    own = model.forward(pixels, minidat.Context(trace=trace))[0]
    for path, records in trace.items():
        measuring.freeze(model, path, records[0].positions[0])
    np.testing.assert_allclose(model(pixels), own, rtol=1e-5, atol=1e-6)


def test_measuring_a_classifier(measuring, model, folder, monkeypatch, capsys):
    minidat.save_npz(folder / "model.npz", model.state_dict(), model.config, model.labels)
    arguments = [str(folder / "model.npz"), str(folder / "data"), "--pictures", "4"]
    monkeypatch.setattr("sys.argv", ["measure_offsets.py", *arguments])
    assert measuring.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("dat_micro_cifar10 on 4 pictures of ")
    blocks = [line.split()[0] for line in lines if line.startswith("stages.")]
    assert blocks == ["stages.0.blocks.1", "stages.1.blocks.1", "stages.2.blocks.0"]
    assert [line.split()[-1].count("/") for line in lines[2:5]] == [1, 1, 2]  # groups less one
    for line in lines[2:5]:
        assert sum(float(share.rstrip("%")) for share in line.split()[-5:-2]) == pytest.approx(100, abs=0.2)
    assert [line.split("  ")[0] for line in lines[6:]] == [
        "offsets as they are",
        "mean of each point",
        "mean of each group",
        "none",
    ]
    monkeypatch.setattr("sys.argv", ["measure_offsets.py", str(folder / "no.npz"), str(folder / "data")])
    assert measuring.main() == 2
    assert capsys.readouterr().err.startswith("measure_offsets: error: ")


def test_the_ablation_trains_both_and_goes_on(ablation, folder, monkeypatch, capsys):
    """Two runs of one epoch, and again, which only loads them: the same table."""
    small = dataclasses.replace(ablation.WITH, num_classes=2)
    monkeypatch.setattr(ablation, "WITH", small)
    recipe = Recipe(epochs=1, batch=2, augmentation=ablation.RECIPE.augmentation)
    monkeypatch.setattr(ablation, "RECIPE", recipe)
    monkeypatch.setattr(ablation, "VALIDATION", 2)
    arguments = [str(folder / "data"), str(folder / "runs"), "--seeds", "1"]
    monkeypatch.setattr("sys.argv", ["ablate_offsets.py", *arguments])
    assert ablation.main() == 0
    table = capsys.readouterr().out
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["seed0-with", "seed0-without"]
    monkeypatch.setattr("sys.argv", ["ablate_offsets.py", *arguments, "--resume"])
    assert ablation.main() == 0
    assert capsys.readouterr().out == table
    assert [line.split()[0] for line in table.splitlines()] == ["seed", "0", "mean"]


def test_the_table_of_two_seeds(ablation, capsys):
    """Three of four right with offsets, then all; two, then three, without."""
    right = {"with": [[1, 1, 1, 0], [1, 1, 1, 1]], "without": [[1, 1, 0, 0], [1, 1, 1, 0]]}
    ablation.print_table({kind: np.array(values, bool) for kind, values in right.items()})
    _, first, second, mean, last = capsys.readouterr().out.splitlines()
    assert first.split() == ["0", "75.00", "+-25.00", "%", "50.00", "+-28.87", "%", "25.00", "+-25.00", "%"]
    assert second.split()[1:3] == ["100.00", "+-"]
    assert mean.split()[1] == "87.50"
    assert last == "from seed to seed, the difference is 25.00 +- 0.00 % (standard error)"
