"""Neighborhood attention, operator and module, against PyTorch, finite differences and loops over single numbers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.models.neighborhood_attention import NeighborhoodAttention
from minidat.nn import Context
from minidat.ops import neighborhood_attention

from .checks import assert_close, check_against_torch, check_finite_differences, cotangent_like
from .strategies import arrays, map_sizes, normal, seeds

# --- the operator -----------------------------------------------------------------------------------------------------


def windows(n: int, kernel: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, kernel): the keys of each query of an axis, and their entries in the bias table."""
    first = (torch.arange(n) - kernel // 2).clamp(0, n - kernel)
    keys = first[:, None] + torch.arange(kernel)
    return keys, keys - torch.arange(n)[:, None] + kernel - 1


def torch_neighborhood_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, *, kernel: int, scale: float
) -> torch.Tensor:
    """As the definition reads: gather each query's keys and values, (B, H, W, kernel, kernel, heads, d)."""
    _, height, width, _, _ = query.shape
    (keys_y, entries_y), (keys_x, entries_x) = windows(height, kernel), windows(width, kernel)
    places = (keys_y[:, None, :, None], keys_x[None, :, None, :])
    near_keys, near_values = key[:, *places], value[:, *places]
    near_bias = bias[:, entries_y[:, None, :, None], entries_x[None, :, None, :]]
    scores = torch.einsum("byxnd,byxijnd->bnyxij", query * scale, near_keys) + near_bias
    weights = scores.flatten(-2).softmax(dim=-1).reshape(scores.shape)
    return torch.einsum("bnyxij,byxijnd->byxnd", weights, near_values)


