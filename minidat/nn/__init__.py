"""Parameter, Module, Context, and the layers that are one operator."""

from .layers import Conv2d, LayerNorm, LayerScale, Linear, depthwise_conv
from .module import AttentionRecord, Backward, Context, LocalAttentionRecord, Module, Parameter
from .sequential import run_in_order

__all__ = [
    "AttentionRecord",
    "Backward",
    "Context",
    "Conv2d",
    "LayerNorm",
    "LayerScale",
    "Linear",
    "LocalAttentionRecord",
    "Module",
    "Parameter",
    "depthwise_conv",
    "run_in_order",
]
