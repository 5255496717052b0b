"""Windows, shifts, masks and the relative position table, against PyTorch and against loops over single tokens."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import (
    cyclic_shift,
    relative_position_index,
    shifted_window_mask,
    window_partition,
    window_position_bias,
    window_reverse,
)

from .checks import check_adjoint, check_against_torch, check_finite_differences
from .strategies import arrays, normal


def torch_partition(x: torch.Tensor, *, window: int) -> torch.Tensor:
    """By unfolding, not by reshaping: each window is a patch of a convolution with stride = kernel = window."""
    batch, _, _, channels = x.shape
    patches = torch.nn.functional.unfold(x.permute(0, 3, 1, 2), window, stride=window)  # (B, C w w, windows)
    patches = patches.reshape(batch, channels, window * window, -1)
    return patches.permute(0, 3, 2, 1).reshape(-1, window * window, channels)


def torch_reverse(windows: torch.Tensor, *, window: int, height: int, width: int) -> torch.Tensor:
    count, tokens, channels = windows.shape
    batch = count // (height // window * (width // window))
    patches = windows.reshape(batch, -1, tokens, channels).permute(0, 3, 2, 1).reshape(batch, channels * tokens, -1)
    return torch.nn.functional.fold(patches, (height, width), window, stride=window).permute(0, 2, 3, 1)


def torch_shift(x: torch.Tensor, *, shift: int) -> torch.Tensor:
    rows = (torch.arange(x.shape[1]) + shift) % x.shape[1]
    columns = (torch.arange(x.shape[2]) + shift) % x.shape[2]
    return x[:, rows][:, :, columns]


@st.composite
def windowed_maps(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """(x, window): a map of 1 to 3 windows on each axis."""
    window = draw(st.integers(1, 4))
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shape = (draw(st.integers(1, 3)), rows * window, columns * window, draw(st.integers(1, 4)))
    return draw(arrays(shape)), window


@given(windowed_maps())
def test_window_partition(case: tuple[np.ndarray, int]) -> None:
    x, window = case
    check_against_torch(window_partition, [x], {"window": window}, torch_partition)
    check_finite_differences(window_partition, [x], {"window": window}, directions=1)
    check_adjoint(window_partition, [x], {"window": window})


@given(windowed_maps())
def test_window_reverse_is_the_inverse_and_the_adjoint(case: tuple[np.ndarray, int]) -> None:
    x, window = case
    settings = {"window": window, "height": x.shape[1], "width": x.shape[2]}
    windows, backward = window_partition(x, window=window)
    check_against_torch(window_reverse, [windows], settings, torch_reverse)
    check_adjoint(window_reverse, [windows], settings)
    assert np.array_equal(window_reverse(windows, **settings)[0], x)
    assert np.array_equal(backward(windows)[0], x)  # a permutation's transpose is its inverse


@given(windowed_maps(), st.integers(-5, 5))
def test_cyclic_shift(case: tuple[np.ndarray, int], shift: int) -> None:
    x, _ = case
    check_against_torch(cyclic_shift, [x], {"shift": shift}, torch_shift)
    check_adjoint(cyclic_shift, [x], {"shift": shift})
    there, backward = cyclic_shift(x, shift=shift)
    assert np.array_equal(cyclic_shift(there, shift=-shift)[0], x)
    assert np.array_equal(backward(there)[0], x)


def region(place: int, size: int, window: int, shift: int) -> int:
    """Which of the three regions of a rolled axis a place is in: FACTS' [0, -w), [-w, -shift), [-shift, end)."""
    if place < size - window:
        return 0
    return 1 if place < size - shift else 2


@pytest.mark.parametrize("window", [2, 3, 4, 7])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 1), (3, 2)])
def test_shifted_window_mask(window: int, rows: int, columns: int) -> None:
    height, width = rows * window, columns * window
    for shift in range(1, window):
        mask = shifted_window_mask(height, width, window=window, shift=shift)
        assert mask.shape == (rows * columns, window**2, window**2)
        places = np.stack(np.mgrid[:height, :width], axis=-1)[None]
        tokens = window_partition(places, window=window)[0]  # (windows, w w, 2): the place of each token
        for token_list, window_mask in zip(tokens, mask, strict=True):
            regions = [
                (region(y, height, window, shift), region(x, width, window, shift)) for y, x in token_list.tolist()
            ]
            expected = [[0 if a == b else -100 for b in regions] for a in regions]
            assert np.array_equal(window_mask, expected)


