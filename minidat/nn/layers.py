"""Layers that are one operator and its parameters."""

from __future__ import annotations

import numpy as np

from .. import ops
from .initializers import constant, uniform
from .module import Backward, Buffer, Context, Module, Parameter


class Linear(Module):
    """output = x W^T + b for x (..., in_features): the `linear` operator with weight (out, in) and bias (out,)."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        self.weight = Parameter((out_features, in_features), uniform(in_features))
        self.bias = Parameter((out_features,), uniform(in_features)) if bias else None

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        return context.apply(ops.linear, x, self.weight, self.bias)


class Conv2d(Module):
    """The `conv2d` operator on x (B, H, W, in_channels), with weight (out, in / groups, kernel, kernel)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        fan_in = in_channels // groups * kernel**2
        self.weight = Parameter((out_channels, in_channels // groups, kernel, kernel), uniform(fan_in))
        self.bias = Parameter((out_channels,), uniform(fan_in)) if bias else None
        self.stride, self.padding, self.groups = stride, padding, groups

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        return context.apply(
            ops.conv2d, x, self.weight, self.bias, stride=self.stride, padding=self.padding, groups=self.groups
        )


class TransposedConv2d(Module):
    """The `transposed_conv2d` operator on x (B, H, W, in_channels), with weight (in, out, kernel, kernel)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int) -> None:
        fan_in = out_channels * kernel**2  # PyTorch counts so, as if the weight were a convolution's
        self.weight = Parameter((in_channels, out_channels, kernel, kernel), uniform(fan_in))
        self.bias = Parameter((out_channels,), uniform(fan_in))
        self.stride = stride

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        return context.apply(ops.transposed_conv2d, x, self.weight, self.bias, stride=self.stride)


def depthwise_conv(channels: int, kernel: int = 3) -> Conv2d:
    """A convolution of each channel on its own that keeps the map's size (odd `kernel`)."""
    return Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


class LayerNorm(Module):
    """The `layer_norm` operator over the last axis."""

    def __init__(self, features: int) -> None:
        self.weight = Parameter((features,), constant(1.0))
        self.bias = Parameter((features,), constant(0.0))

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        return context.apply(ops.layer_norm, x, self.weight, self.bias)


class LayerScale(Module):
    """output = x * weight, one learned factor a channel, all `initial` at first (DAT++; CaiT, arXiv 2103.17239)."""

    def __init__(self, features: int, initial: float) -> None:
        self.weight = Parameter((features,), constant(initial))

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        return context.apply(ops.scale_channels, x, self.weight)


class BatchNorm(Module):
    """The `batch_norm` operator on maps (B, H, W, features): by the batch in training, else by running statistics.

    Training moves these toward the batch's by a factor of `momentum`, the variance being the unbiased one then
    (torch.nn.BatchNorm2d).
    """

    def __init__(self, features: int, *, momentum: float = 0.1) -> None:
        self.weight = Parameter((features,), constant(1.0))
        self.bias = Parameter((features,), constant(0.0))
        self.running_mean = Buffer((features,), constant(0.0))
        self.running_var = Buffer((features,), constant(1.0))
        self.momentum = momentum

    @property
    def running_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean, variance) of each channel, as inference uses them."""
        return self.running_mean.value, self.running_var.value

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        weight, bias = self.weight, self.bias
        if not context.training:
            statistics = self.running_statistics
            return context.apply(ops.batch_norm, x, weight, bias, statistics=statistics)
        mean, variance = ops.batch_statistics(x)
        count = x.size // x.shape[-1]
        unbiased = variance * (count / (count - 1))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.value = (1 - self.momentum) * running.value + self.momentum * new
        return context.apply(ops.batch_norm, x, weight, bias)


class ConvNorm(Module):
    """A convolution without bias that keeps the map's size, batch normalization, ReLU (odd `kernel`)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        self.conv = Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = BatchNorm(out_channels)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        if not context.training:  # one operator, whose kernel can fold the norm into the convolution
            return context.apply(
                ops.conv_norm_relu,
                x,
                self.conv.weight,
                self.norm.weight,
                self.norm.bias,
                statistics=self.norm.running_statistics,
                padding=self.conv.padding,
            )
        x, conv_backward = self.conv.forward(x, context)
        x, norm_backward = self.norm.forward(x, context)
        output, relu_backward = context.apply(ops.relu, x)

        def backward(d_output: np.ndarray) -> np.ndarray:
            return conv_backward(norm_backward(relu_backward(d_output)))

        return output, backward
