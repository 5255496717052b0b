"""Reference points, position rules, grid sampling and the product grid, against PyTorch and finite differences.

Bilinear sampling has a kink wherever a position meets a row or column of pixels. The properties keep away from kinks;
the kinks themselves have tests of their own, at positions that float32 holds exactly.
"""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import grid_sample, query_points, reference_points, sample_product_grid, sampling_points

from .checks import assert_close, check_adjoint, check_against_torch, check_finite_differences
from .strategies import arrays, map_shapes, map_sizes, normal, seeds

# --- reference points and position rules ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 7, 14, 24])
def test_reference_and_query_points(size: int) -> None:
    """The formulas of the authors' code: a linspace over cell centers, or over pixels, brought to [-1, 1]."""
    centers = torch.linspace(0.5, size - 0.5, size, dtype=torch.float64).numpy()
    pixels = np.arange(size)
    expected = {
        ("reference", "dat"): centers / size * 2 - 1,
        ("reference", "dat++"): centers / (size - 1) * 2 - 1,
        ("query", "dat"): centers / size * 2 - 1,
        ("query", "dat++"): pixels / (size - 1) * 2 - 1,
    }
    for (kind, rule), points in expected.items():
        function = reference_points if kind == "reference" else query_points
        for dtype, tolerance in ((np.float64, 1e-15), (np.float32, 1e-7)):
            found = function(size, rule=rule, dtype=dtype)
            assert found.dtype == dtype
            assert_close(found, points, tolerance, f"{kind} points of {rule}")


@pytest.mark.parametrize("points", [reference_points, query_points])
@pytest.mark.parametrize("rule", ["dat", "dat++"])
def test_the_one_point_of_a_map_of_one_pixel_is_its_center(points: Any, rule: str) -> None:
    assert np.array_equal(points(1, rule=rule), [0])


def torch_sampling_points(offsets: torch.Tensor, *, rule: str, range_factor: float | None) -> torch.Tensor:
    height, width = offsets.shape[2:4]

    def axis(size: int) -> torch.Tensor:
        if size == 1:
            return torch.zeros(1, dtype=offsets.dtype)
        cells = size if rule == "dat" else size - 1
        return (torch.arange(size, dtype=offsets.dtype) + 0.5) / cells * 2 - 1

    reference = torch.stack(torch.meshgrid(axis(height), axis(width), indexing="ij"), dim=-1)
    if range_factor is not None:
        cells = [n if rule == "dat" else n - 1 for n in (height, width)]
        reach = torch.tensor([1 / n if n else 0 for n in cells], dtype=offsets.dtype) * range_factor
        return reference + offsets.tanh() * reach
    moved = reference + offsets
    return moved.tanh() if rule == "dat" else moved.clamp(-1, 1)


@st.composite
def offset_arrays(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(map_sizes(longest=5))
    return draw(arrays((draw(st.integers(1, 2)), draw(st.integers(1, 3)), height, width, 2)))


@pytest.mark.parametrize("rule", ["dat", "dat++"])
@pytest.mark.parametrize("range_factor", [2.0, 5.0, 0.0, None])
@given(offset_arrays())
def test_sampling_points(rule: str, range_factor: float | None, offsets: np.ndarray) -> None:
    settings = {"rule": rule, "range_factor": range_factor}
    check_against_torch(sampling_points, [offsets], settings, torch_sampling_points)
    if range_factor is not None or rule == "dat":  # clipping has kinks
        check_finite_differences(sampling_points, [offsets], settings)


def test_offsets_within_the_bounds_move_points_by_themselves() -> None:
    offsets = normal((1, 1, 4, 5, 2), 0) * 0.1
    y, x = (reference_points(n, rule="dat++", dtype=np.float64) for n in (4, 5))
    offsets[:, :, -1, :, 0] = offsets[:, :, :, -1, 1] = -1  # the last row and column begin beyond the bounds
    positions, backward = sampling_points(offsets, rule="dat++", range_factor=None)
    assert_close(positions, offsets + np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1), 1e-14, "positions")
    check_finite_differences(sampling_points, [offsets], {"rule": "dat++", "range_factor": None})
    d_positions = normal(offsets.shape, 1)
    assert np.array_equal(backward(d_positions)[0], d_positions)


