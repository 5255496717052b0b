"""Layers that are one operator and its parameters."""

from __future__ import annotations

import numpy as np

from .. import ops
from .initializers import constant, uniform
from .module import Backward, Context, Module, Parameter


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
