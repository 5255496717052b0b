"""attention against PyTorch and finite differences."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import attention, attention_probabilities

from .checks import assert_close, check_against_torch, check_finite_differences
from .strategies import arrays, normal, shapes


def torch_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, *, scale: float
) -> torch.Tensor:
    scores = torch.einsum("...qd,...kd->...qk", query, key) * scale
    if bias is not None:
        scores = scores + (bias.transpose(-1, -2) if bias.ndim > 1 else bias)
    return torch.einsum("...qk,...kd->...qd", scores.softmax(dim=-1), value)


@st.composite
def attention_cases(draw: st.DrawFn) -> tuple[list[np.ndarray | None], dict[str, Any]]:
    """A bias of the scores' shape, or with axes of 1, or with leading axes missing, or None."""
    leading = draw(shapes(axes=(1, 3), longest=3))
    queries, keys, width, value_width = draw(st.tuples(*[st.integers(1, 6)] * 4))
    query, key = draw(arrays((*leading, queries, width))), draw(arrays((*leading, keys, width)))
    value = draw(arrays((*leading, keys, value_width)))
    bias = None
    if draw(st.booleans()):
        full = (*leading, keys, queries)
        shape = tuple(n if draw(st.booleans()) else 1 for n in full)
        bias = draw(arrays(shape[draw(st.integers(0, len(leading))) :]))
    return [query, key, value, bias], {"scale": draw(st.sampled_from([1.0, 0.3]))}


@given(attention_cases())
def test_attention(case: tuple[list[np.ndarray | None], dict[str, Any]]) -> None:
    inputs, settings = case
    check_against_torch(attention, inputs, settings, torch_attention, float32_relative=3e-5)
    check_finite_differences(attention, inputs, settings, directions=2)


BIAS_SHAPES = {
    "windows: one table for all windows": (1, 1, 4, 6, 5),
    "shifted windows: masks, the same for all heads": (1, 3, 1, 6, 5),
    "windows and heads": (3, 4, 6, 5),
    "heads": (4, 6, 5),
    "fixed, all": (2, 3, 4, 6, 5),
}


@pytest.mark.parametrize("bias_shape", BIAS_SHAPES.values(), ids=BIAS_SHAPES.keys())
def test_the_biases_of_the_models(bias_shape: tuple[int, ...]) -> None:
    inputs = [normal((2, 3, 4, n, 8), seed) for seed, n in enumerate((5, 6, 6))]
    check_against_torch(attention, [*inputs, normal(bias_shape, 3)], {"scale": 8**-0.5}, torch_attention)


def test_a_masked_key_counts_for_nothing() -> None:
    query, key, value = (normal((1, 1, 4, 2), seed) for seed in range(3))
    bias = np.zeros((4, 4))
    bias[3] = -1e4  # keys first: key 3 is masked for every query
    output, backward = attention(query, key, value, bias, scale=1.0)
    assert_close(output, attention(query, key[..., :3, :], value[..., :3, :], None, scale=1.0)[0], 1e-14, "masked")
    _, d_key, d_value, _ = backward(normal(output.shape, 4))
    assert not d_key[..., 3, :].any()
    assert not d_value[..., 3, :].any()


@pytest.mark.parametrize(("magnitude", "float32_relative"), [(10.0, 1e-4), (1e3, np.inf)])
def test_large_scores_do_not_overflow(magnitude: float, float32_relative: float) -> None:
    """In float32 the largest scores are known to a thousandth only: there the outcome only has to be finite."""
    query, key, value = (normal((2, 2, 5, 8), seed) for seed in range(3))
    inputs = [query * magnitude, key, value, normal((2, 1, 5, 5), 3) * magnitude]
    check_against_torch(
        attention, inputs, {"scale": 1.0}, torch_attention, relative=1e-8, float32_relative=float32_relative
    )


def test_equal_scores_average_the_values() -> None:
    value = normal((1, 2, 5, 3), 0)
    output, _ = attention(np.zeros((1, 2, 4, 3)), np.zeros((1, 2, 5, 3)), value, None, scale=1.0)
    assert_close(output, np.broadcast_to(value.mean(axis=2, keepdims=True), output.shape), 1e-14, "average")


@given(attention_cases())
def test_attention_probabilities(case: tuple[list[np.ndarray | None], dict[str, Any]]) -> None:
    (query, key, value, bias), settings = case
    probabilities = attention_probabilities(query, key, bias, **settings)
    assert probabilities.shape == (*query.shape[:-2], key.shape[-2], query.shape[-2])
    mixed = np.einsum("...kq,...kd->...qd", probabilities, value)
    assert_close(attention(query, key, value, bias, **settings)[0], mixed, 1e-12, "probabilities")


@pytest.mark.parametrize(
    ("key_shape", "value_shape", "message"),
    [
        ((1, 2, 5, 4), (1, 2, 5, 3), "key: found"),
        ((1, 3, 5, 3), (1, 3, 5, 3), "key: found"),
        ((1, 2, 5, 3), (1, 2, 4, 3), "value"),
    ],
)
def test_attention_names_what_does_not_fit(
    key_shape: tuple[int, ...], value_shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ShapeError, match=f"attention: {message}"):
        attention(np.zeros((1, 2, 6, 3)), np.zeros(key_shape), np.zeros(value_shape), None, scale=1.0)