def test_points_beyond_the_bounds_are_moved_onto_them_and_get_no_gradient() -> None:
    offsets = np.full((1, 1, 3, 4, 2), 10.0)
    offsets[..., 0] = -10
    positions, backward = sampling_points(offsets, rule="dat++", range_factor=None)
    assert np.array_equal(positions[..., 0], np.full((1, 1, 3, 4), -1.0))
    assert np.array_equal(positions[..., 1], np.full((1, 1, 3, 4), 1.0))
    assert not backward(normal(offsets.shape, 0))[0].any()


def test_points_exactly_on_the_bounds_get_their_gradient() -> None:
    offsets = np.zeros((1, 1, 2, 3, 2))  # reference points 0 and 2 on y; -0.5, 0.5 and 1.5 on x
    offsets[..., 0] = 1, -1, -1  # y: 1 (on the bound), -1 (on it), -1; then 3 (beyond), 1 (on it), 1
    offsets[..., 1] = -0.5  # x: -1 (on the bound), 0, 1 (on it)
    check_against_torch(sampling_points, [offsets], {"rule": "dat++", "range_factor": None}, torch_sampling_points)
    _, backward = sampling_points(offsets, rule="dat++", range_factor=None)
    (d_offsets,) = backward(np.ones_like(offsets))
    assert np.array_equal(d_offsets[0, 0, ..., 0], [[1, 1, 1], [0, 1, 1]])
    assert np.array_equal(d_offsets[0, 0, ..., 1], np.ones((2, 3)))


def test_squashed_offsets_stay_within_their_reach() -> None:
    offsets = normal((1, 2, 4, 6, 2), 0) * 100
    start, _ = sampling_points(np.zeros_like(offsets), rule="dat", range_factor=2.0)
    moved, _ = sampling_points(offsets, rule="dat", range_factor=2.0)
    assert np.abs(moved - start)[..., 0].max() == pytest.approx(2 / 4)
    assert np.abs(moved - start)[..., 1].max() == pytest.approx(2 / 6)


@pytest.mark.parametrize("range_factor", [2.0, None])
def test_offsets_must_be_floats(range_factor: float | None) -> None:
    with pytest.raises(ShapeError, match="sampling_points: offsets: found int64, expected floats"):
        sampling_points(np.zeros((1, 1, 2, 2, 2), np.int64), rule="dat", range_factor=range_factor)


# --- grid sampling ----------------------------------------------------------------------------------------------------


