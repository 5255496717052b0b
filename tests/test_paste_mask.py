"""paste_mask against PyTorch's grid_sample and the authors' recording."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import paste_mask

from .checks import assert_close
from .golden.dense import load_recording
from .golden.formula_weights import sample
from .strategies import map_sizes, seeds


def torch_paste(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where each pixel's center lies in the box, from -1 to 1, is where grid_sample reads the mask."""
    x1, y1, x2, y2 = box.tolist()
    y = (torch.arange(size[0], dtype=torch.float64) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(size[1], dtype=torch.float64) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    pasted = torch.nn.functional.grid_sample(torch.tensor(mask)[None, None], grid, align_corners=False)[0, 0].numpy()
    rows, columns = np.arange(size[0]), np.arange(size[1])
    near_y = (rows >= np.floor(y1) - 1) & (rows < np.ceil(y2) + 1)
    near_x = (columns >= np.floor(x1) - 1) & (columns < np.ceil(x2) + 1)
    return np.where(near_y[:, None] & near_x, pasted, 0)


@given(map_sizes(), map_sizes(longest=30), seeds())
def test_paste_mask(mask_size: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(mask_size)
    corner = rng.uniform(-0.5, 1, 2) * size[::-1]
    box = np.concatenate([corner, corner + rng.uniform(0.01, 1.5, 2) * size[::-1]])
    before = mask.copy()
    assert_close(paste_mask(mask, box=box, size=size), torch_paste(mask, box, size), 1e-10, "pasted")
    assert paste_mask(mask.astype(np.float32), box=box, size=size).dtype == np.float32
    assert np.array_equal(mask, before)


def test_paste_mask_equals_the_recording() -> None:
    recording = load_recording("ops")
    masks = np.random.default_rng(105).random((4, 1, 28, 28))[:, 0]
    boxes = recording["paste/boxes"]
    pasted = np.stack([paste_mask(m, box=b, size=(224, 288)) for m, b in zip(masks, boxes, strict=True)])
    assert pasted.shape == tuple(recording["paste/soft/shape"])
    assert_close(sample(pasted), recording["paste/soft/vals"], 1e-12, "soft masks")
    assert np.array_equal((pasted >= 0.5).sum(axis=(1, 2)), recording["paste/area"])
    assert np.array_equal(np.packbits(pasted.ravel() >= 0.5), recording["paste/packed_ge_0.5"])


@given(st.sampled_from([0.0, 3.5, 4.0]))
def test_a_box_of_no_width_is_its_middle(x: float) -> None:
    """As in the authors' code: no division by zero, and no mask beyond a pixel from the box."""
    mask = np.arange(9.0).reshape(3, 3)
    pasted = paste_mask(mask, box=np.array([x, 2.0, x, 5.0]), size=(7, 8))
    assert np.isfinite(pasted).all()
    near = (np.arange(8) >= np.floor(x) - 1) & (np.arange(8) < np.ceil(x) + 1)
    assert not pasted[:, ~near].any()
    assert_close(pasted[2:5, near], np.repeat(mask[:, 1:2], near.sum(), axis=1), 1e-12, "middle column")


def test_paste_mask_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"paste_mask: shape of mask: found \(1, 3, 3\), expected \(h, w\)"):
        paste_mask(np.zeros((1, 3, 3)), box=np.zeros(4), size=(4, 4))
