"""One look at the regions: a box head and a mask head, how boxes are chosen for their training, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import ops
from ..data.targets import BoxTargets
from ..nn import Backward, Context, Module
from .assignment import assign
from .box_head import BoxHead
from .mask_head import MaskHead, crop_masks
from .regions import pool_regions
from .sampling import Sampling, sample

Levels = Sequence[np.ndarray]
BOX_SIZE, MASK_SIZE = 7, 14  # sides of a region for the box head, and for the mask head


@dataclass(frozen=True)
class StageConfig:
    """One stage of region heads.

    stds: what the box head's deltas are multiplied by; iou: a region is an object's if it overlaps it at least so much;
    low_quality: also those that overlap it most; convolutions, linears: of the box head; giou_weight: its boxes are
    trained on that many times their GIoU loss, None for the L1 loss of their deltas; weight: of all its losses.
    """

    stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    iou: float = 0.5
    low_quality: bool = True
    convolutions: int = 0
    linears: int = 2
    giou_weight: float | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class RegionSample:
    """The n regions of a batch that a stage is trained on.

    boxes: (n, 4); images: (n,); labels: (n,), the number of classes for the background; positives: (p,) indices of
    those with an object; objects: (p,) its number in its image; goals: (p, 4) its box; is_object: (n,), whether the
    region is no proposal but the box of an object.
    """

    boxes: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    positives: np.ndarray
    objects: np.ndarray
    goals: np.ndarray
    is_object: np.ndarray


def sample_regions(
    proposals: Sequence[np.ndarray],
    targets: Sequence[BoxTargets],
    config: StageConfig,
    sampling: Sampling,
    num_classes: int,
    rng: np.random.Generator,
) -> RegionSample:
    """Choose the regions of each image from its proposals (n, 4) and the objects' own boxes, each the best for itself."""
    parts = []
    for image, (boxes, target) in enumerate(zip(proposals, targets, strict=True)):
        objects = target.boxes.astype(boxes.dtype)
        assigned = assign(
            boxes,
            objects,
            positive_iou=config.iou,
            negative_iou=config.iou,
            low_quality_iou=config.iou if config.low_quality else None,
        )
        candidates = np.concatenate([objects, boxes])
        assigned = np.concatenate([np.arange(len(objects)), assigned])
        chosen = np.concatenate(sample(assigned, sampling, rng))
        found = assigned[chosen]
        labels = np.full(len(chosen), num_classes)
        labels[found >= 0] = target.labels[found[found >= 0]]
        images = np.full(len(chosen), image)
        goals = objects[found.clip(0)] if len(objects) else np.zeros((len(chosen), 4), boxes.dtype)
        parts.append((candidates[chosen], images, labels, found, goals, chosen < len(objects)))
    boxes, images, labels, found, goals, is_object = (np.concatenate(part) for part in zip(*parts, strict=True))
    positives = np.flatnonzero(found >= 0)
    return RegionSample(boxes, images, labels, positives, found[positives], goals[positives], is_object)


