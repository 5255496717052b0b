"""What window and neighborhood attention leave in the trace: tokens and probabilities that explain their output."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidat
from minidat import ops
from minidat.errors import ShapeError
from minidat.models import DeformableConfig, ModelConfig, StageConfig
from minidat.models.neighborhood_attention import NeighborhoodAttention
from minidat.models.window_attention import WindowAttention
from minidat.nn import Context, LocalAttentionRecord

from .checks import assert_close
from .strategies import map_sizes, normal, seeds


@st.composite
def cases(draw):
    """A window or neighborhood attention module in float64, and a map, which it may have to pad."""
    heads = draw(st.integers(1, 3))
    dim = heads * draw(st.integers(1, 3))
    window = draw(st.sampled_from([2, 3, 4, 5]))
    if draw(st.booleans()):
        module = NeighborhoodAttention(dim, heads, window // 2 * 2 + 1)
    else:
        module = WindowAttention(dim, heads, window, shifted=draw(st.booleans()))
    rng = np.random.default_rng(draw(seeds()))
    for _, parameter in module.named_parameters():
        parameter.value = rng.standard_normal(parameter.shape)
    return module, normal((draw(st.integers(1, 2)), *draw(map_sizes(longest=9)), dim), draw(seeds()))


@given(cases())
@settings(max_examples=60)
def test_the_record_explains_the_output(case):
    """output = projection(sum over the tokens seen of probability x value), the values of padding being the bias."""
    module, x = case
    batch, height, width, dim = x.shape
    context = Context(local_trace={})
    output, _ = module.forward(x, context)
    assert_close(output, module(x), 1e-14, "the output with a trace")
    record = context.local_trace[module.path]
    tokens, attention = record.tokens, record.attention
    keys = tokens.shape[1]
    assert record.map_size == (height, width)
    assert tokens.shape == (height * width, keys, 2)
    assert attention.shape == (batch, module.heads, keys, height * width)
    assert_close(attention.sum(axis=2), np.ones((batch, module.heads, height * width)), 1e-12, "sums")

    padded = np.zeros((batch, tokens[..., 0].max() + 1, tokens[..., 1].max() + 1, dim))
    padded[:, :height, :width] = x
    weight, bias = module.qkv.weight.value[2 * dim :], module.qkv.bias.value[2 * dim :]
    value = (padded @ weight.T + bias)[:, tokens[..., 0], tokens[..., 1]]  # (B, queries, keys, dim)
    value = value.reshape(*value.shape[:3], module.heads, -1)
    mixed = np.einsum("bnkq,bqknd->bqnd", attention, value).reshape(x.shape)
    expected = mixed @ module.projection.weight.value.T + module.projection.bias.value
    assert_close(output, expected, 1e-11, "output")


@given(cases())
@settings(max_examples=30)
def test_a_query_sees_every_token_once_and_itself(case):
    module, x = case
    context = Context(local_trace={})
    module.forward(x, context)
    tokens = context.local_trace[module.path].tokens
    assert all(len({tuple(token) for token in seen}) == tokens.shape[1] for seen in tokens.tolist())
    own = np.argwhere(np.ones(x.shape[1:3]))
    assert (tokens == own[:, None]).all(axis=2).any(axis=1).all()


def test_a_shifted_window_on_the_map():
    """Windows of 4 shifted by 2 on a map of 8: the window of (3, 3) starts at (2, 2), that of (0, 0) is in pieces."""
    module = WindowAttention(2, 1, 4, shifted=True)
    module.initialize(np.random.default_rng(0), np.float64)
    context = Context(local_trace={})
    module.forward(normal((1, 8, 8, 2), 0), context)
    record = context.local_trace[module.path]
    assert record.tokens[3 * 8 + 3].tolist() == [[y, x] for y in range(2, 6) for x in range(2, 6)]
    corner = record.tokens[0]
    assert sorted({y for y, _ in corner.tolist()}) == [0, 1, 6, 7]
    visible = (corner < 2).all(axis=1)
    assert visible.sum() == 4
    assert record.attention[0, 0, ~visible, 0].max() < 1e-30
    assert record.attention[0, 0, visible, 0].min() > 1e-3


def test_the_trace_of_a_model():
    """Each kind of attention leaves its record in its own dict, under its path, and nothing else changes."""
    stages = tuple(
        StageConfig(
            8 * 2**i, 2, ("window", "shifted_window", "neighborhood", "deformable"), 2, 3, DeformableConfig(2, 3)
        )
        for i in range(4)
    )
    model = minidat.create_model(ModelConfig("tiny", (32, 32), 3, stages, resize_size=32), dtype=np.float64)
    images = normal((3, 36, 28, 3), 0)
    context = Context(trace={}, local_trace={})
    logits, _ = model.forward(images, context)
    assert_close(logits, model(images), 1e-13, "logits")
    assert list(context.trace) == [f"stages.{i}.blocks.3.attention" for i in range(4)]
    assert list(context.local_trace) == [f"stages.{i}.blocks.{b}.attention" for i in range(4) for b in range(3)]
    assert all(isinstance(record, LocalAttentionRecord) for record in context.local_trace.values())
    alone = Context(local_trace={})
    model.forward(images, alone)
    assert alone.local_trace.keys() == context.local_trace.keys()


def test_neighborhoods():
    tokens = ops.neighborhood_tokens(3, 5, kernel=3)
    assert tokens.shape == (15, 9, 2)
    assert tokens[0].tolist() == [[y, x] for y in range(3) for x in range(3)]
    assert tokens[7].tolist() == [[y, x] for y in range(3) for x in (1, 2, 3)]
    assert tokens[14].tolist() == [[y, x] for y in range(3) for x in (2, 3, 4)]
    for arguments, kernel, message in (((3, 5), 2, "kernel: found 2"), ((3, 5), 5, r"map: found \(3, 5\)")):
        with pytest.raises(ShapeError, match=message):
            ops.neighborhood_tokens(*arguments, kernel=kernel)
    query, bias = normal((1, 3, 5, 2, 4), 0), normal((2, 5, 5), 1)
    with pytest.raises(ShapeError, match="key: found"):
        ops.neighborhood_probabilities(query, query[:, :2], bias, kernel=3, scale=1.0)