def test_only_tokens_that_were_neighbors_before_the_roll_see_each_other() -> None:
    """What the mask is for, said without its regions: in a window, the roll leaves
    distances as they were, or not."""
    size, window, shift = (12, 8), 4, 2
    places = np.stack(np.mgrid[: size[0], : size[1]], axis=-1)[None].astype(float)
    rolled = window_partition(cyclic_shift(places, shift=shift)[0], window=window)[0]  # where each token comes from
    apart = np.abs(rolled[:, :, None] - rolled[:, None, :]).max(axis=-1)  # (windows, tokens, tokens)
    mask = shifted_window_mask(*size, window=window, shift=shift)
    assert np.array_equal(mask == 0, apart < window)


def test_the_mask_of_the_authors_first_stage() -> None:
    """7 x 7 windows rolled by 4, as in dat_tiny: only the last row and column of windows are masked."""
    mask = shifted_window_mask(56, 56, window=7, shift=4)
    masked = (mask != 0).any(axis=(1, 2)).reshape(8, 8)
    assert not masked[:7, :7].any()
    assert masked[7].all()
    assert masked[:, 7].all()
    assert set(np.unique(mask)) == {-100, 0}
    assert np.array_equal(mask, mask.swapaxes(1, 2))


@pytest.mark.parametrize("window", [1, 2, 3, 7])
def test_relative_position_index(window: int) -> None:
    index = relative_position_index(window)
    assert index.shape == (window**2, window**2)
    for key in range(window**2):
        for query in range(window**2):
            dy, dx = query // window - key // window, query % window - key % window
            assert index[key, query] == (dy + window - 1) * (2 * window - 1) + (dx + window - 1)


@st.composite
def bias_tables(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    window = draw(st.integers(1, 4))
    return draw(arrays(((2 * window - 1) ** 2, draw(st.integers(1, 3))))), window


@given(bias_tables())
def test_window_position_bias(case: tuple[np.ndarray, int]) -> None:
    table, window = case

    def torch_bias(table: torch.Tensor, *, window: int) -> torch.Tensor:
        """The table is a map of relative positions; each key sees a w x w piece of it,
        the first key the last."""
        side = 2 * window - 1
        pieces = table.T.reshape(-1, side, side).unfold(1, window, 1).unfold(2, window, 1)  # (heads, w, w, w, w)
        return pieces.flip(1, 2).reshape(table.shape[1], window**2, window**2)

    check_against_torch(window_position_bias, [table], {"window": window}, torch_bias)
    check_finite_differences(window_position_bias, [table], {"window": window})
    check_adjoint(window_position_bias, [table], {"window": window})


CASES: list[tuple[Any, tuple[int, ...], dict[str, int], str]] = [
    (window_partition, (1, 4, 6, 1), {"window": 4}, r"map: found \(4, 6\), expected multiples of 4"),
    (window_reverse, (3, 4, 1), {"window": 2, "height": 4, "width": 2}, r"windows: found \(3, 4, 1\)"),
    (window_reverse, (2, 9, 1), {"window": 2, "height": 4, "width": 2}, r"windows: found \(2, 9, 1\)"),
    (window_position_bias, (8, 2), {"window": 2}, "rows of table: found 8, expected 9"),
]


@pytest.mark.parametrize(("op", "shape", "settings", "message"), CASES)
def test_windows_name_what_does_not_fit(
    op: Any, shape: tuple[int, ...], settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ShapeError, match=f"{op.__name__}: {message}"):
        op(normal(shape, 0), **settings)


@pytest.mark.parametrize(
    ("size", "shift", "message"),
    [
        ((4, 6), 2, "map: found (4, 6), expected multiples of 4"),
        ((4, 8), 4, "shift: found 4, expected above 0 and below the window, 4"),
        ((4, 8), 0, "shift: found 0, expected above 0 and below the window, 4"),
    ],
)
def test_the_mask_names_what_does_not_fit(size: tuple[int, int], shift: int, message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        shifted_window_mask(*size, window=4, shift=shift)
    assert str(caught.value) == f"shifted_window_mask: {message}"
