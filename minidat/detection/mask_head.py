"""The mask head: which pixels of a region belong to its object; the way from ground truth to it, and to the picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..data.masks import decode_rle, polygons_to_mask
from ..nn import Backward, Context, Conv2d, Module, TransposedConv2d
from ..nn.initializers import constant, truncated_normal


class MaskHead(Module):
    """regions (n, size, size, channels) -> mask logits (n, 2 size, 2 size, num_classes), a mask for each class.

    3x3 convolutions, each with a ReLU; a transposed convolution that doubles the sides, ReLU; a 1x1 convolution.
    Source: Mask R-CNN (arXiv 1703.06870), Fig. 4, right.
    """

    def __init__(self, channels: int, num_classes: int, *, convolutions: int) -> None:
        self.convs = [Conv2d(channels, channels, 3, padding=1) for _ in range(convolutions)]
        self.upsampling = TransposedConv2d(channels, channels, 2, stride=2)
        self.classifier = Conv2d(channels, num_classes, 1)
        layers: list[Conv2d | TransposedConv2d] = [*self.convs, self.upsampling, self.classifier]
        for layer in layers:
            outputs, kernel = layer.weight.shape[0], layer.weight.shape[2]
            assert layer.bias is not None
            layer.weight.initializer = truncated_normal((2 / (outputs * kernel**2)) ** 0.5)
            layer.bias.initializer = constant(0.0)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        backwards = []
        for layer in (*self.convs, self.upsampling):
            x, layer_backward = layer.forward(x, context)
            x, relu_backward = context.apply(ops.relu, x)
            backwards += [layer_backward, relu_backward]
        logits, classifier_backward = self.classifier.forward(x, context)

        def backward(d_logits: np.ndarray) -> np.ndarray:
            d_x = classifier_backward(d_logits)
            for step_backward in reversed(backwards):
                d_x = step_backward(d_x)
            return d_x

        return logits, backward


def as_bitmap(mask: Any, height: int, width: int) -> np.ndarray:
    """A mask of `BoxTargets`, be it polygons, RLE or an array, as an array of bool for images of this size.

    A mask of a smaller image is padded at the right and the bottom, as its image was. Raises DatasetError for what is
    no mask.
    """
    if isinstance(mask, list | tuple):
        return polygons_to_mask(mask, height, width)
    own = mask if isinstance(mask, np.ndarray) else decode_rle(mask)
    bitmap = np.zeros((height, width), bool)
    bitmap[: own.shape[0], : own.shape[1]] = own[:height, :width]
    return bitmap


def crop_mask(mask: np.ndarray, boxes: np.ndarray, size: int, context: Context) -> np.ndarray:
    """What the mask head should answer: each box's part of an object's mask, where it covers at least half of a bin.

    mask: (H, W) of bool, boxes: (n, 4) -> (n, size, size) of bool.
    Source: Mask R-CNN, section 3.1; mmdetection's BitmapMasks.crop_and_resize.
    """
    height, width = mask.shape
    covered, _ = context.apply(
        ops.roi_align,
        mask[None, :, :, None].astype(np.float32),
        boxes=boxes.clip(0, [width, height, width, height]),
        images=np.zeros(len(boxes), int),
        size=size,
        scale=1.0,
    )
    return covered[..., 0] >= 0.5


def paste_masks(probabilities: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks in the picture: (n, H, W) of bool, true where the probability, stretched over the box, is at least 1/2.

    probabilities: (n, m, m), boxes: (n, 4) in pixels of a picture of `size` = (H, W).
    """
    masks = np.zeros((len(boxes), *size), bool)
    for i, (mask, box) in enumerate(zip(probabilities, boxes, strict=True)):
        masks[i] = ops.paste_mask(mask, box=box, size=size) >= 0.5
    return masks
