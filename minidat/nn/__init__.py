"""Parameter, Module, Context, and the layers that are one operator."""

from .layers import (
    BatchNorm,
    Conv2d,
    ConvNorm,
    LayerNorm,
    LayerScale,
    Linear,
    TransposedConv2d,
    depthwise_conv,
)
from .module import AttentionRecord, Backward, Buffer, Context, LocalAttentionRecord, Module, Parameter
from .sequential import run_in_order

__all__ = [
    "AttentionRecord",
    "Backward",
    "BatchNorm",
    "Buffer",
    "Context",
    "Conv2d",
    "ConvNorm",
    "LayerNorm",
    "LayerScale",
    "Linear",
    "LocalAttentionRecord",
    "Module",
    "Parameter",
    "TransposedConv2d",
    "depthwise_conv",
    "run_in_order",
]
