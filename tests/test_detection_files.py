"""Detectors in files: mmdetection's checkpoints are recognized and converted, our own come back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minidat
from minidat.catalog import FAMILIES, family_of, get_config
from minidat.checkpoints import convert_state_dict
from minidat.checkpoints.convert import to_authors_state_dict
from minidat.checkpoints.load import convert
from minidat.checkpoints.published import PUBLISHED_WEIGHTS
from minidat.checkpoints.recognize_dense import recognize_dense
from minidat.commands import main
from minidat.data.labels import coco_category_ids, coco_labels, load_labels
from minidat.detection import DetectorConfig
from minidat.errors import CheckpointError, MinidatError

from .golden.dense import FOLDER
from .small_detectors import generated_pictures, small_cascade, small_mask_rcnn, small_retinanet

DETECTORS = [name for name in minidat.list_models() if "retinanet" in name or "mask_rcnn" in name]
RECORDED = ["retinanet_datpp_tiny", "mask_rcnn_datpp_tiny", "cascade_mask_rcnn_datpp_tiny"]
# pyramids as published: of the levels beyond the backbone's, RetinaNet and Mask R-CNN have convolutions
SMALL = [
    small_retinanet(anchor_scales=(2.0, 3.0, 4.0), first_stage=1, num_classes=3),
    small_retinanet(anchor_scales=(2.0, 3.0, 4.0), head_convolutions=0),
    small_mask_rcnn(pyramid_levels=5, num_classes=7),
    small_mask_rcnn(pyramid_levels=5, pooled_level=True, box_linears=0, box_features=1024, num_classes=80),
    small_cascade(pyramid_levels=5, num_classes=3),
    small_cascade(pyramid_levels=6, pooled_level=False, first_stage=1, num_classes=1),
]
TOLD = ["num_classes", "first_stage", "pyramid_levels", "pyramid_channels"]
TOLD_OF_RETINANET = [*TOLD, "head_convolutions"]
TOLD_OF_RCNN = [*TOLD, "pooled_level", "box_convolutions", "box_linears", "box_features", "mask_convolutions"]


def made_up_state(name: str) -> dict[str, np.ndarray]:
    """The state dict of a published checkpoint, as its list of keys says, each array with numbers of its own."""
    state = {}
    for number, line in enumerate((FOLDER / f"{name}.keys.tsv").read_text().splitlines()):
        key, text, dtype = line.split("\t")
        shape = () if text == "()" else tuple(map(int, text.split(",")))
        state[key] = np.resize(np.arange(number, number + 251).astype(dtype), shape)
    return state


def small_model(config: DetectorConfig) -> Any:
    """With running statistics and other weights that no fresh network has."""
    model = minidat.create_model(config)
    rng = np.random.default_rng(0)
    state = {name: value + 0.01 * rng.random(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict({name: value.astype(np.float32) for name, value in state.items()})
    return model


def authors_state(model: Any) -> dict[str, torch.Tensor]:
    """With the count of every batch normalization."""
    state = {name: torch.tensor(value) for name, value in to_authors_state_dict(model.state_dict()).items()}
    for name in [name for name in state if name.endswith("running_var")]:
        state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(90000)
    return state


def save_as_mmdetection(path: Path, state: dict[str, Any], **meta: Any) -> Path:
    """What mmcv's runner writes."""
    torch.save({"meta": {"epoch": 36, "iter": 90000, **meta}, "state_dict": state, "optimizer": {"state": {}}}, path)
    return path


def shapes_of(name: str) -> dict[str, np.ndarray]:
    """Arrays of the right shapes, under our names, that take no memory."""
    model = FAMILIES[family_of(get_config(name))].network(get_config(name))
    return {name: np.broadcast_to(np.float32(0), array.shape) for name, array in model.named_state()}


# --- the published ones -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTORS)
def test_every_published_detector_is_recognized_by_its_shapes(name: str) -> None:
    state = shapes_of(name)
    assert recognize_dense(state) == recognize_dense(state, name=name) == get_config(name)
    assert convert_state_dict(to_authors_state_dict(state)).keys() == state.keys()


@pytest.mark.parametrize("name", RECORDED)
def test_a_checkpoint_of_mmdetection_is_loaded(name: str, tmp_path: Path) -> None:
    theirs = made_up_state(name)
    path = tmp_path / "epoch_36.pth"
    save_as_mmdetection(path, {key: torch.from_numpy(value) for key, value in theirs.items()}, CLASSES=coco_labels())
    model = minidat.load_model(path)
    path.unlink()
    assert model.config == get_config(name)
    assert model.labels == list(coco_labels())
    back = to_authors_state_dict(model.state_dict())
    counts = {key for key in theirs if key.endswith("num_batches_tracked")}
    assert back.keys() == theirs.keys() - counts
    assert len(counts) == (12 if name.startswith("cascade") else 0)
    for key, value in back.items():
        assert value.dtype == np.float32, key
        assert np.array_equal(value, theirs[key]), key


