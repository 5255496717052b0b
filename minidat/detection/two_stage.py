"""What Mask R-CNN and its cascade have in common: a backbone, a pyramid and region proposals, whose regions then get
classes, boxes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..data.targets import BoxTargets
from ..errors import ShapeError
from ..models.backbone import DenseBackbone
from ..nn import Backward, Context, Module
from .anchors import base_anchors, level_anchors
from .mask_head import as_bitmap, paste_masks
from .proposals import RegionProposals, choose_proposals, proposal_loss
from .region_stage import add_maps
from .pyramid import DetectionPyramid

Sizes = Sequence[tuple[int, int]]


class TwoStageDetector(Module):
    """images (B, H, W, 3), normalised floats -> what the region proposals say (`forward`), a loss, or detections.

    A subclass adds its region heads: `regions_loss` for training, `classify` and `mask_probabilities` for detection.
    `labels` names the classes, by class number, or is None.
    """

    def __init__(self, config: Any, labels: list[str] | None = None) -> None:
        self.config = config
        self.labels = labels
        self.backbone = DenseBackbone(config.backbone)
        dims = [stage.dim for stage in config.backbone.stages]
        self.pyramid = DetectionPyramid(dims, config.channels, config.pool)
        self.proposals = RegionProposals(config.channels, len(config.anchor_ratios))

    def set_paths(self) -> None:
        """Tell every module its dotted path; a subclass calls this when it is complete."""
        for path, module in self.named_modules():
            module.path = path

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the weights, which images are converted to."""
        return self.backbone.dtype

    def levels(self, images: np.ndarray, context: Context) -> tuple[list[np.ndarray], Backward]:
        """The pyramid's five levels, (B, H / stride, W / stride, channels), stride 4 to 64."""
        features, features_backward = self.backbone.forward(images, context)
        levels, pyramid_backward = self.pyramid.forward(features, context)
        return levels, lambda d_levels: features_backward(pyramid_backward(d_levels))

    def forward(self, images: np.ndarray, context: Context) -> tuple[tuple[list[np.ndarray], list[np.ndarray]], Backward]:
        """What the region proposals say: two lists, a level each: class logits (B, H, W, anchors, 1), of "there is an
        object", and box deltas (B, H, W, anchors, 4).

        Backward takes two such lists and returns d_images.
        """
        levels, levels_backward = self.levels(images, context)
        outputs, proposals_backward = self.proposals.forward(levels, context)

        def backward(d_logits: list[np.ndarray], d_deltas: list[np.ndarray]) -> np.ndarray:
            return levels_backward(proposals_backward(d_logits, d_deltas))

        return outputs, backward if context.gradients else None  # type: ignore[return-value]

    def anchors(self, levels: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The anchors of every level, (H W ratios, 4)."""
        config = self.config
        return [
            level_anchors(
                level.shape[1:3],
                stride,
                base_anchors(stride, (config.anchor_scale,), config.anchor_ratios, self.dtype),
            )
            for level, stride in zip(levels, config.strides, strict=True)
        ]

    # --- training ---

    def loss(
        self, images: np.ndarray, targets: Sequence[BoxTargets], context: Context
    ) -> tuple[dict[str, float], Backward]:
        """The parts of the loss, which is their sum, and a backward.

        targets: the objects of each image, masks included. The anchors and regions to train on are drawn from the
        context's generator. `backward()` accumulates the gradient of every parameter and returns d_images.
        Raises ShapeError for another number of targets, or objects without masks.
        """
        if len(targets) != len(images):
            raise ShapeError(f"targets: found {len(targets)}, expected {len(images)}, one an image")
        if any(target.masks is None and len(target.boxes) for target in targets):
            raise ShapeError("targets: masks: found None, expected a mask for each box")
        rng = context.rng if context.rng is not None else np.random.default_rng(0)
        size = images.shape[1], images.shape[2]
        levels, levels_backward = self.levels(images, context)
        (logits, deltas), proposals_backward = self.proposals.forward(levels, context)
        anchors, training = self.anchors(levels), self.config.proposal_training
        losses, loss_backward = proposal_loss(logits, deltas, anchors, targets, size, training, rng, context)
        boxes = self.propose(logits, deltas, anchors, [size] * len(images), self.config.training_proposals)
        bitmaps = [np.stack([as_bitmap(mask, *size) for mask in t.masks]) if t.masks else None for t in targets]
        region_losses, regions_backward = self.regions_loss(levels, boxes, targets, bitmaps, rng, context)

        def backward() -> np.ndarray:
            d_levels = add_maps(proposals_backward(*loss_backward()), regions_backward())
            return levels_backward(d_levels)

        return {**losses, **region_losses}, backward if context.gradients else None  # type: ignore[return-value]

    def propose(self, logits, deltas, anchors, sizes, config) -> list[np.ndarray]:
        """The proposals of every image, (n, 4), from the outputs of `forward`."""
        return [
            choose_proposals(
                [x[i].reshape(-1) for x in logits], [x[i].reshape(-1, 4) for x in deltas], anchors, size, config
            )[0]
            for i, size in enumerate(sizes)
        ]

    def regions_loss(self, levels, proposals, targets, bitmaps, rng, context):
        raise NotImplementedError

    # --- detection ---

    def detect(
        self,
        images: np.ndarray,
        sizes: Sizes | None = None,
        *,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        limit: int = 100,
        scale_factors=None,
        picture_sizes=None,
    ):
        images = np.asarray(images)
        context = Context()
        sizes = [images.shape[1:3]] * len(images) if sizes is None else sizes
        levels, _ = self.levels(images, context)
        (logits, deltas), _ = self.proposals.forward(levels, context)
        proposals = self.propose(logits, deltas, self.anchors(levels), sizes, self.config.proposals)
        found = []
        for i, (probabilities, boxes) in enumerate(self.classify(levels, proposals, sizes, context)):
            region, label = np.nonzero(probabilities > score_threshold)
            scores = probabilities[region, label]
            kept = ops.class_nms(boxes[region, label], scores, label, threshold=iou_threshold)[:limit]
            boxes, labels, scores = boxes[region[kept], label[kept]], label[kept], scores[kept]
            images_ = np.full(len(boxes), i)
            scale = 1 if scale_factors is None else scale_factors[i]
            size = sizes[i] if picture_sizes is None else picture_sizes[i]
            masks = np.zeros((0, *size), bool)
            if len(boxes):
                probabilities = self.mask_probabilities(levels, boxes, images_, labels, context)
                masks = paste_masks(probabilities, boxes / scale, size)
            found.append((boxes / scale, scores, labels, masks))
        return found
