"""The losses of detectors against PyTorch, finite differences and recordings of mmdetection 2.26.0."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import focal_loss, giou_loss, l1_loss, smooth_l1_loss

from .checks import assert_close, check_against_torch, check_finite_differences
from .golden.dense import load_recording
from .strategies import arrays, seeds, shapes
from .test_boxes import random_boxes, torch_giou

RECORDING = load_recording("ops")


def torch_focal(
    logits: torch.Tensor, *, labels: np.ndarray, weights: np.ndarray, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    classes = logits.shape[1]
    targets = torch.nn.functional.one_hot(torch.tensor(labels), classes + 1)[:, :classes].double()
    p = torch.sigmoid(logits)
    wrong = (1 - p) * targets + p * (1 - targets)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    scale = alpha * targets + (1 - alpha) * (1 - targets)
    return (entropy * scale * wrong**gamma * torch.tensor(weights)[:, None]).sum()


@st.composite
def focal_cases(draw: st.DrawFn) -> tuple[list[np.ndarray], dict[str, Any]]:
    rows, classes = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(seeds()))
    settings = {"labels": rng.integers(0, classes + 1, rows), "weights": rng.integers(0, 3, rows).astype(float)}
    if draw(st.booleans()):
        settings |= {"alpha": 0.6, "gamma": draw(st.sampled_from([0.0, 1.5]))}
    return [draw(arrays((rows, classes)))], settings


@given(focal_cases())
def test_focal_loss(case: tuple[list[np.ndarray], dict[str, Any]]) -> None:
    check_against_torch(focal_loss, *case, torch_focal)
    check_finite_differences(focal_loss, *case)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_focal_loss_of_huge_logits_is_finite(dtype: type) -> None:
    """Right answers cost nothing, a wrong one as much as its logit says."""
    logits = np.array([[1e4, -1e4], [-1e4, -1e4]], dtype)
    loss, backward = focal_loss(logits, labels=np.array([0, 1]), weights=np.ones(2))
    assert loss == pytest.approx(0.25 * 1e4)
    assert np.array_equal(backward(1.0)[0], np.array([[0, 0], [0, -0.25]], dtype))


def test_focal_loss_equals_the_recording() -> None:
    """The recording divides by seven positives."""
    logits = np.random.default_rng(110).standard_normal((50, 80))
    loss, backward = focal_loss(logits, labels=RECORDING["focal/labels"], weights=RECORDING["focal/weight"])
    positives = 7 + float(np.finfo(np.float32).eps)
    assert_close(loss / positives, RECORDING["focal/loss"], 1e-12, "loss")
    assert_close(backward(1 / positives)[0].ravel()[:256], RECORDING["focal/dlogits_vals"], 1e-12, "gradient")


def near(x: np.ndarray, seed: int) -> np.ndarray:
    """Numbers 0.05 to 2 away from x on either side: away from the kink at 0."""
    rng = np.random.default_rng(seed)
    return x + rng.choice([-1, 1], x.shape) * rng.uniform(0.05, 2, x.shape)


@given(shapes().flatmap(arrays), seeds())
def test_l1_loss(x: np.ndarray, seed: int) -> None:
    settings = {"targets": near(x, seed)}
    check_against_torch(l1_loss, [x], settings, lambda x, targets: (x - torch.tensor(targets)).abs().sum())
    check_finite_differences(l1_loss, [x], settings)


def test_l1_loss_equals_the_recording() -> None:
    rows = RECORDING["focal/weight"] > 0
    weights = RECORDING["focal/weight"][rows, None]
    loss, _ = l1_loss(RECORDING["l1/pred"][rows] * weights, targets=RECORDING["l1/target"][rows] * weights)
    assert_close(loss / (7 + float(np.finfo(np.float32).eps)), RECORDING["l1/loss"], 1e-12, "loss")


@given(shapes().flatmap(arrays), seeds(), st.sampled_from([1.0, 1 / 9]))
def test_smooth_l1_loss(x: np.ndarray, seed: int, beta: float) -> None:
    def torch_loss(x: torch.Tensor, *, targets: np.ndarray, beta: float) -> torch.Tensor:
        return torch.nn.functional.smooth_l1_loss(x, torch.tensor(targets), reduction="sum", beta=beta)

    settings = {"targets": near(x, seed), "beta": beta}
    check_against_torch(smooth_l1_loss, [x], settings, torch_loss)
    check_finite_differences(smooth_l1_loss, [x], settings, step=1e-7, relative=1e-5)


@given(st.integers(1, 6), seeds(), seeds())
def test_giou_loss(number: int, seed: int, other_seed: int) -> None:
    boxes, settings = random_boxes((number,), seed), {"targets": random_boxes((number,), [other_seed, 1])}
    check_against_torch(
        giou_loss, [boxes], settings, lambda boxes, targets: (1 - torch_giou(boxes, torch.tensor(targets))).sum()
    )
    check_finite_differences(giou_loss, [boxes], settings, step=1e-7, relative=1e-5)


@pytest.mark.parametrize("loss", [l1_loss, smooth_l1_loss, giou_loss])
def test_nothing_costs_nothing(loss: Any) -> None:
    """An image without objects."""
    output, backward = loss(np.zeros((0, 4)), targets=np.zeros((0, 4)))
    assert output == 0
    assert backward(1.0)[0].shape == (0, 4)


@pytest.mark.parametrize("loss", [l1_loss, smooth_l1_loss, giou_loss])
def test_losses_keep_float32(loss: Any) -> None:
    boxes = random_boxes((3,), 0)
    output, backward = loss(boxes.astype(np.float32), targets=random_boxes((3,), 1))
    assert output.dtype == backward(np.float64(2))[0].dtype == np.float32


def test_losses_name_what_does_not_fit() -> None:
    for loss in (l1_loss, smooth_l1_loss, giou_loss):
        with pytest.raises(ShapeError, match=rf"{loss.__name__}: shape of targets: found \(3, 4\), expected \(2, 4\)"):
            loss(np.zeros((2, 4)), targets=np.zeros((3, 4)))
    with pytest.raises(ShapeError, match=r"focal_loss: shape of labels: found \(3,\), expected \(2,\)"):
        focal_loss(np.zeros((2, 4)), labels=np.zeros(3, int), weights=np.zeros(3))
    with pytest.raises(ShapeError, match=r"focal_loss: shape of weights: found \(1,\), expected \(2,\)"):
        focal_loss(np.zeros((2, 4)), labels=np.zeros(2, int), weights=np.zeros(1))
    with pytest.raises(ShapeError, match=r"focal_loss: shape of logits: found \(4,\), expected \(N, K\)"):
        focal_loss(np.zeros(4), labels=np.zeros(2, int), weights=np.zeros(2))
