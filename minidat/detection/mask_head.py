"""The mask head: which pixels of a region belong to its object; the way from ground truth to it, and to the picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..data.masks import segmentation_to_mask
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
        for layer in (*self.convs, self.upsampling, self.classifier):
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
    """A mask of `BoxTargets`, polygons, RLE or an (H, W) array, as an array of bool of an image of this size.

    An array of a smaller image is padded at the right and the bottom, as its image was.
    """
    if not isinstance(mask, np.ndarray):
        return segmentation_to_mask(mask, height, width)
    bitmap = np.zeros((height, width), bool)
    rows, columns = min(height, mask.shape[0]), min(width, mask.shape[1])
    bitmap[:rows, :columns] = mask[:rows, :columns]
    return bitmap


def crop_masks(bitmaps: np.ndarray, boxes: np.ndarray, objects: np.ndarray, size: int) -> np.ndarray:
    """What the mask head should answer: each box's part of its object's mask, at least half of each bin being covered.

    bitmaps: (objects, H, W) of bool; boxes: (n, 4), objects: (n,) whose mask each one is to show -> (n, size, size) of
    bool. Source: Mask R-CNN, section 3.1; mmdetection's BitmapMasks.crop_and_resize.
    """
    height, width = bitmaps.shape[1:]
    inside = boxes.clip(0, [width, height, width, height])
    maps = bitmaps[..., None].astype(np.float32)
    covered, _ = ops.roi_align(maps, boxes=inside, images=objects, size=size, scale=1.0)
    return covered[..., 0] >= 0.5


def paste_masks(probabilities: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks in the picture: (n, H, W) of bool, true where the probability, stretched over the box, is at least 1/2.

    probabilities: (n, m, m), boxes: (n, 4) in pixels of a picture of `size` = (H, W).
    """
    masks = np.zeros((len(boxes), *size), bool)
    for i, (mask, box) in enumerate(zip(probabilities, boxes, strict=True)):
        masks[i] = ops.paste_mask(mask, box=box, size=size) >= 0.5
    return masks
