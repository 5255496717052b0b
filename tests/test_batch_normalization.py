"""batch_norm, alone and within conv_norm_relu, against PyTorch and finite differences; its running statistics."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.nn import BatchNorm, Context, ConvNorm
from minidat.ops import batch_norm, batch_statistics, conv_norm_relu

from .checks import assert_close, check_against_torch, check_finite_differences
from .strategies import arrays, map_shapes, normal, seeds


def torch_batch_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, statistics, eps) -> torch.Tensor:
    mean, variance = (None, None) if statistics is None else (torch.tensor(s.astype(np.float64)) for s in statistics)
    maps = x.movedim(-1, 1)
    return F.batch_norm(maps, mean, variance, weight, bias, training=statistics is None, eps=eps).movedim(1, -1)


def torch_conv_norm_relu(x, weight, norm_weight, norm_bias, *, statistics, padding, eps) -> torch.Tensor:
    x = F.conv2d(x.movedim(-1, 1), weight, padding=padding).movedim(1, -1)
    return F.relu(torch_batch_norm(x, norm_weight, norm_bias, statistics=statistics, eps=eps))


def statistics_of(channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A mean and a variance that float32 holds exactly: settings stay as they are when the arrays are rounded."""
    rng = np.random.default_rng(seed)
    return tuple(a.astype(np.float32) for a in (rng.standard_normal(channels), rng.random(channels) + 0.1))


def statistics(channels: int) -> st.SearchStrategy[Any]:
    return seeds().map(lambda seed: statistics_of(channels, seed))


@st.composite
def batch_norm_cases(draw: st.DrawFn, fixed: bool) -> tuple[list[np.ndarray], dict[str, Any]]:
    shape = draw(map_shapes().filter(lambda shape: np.prod(shape[:3]) > 3))
    channels = shape[-1:]
    eps = 0.1 if np.prod(shape[:3]) < 10 else draw(st.sampled_from([1e-5, 0.1]))
    settings = {"statistics": draw(statistics(shape[-1])) if fixed else None, "eps": eps}
    return [draw(arrays(shape)), draw(arrays(channels)), draw(arrays(channels))], settings


@pytest.mark.parametrize("fixed", [False, True])
def test_batch_norm(fixed: bool) -> None:
    @given(batch_norm_cases(fixed))
    def check(case: tuple[list[np.ndarray], dict[str, Any]]) -> None:
        inputs, settings = case
        check_against_torch(batch_norm, inputs, settings, torch_batch_norm)
        check_finite_differences(batch_norm, inputs, settings, relative=1e-5)

    check()


@st.composite
def conv_norm_cases(draw: st.DrawFn) -> tuple[list[np.ndarray], dict[str, Any]]:
    batch, height, width, channels = draw(map_shapes(longest=6))
    more_than_pixels = st.just(batch * height * width + 1)
    kernel, outputs = draw(st.sampled_from([1, 3])), draw(st.integers(1, 4) | more_than_pixels)
    inputs = [
        draw(arrays((batch, height, width, channels))),
        draw(arrays((outputs, channels, kernel, kernel))),
        draw(arrays((outputs,))),
        draw(arrays((outputs,))),
    ]
    return inputs, {"statistics": draw(statistics(outputs)), "padding": kernel // 2, "eps": 1e-5}


@given(conv_norm_cases())
def test_conv_norm_relu(case: tuple[list[np.ndarray], dict[str, Any]]) -> None:
    check_against_torch(conv_norm_relu, *case, torch_conv_norm_relu, float32_relative=1e-4)


def test_conv_norm_relu_by_finite_differences() -> None:
    """At fixed numbers, none of which is near the kink of the ReLU."""
    inputs = [normal((2, 4, 5, 3), 0), normal((2, 3, 3, 3), 1), normal((2,), 2), normal((2,), 3)]
    check_finite_differences(conv_norm_relu, inputs, {"statistics": statistics_of(2, 4), "padding": 1}, step=1e-7)


@given(map_shapes().filter(lambda shape: np.prod(shape[:3]) > 1).flatmap(arrays), st.sampled_from([0.1, 0.3]))
def test_training_moves_the_running_statistics_as_pytorch_does(x: np.ndarray, momentum: float) -> None:
    layer = BatchNorm(x.shape[-1], momentum=momentum)
    layer.initialize(np.random.default_rng(0), np.float64)
    peer = torch.nn.BatchNorm2d(x.shape[-1], momentum=momentum, dtype=torch.float64)
    for factor in (1.0, 3.0):  # the second step starts from the first one's
        output, _ = layer.forward(factor * x, Context(training=True))
        expected = peer(torch.tensor((factor * x).copy()).movedim(-1, 1)).movedim(1, -1)
        assert_close(output, expected.detach().numpy(), 1e-9, "output")
    assert_close(layer.running_mean.value, peer.running_mean.numpy(), 1e-12, "running mean")
    assert_close(layer.running_var.value, peer.running_var.numpy(), 1e-12, "running variance")
    peer.eval()
    found, before = layer(x), layer.running_mean.value
    assert_close(found, peer(torch.tensor(x.copy()).movedim(-1, 1)).movedim(1, -1).detach().numpy(), 1e-9, "inference")
    assert layer.running_mean.value is before


def test_conv_norm_is_one_function_with_and_without_training() -> None:
    """With running statistics that happen to be the batch's, both paths give the same output."""
    layer = ConvNorm(3, 4, 3)
    layer.initialize(np.random.default_rng(0), np.float64)
    x = normal((2, 5, 6, 3), 0)
    trained, backward = layer.forward(x, Context(gradients=True, training=True))
    convolved = layer.conv(x)
    layer.norm.running_mean.value, layer.norm.running_var.value = batch_statistics(convolved)
    assert_close(layer(x), trained, 1e-12, "inference")
    backward(np.ones_like(trained))
    assert all(parameter.grad is not None for _, parameter in layer.named_parameters())


def test_buffers_are_state_but_not_parameters() -> None:
    layer = BatchNorm(3)
    layer.initialize(np.random.default_rng(0))
    assert layer.parameter_count() == 6
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    state = layer.state_dict()
    assert list(state) == ["weight", "bias", "running_mean", "running_var"]
    assert np.array_equal(state["running_var"], np.ones(3))
    layer.load_state_dict({**state, "running_mean": np.arange(3.0)})
    assert layer.running_mean.value.dtype == np.float32
    assert np.array_equal(layer.running_mean.value, np.arange(3.0))
    assert layer.astype(np.float64).state_dict()["running_mean"].dtype == np.float64


def test_float32_stays_float32_in_training() -> None:
    layer = BatchNorm(3)
    layer.initialize(np.random.default_rng(0))
    output, backward = layer.forward(normal((2, 3, 4, 3), 0).astype(np.float32), Context(True, True))
    assert output.dtype == backward(output).dtype == np.float32
    assert {value.dtype for value in layer.state_dict().values()} == {np.dtype(np.float32)}


def test_batch_norm_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"batch_norm: last axis of x: found \(2, 3\), expected \(..., 4\)"):
        batch_norm(np.zeros((2, 3)), np.zeros(4), np.zeros(4))
    with pytest.raises(ShapeError, match=r"batch_norm: bias: found \(3,\), expected \(4,\)"):
        batch_norm(np.zeros((2, 4)), np.zeros(4), np.zeros(3))
    with pytest.raises(ShapeError, match="batch_norm: values of a channel: found 1, expected at least 2 in training"):
        batch_norm(np.zeros((1, 1, 1, 4)), np.zeros(4), np.zeros(4))
