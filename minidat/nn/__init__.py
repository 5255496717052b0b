"""Parameter, Module, Context, and the layers that are one operator."""

from .layers import Conv2d, LayerNorm, LayerScale, Linear, depthwise_conv
from .module import AttentionRecord, Backward, Context, Module, Parameter

__all__ = [
    "AttentionRecord",
    "Backward",
    "Context",
    "Conv2d",
    "LayerNorm",
    "LayerScale",
    "Linear",
    "Module",
    "Parameter",
    "depthwise_conv",
]