def torch_grid_sample(x: torch.Tensor, positions: torch.Tensor, *, align_corners: bool) -> torch.Tensor:
    batch, height, width, channels = x.shape
    groups, rows, columns = positions.shape[1:4]
    maps = x.permute(0, 3, 1, 2).reshape(batch * groups, channels // groups, height, width)
    grid = positions.flip(-1).reshape(batch * groups, rows, columns, 2)  # (y, x) -> (x, y)
    output = torch.nn.functional.grid_sample(maps, grid, "bilinear", "zeros", align_corners)
    return output.reshape(batch, channels, rows, columns).permute(0, 2, 3, 1)


def to_positions(pixels: np.ndarray, size: int, align_corners: bool) -> np.ndarray:
    """Pixel coordinates as positions in [-1, 1]; a map of one pixel with aligned corners is all one place."""
    if align_corners:
        return pixels / (size - 1) * 2 - 1 if size > 1 else pixels
    return (2 * pixels + 1) / size - 1


@st.composite
def between_pixels(draw: st.DrawFn, shape: tuple[int, ...], size: int) -> np.ndarray:
    """Pixel coordinates at least 0.05 from the nearest row or column: mostly inside, some outside, some far away."""
    rng = np.random.default_rng(draw(seeds()))
    whole = rng.integers(-2, size + 1, shape)
    far = rng.random(shape) < 0.05
    return np.where(far, 1000 * rng.choice([-1, 1], shape), whole) + rng.uniform(0.05, 0.95, shape)


@st.composite
def sampling_cases(draw: st.DrawFn, align_corners: bool) -> list[np.ndarray]:
    batch, height, width, group_channels = draw(map_shapes(channels=3))
    groups = draw(st.integers(1, 3))
    shape = (batch, groups, *draw(map_sizes(longest=4)))
    axes = [to_positions(draw(between_pixels(shape, size)), size, align_corners) for size in (height, width)]
    x = draw(arrays((batch, height, width, groups * group_channels)))
    return [x, np.stack(axes, axis=-1)]


@pytest.mark.parametrize("align_corners", [True, False])
def test_grid_sample(align_corners: bool) -> None:
    @given(sampling_cases(align_corners))
    def check(inputs: list[np.ndarray]) -> None:
        settings = {"align_corners": align_corners}
        check_against_torch(grid_sample, inputs, settings, torch_grid_sample, float32_relative=3e-5)
        check_finite_differences(grid_sample, inputs, settings)
        check_adjoint(grid_sample, inputs, settings)

    check()


def test_positions_of_other_layouts() -> None:
    x, positions = normal((2, 4, 5, 6), 0), np.tanh(normal((2, 3, 2, 4, 2), 1))
    strided = np.asfortranarray(positions)[:, :, ::-1][:, :, ::-1]
    check_against_torch(grid_sample, [x, strided], {"align_corners": True}, torch_grid_sample)


@given(st.sampled_from([2, 3, 5, 9]), st.sampled_from([3, 5, 17]), seeds())
def test_at_pixel_centers_with_aligned_corners(height: int, width: int, seed: int) -> None:
    """On the pixels, the border and two beyond: the one-sided slopes are PyTorch's.
    Sizes are 2^k + 1: all is exact."""
    y = to_positions(np.arange(-2.0, height + 2), height, True)
    x = to_positions(np.arange(-2.0, width + 2), width, True)
    positions = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)[None, None]
    array = normal((1, height, width, 2), seed)
    check_against_torch(grid_sample, [array, positions], {"align_corners": True}, torch_grid_sample)
    output, _ = grid_sample(array, positions, align_corners=True)
    assert np.array_equal(output[:, 2:-2, 2:-2], array)
    output[:, 2:-2, 2:-2] = 0
    assert not output.any()


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([2, 4, 16]), seeds(), st.sampled_from([0.0, 0.5]))
def test_at_pixel_centers_and_edges_without_aligned_corners(height: int, width: int, seed: int, shift: float) -> None:
    """Sizes 2^k, so that positions are exact. With shift 0.5, between pixels and on the edge, -1 and 1."""
    y = to_positions(np.arange(-2.0, height + 2) + shift, height, False)
    x = to_positions(np.arange(-2.0, width + 2) + shift, width, False)
    positions = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)[None, None]
    array = normal((1, height, width, 2), seed)
    check_against_torch(grid_sample, [array, positions], {"align_corners": False}, torch_grid_sample)
    if shift == 0:
        assert np.array_equal(grid_sample(array, positions, align_corners=False)[0][:, 2:-2, 2:-2], array)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("far", [1e3, 1e9, 1e18])
def test_far_outside_there_is_nothing(align_corners: bool, far: float) -> None:
    x = normal((1, 3, 5, 2), 0)
    positions = np.array([[far, 0.1], [0.1, -far], [-far, far]]).reshape(1, 1, 3, 1, 2)
    for dtype in (np.float64, np.float32):
        output, backward = grid_sample(x.astype(dtype), positions.astype(dtype), align_corners=align_corners)
        assert not output.any()
        assert not any(g.any() for g in backward(np.ones_like(output)))


def test_many_samples_of_one_pixel_add_up_in_its_gradient() -> None:
    x = normal((1, 3, 3, 2), 0)
    output, backward = grid_sample(x, np.zeros((1, 1, 4, 5, 2)), align_corners=True)
    assert_close(output, np.broadcast_to(x[:, 1:2, 1:2], output.shape), 1e-15, "center")
    d_x, _ = backward(np.ones_like(output))
    assert d_x[0, 1, 1].tolist() == [20, 20]
    d_x[0, 1, 1] = 0
    assert not d_x.any()


@given(map_shapes(channels=2), st.integers(1, 3), st.booleans(), seeds())
def test_zero_offsets_read_the_plain_grid(
    shape: tuple[int, int, int, int], groups: int, align_corners: bool, seed: int
) -> None:
    """The uniform grid of either convention gives the map itself back, in every group
    alike."""
    batch, height, width, channels = shape
    x = normal((batch, height, width, channels * groups), seed)
    rule = "dat++" if align_corners else "dat"  # pixels' own coordinates with corners aligned, and without
    axes = np.meshgrid(*(query_points(n, rule=rule, dtype=np.float64) for n in (height, width)), indexing="ij")
    positions = np.broadcast_to(np.stack(axes, axis=-1), (batch, groups, height, width, 2))
    assert_close(grid_sample(x, positions, align_corners=align_corners)[0], x, 1e-12, "zero offsets")