def test_published_detectors_are_known_to_download() -> None:
    published = {name: entry for name, entry in PUBLISHED_WEIGHTS.items() if entry.box_ap is not None}
    assert len(published) == 12
    assert {entry.model or name for name, entry in published.items()} < set(DETECTORS)
    for name, entry in published.items():
        assert (entry.mask_ap is None) == name.startswith("retinanet")
        if entry.model:
            assert entry.box_ap < PUBLISHED_WEIGHTS[entry.model].box_ap
    assert published["retinanet_datpp_small"].box_ap == 50.2
    assert (published["cascade_mask_rcnn_datpp_base"].box_ap, published["mask_rcnn_datpp_tiny_1x"].mask_ap) == (
        54.5,
        43.7,
    )


# --- others -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", SMALL)
def test_other_sizes_are_told_by_the_shapes(config: DetectorConfig, tmp_path: Path) -> None:
    model = small_model(config)
    names = [f"thing {i}" for i in range(config.num_classes)]
    path = save_as_mmdetection(tmp_path / "a.pth", authors_state(model), CLASSES=tuple(names))
    loaded = minidat.load_model(path)
    assert type(loaded) is type(model)
    assert loaded.labels == names
    for field in TOLD_OF_RETINANET if "retinanet" in config.name else TOLD_OF_RCNN:
        assert getattr(loaded.config, field) == getattr(config, field), field
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    for name, value in loaded.state_dict().items():
        assert np.array_equal(value, state[name]), name
    pictures, _ = generated_pictures(1)
    for one, other in zip(loaded(pictures), model(pictures), strict=True):
        for a, b in zip(one, other, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("config", SMALL[::2])
def test_our_own_file_brings_the_same_model_back(config: DetectorConfig, tmp_path: Path) -> None:
    model = small_model(config)
    names = [f"thing {i}" for i in range(config.num_classes)]
    minidat.save_npz(tmp_path / "a.npz", model.state_dict(), config, names)
    assert convert(tmp_path / "a.npz", tmp_path / "b.npz") == config
    loaded = minidat.load_model(tmp_path / "b.npz")
    assert (loaded.config, loaded.labels) == (config, names)
    pictures, _ = generated_pictures(1)
    (found,) = loaded.detect(pictures, score_threshold=0.01)
    (expected,) = model.detect(pictures, score_threshold=0.01)
    assert len(expected) > 0
    for part in ("boxes", "scores", "labels", "masks"):
        assert np.array_equal(getattr(found, part), getattr(expected, part))


def test_the_command_converts_a_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model(SMALL[4])
    path = save_as_mmdetection(tmp_path / "a.pth", authors_state(model), CLASSES=("cat", "dog", "\x1b[31mcow\n"))
    assert main(["convert", str(path), str(tmp_path / "a.npz")]) == 0
    assert "a.npz: custom, 3 classes, images of 800 x 1280 pixels" in capsys.readouterr().out
    loaded = minidat.load_model(tmp_path / "a.npz")
    assert loaded.labels[:2] == ["cat", "dog"]
    assert loaded.labels[2].isprintable()
    assert all(np.array_equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


# --- labels -----------------------------------------------------------------------------------------------------------


def test_coco_names_its_classes() -> None:
    assert len(coco_labels()) == len(set(coco_labels())) == len(coco_category_ids()) == 80
    assert list(coco_category_ids()) == sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
    ids = dict(zip(coco_labels(), coco_category_ids(), strict=True))
    assert [ids[name] for name in ("person", "stop sign", "backpack", "dining table", "tv", "toothbrush")] == [
        1, 13, 27, 67, 72, 90,
    ]  # fmt: skip
    assert load_labels("coco") == coco_labels()


def test_coco_names_the_classes_of_a_checkpoint_that_does_not(tmp_path: Path) -> None:
    model = small_model(SMALL[3])
    path = save_as_mmdetection(tmp_path / "a.pth", authors_state(model))
    assert minidat.load_model(path).labels == list(coco_labels())
    path = save_as_mmdetection(tmp_path / "a.pth", authors_state(model), CLASSES=("one", "two"))
    assert minidat.load_model(path).labels == list(coco_labels())
    path = save_as_mmdetection(tmp_path / "a.pth", authors_state(small_model(SMALL[0])))
    assert minidat.load_model(path).labels is None


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, {"bbox_head.retina_reg.weight": None}, "the weights lack head.boxes.output.weight"),
        (0, {"bbox_head.retina_reg.weight": (24, 32, 3, 3)}, "found 6 anchors a position, whose scales and ratios"),
        (0, {"bbox_head.retina_cls.weight": (28, 32, 3, 3)}, "head.classes.output.weight has shape (28, 32, 3, 3), ex"),
        (0, {"neck.lateral_convs.2.conv.weight": None}, "missing pyramid.laterals.2.weight"),
        (0, {"neck.fpn_convs.9.conv.weight": (32, 32, 3, 3)}, "pyramid.outputs.9.weight"),
        (0, {"bbox_head.gfl_cls.weight": (32, 32, 3, 3)}, "not the heads of mmdetection or mmsegmentation: unknown bb"),
        (0, {"rpn_head.rpn_cls.weight": (32, 32, 3)}, "proposals.classifier.weight has shape (32, 32, 3), expected 4"),
        (2, {"rpn_head.rpn_cls.weight": (5, 32, 1, 1)}, "found 5 anchors a position, whose ratios no shape tells"),
        (2, {"rpn_head.rpn_cls.weight": None}, "the weights lack proposals.classifier.weight"),
        (2, {"roi_head.bbox_head.fc_cls.weight": None}, "the weights lack regions.box_head.classifier.weight"),
        (2, {"roi_head.bbox_head.fc_cls.weight": (1, 64)}, "num_classes: found 0, expected"),
        (2, {"roi_head.bbox_head.fc_reg.weight": (4, 64)}, "regions.box_head.regressor.weight has shape (4, 64), expe"),
        (2, {"roi_head.mask_head.upsample.bias": None}, "missing regions.mask_head.upsampling.bias"),
        (4, {"roi_head.bbox_head.2.shared_convs.0.bn.running_var": None}, "missing stages.2.box_head.convs.0.norm.ru"),
        (4, {"roi_head.bbox_head.3.fc_cls.weight": (4, 64)}, "found 4 stages of region heads, expected 3"),
        (4, {"backbone.norms.1.norm.bias": None}, "missing backbone.norms.1.bias"),
        (4, {"backbone.norms.1.norm.bias": (8,)}, "backbone.norms.1.bias has shape (8,), expected (32,)"),
    ],
)
def test_what_is_missing_or_odd_is_said_in_one_line(
    number: int, change: dict[str, tuple[int, ...] | None], message: str, tmp_path: Path
) -> None:
    state = authors_state(small_model(SMALL[number]))
    for key, shape in change.items():
        if shape is None:
            del state[key]
        else:
            state[key] = torch.zeros(shape)
    path = save_as_mmdetection(tmp_path / "a.pth", state)
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        minidat.load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_another_network_than_the_one_asked_for() -> None:
    state = shapes_of("mask_rcnn_datpp_tiny")
    with pytest.raises(
        CheckpointError, match="found the weights of mask_rcnn_datpp_tiny, expected those of mask_rcnn_d"
    ):
        recognize_dense(state, name="mask_rcnn_dat_tiny")
    backbone = {key: value for key, value in state.items() if key.startswith("backbone.")}
    with pytest.raises(
        CheckpointError, match="the weights lack heads, expected those of RetinaNet, Mask R-CNN, its ca"
    ):
        recognize_dense(backbone)


