"""Overlaps and box deltas against PyTorch, finite differences and recordings of mmdetection 2.26.0."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat import ops
from minidat.errors import ShapeError
from minidat.ops import box_area, box_giou, box_iof, box_iou, decode_boxes, encode_boxes

from .checks import assert_close, check_against_torch, check_finite_differences
from .golden.dense import load_recording
from .strategies import seeds, with_layout

RECORDING = load_recording("ops")
STDS = [(1, 1, 1, 1), (0.1, 0.1, 0.2, 0.2), (0.033, 0.033, 0.067, 0.067)]


def random_boxes(shape: tuple[int, ...], seed: int | list[int]) -> np.ndarray:
    """Boxes of sides 1 to 6 in the square from 0 to 12: some meet, some lie inside others, some are far apart."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(1, 6, (*shape, 2))
    starts = rng.uniform(0, 12 - sides)
    return np.concatenate([starts, starts + sides], axis=-1)


@st.composite
def pairs(draw: st.DrawFn) -> list[np.ndarray]:
    """Two arrays of boxes that broadcast: the same shape, all with all, or one with all."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shapes = draw(st.sampled_from([((rows,), (rows,)), ((rows, 1), (columns,)), ((), (columns,)), ((rows,), (1,))]))
    layout = draw(st.sampled_from(["contiguous", "transposed", "strided", "reversed"]))
    return [with_layout(random_boxes(shape, [draw(seeds()), i]), layout) for i, shape in enumerate(shapes)]


def torch_area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def torch_overlaps(boxes: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The areas that pairs of boxes share, and those of the smallest boxes around both."""
    boxes, others = torch.broadcast_tensors(boxes, others)
    width = torch.minimum(boxes[..., 2], others[..., 2]) - torch.maximum(boxes[..., 0], others[..., 0])
    height = torch.minimum(boxes[..., 3], others[..., 3]) - torch.maximum(boxes[..., 1], others[..., 1])
    around_width = torch.maximum(boxes[..., 2], others[..., 2]) - torch.minimum(boxes[..., 0], others[..., 0])
    around_height = torch.maximum(boxes[..., 3], others[..., 3]) - torch.minimum(boxes[..., 1], others[..., 1])
    return width.clamp(min=0) * height.clamp(min=0), around_width * around_height


def torch_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    shared, _ = torch_overlaps(boxes, others)
    return shared / (torch_area(boxes) + torch_area(others) - shared)


def torch_iof(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return torch_overlaps(boxes, others)[0] / torch_area(boxes)


def torch_giou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    shared, around = torch_overlaps(boxes, others)
    union = torch_area(boxes) + torch_area(others) - shared
    return shared / union - (around - union) / around


@given(pairs())
def test_area(arrays: list[np.ndarray]) -> None:
    check_against_torch(box_area, arrays[:1], {}, torch_area)
    check_finite_differences(box_area, arrays[:1], {})


@pytest.mark.parametrize(("op", "torch_op"), [(box_iou, torch_iou), (box_iof, torch_iof), (box_giou, torch_giou)])
@given(pairs())
def test_overlaps(op: Callable[..., Any], torch_op: Callable[..., torch.Tensor], arrays: list[np.ndarray]) -> None:
    check_against_torch(op, arrays, {}, torch_op)
    check_finite_differences(op, arrays, {}, step=1e-7, relative=1e-5)


@pytest.mark.parametrize("kind", ["iou", "giou", "iof"])
def test_overlaps_equal_the_recording(kind: str) -> None:
    boxes, others = RECORDING["coder/rois"], RECORDING["coder/gt"]
    found, _ = getattr(ops, f"box_{kind}")(boxes[:, None], others)
    np.testing.assert_allclose(found, RECORDING[f"iou/{kind}"], rtol=0, atol=1e-12)


def test_known_overlaps() -> None:
    box = np.array([0.0, 0, 2, 2])
    others = np.array([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 4, 2], [3, 0, 4, 2], [0.5, 0.5, 1, 1.5]])
    assert_close(box_iou(box, others)[0], [1, 1 / 7, 0, 0, 1 / 8], 1e-15, "IoU")
    assert_close(box_giou(box, others)[0], [1, 1 / 7 - 2 / 9, 0, -2 / 8, 1 / 8], 1e-15, "GIoU")
    assert_close(box_iof(others, box)[0], [1, 1 / 4, 0, 0, 1], 1e-15, "IoF")


def test_boxes_without_area_overlap_nothing() -> None:
    """And the gradients stay finite."""
    point, box = np.array([1.0, 1, 1, 1]), np.array([0.0, 0, 2, 2])
    for op in (box_iou, box_iof):
        for arrays in ((point, point), (point, box)):
            overlap, backward = op(*arrays)
            assert overlap == 0
            assert all(np.isfinite(gradient).all() for gradient in backward(np.ones(())))


@st.composite
def coder_cases(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any]]:
    """(boxes, settings) with the boxes of anchors one by one, or several of each anchor."""
    anchors = random_boxes((draw(st.integers(1, 4)),), draw(seeds()))
    stds = draw(st.sampled_from(STDS))
    if draw(st.booleans()):
        return random_boxes((len(anchors), 3), draw(seeds())), {"anchors": anchors[:, None], "stds": stds}
    return random_boxes((len(anchors),), draw(seeds())), {"anchors": anchors, "stds": stds}