@pytest.mark.parametrize(
    ("positions_shape", "message"),
    [
        ((2, 1, 2, 2, 2), "positions: found"),
        ((1, 2, 2, 2), "positions: found"),
        ((1, 4, 2, 2, 2), "channels of x: found 6"),
    ],
)
def test_grid_sample_names_what_does_not_fit(positions_shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=f"grid_sample: {message}"):
        grid_sample(np.zeros((1, 3, 4, 6)), np.zeros(positions_shape))


def test_positions_must_be_floats() -> None:
    with pytest.raises(ShapeError, match="grid_sample: positions: found int64, expected floats"):
        grid_sample(np.zeros((1, 3, 4, 6)), np.zeros((1, 1, 2, 2, 2), np.int64))


# --- the product grid -------------------------------------------------------------------------------------------------


def torch_product_grid(table: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Four gathers for each query and key: F.grid_sample of each group's tables at all the pairs."""
    heads, table_rows, table_columns = table.shape
    batch, groups, keys, grid_rows = rows.shape
    grid_columns = columns.shape[-1]
    y = ((2 * rows + 1) / table_rows - 1)[..., :, None].expand(-1, -1, -1, -1, grid_columns)
    x = ((2 * columns + 1) / table_columns - 1)[..., None, :].expand(-1, -1, -1, grid_rows, -1)
    grid = torch.stack([x, y], dim=-1).reshape(batch * groups, keys * grid_rows, grid_columns, 2)
    tables = table.expand(batch, -1, -1, -1).reshape(batch * groups, heads // groups, table_rows, table_columns)
    output = torch.nn.functional.grid_sample(tables, grid, "bilinear", "zeros", align_corners=False)
    return output.reshape(batch, heads, keys, grid_rows, grid_columns)


@st.composite
def product_grid_cases(draw: st.DrawFn) -> list[np.ndarray]:
    table_rows, table_columns = draw(map_sizes(longest=6))
    grid_rows, grid_columns = draw(map_sizes(longest=5))
    batch, groups, heads, keys = draw(st.tuples(st.integers(1, 2), *[st.integers(1, 3)] * 2, st.integers(1, 5)))
    table = draw(arrays((groups * heads, table_rows, table_columns)))
    rows = draw(between_pixels((batch, groups, keys, grid_rows), table_rows))
    columns = draw(between_pixels((batch, groups, keys, grid_columns), table_columns))
    return [table, rows, columns]


@given(product_grid_cases())
def test_sample_product_grid(inputs: list[np.ndarray]) -> None:
    check_against_torch(sample_product_grid, inputs, {}, torch_product_grid, float32_relative=1e-4)
    check_finite_differences(sample_product_grid, inputs, {})
    check_adjoint(sample_product_grid, inputs, {})


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize(("table_rows", "table_columns"), [(4, 8), (8, 2), (1, 4)])
def test_product_grid_on_the_tables_own_entries(table_rows: int, table_columns: int, shift: float) -> None:
    """Exactly on entries, on the border and beyond: values, and the one-sided slopes
    of PyTorch."""
    table = normal((4, table_rows, table_columns), 0)
    rows = np.broadcast_to(np.arange(-2.0, table_rows + 2) + shift, (1, 2, 3, table_rows + 4))
    columns = np.broadcast_to(np.arange(-2.0, table_columns + 2) + shift, (1, 2, 3, table_columns + 4))
    check_against_torch(sample_product_grid, [table, rows, columns], {}, torch_product_grid)


def test_product_grid_of_many_keys() -> None:
    """A table so tall that the keys are taken a few at a time."""
    rows = np.random.default_rng(0).uniform(-2, 202, (2, 1, 25, 3)).round(1) + 0.05
    columns = np.random.default_rng(1).uniform(-2, 7, (2, 1, 25, 60)).round(1) + 0.05
    inputs = [normal((2, 201, 5), 2), rows, columns]
    check_against_torch(sample_product_grid, inputs, {}, torch_product_grid, float32_relative=1e-4)


@pytest.mark.parametrize(
    ("table", "rows", "columns", "message"),
    [
        ((2, 3, 3), (1, 2, 4, 5), (1, 1, 4, 5), r"columns: found \(1, 1, 4, 5\), expected \(1, 2, 4, 'Qx'\)"),
        ((3, 3, 3), (1, 2, 4, 5), (1, 2, 4, 5), r"heads of table: found 3, expected a multiple of groups \(2\)"),
    ],
)
def test_product_grid_names_what_does_not_fit(
    table: tuple[int, ...], rows: tuple[int, ...], columns: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ShapeError, match=f"sample_product_grid: {message}"):
        sample_product_grid(np.zeros(table), np.zeros(rows), np.zeros(columns))