def loops_neighborhood_attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray, *, kernel: int, scale: float
) -> np.ndarray:
    """One number at a time: nothing of NumPy's or PyTorch's indexing to be mistaken about."""
    batch, height, width, heads, d = query.shape
    output = np.zeros(query.shape)
    for b in range(batch):
        for n in range(heads):
            for y in range(height):
                for x in range(width):
                    top = min(max(y - kernel // 2, 0), height - kernel)
                    left = min(max(x - kernel // 2, 0), width - kernel)
                    weights = {}
                    for i in range(top, top + kernel):
                        for j in range(left, left + kernel):
                            score = scale * sum(query[b, y, x, n, c] * key[b, i, j, n, c] for c in range(d))
                            weights[i, j] = math.exp(score + bias[n, i - y + kernel - 1, j - x + kernel - 1])
                    total = sum(weights.values())
                    for (i, j), weight in weights.items():
                        for c in range(d):
                            output[b, y, x, n, c] += weight / total * value[b, i, j, n, c]
    return output


def from_one_array(shape: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """Query, key and value (B, H, W, heads, d) as strided views of one array, as a linear layer yields them."""
    *pixels, heads, d = shape
    return list(np.moveaxis(normal((*pixels, 3, heads, d), seed), 3, 0))


@st.composite
def cases(draw: st.DrawFn, *, longer: int = 10) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Maps from kernel x kernel to `longer` more; separate arrays of any layout, or views of one."""
    kernel = draw(st.sampled_from([3, 5, 7, 9]))
    batch, heads, d = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 8))
    shape = (batch, *draw(map_sizes(shortest=kernel, longest=kernel + longer)), heads, d)
    separate = draw(st.booleans())
    qkv = [draw(arrays(shape)) for _ in range(3)] if separate else from_one_array(shape, draw(seeds()))
    bias = draw(arrays((heads, 2 * kernel - 1, 2 * kernel - 1)))
    return [*qkv, bias], {"kernel": kernel, "scale": draw(st.sampled_from([1.0, 0.3]))}


@given(cases())
def test_neighborhood_attention(case: tuple[list[np.ndarray], dict[str, Any]]) -> None:
    inputs, settings = case
    check_against_torch(neighborhood_attention, inputs, settings, torch_neighborhood_attention, float32_relative=1e-4)


@given(cases(longer=5))
@settings(max_examples=20)
def test_finite_differences(case: tuple[list[np.ndarray], dict[str, Any]]) -> None:
    inputs, settings = case
    check_finite_differences(neighborhood_attention, inputs, settings, directions=1)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("longer", [(0, 0), (0, 3), (4, 1)])
def test_neighborhood_attention_is_its_definition(kernel: int, longer: tuple[int, int]) -> None:
    shape = (2, kernel + longer[0], kernel + longer[1], 2, 2)
    inputs = [*from_one_array(shape, 0), normal((2, 2 * kernel - 1, 2 * kernel - 1), 1)]
    output, _ = neighborhood_attention(*inputs, kernel=kernel, scale=0.7)
    assert_close(output, loops_neighborhood_attention(*inputs, kernel=kernel, scale=0.7), 1e-13, "loops")


@pytest.mark.parametrize(("size", "heads"), [((14, 14), 8), ((28, 28), 4), ((24, 40), 1), ((17, 31), 2)])
def test_the_maps_of_the_models(size: tuple[int, int], heads: int) -> None:
    """Tiles of 7 and of 4, and images whose sides they do not divide."""
    inputs = [*from_one_array((1, *size, heads, 32), 0), normal((heads, 13, 13), 1)]
    settings = {"kernel": 7, "scale": 32**-0.5}
    check_against_torch(neighborhood_attention, inputs, settings, torch_neighborhood_attention, float32_relative=1e-4)


def test_a_key_outside_the_window_does_not_matter() -> None:
    query, key, value = from_one_array((1, 12, 13, 2, 4), 0)
    bias = normal((2, 5, 5), 1)
    output, backward = neighborhood_attention(query, key, value, bias, kernel=3, scale=1.0)
    d_output = np.zeros(output.shape)
    d_output[:, 0, 5] = 1  # at the upper border: the window's rows are 0 to 2, its columns 4 to 6
    for gradient in backward(d_output)[1:3]:
        touched = np.argwhere(gradient.any(axis=(0, 3, 4)))
        assert touched.min(axis=0).tolist() == [0, 4]
        assert touched.max(axis=0).tolist() == [2, 6]
    d_query, _, _, d_bias = backward(d_output)
    assert np.argwhere(d_query.any(axis=(0, 3, 4))).tolist() == [[0, 5]]
    # keys lie 0 to 2 rows below the query, whose own row is entry 2 of the table, and 1 column to either side
    assert np.argwhere(d_bias.any(axis=0)).tolist() == [[y, x] for y in (2, 3, 4) for x in (1, 2, 3)]


@pytest.mark.parametrize("magnitude", [1e2, 1e4])
def test_large_scores_do_not_overflow(magnitude: float) -> None:
    query, key, value = from_one_array((1, 9, 8, 2, 4), 0)
    inputs = [query * magnitude, key, value, normal((2, 5, 5), 1) * magnitude]
    single = [a.astype(np.float32) for a in inputs]
    output, backward = neighborhood_attention(*single, kernel=3, scale=1.0)
    assert all(np.isfinite(a).all() for a in (output, *backward(np.ones_like(output))))
    exact = {"relative": 1e-7, "float32_relative": np.inf}  # the scores' own rounding, times the magnitude
    check_against_torch(
        neighborhood_attention, inputs, {"kernel": 3, "scale": 1.0}, torch_neighborhood_attention, **exact
    )


def test_equal_scores_average_the_windows() -> None:
    shape = (1, 6, 9, 1, 2)
    ones = np.ones((1, 1, *shape[-1:]))
    value = np.broadcast_to(np.arange(9.0)[:, None, None] * ones, shape)  # the column's number
    output, _ = neighborhood_attention(
        np.zeros(shape), np.zeros(shape), value, np.zeros((1, 9, 9)), kernel=5, scale=1.0
    )
    centers = np.clip(np.arange(9.0), 2, 6)[:, None, None] * ones
    assert_close(output, np.broadcast_to(centers, shape), 1e-14, "average")


@pytest.mark.parametrize(
    ("shapes", "kernel", "message"),
    [
        (["query", "query", "query", (2, 3, 3)], 2, "kernel: found 2, expected an odd number"),
        ([(5, 5, 2, 4), "query", "query", (2, 5, 5)], 3, "query: found"),
        ([(1, 5, 2, 2, 4), "query", "query", (2, 5, 5)], 3, r"query: found \(1, 5, 2, 2, 4\), expected a map of at"),
        (["query", (1, 5, 6, 2, 4), "query", (2, 5, 5)], 3, "key: found"),
        (["query", "query", (1, 5, 6, 2, 3), (2, 5, 5)], 3, "value: found"),
        (["query", "query", "query", (1, 5, 5)], 3, r"bias: found \(1, 5, 5\), expected \(2, 5, 5\)"),
    ],
)
def test_neighborhood_attention_names_what_does_not_fit(shapes: list[Any], kernel: int, message: str) -> None:
    inputs = [np.zeros((1, 5, 5, 2, 4) if shape == "query" else shape) for shape in shapes]
    with pytest.raises(ShapeError, match=f"neighborhood_attention: {message}"):
        neighborhood_attention(*inputs, kernel=kernel, scale=1.0)


# --- the module -------------------------------------------------------------------------------------------------------


def torch_module(x: torch.Tensor, state: dict[str, torch.Tensor], heads: int, kernel: int) -> torch.Tensor:
    """The padding as the authors' code has it: zeros at the right and bottom before the linear layer, cropped after."""
    _, height, width, dim = x.shape
    x = F.pad(x, (0, 0, 0, max(0, kernel - width), 0, max(0, kernel - height)))
    qkv = F.linear(x, state["qkv.weight"], state["qkv.bias"]).reshape(*x.shape[:3], 3, heads, dim // heads)
    table = state["relative_position_bias_table"]
    mixed = torch_neighborhood_attention(*qkv.unbind(3), table, kernel=kernel, scale=(dim // heads) ** -0.5)
    output = F.linear(mixed.flatten(-2), state["projection.weight"], state["projection.bias"])
    return output[:, :height, :width]


@st.composite
def module_cases(draw: st.DrawFn) -> tuple[NeighborhoodAttention, np.ndarray]:
    kernel, heads = draw(st.sampled_from([3, 5, 7])), draw(st.integers(1, 3))
    dim = heads * draw(st.integers(1, 4))
    module = NeighborhoodAttention(dim, heads, kernel)
    rng = np.random.default_rng(draw(seeds()))
    for _, parameter in module.named_parameters():
        parameter.value = rng.standard_normal(parameter.shape)
    return module, draw(arrays((draw(st.integers(1, 3)), *draw(map_sizes(longest=12)), dim)))


@given(module_cases())
def test_module(case: tuple[NeighborhoodAttention, np.ndarray]) -> None:
    module, x = case
    output, backward = module.forward(x, Context(gradients=True))
    assert output.shape == x.shape
    d_output = cotangent_like(output)
    d_x = backward(d_output)
    assert_close(module(x), output, 1e-14, "inference")

    state = {name: torch.tensor(p.value, requires_grad=True) for name, p in module.named_parameters()}
    x_torch = torch.tensor(np.ascontiguousarray(x), requires_grad=True)
    expected = torch_module(x_torch, state, module.heads, module.kernel)
    expected.backward(torch.tensor(d_output))
    assert_close(output, expected.detach(), 1e-9, f"output for {x.shape}")
    assert_close(d_x, x_torch.grad, 1e-9, f"gradient of x for {x.shape}")
    for name, parameter in module.named_parameters():
        assert_close(parameter.grad, state[name].grad, 1e-9, f"gradient of {name} for {x.shape}")


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (6, 7), (7, 7)])
def test_module_in_float32(size: tuple[int, int]) -> None:
    module = NeighborhoodAttention(8, 2, 7)
    module.initialize(np.random.default_rng(0))
    x = normal((2, *size, 8), 1).astype(np.float32)
    output, backward = module.forward(x, Context(gradients=True))
    assert output.dtype == backward(output).dtype == np.float32
    assert all(p.grad.dtype == np.float32 for _, p in module.named_parameters())


def test_module_has_the_parameters_of_the_paper() -> None:
    module = NeighborhoodAttention(64, 2, 7)
    assert {name: parameter.shape for name, parameter in module.named_parameters()} == {
        "qkv.weight": (192, 64),
        "qkv.bias": (192,),
        "projection.weight": (64, 64),
        "projection.bias": (64,),
        "relative_position_bias_table": (2, 13, 13),
    }
    module.initialize(np.random.default_rng(0))
    assert 0.005 < module.relative_position_bias_table.value.std() < 0.015
