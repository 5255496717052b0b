"""Hypothesis strategies for the operators' tests: small shapes with all that goes wrong, and arrays to fill them.

Shapes: height and width differ, sides of 1, odd sides. Values: a standard normal in float64 from a drawn seed, so that
a failure shrinks to a small shape and a seed. Layouts: contiguous, or a view that is transposed, strided or reversed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

LAYOUTS = ("contiguous", "transposed", "strided", "reversed")


def seeds() -> st.SearchStrategy[int]:
    """Seeds of a random generator; they shrink to 0."""
    return st.integers(0, 2**32 - 1)


def dtypes() -> st.SearchStrategy[type]:
    """The two dtypes the operators know."""
    return st.sampled_from([np.float64, np.float32])


def normal(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A contiguous float64 array of standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape)


def with_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers in other places of memory: one of LAYOUTS."""
    if layout == "transposed":
        return np.ascontiguousarray(array.T).T
    if layout == "strided":  # every other column of something twice as wide
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    return array


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...], *, layouts: tuple[str, ...] = LAYOUTS) -> np.ndarray:
    """Standard normal arrays of `shape` (at least one axis) in any of `layouts`."""
    return with_layout(normal(shape, draw(seeds())), draw(st.sampled_from(layouts)))


def optional_arrays(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray | None]:
    """An array, or None as for an absent bias."""
    return st.one_of(arrays(shape), st.none())


def shapes(*, axes: tuple[int, int] = (1, 4), longest: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of axes[0] to axes[1] axes, each 1 to `longest` long."""
    return st.lists(st.integers(1, longest), min_size=axes[0], max_size=axes[1]).map(tuple)


@st.composite
def map_sizes(draw: st.DrawFn, *, shortest: int = 1, longest: int = 9) -> tuple[int, int]:
    """(H, W), the two different unless both are `shortest`: what mixes up the axes must not go unseen."""
    height = draw(st.integers(shortest, longest))
    width = draw(st.integers(shortest, longest))
    if height == width and height > shortest:
        width -= 1
    return height, width


@st.composite
def map_shapes(draw: st.DrawFn, *, shortest: int = 1, longest: int = 9, channels: int = 5) -> tuple[int, int, int, int]:
    """(B, H, W, C) with 1 to 3 images and 1 to `channels` channels."""
    batch = draw(st.integers(1, 3))
    height, width = draw(map_sizes(shortest=shortest, longest=longest))
    return batch, height, width, draw(st.integers(1, channels))


@st.composite
def int_or_pair(draw: st.DrawFn, smallest: int, largest: int) -> int | tuple[int, int]:
    """A setting that is one number for both axes, or a (y, x) pair."""
    number = st.integers(smallest, largest)
    return draw(st.one_of(number, st.tuples(number, number)))


def both(setting: int | tuple[int, int]) -> tuple[int, int]:
    """(y, x) of an `int_or_pair`."""
    return (setting, setting) if isinstance(setting, int) else setting


@st.composite
def convolutions(draw: st.DrawFn, kind: str) -> tuple[list[np.ndarray | None], dict[str, Any]]:
    """([x, weight, bias or None], settings) of a convolution whose kernel fits into its padded map.

    kind: "general", "depthwise" (as many groups as channels), "pointwise" (1x1), "3x3" (of
    stride 1), "patches" (stride = kernel) or "few pixels" (of output, fewer than channels).
    """
    batch, height, width, _ = draw(map_shapes())
    groups, group_channels, group_outputs = draw(st.tuples(*[st.integers(1, 3)] * 3))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride, padding = draw(int_or_pair(1, 3)), draw(int_or_pair(0, 2))
    if kind == "depthwise":
        groups, group_channels, group_outputs = draw(st.integers(1, 6)), 1, 1
    if kind == "pointwise":
        groups, kernel, stride, padding = 1, (1, 1), 1, 0
    if kind == "3x3":
        groups, kernel, stride = 1, (3, 3), 1
    if kind == "patches":
        groups, stride, padding = 1, kernel, 0
    if kind == "few pixels":
        batch, groups, group_outputs, padding = 1, 1, draw(st.integers(3, 5)), 0
        height, width = kernel[0] + draw(st.integers(0, 1)), kernel[1]
    height = max(height, kernel[0] - 2 * both(padding)[0])
    width = max(width, kernel[1] - 2 * both(padding)[1])
    x = draw(arrays((batch, height, width, groups * group_channels)))
    weight = draw(arrays((groups * group_outputs, group_channels, *kernel)))
    bias = draw(optional_arrays((groups * group_outputs,)))
    return [x, weight, bias], {"stride": stride, "padding": padding, "groups": groups}
