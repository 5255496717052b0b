"""roi_align against a transcription that gathers every sample, finite differences and the authors' recording."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import roi_align

from .checks import assert_close, check_adjoint, check_against_torch, check_finite_differences
from .golden.dense import load_recording
from .golden.formula_weights import sample
from .reference.roi_align import roi_align as torch_roi_align
from .strategies import arrays, map_shapes, seeds


@st.composite
def roi_cases(draw: st.DrawFn) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Boxes inside, across the border and outside; some tiny, some of no width."""
    shape = draw(map_shapes(channels=3))
    rng = np.random.default_rng(draw(seeds()))
    scale = draw(st.sampled_from([0.25, 0.5, 1.0, 0.3]))
    sides = np.array([shape[2], shape[1]]) / scale
    count = draw(st.integers(1, 5))
    corners = rng.uniform(-0.5, 1.2, (count, 2)) * sides
    extents = rng.uniform(0, 1.2, (count, 2)) * sides * rng.choice([0, 0.1, 1, 1], (count, 1))
    boxes = np.concatenate([corners, corners + extents], axis=1)
    settings = {
        "boxes": boxes.astype(np.float32).astype(np.float64),
        "images": rng.integers(0, shape[0], count),
        "size": draw(st.integers(1, 4)),
        "scale": scale,
    }
    return [draw(arrays(shape))], settings


@given(roi_cases())
def test_roi_align(case: tuple[list[np.ndarray], dict[str, Any]]) -> None:
    inputs, settings = case
    check_against_torch(roi_align, inputs, settings, torch_roi_align)
    check_finite_differences(roi_align, inputs, settings)
    check_adjoint(roi_align, inputs, settings)


@pytest.mark.parametrize("size", [7, 14])
def test_roi_align_equals_the_recording(size: int) -> None:
    recording = load_recording("ops")
    x = np.random.default_rng(103).standard_normal((2, 3, 28, 36)).transpose(0, 2, 3, 1)
    rois = recording["roialign/rois"]
    output, backward = roi_align(x, boxes=rois[:, 1:], images=rois[:, 0].astype(int), size=size, scale=1 / 8)
    assert_close(output.transpose(0, 3, 1, 2), recording[f"roialign/out{size}"], 1e-12, "output")
    d_output = np.random.default_rng(104).standard_normal((len(rois), 3, size, size))
    (d_x,) = backward(d_output.transpose(0, 2, 3, 1))
    assert_close(sample(d_x.transpose(0, 3, 1, 2)), recording[f"roialign/dx{size}/vals"], 1e-12, "gradient")


def test_a_box_of_whole_pixels_is_averaged_exactly() -> None:
    """A box of 4 x 6 pixels in bins of 2 x 3: one sample a pixel, at its center."""
    x = np.random.default_rng(0).standard_normal((1, 8, 9, 2))
    output, _ = roi_align(x, boxes=np.array([[2.0, 1.0, 8.0, 5.0]]), images=np.array([0]), size=2, scale=1.0)
    assert_close(output[0], x[0, 1:5, 2:8].reshape(2, 2, 2, 3, 2).mean(axis=(1, 3)), 1e-13, "whole pixels")


def test_no_boxes_no_output() -> None:
    x = np.ones((1, 4, 5, 2))
    output, backward = roi_align(x, boxes=np.zeros((0, 4)), images=np.zeros(0, int), size=7, scale=1.0)
    assert output.shape == (0, 7, 7, 2)
    assert not backward(output)[0].any()


@pytest.mark.parametrize(
    ("shape", "boxes", "images", "message"),
    [
        ((4, 5, 2), (1, 4), [0], r"shape of x: found \(4, 5, 2\), expected \(B, H, W, C\)"),
        ((1, 4, 5, 2), (1, 5), [0], r"shape of boxes: found \(1, 5\), expected \(n, 4\)"),
        ((1, 4, 5, 2), (2, 4), [0], r"images: found \[0\], expected 2 numbers below 1"),
        ((1, 4, 5, 2), (1, 4), [1], r"images: found \[1\], expected 1 numbers below 1"),
    ],
)
def test_roi_align_names_what_does_not_fit(
    shape: tuple[int, ...], boxes: tuple[int, ...], images: list[int], message: str
) -> None:
    with pytest.raises(ShapeError, match=f"roi_align: {message}"):
        roi_align(np.zeros(shape), boxes=np.zeros(boxes), images=np.array(images), size=2, scale=1.0)