class RegionStage(Module):
    """A box head and a mask head on the regions of a pyramid."""

    def __init__(
        self, config: StageConfig, strides: Sequence[int], channels: int, num_classes: int, *, features: int
    ) -> None:
        self.config, self.strides = config, strides
        self.box_head = BoxHead(
            channels, BOX_SIZE, num_classes, convolutions=config.convolutions, linears=config.linears, features=features
        )
        self.mask_head = MaskHead(channels, num_classes, convolutions=4)

    def forward_boxes(
        self, levels: Levels, boxes: np.ndarray, images: np.ndarray, context: Context
    ) -> tuple[tuple[np.ndarray, np.ndarray], Backward]:
        """Class logits (n, num_classes + 1) and deltas (n, num_classes, 4) of boxes (n, 4), each in its image.

        Backward takes both gradients and returns a list with that of every level, None where no box was read.
        """
        regions, pool_backward = pool_regions(levels, self.strides, boxes, images, BOX_SIZE, context)
        outputs, head_backward = self.box_head.forward(regions, context)
        return outputs, lambda d_logits, d_deltas: pool_backward(head_backward(d_logits, d_deltas))

    def forward_masks(
        self, levels: Levels, boxes: np.ndarray, images: np.ndarray, context: Context
    ) -> tuple[np.ndarray, Backward]:
        """Mask logits (n, 28, 28, num_classes) of boxes (n, 4), each in its image; backward as of `forward_boxes`."""
        regions, pool_backward = pool_regions(levels, self.strides, boxes, images, MASK_SIZE, context)
        logits, head_backward = self.mask_head.forward(regions, context)
        return logits, lambda d_logits: pool_backward(head_backward(d_logits))

    def move(self, boxes: np.ndarray, deltas: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
        """boxes (..., 4) moved by deltas (..., 4), and clipped to an image of size (height, width)."""
        return ops.decode_boxes(deltas, anchors=boxes, stds=self.config.stds, image_size=size)[0]

    def loss(
        self, levels: Levels, sampled: RegionSample, bitmaps: Sequence[np.ndarray], context: Context
    ) -> tuple[dict[str, float], np.ndarray, np.ndarray, Backward]:
        """The losses of classes, boxes and masks; then the class logits and deltas, for the stage that comes next.

        bitmaps: an image each, (objects, H, W) of bool. `backward()` accumulates the gradients of both heads and
        returns a list with that of every level.
        """
        n, weight = len(sampled.boxes), self.config.weight
        (logits, deltas), boxes_backward = self.forward_boxes(levels, sampled.boxes, sampled.images, context)
        class_loss, class_backward = context.apply(ops.cross_entropy, logits, targets=sampled.labels)
        own = sampled.positives, sampled.labels[sampled.positives]  # each positive's deltas for its own class
        box_loss, box_backward = self._box_loss(deltas[own], sampled, context)
        mask_loss, masks_backward = self._mask_loss(levels, sampled, bitmaps, context)

        def backward() -> list[np.ndarray | None]:
            d_deltas = np.zeros_like(deltas)
            d_deltas[own] = box_backward(weight / n)
            return add_maps(boxes_backward(class_backward(weight), d_deltas), masks_backward())

        losses = {"class": weight * float(class_loss), "box": weight * float(box_loss) / n, "mask": mask_loss}
        return losses, logits, deltas, backward

    def _box_loss(self, deltas: np.ndarray, sampled: RegionSample, context: Context) -> tuple[np.ndarray, Backward]:
        """The sum over the positives, whose deltas for their own class are (p, 4)."""
        boxes, stds = sampled.boxes[sampled.positives], self.config.stds
        if self.config.giou_weight is None:
            goals, _ = ops.encode_boxes(sampled.goals, anchors=boxes, stds=stds)
            return context.apply(ops.l1_loss, deltas, targets=goals)
        giou_weight = self.config.giou_weight
        moved, move_backward = context.apply(ops.decode_boxes, deltas, anchors=boxes, stds=stds)
        loss, loss_backward = context.apply(ops.giou_loss, moved, targets=sampled.goals)
        return giou_weight * loss, lambda d_loss: move_backward(loss_backward(giou_weight * d_loss))

    def _mask_loss(
        self, levels: Levels, sampled: RegionSample, bitmaps: Sequence[np.ndarray], context: Context
    ) -> tuple[float, Backward]:
        """The mean over the pixels of the positives' masks of their class; the other classes' masks have no part in it."""
        some = sampled.positives if len(sampled.positives) else np.zeros(1, int)  # one whose loss will not count
        weight = self.config.weight if len(sampled.positives) else 0.0
        boxes, images, labels = sampled.boxes[some], sampled.images[some], sampled.labels[some]
        logits, masks_backward = self.forward_masks(levels, boxes, images, context)
        wanted = np.zeros(logits.shape[:3], bool)
        if len(sampled.positives):
            for image in np.unique(images):
                of_image = images == image
                wanted[of_image] = crop_masks(
                    bitmaps[image], boxes[of_image], sampled.objects[of_image], logits.shape[1]
                )
        own = np.arange(len(some)), slice(None), slice(None), labels.clip(0, logits.shape[3] - 1)
        loss, loss_backward = context.apply(ops.binary_cross_entropy, logits[own], targets=wanted)

        def backward() -> list[np.ndarray | None]:
            d_logits = np.zeros_like(logits)
            d_logits[own] = loss_backward(weight / wanted.size)
            return masks_backward(d_logits)

        return weight * float(loss) / wanted.size, backward


def add_maps(maps: Sequence[np.ndarray | None], others: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """The sums of two lists of maps, in which None stands for zeros."""
    return [b if a is None else a if b is None else a + b for a, b in zip(maps, others, strict=True)]
