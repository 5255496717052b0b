"""The machine: operators made fast, under the same names, with the same signatures and the same numbers.

`KERNELS` says which operator of the textbook has one. A kernel may take a hint that its operator has not: with
`keep=False` nothing has to be kept for backward, which it then need not return. Each file says what it does otherwise
and why that is the same; `tests/test_kernels.py` holds every pair against each other, `minidat bench MODEL --plain`
measures what they gain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import ops
from .attention import attention
from .batch_norm import batch_norm
from .conv2d import conv2d
from .conv_norm_relu import conv_norm_relu
from .gelu import gelu
from .grid_sample import grid_sample
from .layer_norm import layer_norm
from .linear import linear
from .local_perception import local_perception
from .mlp import convolutional_mlp, mlp
from .neighborhood_attention import neighborhood_attention
from .nms import class_nms, nms
from .pixel_cross_entropy import pixel_cross_entropy
from .resize import resize
from .roi_align import roi_align
from .sample_product_grid import sample_product_grid
from .transposed_conv2d import transposed_conv2d
from .windows import cyclic_shift, window_partition, window_reverse

__all__ = [
    "KERNELS",
    "attention",
    "batch_norm",
    "class_nms",
    "conv2d",
    "conv_norm_relu",
    "convolutional_mlp",
    "cyclic_shift",
    "gelu",
    "grid_sample",
    "layer_norm",
    "linear",
    "local_perception",
    "mlp",
    "neighborhood_attention",
    "nms",
    "pixel_cross_entropy",
    "resize",
    "roi_align",
    "sample_product_grid",
    "takes_keep",
    "transposed_conv2d",
    "window_partition",
    "window_reverse",
]

KERNELS: dict[Callable[..., Any], Callable[..., Any]] = {
    ops.attention: attention,
    ops.batch_norm: batch_norm,
    ops.class_nms: class_nms,
    ops.conv2d: conv2d,
    ops.conv_norm_relu: conv_norm_relu,
    ops.convolutional_mlp: convolutional_mlp,
    ops.cyclic_shift: cyclic_shift,
    ops.gelu: gelu,
    ops.grid_sample: grid_sample,
    ops.layer_norm: layer_norm,
    ops.linear: linear,
    ops.local_perception: local_perception,
    ops.mlp: mlp,
    ops.neighborhood_attention: neighborhood_attention,
    ops.nms: nms,
    ops.pixel_cross_entropy: pixel_cross_entropy,
    ops.resize: resize,
    ops.roi_align: roi_align,
    ops.sample_product_grid: sample_product_grid,
    ops.transposed_conv2d: transposed_conv2d,
    ops.window_partition: window_partition,
    ops.window_reverse: window_reverse,
}


def takes_keep(kernel: Callable[..., Any]) -> bool:
    """Whether a kernel takes the hint `keep`."""
    return "keep" in (getattr(kernel, "__kwdefaults__", None) or {})
