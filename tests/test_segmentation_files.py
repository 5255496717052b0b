"""Segmentors in files: mmsegmentation's checkpoints are recognized and converted, our own come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minidat
from minidat.catalog import get_config
from minidat.checkpoints import convert_state_dict
from minidat.checkpoints.convert import to_authors_state_dict
from minidat.checkpoints.load import convert
from minidat.checkpoints.published import PUBLISHED_WEIGHTS
from minidat.checkpoints.recognize_dense import recognize_dense
from minidat.data.labels import ade20k_labels
from minidat.errors import CheckpointError
from minidat.segmentation import SegmentorConfig, SemanticFPNConfig, UperNetConfig

from .test_segmentation import BACKBONE, NETWORKS, SEMANTIC_FPN, UPERNET, pair

SEGMENTORS = [name for name in minidat.list_models() if name.startswith(("upernet", "semantic_fpn"))]


def shapes_of(config: SegmentorConfig) -> dict[str, np.ndarray]:
    """Arrays of the right shapes, under our names, that take no memory."""
    model = NETWORKS[type(config)](config)
    return {name: np.broadcast_to(np.float32(0), array.shape) for name, array in model.named_state()}


def save_as_mmsegmentation(path: Path, model: Any, **meta: Any) -> None:
    """What mmcv's runner writes: 'meta', 'state_dict' with the count of every batch normalization, 'optimizer'."""
    state = {name: torch.tensor(value) for name, value in to_authors_state_dict(model.state_dict()).items()}
    for name in [name for name in state if name.endswith("running_var")]:
        state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(160000)
    torch.save({"meta": {"epoch": 1, "iter": 160000, **meta}, "state_dict": state, "optimizer": {"state": {}}}, path)


@pytest.mark.parametrize("name", SEGMENTORS)
def test_every_published_segmentor_is_recognized_by_its_shapes(name: str) -> None:
    state = shapes_of(get_config(name))
    assert recognize_dense(state) == recognize_dense(state, name=name) == get_config(name)
    assert convert_state_dict(to_authors_state_dict(state)).keys() == state.keys()


@pytest.mark.parametrize("config", [UPERNET, SEMANTIC_FPN, UPERNET.replace(auxiliary_channels=None)])
def test_a_checkpoint_of_mmsegmentation_is_loaded(config: SegmentorConfig, tmp_path: Path) -> None:
    strides = [stage.deformable.stride for stage in BACKBONE.stages if stage.deformable]
    assert strides == [2, 1, 1]  # which shapes do not tell: the recognized config has the published ones
    model, _ = pair(config)
    path = tmp_path / "iter_160000.pth"
    save_as_mmsegmentation(path, model, CLASSES=("sky", "ground", "ball", "tree", "sun"))
    loaded = minidat.load_model(path, dtype=np.float64)
    assert type(loaded) is type(model)
    assert loaded.labels == ["sky", "ground", "ball", "tree", "sun"]
    for field in ("num_classes", "channels"):
        assert getattr(loaded.config, field) == getattr(config, field)
    for name, value in model.state_dict().items():
        assert np.array_equal(loaded.state_dict()[name], value), name


def test_ade20k_names_the_classes_of_a_checkpoint_that_does_not(tmp_path: Path) -> None:
    model = minidat.create_model(SEMANTIC_FPN, num_classes=150)
    path = tmp_path / "model.pth"
    save_as_mmsegmentation(path, model)
    assert minidat.load_model(path).labels == list(ade20k_labels())


@pytest.mark.parametrize("config", [UPERNET, SEMANTIC_FPN])
def test_our_own_file_brings_the_same_model_back(config: SegmentorConfig, tmp_path: Path) -> None:
    model, _ = pair(config)
    model = model.astype(np.float32)
    minidat.save_npz(tmp_path / "a.npz", model.state_dict(), config, ["a", "b", "c", "d", "e"])
    assert convert(tmp_path / "a.npz", tmp_path / "b.npz") == config
    loaded = minidat.load_model(tmp_path / "b.npz")
    assert (loaded.config, loaded.labels) == (config, ["a", "b", "c", "d", "e"])
    images = np.random.default_rng(0).standard_normal((1, 40, 52, 3)).astype(np.float32)
    assert np.array_equal(loaded(images), model(images))
    other = minidat.load_model(tmp_path / "b.npz", image_size=(64, 96))
    assert other.config == config.replace(image_size=(64, 96))
    assert np.array_equal(other(images), model(images))


def test_what_is_missing_or_another_network_is_said_in_one_line(tmp_path: Path) -> None:
    state = shapes_of(get_config("upernet_datpp_tiny"))
    with pytest.raises(CheckpointError, match="found the weights of upernet_datpp_tiny, expected those of upernet_dat"):
        recognize_dense(state, name="upernet_dat_tiny")
    without = {name: value for name, value in state.items() if "classifier" not in name}
    with pytest.raises(CheckpointError, match=r"the weights lack decode_head.classifier.weight"):
        recognize_dense(without)
    without = {name: value for name, value in state.items() if ".fusion." not in name}
    with pytest.raises(CheckpointError, match=r"its heads lack decode_head.fusion.conv.weight"):
        recognize_dense(without)
    without = {name: value for name, value in state.items() if "branches.3" not in name}
    with pytest.raises(CheckpointError, match="found 3 grids of pyramid pooling"):
        recognize_dense(without)
    with pytest.raises(CheckpointError, match=r"has shape \(5,\), expected 4 axes"):
        recognize_dense({**state, "decode_head.classifier.weight": np.zeros(5)})
    save_as_mmsegmentation(tmp_path / "model.pth", pair(UPERNET)[0])
    content = torch.load(tmp_path / "model.pth")
    del content["state_dict"]["decode_head.bottleneck.bn.running_mean"]
    torch.save(content, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"less.pth: .*missing decode_head.pyramid_pooling.bottleneck.norm.runn"):
        minidat.load_model(tmp_path / "less.pth")


def test_published_segmentors_are_known_to_download() -> None:
    published = [name for name in PUBLISHED_WEIGHTS if name in SEGMENTORS]
    assert published == [name for name in SEGMENTORS if "datpp" in name]
    assert all(isinstance(get_config(name), UperNetConfig | SemanticFPNConfig) for name in published)
    assert PUBLISHED_WEIGHTS["upernet_datpp_base"].mean_iou == 51.0