STATES = [
    {key: np.zeros(value.shape, np.float32) for key, value in authors_state(small_model(c)).items()} for c in SMALL
]


@settings(suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_names_and_shapes_that_mean_harm_are_an_error_or_a_model(data: st.DataObject, tmp_path: Path) -> None:
    state = dict(data.draw(st.sampled_from(STATES)))
    heads = [key for key in state if not key.startswith("backbone.stages")]
    names = st.one_of(st.sampled_from(heads), st.sampled_from(list(state)))
    for _ in range(data.draw(st.integers(1, 4))):
        key = data.draw(names)
        if key not in state:
            continue
        action = data.draw(st.sampled_from(("drop", "shape", "axes", "rename", "number", "start", "values")))
        value = state.pop(key)
        shape = list(value.shape)
        if action == "shape" and shape:
            shape[data.draw(st.integers(0, len(shape) - 1))] = data.draw(
                st.sampled_from((0, 1, 2, 3, 12, 33, 37, 4096))
            )
            state[key] = np.broadcast_to(np.float32(0), shape)
        elif action == "axes":
            state[key] = np.zeros(data.draw(st.sampled_from(((), (0,), (1,), (3, 1), (9, 1, 1), (1,) * 5))), np.float32)
        elif action == "rename":
            state[data.draw(st.one_of(names, st.text(max_size=12)))] = value
        elif action == "number":
            numbers = data.draw(st.sampled_from(("0", "1", "3", "5", "9999", "00", "-1", "٣")))
            state[re.sub(r"\b[0-9]\b", numbers, key, count=data.draw(st.integers(0, 1)))] = value
        elif action == "start":
            start = data.draw(st.sampled_from(("neck.", "roi_head.", "decode_head.", "rpn_head.", "backbone.", "")))
            state[start + key.partition(".")[2]] = value
        elif action == "values":
            kind = data.draw(st.sampled_from((np.int64, np.bool_, np.float64, np.float16)))
            state[key] = value.astype(kind)
    classes = data.draw(st.one_of(st.none(), st.integers(), st.lists(st.text() | st.none(), min_size=1, max_size=3)))
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    path = save_as_mmdetection(tmp_path / "a.pth", tensors, CLASSES=classes)
    message = ""
    try:
        model = minidat.load_model(path)
    except MinidatError as error:
        message = str(error)
    else:
        assert json.dumps(model.labels)
        assert model.state_dict().keys() <= convert_state_dict(state).keys()
    assert "\n" not in message
