"""retinanet_datpp_tiny with the formula weights equals the authors' code: maps, detections, losses, all gradients."""

from typing import Any

import numpy as np
import pytest

import minidat
from minidat.checkpoints import convert_state_dict
from minidat.checkpoints.convert import to_authors_state_dict
from minidat.detection.anchors import base_anchors, level_anchors
from minidat.detection.assignment import IGNORED, assign

from .golden.dense import formula_state, load_recording
from .golden.formula_weights import sample

NAME = "retinanet_datpp_tiny"
SIZES = {"": (224, 288), "padded/": (200, 270)}  # of the image, inside 224 x 288


@pytest.fixture(scope="module")
def recording() -> dict[str, np.ndarray]:
    return load_recording(NAME)


@pytest.fixture(scope="module")
def model() -> Any:
    model = minidat.create_model(NAME, dtype=np.float64)
    model.load_state_dict(convert_state_dict(formula_state(NAME)))
    return model


def images(prefix: str) -> np.ndarray:
    """The recording's input, channels last, 0 beyond the image."""
    height, width = SIZES[prefix]
    padded = np.zeros((1, 224, 288, 3))
    drawn = np.random.default_rng(1234).standard_normal((1, 3, height, width))
    padded[:, :height, :width] = drawn.transpose(0, 2, 3, 1)
    return padded


def assert_recorded(found: np.ndarray, recording: dict[str, np.ndarray], key: str) -> None:
    """A map (B, H, W, C) is the one recorded as (B, C, H, W)."""
    found = np.ascontiguousarray(found.transpose(0, 3, 1, 2))
    assert found.shape == tuple(recording[f"{key}/shape"])
    for value, what in ((found.mean(), "mean"), (found.std(), "std"), (sample(found), "vals")):
        np.testing.assert_allclose(value, recording[f"{key}/{what}"], rtol=0, atol=1e-9, err_msg=f"{key}: {what}")


@pytest.mark.parametrize("prefix", SIZES)
def test_maps_equal_the_recording(prefix: str, model: Any, recording: dict[str, np.ndarray]) -> None:
    context = minidat.Context()
    features, _ = model.backbone.forward_features(images(prefix), context)
    assert_recorded(features[0], recording, f"{prefix}backbone.0")
    maps = [model.backbone.norms[i].forward(features[i], context)[0] for i in model.backbone.out_indices]
    for i, x in enumerate(maps):
        assert_recorded(x, recording, f"{prefix}backbone.{i + 1}")
    levels, _ = model.pyramid.forward(maps, context)
    for i, level in enumerate(levels):
        assert_recorded(level, recording, f"{prefix}fpn.{i}")
        (logits, deltas), _ = model.head.forward(level, context)
        assert logits.shape == (*level.shape[:3], 9, 80)
        assert deltas.shape == (*level.shape[:3], 9, 4)
        assert_recorded(logits.reshape(*level.shape[:3], -1), recording, f"{prefix}cls_score.{i}")
        assert_recorded(deltas.reshape(*level.shape[:3], -1), recording, f"{prefix}bbox_pred.{i}")


def test_anchors_equal_the_recording(model: Any, recording: dict[str, np.ndarray]) -> None:
    levels = [np.zeros((1, *recording[f"fpn.{i}/shape"][2:], 1)) for i in range(5)]
    config = model.config
    for i, (base, anchors) in enumerate(zip(model.base_anchors(), model.anchors(levels), strict=True)):
        assert base.dtype == anchors.dtype == np.float32
        assert np.array_equal(base, recording[f"base_anchors.{i}"])
        exact = base_anchors(config.strides[i], config.anchor_scales, config.anchor_ratios)
        np.testing.assert_allclose(exact, recording[f"base_anchors_float64.{i}"], rtol=1e-6)
        assert len(anchors) == recording[f"anchors.{i}/count"]
        promoted = level_anchors(levels[i].shape[1:3], config.strides[i], base.astype(np.float64))
        assert np.array_equal(promoted[:12], recording[f"anchors.{i}/first12"])
        assert np.array_equal(promoted[-12:], recording[f"anchors.{i}/last12"])


@pytest.mark.parametrize(("prefix", "rescaled"), [("", False), ("", True), ("padded/", True)])
def test_detections_equal_the_recording(
    prefix: str, rescaled: bool, model: Any, recording: dict[str, np.ndarray]
) -> None:
    factors = [recording["scale_factor"]] if rescaled else None
    (found,) = model.detect(images(prefix), [SIZES[prefix]], scale_factors=factors)
    key = f"{prefix}det_rescaled" if rescaled else f"{prefix}det"
    assert np.array_equal(found.labels, recording[f"{key}/labels"])
    np.testing.assert_allclose(found.boxes, recording[f"{key}/bboxes"][:, :4], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.scores, recording[f"{key}/bboxes"][:, 4], rtol=0, atol=1e-9)
    exact = recording[f"{key.replace('det', 'det_exact_anchors')}/bboxes"]
    np.testing.assert_allclose(found.boxes, exact[:, :4], rtol=0, atol=1e-5)
    assert found.masks is None


