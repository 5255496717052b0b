"""One look at the regions: a box head and a mask head, how regions are chosen for their training, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import ops
from ..data.targets import BoxTargets
from ..models.pyramid import Maps
from ..nn import Backward, Context, Module
from .assignment import assign
from .box_head import BoxHead
from .mask_head import MaskHead, crop_mask
from .regions import pool_regions
from .sampling import generator, sample
from .two_stage_config import StageSettings, TwoStageConfig

BOX_SIZE, MASK_SIZE = 7, 14  # sides of a region for the box head, and for the mask head
REGION_FRACTION = 0.25  # at most so many of the sampled regions hold an object

OptionalMaps = list[np.ndarray | None]


@dataclass(frozen=True)
class RegionSample:
    """The n regions of a batch that a stage is trained on.

    boxes: (n, 4); images: (n,); labels: (n,), the number of classes for the background; positives: (p,) indices of
    those that are to find an object; objects: (p,) its number in its image; goals: (p, 4) its box; is_object: (n,)
    whether the region is no proposal but the box of an object.
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
    settings: StageSettings,
    config: TwoStageConfig,
    context: Context,
) -> RegionSample:
    """Choose the regions of each image from its proposals (n, 4) and, first of all, the objects' own boxes."""
    parts = []
    for image, (proposed, target) in enumerate(zip(proposals, targets, strict=True)):
        objects = target.boxes.astype(proposed.dtype).reshape(-1, 4)
        of_proposals = assign(
            proposed,
            objects,
            positive_iou=settings.iou,
            negative_iou=settings.iou,
            low_quality_iou=settings.iou if settings.low_quality else None,
        )
        assigned = np.concatenate([np.arange(len(objects)), of_proposals])
        chosen = np.concatenate(sample(assigned, config.region_sample, REGION_FRACTION, generator(context)))
        boxes, found = np.concatenate([objects, proposed])[chosen], assigned[chosen]
        labels, goals = np.full(len(chosen), config.num_classes), boxes.copy()
        is_positive = found >= 0
        labels[is_positive] = target.labels[found[is_positive]]
        goals[is_positive] = objects[found[is_positive]]
        parts.append((boxes, np.full(len(chosen), image), labels, found, goals, chosen < len(objects)))
    boxes, images, labels, found, goals, is_object = (np.concatenate(part) for part in zip(*parts, strict=True))
    positives = np.flatnonzero(found >= 0)
    return RegionSample(boxes, images, labels, positives, found[positives], goals[positives], is_object)


