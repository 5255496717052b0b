"""From pixels to tokens, and from one stage's map to the next one's."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, Conv2d, LayerNorm, Module


class PatchEmbedding(Module):
    """Each patch of pixels becomes one token: a convolution whose kernel is its stride, then layer norm (DAT, Fig. 3).

    x: (B, H, W, 3) -> (B, ceil(H / p), ceil(W / p), dim). An image that p does not divide is padded with zeros at the
    right and the bottom.
    """

    def __init__(self, dim: int, patch_size: int) -> None:
        self.projection = Conv2d(3, dim, patch_size, stride=patch_size)
        self.norm = LayerNorm(dim)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        x, pad_backward = pad_to_multiple(x, self.projection.stride)
        tokens, projection_backward = self.projection.forward(x, context)
        output, norm_backward = self.norm.forward(tokens, context)

        def backward(d_output: np.ndarray) -> np.ndarray:
            return pad_backward(projection_backward(norm_backward(d_output)))

        return output, backward


class ConvolutionalPatchEmbedding(Module):
    """Overlapping patches: two 3x3 convolutions with layer norms and a GELU between them (DAT++, section 3.4).

    x: (B, H, W, 3) -> (B, ceil(H / p), ceil(W / p), dim); the convolutions have strides of 2 and p / 2.
    """

    def __init__(self, dim: int, patch_size: int) -> None:
        self.conv1 = Conv2d(3, dim // 2, 3, stride=2, padding=1)
        self.norm1 = LayerNorm(dim // 2)
        self.conv2 = Conv2d(dim // 2, dim, 3, stride=patch_size // 2, padding=1)
        self.norm2 = LayerNorm(dim)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        x, conv1_backward = self.conv1.forward(x, context)
        x, norm1_backward = self.norm1.forward(x, context)
        x, gelu_backward = context.apply(ops.gelu, x)
        x, conv2_backward = self.conv2.forward(x, context)
        x, norm2_backward = self.norm2.forward(x, context)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_x = conv2_backward(norm2_backward(d_output))
            return conv1_backward(norm1_backward(gelu_backward(d_x)))

        return x, backward


class Downsampling(Module):
    """Between stages: a convolution of stride 2 without bias that widens the map, then layer norm.

    x: (B, H, W, dim_in) -> (B, ceil(H / 2), ceil(W / 2), dim_out). The kernel is 2x2 (DAT; an odd map is padded with
    zeros at the right and the bottom) or, `overlapping`, 3x3 with a padding of 1 (DAT++).
    """

    def __init__(self, dim_in: int, dim_out: int, *, overlapping: bool) -> None:
        kernel, padding = (3, 1) if overlapping else (2, 0)
        self.reduction = Conv2d(dim_in, dim_out, kernel, stride=2, padding=padding, bias=False)
        self.norm = LayerNorm(dim_out)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        x, pad_backward = pad_to_multiple(x, 1 if self.reduction.padding else 2)
        x, reduction_backward = self.reduction.forward(x, context)
        output, norm_backward = self.norm.forward(x, context)

        def backward(d_output: np.ndarray) -> np.ndarray:
            return pad_backward(reduction_backward(norm_backward(d_output)))

        return output, backward


def pad_to_multiple(x: np.ndarray, multiple: int) -> tuple[np.ndarray, Backward]:
    """Zeros at the right and the bottom of x (B, H, W, C) until `multiple` divides both sides of the map."""
    return pad_to_size(x, *(-(-side // multiple) * multiple for side in x.shape[1:3]))


def pad_to_size(x: np.ndarray, height: int, width: int) -> tuple[np.ndarray, Backward]:
    """Zeros at the right and the bottom of x (B, H, W, C) until the map is height x width; x itself if it is."""
    batch, old_height, old_width, channels = x.shape
    if (old_height, old_width) == (height, width):
        return x, lambda d_padded: d_padded
    padded = np.zeros((batch, height, width, channels), x.dtype)
    padded[:, :old_height, :old_width] = x
    return padded, lambda d_padded: d_padded[:, :old_height, :old_width]