@pytest.mark.parametrize("kind", ["retina", "rpn"])
def test_assignment_equals_the_recording(kind: str, model: Any) -> None:
    """The recording counts objects from 1; background is 0, ignored -1."""
    recording = load_recording("ops")
    levels = [np.zeros((1, *size, 1)) for size in ((28, 36), (14, 18), (7, 9), (4, 5), (2, 3))]
    thresholds = {"retina": (0.5, 0.4, 0.0), "rpn": (0.7, 0.3, 0.3)}[kind]
    names = ("positive_iou", "negative_iou", "low_quality_iou")
    assigned = assign(
        np.concatenate(model.anchors(levels)), recording["assign/gt"], **dict(zip(names, thresholds, strict=True))
    )
    assert np.array_equal(np.where(assigned == IGNORED, -1, assigned + 1), recording[f"assign/{kind}/gt_inds"])


@pytest.fixture(scope="module")
def training(
    model: Any, recording: dict[str, np.ndarray]
) -> tuple[dict[str, float], np.ndarray, dict[str, np.ndarray]]:
    """The losses, the gradient of the images and those of the parameters under the authors' names."""
    targets = minidat.BoxTargets(recording["train/gt_bboxes"], recording["train/gt_labels"])
    model.zero_grad()
    losses, backward = model.loss(images(""), [targets], minidat.Context(gradients=True))
    d_images = backward()
    gradients = to_authors_state_dict({name: parameter.grad for name, parameter in model.named_parameters()})
    return losses, d_images, gradients


def test_targets_equal_the_recording(model: Any, recording: dict[str, np.ndarray]) -> None:
    levels = [np.zeros((1, *recording[f"fpn.{i}/shape"][2:], 1)) for i in range(5)]
    target = minidat.BoxTargets(recording["train/gt_bboxes"], recording["train/gt_labels"])
    labels, weights, positive, deltas = model._goals(np.concatenate(model.anchors(levels)), target)
    counts = [int(recording[f"anchors.{i}/count"]) for i in range(5)]
    bounds = np.cumsum([0, *counts])
    assert positive.sum() == recording["train/num_total_pos"]
    assert deltas.dtype == np.float32
    expected = np.concatenate([recording[f"train/assign.{i}/pos_target"] for i in range(5)])
    np.testing.assert_allclose(deltas, expected, rtol=0, atol=1e-7)
    for i in range(5):
        here = slice(bounds[i], bounds[i + 1])
        assert np.array_equal(np.flatnonzero(positive[here]), recording[f"train/assign.{i}/pos_idx"])
        assert np.array_equal(labels[here][positive[here]], recording[f"train/assign.{i}/pos_label"])
        assert np.array_equal(np.flatnonzero(weights[here] == 0), recording[f"train/assign.{i}/ignored_idx"])


def test_losses_equal_the_recording(training: Any, recording: dict[str, np.ndarray]) -> None:
    losses, _, _ = training
    np.testing.assert_allclose(losses["class"], recording["train/loss_cls"], rtol=1e-9)
    # the targets' logarithms are float32, which NumPy and PyTorch round differently at times: 3e-8 in 57 of 368 numbers
    np.testing.assert_allclose(losses["box"], recording["train/loss_bbox"], rtol=2e-9)
    np.testing.assert_allclose(sum(losses.values()), recording["train/loss"], rtol=1e-9)


def test_input_gradient_equals_the_recording(training: Any, recording: dict[str, np.ndarray]) -> None:
    _, d_images, _ = training
    flat = d_images.transpose(0, 3, 1, 2).ravel()
    found, expected = flat[np.random.default_rng(7).integers(0, flat.size, 256)], recording["train/dx/vals"]
    assert np.abs(found - expected).max() <= 1e-8 * np.abs(expected).max()
    np.testing.assert_allclose(np.linalg.norm(d_images), recording["train/dx/l2"], rtol=1e-9)


def test_every_parameter_gradient_equals_the_recording(training: Any, recording: dict[str, np.ndarray]) -> None:
    _, _, gradients = training
    expected = dict(zip(recording["train/grad/names"].tolist(), recording["train/grad/l2"].tolist(), strict=True))
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        scale = 1.0 if name.endswith("proj_k.bias") else expected[name]  # those are zero but for rounding
        assert abs(np.linalg.norm(gradient) - expected[name]) <= 1e-8 * scale, name


def test_float32_finds_the_same_objects(model: Any, recording: dict[str, np.ndarray]) -> None:
    single = minidat.create_model(NAME)
    single.load_state_dict(model.state_dict())
    (found,) = single.detect(images(""))
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert np.array_equal(found.labels, recording["det/labels"])
    np.testing.assert_allclose(found.boxes, recording["det/bboxes"][:, :4], rtol=0, atol=1e-2)
