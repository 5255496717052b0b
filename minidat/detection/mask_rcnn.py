"""Mask R-CNN: one look at every proposal (arXiv 1703.06870), on a feature pyramid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .. import ops
from ..data.targets import BoxTargets
from ..models.pyramid import Maps
from ..nn import Backward, Context
from .region_stage import RegionStage, sample_regions
from .two_stage import Sizes, TwoStageDetector
from .two_stage_config import MaskRCNNConfig


class MaskRCNN(TwoStageDetector):
    """A box head and a mask head on each region; see `TwoStageDetector` for what can be done with it."""

    def __init__(self, config: MaskRCNNConfig, labels: list[str] | None = None) -> None:
        super().__init__(config, labels)
        (settings,) = config.stages
        self.regions = RegionStage(config, settings)
        self.set_paths()

    @property
    def region_stages(self) -> list[RegionStage]:
        return [self.regions]

    def regions_loss(
        self,
        levels: Maps,
        proposals: Sequence[np.ndarray],
        targets: Sequence[BoxTargets],
        size: tuple[int, int],
        context: Context,
    ) -> tuple[dict[str, float], Backward]:
        sampled = sample_regions(proposals, targets, self.regions.settings, self.config, context)
        losses, _, backward = self.regions.loss(levels, sampled, targets, context)
        return losses, backward

    def classify(
        self, levels: Maps, proposals: Sequence[np.ndarray], sizes: Sizes, context: Context
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        images = np.repeat(np.arange(len(proposals)), [len(boxes) for boxes in proposals])
        boxes = np.concatenate(proposals)
        (logits, deltas), _ = self.regions.forward_boxes(levels, boxes, images, context)
        probabilities, _ = ops.softmax(logits)
        for i, own in enumerate(proposals):
            moved = self.regions.move(own[:, None], deltas[images == i], sizes[i])
            yield probabilities[images == i, :-1], moved  # (n, num_classes), (..., 4)

    def mask_probabilities(
        self,
        levels: Maps,
        boxes: np.ndarray,
        images: np.ndarray,
        labels: np.ndarray,
        context: Context,
    ) -> np.ndarray:
        return self.regions.mask_probabilities(levels, boxes, images, labels, context)