class RegionStage(Module):
    """A box head and a mask head on the regions of a pyramid."""

    def __init__(self, config: TwoStageConfig, settings: StageSettings) -> None:
        self.config, self.settings = config, settings
        channels, classes = config.pyramid_channels, config.num_classes
        self.box_head = BoxHead(
            channels,
            BOX_SIZE,
            classes,
            convolutions=config.box_convolutions,
            linears=config.box_linears,
            features=config.box_features,
        )
        self.mask_head = MaskHead(channels, classes, convolutions=config.mask_convolutions)

    def forward_boxes(
        self, levels: Maps, boxes: np.ndarray, images: np.ndarray, context: Context
    ) -> tuple[tuple[np.ndarray, np.ndarray], Backward]:
        """Class logits (n, num_classes + 1) and deltas (n, num_classes, 4) of boxes (n, 4), each in its image.

        Backward takes both gradients and returns a list with that of every level, None where no box was read.
        """
        regions, pool_backward = pool_regions(levels, self.config.strides, boxes, images, BOX_SIZE, context)
        outputs, head_backward = self.box_head.forward(regions, context)

        def backward(d_logits: np.ndarray, d_deltas: np.ndarray) -> OptionalMaps:
            return pool_backward(head_backward(d_logits, d_deltas))

        return outputs, backward

    def forward_masks(
        self, levels: Maps, boxes: np.ndarray, images: np.ndarray, context: Context
    ) -> tuple[np.ndarray, Backward]:
        """Mask logits (n, 28, 28, num_classes) of boxes (n, 4), each in its image; backward as that of the boxes."""
        regions, pool_backward = pool_regions(levels, self.config.strides, boxes, images, MASK_SIZE, context)
        logits, head_backward = self.mask_head.forward(regions, context)

        def backward(d_logits: np.ndarray) -> OptionalMaps:
            return pool_backward(head_backward(d_logits))

        return logits, backward

    def move(self, boxes: np.ndarray, deltas: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Boxes (..., 4) moved by deltas (..., 4), and clipped to an image of size (height, width)."""
        return ops.decode_boxes(deltas, anchors=boxes, stds=self.settings.stds, image_size=size)[0]

    def mask_probabilities(
        self, levels: Maps, boxes: np.ndarray, images: np.ndarray, labels: np.ndarray, context: Context
    ) -> np.ndarray:
        """The mask of its class for each box, (n, 28, 28)."""
        logits, _ = self.forward_masks(levels, boxes, images, context)
        return ops.sigmoid(logits[np.arange(len(boxes)), :, :, labels])[0]

    def loss(
        self, levels: Maps, sampled: RegionSample, targets: Sequence[BoxTargets], context: Context
    ) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray], Backward]:
        """The losses of classes, boxes and masks; the logits and deltas, for a stage that comes next; and backward.

        targets: with masks that are arrays of the images' size. `backward()` accumulates the gradients of both heads
        and returns a list with that of every level.
        """
        count, weight = len(sampled.boxes), self.settings.weight
        (logits, deltas), boxes_backward = self.forward_boxes(levels, sampled.boxes, sampled.images, context)
        own = sampled.positives, sampled.labels[sampled.positives]  # each positive's deltas for its own class
        class_loss, class_backward = context.apply(ops.cross_entropy, logits, targets=sampled.labels)
        box_loss, box_backward = self._box_loss(deltas[own], sampled, context)
        mask_loss, masks_backward = self._mask_loss(levels, sampled, targets, context)

        def backward() -> OptionalMaps:
            d_deltas = np.zeros_like(deltas)
            d_deltas[own] = box_backward(weight / count)
            return add_maps(boxes_backward(class_backward(weight), d_deltas), masks_backward(weight))

        losses = {"class": float(class_loss), "box": float(box_loss) / count, "mask": float(mask_loss)}
        return {name: weight * loss for name, loss in losses.items()}, (logits, deltas), backward

    def _box_loss(self, deltas: np.ndarray, sampled: RegionSample, context: Context) -> tuple[np.ndarray, Backward]:
        """The sum over the positives, from their deltas (p, 4); backward returns the gradient of these."""
        boxes, stds, giou_weight = sampled.boxes[sampled.positives], self.settings.stds, self.config.giou_weight
        if giou_weight == 0:
            wanted, _ = ops.encode_boxes(sampled.goals, anchors=boxes, stds=stds)
            return context.apply(ops.l1_loss, deltas, targets=wanted)
        moved, move_backward = context.apply(ops.decode_boxes, deltas, anchors=boxes, stds=stds)
        loss, loss_backward = context.apply(ops.giou_loss, moved, targets=sampled.goals)

        def backward(d_loss: float) -> np.ndarray:
            return move_backward(loss_backward(giou_weight * d_loss))

        return giou_weight * loss, backward

    def _mask_loss(
        self, levels: Maps, sampled: RegionSample, targets: Sequence[BoxTargets], context: Context
    ) -> tuple[np.ndarray, Backward]:
        """The mean over all pixels of the positives' masks of their class; backward returns the gradient of the levels.

        Without a positive the head looks at one region all the same, so that each of its parameters gets a gradient, 0.
        """
        some = sampled.positives if len(sampled.positives) else np.arange(1)
        images, labels = sampled.images[some], sampled.labels[some].clip(0, self.config.num_classes - 1)
        logits, masks_backward = self.forward_masks(levels, sampled.boxes[some], images, context)
        own = np.arange(len(some)), slice(None), slice(None), labels
        wanted = np.zeros(logits.shape[:3], bool)
        # each object that some region is to find, once; without a positive there are no objects
        for image, number in sorted({*zip(images.tolist(), sampled.objects.tolist(), strict=False)}):
            members = (images == image) & (sampled.objects == number)
            masks = targets[image].masks
            assert masks is not None
            wanted[members] = crop_mask(masks[number], sampled.boxes[some[members]], logits.shape[1], context)
        loss, loss_backward = context.apply(ops.binary_cross_entropy, logits[own], targets=wanted)
        scale = 1 / wanted.size if len(sampled.positives) else 0.0

        def backward(d_loss: float) -> OptionalMaps:
            d_logits = np.zeros_like(logits)
            d_logits[own] = loss_backward(scale * d_loss)
            return masks_backward(d_logits)

        return scale * loss, backward


def add_maps(maps: Sequence[np.ndarray | None], others: Sequence[np.ndarray | None]) -> OptionalMaps:
    """The sums of two lists of maps, in which None stands for zeros."""
    return [b if a is None else a if b is None else a + b for a, b in zip(maps, others, strict=True)]
