"""What Mask R-CNN and its cascade have in common: region proposals, and what becomes of the regions in the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .. import ops
from ..data.targets import BoxTargets
from ..errors import ShapeError
from ..models.pyramid import Maps
from ..nn import Backward, Context
from .anchors import base_anchors, level_anchors
from .detections import Detections, check_finite
from .detector import IOU_THRESHOLD, LIMIT, SCORE_THRESHOLD, Detector, Sizes, check_targets, image_sizes
from .mask_head import as_bitmap, paste_masks
from .proposals import RegionProposals, choose_proposals, proposal_loss
from .region_stage import RegionStage, add_maps
from .two_stage_config import TwoStageConfig


class TwoStageDetector(Detector):
    """images (B, H, W, 3), normalized floats -> what the region proposals say (`forward`), a loss, or detections.

    A subclass adds its region heads: `regions_loss` for training, `classify` and `mask_probabilities` for detection.
    """

    config: TwoStageConfig

    def __init__(self, config: TwoStageConfig, labels: list[str] | None = None) -> None:
        super().__init__(config, labels, pooled=config.pooled_level)
        self.proposals = RegionProposals(config.pyramid_channels, len(config.anchor_ratios))

    def forward(self, images: np.ndarray, context: Context) -> tuple[tuple[Maps, Maps], Backward]:
        """Two lists, a level each: logits of "here is an object" (B, H, W, anchors, 1), deltas (B, H, W, anchors, 4).

        Backward takes two such lists of gradients and returns d_images.
        """
        levels, levels_backward = self.levels(images, context)
        outputs, proposals_backward = self.proposals.forward(levels, context)

        def backward(d_logits: Maps, d_deltas: Maps) -> np.ndarray:
            return levels_backward(proposals_backward(d_logits, d_deltas))

        return outputs, backward if context.gradients else None  # type: ignore[return-value]

    def anchors(self, levels: Maps) -> Maps:
        """The anchors of every level, (H W anchors, 4)."""
        bases = (base_anchors(s, [self.config.anchor_scale], self.config.anchor_ratios) for s in self.config.strides)
        return [
            level_anchors(level.shape[1:3], stride, base.astype(self.dtype))
            for level, stride, base in zip(levels, self.config.strides, bases, strict=True)
        ]

    def propose(
        self, logits: Maps, deltas: Maps, sizes: Sizes, context: Context, *, per_level: int, count: int
    ) -> list[np.ndarray]:
        """The proposals of each image, (n, 4), best first, from the outputs of `forward`."""
        anchors = self.anchors(logits)
        return [
            choose_proposals(
                [of_level[i].reshape(-1) for of_level in logits],
                [of_level[i].reshape(-1, 4) for of_level in deltas],
                anchors,
                size,
                context,
                per_level=per_level,
                count=count,
            )[0]
            for i, size in enumerate(sizes)
        ]

    # --- training ---

    def loss(
        self, images: np.ndarray, targets: Sequence[BoxTargets], context: Context
    ) -> tuple[dict[str, float], Backward]:
        """The parts of the loss, which is their sum: of the proposals ("proposal_class", "proposal_box"), and of the
        regions' classes, boxes and masks ("class", "box", "mask", in a cascade "stage1_class", ...).

        targets: the objects of each image, with masks. Which anchors and regions have a part in it, is drawn from the
        context's generator. `backward()` accumulates the gradient of every parameter and returns d_images.
        Raises ShapeError for targets that do not fit the images or the classes, or lack masks.
        """
        check_targets(images, targets, self.config.num_classes)
        size = images.shape[1], images.shape[2]
        targets = [_with_bitmaps(target, i, size) for i, target in enumerate(targets)]
        levels, levels_backward = self.levels(images, context)
        (logits, deltas), proposals_backward = self.proposals.forward(levels, context)
        losses, loss_backward = proposal_loss(logits, deltas, self.anchors(levels), targets, size, self.config, context)
        proposals = self.propose(
            logits,
            deltas,
            [size] * len(images),
            context,
            per_level=self.config.training_proposals_per_level,
            count=self.config.training_proposals,
        )
        region_losses, regions_backward = self.regions_loss(levels, proposals, targets, size, context)

        def backward() -> np.ndarray:
            d_levels = proposals_backward(*loss_backward())
            return levels_backward(add_maps(d_levels, regions_backward()))

        return losses | region_losses, backward if context.gradients else None  # type: ignore[return-value]

    @property
    def region_stages(self) -> list[RegionStage]:
        """The region heads, in the order in which they look at the regions."""
        raise NotImplementedError

    def regions_loss(
        self,
        levels: Maps,
        proposals: Sequence[np.ndarray],
        targets: Sequence[BoxTargets],
        size: tuple[int, int],
        context: Context,
    ) -> tuple[dict[str, float], Backward]:
        """The losses of the region heads; `backward()` returns a list with the gradient of every level.

        proposals: (n, 4) of each image, through which no gradient passes; targets: with arrays of `size` for masks.
        """
        raise NotImplementedError

    # --- detection ---

    def detect(
        self,
        images: np.ndarray,
        sizes: Sizes | None = None,
        *,
        score_threshold: float = SCORE_THRESHOLD,
        iou_threshold: float = IOU_THRESHOLD,
        limit: int = LIMIT,
        scale_factors: Sequence[np.ndarray] | None = None,
        picture_sizes: Sizes | None = None,
    ) -> list[Detections]:
        """See `Detector.detect`; the masks are of `picture_sizes`. Raises ShapeError for another number of sizes,
        CheckpointError for scores that are not finite.
        """
        context = Context()
        images = np.asarray(images)
        sizes = image_sizes(images, sizes)
        picture_sizes = image_sizes(images, picture_sizes)
        scale_factors = [np.ones(4)] * len(images) if scale_factors is None else scale_factors
        levels, _ = self.levels(images, context)
        (logits, deltas), _ = self.proposals.forward(levels, context)
        check_finite(self.config.name, *logits)
        proposals = self.propose(
            logits, deltas, sizes, context, per_level=self.config.proposals_per_level, count=self.config.proposals
        )
        found = []
        for i, (probabilities, all_boxes) in enumerate(self.classify(levels, proposals, sizes, context)):
            region, label = np.nonzero(probabilities > score_threshold)
            scores, boxes = probabilities[region, label], all_boxes[region, label]
            best = context.choose(ops.class_nms)(boxes, scores, label, threshold=iou_threshold)[:limit]
            boxes, label = boxes[best], label[best]
            in_picture = boxes / scale_factors[i].astype(boxes.dtype)
            masks = np.zeros((0, *picture_sizes[i]), bool)
            if len(best):
                soft = self.mask_probabilities(levels, boxes, np.full(len(best), i), label, context)
                masks = paste_masks(soft, in_picture, picture_sizes[i])
            found.append(Detections(in_picture, scores[best], label, masks))
        return found

    def classify(
        self, levels: Maps, proposals: Sequence[np.ndarray], sizes: Sizes, context: Context
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each image the classes' probabilities, (n, num_classes), and boxes, (n, num_classes, 4)."""
        raise NotImplementedError

    def mask_probabilities(
        self, levels: Maps, boxes: np.ndarray, images: np.ndarray, labels: np.ndarray, context: Context
    ) -> np.ndarray:
        """The mask of its class for each box, (n, 28, 28); boxes (n, 4), images and labels (n,)."""
        raise NotImplementedError


def _with_bitmaps(target: BoxTargets, number: int, size: tuple[int, int]) -> BoxTargets:
    """The same objects, their masks as arrays of the images' size."""
    if len(target.boxes) and (target.masks is None or len(target.masks) != len(target.boxes)):
        found = "None" if target.masks is None else len(target.masks)
        raise ShapeError(f"targets[{number}]: masks: found {found}, expected {len(target.boxes)}, one a box")
    return BoxTargets(target.boxes, target.labels, [as_bitmap(mask, *size) for mask in target.masks or []])
