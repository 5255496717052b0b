"""cross_entropy and pixel_cross_entropy against PyTorch and finite differences."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import cross_entropy, pixel_cross_entropy

from .checks import assert_close, check_against_torch, check_finite_differences
from .strategies import arrays, map_shapes, normal, seeds


def torch_cross_entropy(logits: torch.Tensor, *, targets: np.ndarray, label_smoothing: float = 0.0) -> torch.Tensor:
    labels = targets.dtype.kind in "iu"
    torch_targets = torch.tensor(targets.astype(np.int64 if labels else np.float64))
    return torch.nn.functional.cross_entropy(logits, torch_targets, label_smoothing=label_smoothing)


KINDS = pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "probabilities", "weights"])


@st.composite
def loss_cases(draw: st.DrawFn, kind: str) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Targets that are labels of some dtype, probabilities, or weights whose sum is not 1."""
    batch, classes = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(seeds()))
    if kind in ("probabilities", "weights"):
        targets = rng.random((batch, classes)) + 0.01
        if kind == "probabilities":
            targets /= targets.sum(axis=1, keepdims=True)
    else:
        targets = rng.integers(0, classes, batch).astype(kind)
    settings = {"targets": targets, "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0]))}
    return [draw(arrays((batch, classes)))], settings


@KINDS
def test_cross_entropy(kind: str) -> None:
    @given(loss_cases(kind))
    def check(case: tuple[list[np.ndarray], dict[str, Any]]) -> None:
        inputs, settings = case
        check_against_torch(cross_entropy, inputs, settings, torch_cross_entropy)
        check_finite_differences(cross_entropy, inputs, settings)

    check()


@KINDS
@pytest.mark.parametrize("factor", [1e3, 1e6, 1e30])
def test_huge_logits_do_not_overflow(kind: str, factor: float) -> None:
    @given(loss_cases(kind))
    def check(case: tuple[list[np.ndarray], dict[str, Any]]) -> None:
        inputs, settings = case
        check_against_torch(cross_entropy, [inputs[0] * factor], settings, torch_cross_entropy)

    check()


def test_a_label_is_the_probability_one_of_its_class() -> None:
    logits, labels = normal((4, 3), 0), np.array([0, 2, 1, 2])
    of_labels, backward = cross_entropy(logits, targets=labels, label_smoothing=0.1)
    of_rows, backward_of_rows = cross_entropy(logits, targets=np.eye(3)[labels], label_smoothing=0.1)
    assert of_labels == of_rows
    assert np.array_equal(backward(1.0)[0], backward_of_rows(1.0)[0])


def test_known_values() -> None:
    """The loss of a guess is log K, its gradient (softmax - target) / B; a sure and right answer costs nothing."""
    loss, backward = cross_entropy(np.zeros((2, 4)), targets=np.array([1, 3]))
    assert_close(loss, np.log(4), 1e-15, "loss")
    assert_close(backward(1.0)[0], (0.25 - np.eye(4)[[1, 3]]) / 2, 1e-15, "gradient")
    assert cross_entropy(np.array([[0.0, 1e4]]), targets=np.array([1]))[0] == 0


@pytest.mark.parametrize("d_loss", [1.0, np.float64(1), np.ones(())])
def test_a_float64_cotangent_does_not_upcast(d_loss: Any) -> None:
    loss, backward = cross_entropy(normal((4, 3), 0).astype(np.float32), targets=np.eye(3)[[0, 1, 2, 0]])
    assert loss.dtype == np.float32
    assert backward(d_loss)[0].dtype == np.float32


@pytest.mark.parametrize(
    ("logits_shape", "targets", "message"),
    [
        ((2, 3), np.array([0, 3]), "labels: found 0 to 3, expected 0 to 2"),
        ((2, 3), np.array([-1, 2]), "labels: found -1 to 2, expected 0 to 2"),
        ((2, 3), np.array([0, 1, 2]), r"shape of labels: found \(3,\), expected \(2,\)"),
        ((2, 3), np.zeros((2, 2)), r"shape of targets: found \(2, 2\), expected \(2, 3\)"),
        ((3,), np.array([0]), r"shape of logits: found \(3,\), expected \(B, K\)"),
    ],
)
def test_cross_entropy_names_what_does_not_fit(
    logits_shape: tuple[int, ...], targets: np.ndarray, message: str
) -> None:
    with pytest.raises(ShapeError, match=f"cross_entropy: {message}"):
        cross_entropy(np.zeros(logits_shape), targets=targets)


def torch_pixel_cross_entropy(
    logits: torch.Tensor, *, labels: np.ndarray, ignored: int, class_weights: tuple[float, ...]
) -> torch.Tensor:
    """The sum over the pixels that count, divided by the number of all (mmsegmentation's avg_non_ignore=False)."""
    numbers, weight = torch.tensor(labels.astype(np.int64)), None
    if class_weights:
        weight = torch.tensor(class_weights, dtype=logits.dtype)
    of_pixels = torch.nn.functional.cross_entropy(
        logits.movedim(-1, 1), numbers, weight, ignore_index=ignored, reduction="none"
    )
    return of_pixels.mean()


@st.composite
def pixel_loss_cases(draw: st.DrawFn) -> tuple[list[np.ndarray], dict[str, Any]]:
    shape = draw(map_shapes())
    ignored = draw(st.sampled_from([255, 0]))
    rng = np.random.default_rng(draw(seeds()))
    labels = rng.integers(0, shape[-1], shape[:3]).astype(draw(st.sampled_from([np.uint8, np.int64])))
    labels[rng.random(shape[:3]) < draw(st.sampled_from([0.0, 0.3, 1.1]))] = ignored
    weights = draw(st.sampled_from([(), tuple(rng.uniform(0, 4, shape[-1]).tolist())]))
    return [draw(arrays(shape))], {"labels": labels, "ignored": ignored, "class_weights": weights}


@given(pixel_loss_cases(), st.sampled_from([1.0, 1e30]))
def test_pixel_cross_entropy(case: tuple[list[np.ndarray], dict[str, Any]], factor: float) -> None:
    (logits,), settings = case
    check_against_torch(pixel_cross_entropy, [factor * logits], settings, torch_pixel_cross_entropy)
    check_finite_differences(pixel_cross_entropy, [logits], settings)


def test_ignored_pixels_count_in_the_mean_but_get_no_gradient() -> None:
    labels = np.array([[[1, 255], [255, 255]]], np.uint8)
    loss, backward = pixel_cross_entropy(np.zeros((1, 2, 2, 4)), labels=labels)
    assert_close(loss, np.log(4) / 4, 1e-15, "loss")
    (gradient,) = backward(1.0)
    assert_close(gradient[0, 0, 0], (0.25 - np.eye(4)[1]) / 4, 1e-15, "gradient")
    assert not gradient.reshape(4, 4)[1:].any()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((1, 2, 3), 3, np.uint8), r"labels: found \[3\], expected 0 to 2, or 255"),
        (np.full((1, 2, 3), -1), r"labels: found \[-1\], expected 0 to 2, or 255"),
        (np.zeros((1, 3, 2), np.uint8), r"labels: found \(1, 3, 2\), expected \(1, 2, 3\)"),
    ],
)
def test_pixel_cross_entropy_names_what_does_not_fit(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ShapeError, match=f"pixel_cross_entropy: {message}"):
        pixel_cross_entropy(np.zeros((1, 2, 3, 3)), labels=labels)


def test_class_weights_of_another_number_are_refused() -> None:
    with pytest.raises(ShapeError, match="number of class_weights: found 2, expected 0 or 3"):
        pixel_cross_entropy(np.zeros((1, 2, 3, 3)), labels=np.zeros((1, 2, 3), np.uint8), class_weights=(1.0, 2.0))