def torch_encode(boxes: torch.Tensor, *, anchors: np.ndarray, stds: tuple[float, ...]) -> torch.Tensor:
    a = torch.tensor(anchors)
    sides, anchor_sides = boxes[..., 2:] - boxes[..., :2], a[..., 2:] - a[..., :2]
    shifts = (boxes[..., 2:] + boxes[..., :2] - a[..., 2:] - a[..., :2]) / (2 * anchor_sides)
    return torch.cat([shifts, torch.log(sides / anchor_sides)], dim=-1) / torch.tensor(stds, dtype=torch.float64)


def torch_decode(
    deltas: torch.Tensor,
    *,
    anchors: np.ndarray,
    stds: tuple[float, ...],
    image_size: tuple[int, int] | None = None,
) -> torch.Tensor:
    a, d = torch.tensor(anchors), deltas * torch.tensor(stds, dtype=torch.float64)
    width, height = a[..., 2] - a[..., 0], a[..., 3] - a[..., 1]
    x, y = a[..., 0] + width / 2 + d[..., 0] * width, a[..., 1] + height / 2 + d[..., 1] * height
    most = np.log(1000 / 16)
    w, h = width * d[..., 2].clamp(-most, most).exp(), height * d[..., 3].clamp(-most, most).exp()
    corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    if image_size is not None:
        corners = [c.clamp(0, image_size[1 - i % 2]) for i, c in enumerate(corners)]
    return torch.stack(corners, dim=-1)


@given(coder_cases())
def test_encoding(case: tuple[np.ndarray, dict[str, Any]]) -> None:
    boxes, settings = case
    check_against_torch(encode_boxes, [boxes], settings, torch_encode, float32_relative=1e-4)
    check_finite_differences(encode_boxes, [boxes], settings)


@given(coder_cases(), st.sampled_from([None, (5, 7)]))
def test_decoding(case: tuple[np.ndarray, dict[str, Any]], image_size: tuple[int, int] | None) -> None:
    boxes, settings = case
    deltas, _ = encode_boxes(boxes, **settings)
    assert_close(decode_boxes(deltas, **settings)[0], boxes, 1e-12, "decoding what was encoded")
    settings = {**settings, "image_size": image_size}
    check_against_torch(decode_boxes, [deltas], settings, torch_decode, float32_relative=1e-4)
    check_finite_differences(decode_boxes, [deltas], settings, step=1e-7, relative=1e-5)


def test_extreme_deltas_are_held_back() -> None:
    anchors = np.array([[10.0, 10, 20, 30]])
    boxes, backward = decode_boxes(np.array([[0, 0, 1e4, -1e4]]), anchors=anchors)
    assert_close(boxes[0, 2:] - boxes[0, :2], [10 * 62.5, 20 / 62.5], 1e-12, "sides")
    assert np.array_equal(backward(np.ones((1, 4)))[0], [[20, 40, 0, 0]])


@pytest.mark.parametrize(("name", "stds"), [("std1", STDS[0]), ("std2", STDS[1]), ("std5", STDS[2])])
def test_decoding_equals_the_recording(name: str, stds: tuple[float, float, float, float]) -> None:
    settings: dict[str, Any] = {"anchors": RECORDING["coder/rois"], "stds": stds}
    for suffix, size in (("unclipped", None), ("clipped", (224, 288))):
        found, _ = decode_boxes(RECORDING["coder/deltas"], image_size=size, **settings)
        np.testing.assert_allclose(found, RECORDING[f"coder/{name}/{suffix}"], rtol=1e-12, atol=1e-12)


def test_decoding_the_deltas_of_several_classes_equals_the_recording() -> None:
    deltas, anchors = RECORDING["coder/multiclass_deltas"].reshape(5, 3, 4), RECORDING["coder/rois"][:5, None]
    found, _ = decode_boxes(deltas, anchors=anchors, stds=STDS[1], image_size=(224, 288))
    np.testing.assert_allclose(found.reshape(5, 12), RECORDING["coder/multiclass_out"], rtol=0, atol=1e-12)


def test_encoding_equals_the_recording() -> None:
    boxes, anchors = RECORDING["coder/gt"], RECORDING["coder/rois"]
    for stds, key, atol in ((STDS[0], "float64", 1e-14), (STDS[1], "float64_std2", 1e-13)):
        found, _ = encode_boxes(boxes, anchors=anchors, stds=stds)
        np.testing.assert_allclose(found, RECORDING[f"coder/encode_{key}"], rtol=0, atol=atol)
    found, _ = encode_boxes(boxes.astype(np.float32), anchors=anchors.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, RECORDING["coder/encode_float32"], rtol=0, atol=5e-7)


@pytest.mark.parametrize("op", [box_iou, box_iof, box_giou])
def test_overlaps_name_what_does_not_fit(op: Callable[..., Any]) -> None:
    with pytest.raises(ShapeError, match=rf"{op.__name__}: shape of boxes: found \(3, 5\), expected \(..., 4\)"):
        op(np.zeros((2, 4)), np.zeros((3, 5)))


def test_the_coder_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"encode_boxes: shape of boxes: found \(2,\)"):
        encode_boxes(np.zeros(2), anchors=np.zeros(4))
    with pytest.raises(ShapeError, match=r"decode_boxes: shape of boxes: found \(\), expected"):
        decode_boxes(np.zeros(4), anchors=np.zeros(()))
    with pytest.raises(ShapeError, match=r"box_area: shape of boxes: found \(3,\)"):
        box_area(np.zeros(3))
