"""Cascade Mask R-CNN: several looks, each at the boxes that the one before has moved (arXiv 1712.00726, 1906.09756)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .. import ops
from ..data.targets import BoxTargets
from ..models.pyramid import Maps
from ..nn import Backward, Context
from .region_stage import RegionStage, add_maps, sample_regions
from .two_stage import Sizes, TwoStageDetector
from .two_stage_config import CascadeMaskRCNNConfig


class CascadeMaskRCNN(TwoStageDetector):
    """Three stages of region heads, each trained on regions that overlap their objects better than the last one's.

    A detection's class is that of the stages' mean logits, its box the last stage's, its mask the mean of all stages'.
    See `TwoStageDetector` for what can be done with it.
    """

    def __init__(self, config: CascadeMaskRCNNConfig, labels: list[str] | None = None) -> None:
        super().__init__(config, labels)
        self.stages = [RegionStage(config, settings) for settings in config.stages]
        self.set_paths()

    @property
    def region_stages(self) -> list[RegionStage]:
        return self.stages

    def regions_loss(
        self,
        levels: Maps,
        proposals: Sequence[np.ndarray],
        targets: Sequence[BoxTargets],
        size: tuple[int, int],
        context: Context,
    ) -> tuple[dict[str, float], Backward]:
        losses: dict[str, float] = {}
        backwards = []
        for number, stage in enumerate(self.stages, start=1):
            sampled = sample_regions(proposals, targets, stage.settings, self.config, context)
            stage_losses, (logits, deltas), stage_backward = stage.loss(levels, sampled, targets, context)
            losses |= {f"stage{number}_{name}": loss for name, loss in stage_losses.items()}
            backwards.append(stage_backward)
            # the next stage's proposals: no gradient passes through them, and objects' own boxes are left out
            labels = np.where(sampled.labels < self.config.num_classes, sampled.labels, _foreground(logits))
            moved = stage.move(sampled.boxes, deltas[np.arange(len(labels)), labels], size)
            proposals = [moved[(sampled.images == i) & ~sampled.is_object] for i in range(len(targets))]

        def backward() -> list[np.ndarray | None]:
            d_levels: list[np.ndarray | None] = [None] * len(levels)
            for stage_backward in backwards:
                d_levels = add_maps(d_levels, stage_backward())
            return d_levels

        return losses, backward

    def classify(
        self, levels: Maps, proposals: Sequence[np.ndarray], sizes: Sizes, context: Context
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        images = np.repeat(np.arange(len(proposals)), [len(boxes) for boxes in proposals])
        all_logits = []
        for stage in self.stages:
            boxes = np.concatenate(proposals)
            (logits, deltas), _ = stage.forward_boxes(levels, boxes, images, context)
            all_logits.append(logits)
            moved = []
            for i, own in enumerate(proposals):  # of an image, moved for each class
                moved.append(stage.move(own[:, None], deltas[images == i], sizes[i]))
            proposals = [_likeliest(m, logits[images == i]) for i, m in enumerate(moved)]
        probabilities, _ = ops.softmax(np.mean(all_logits, axis=0))
        for i, own in enumerate(moved):
            yield probabilities[images == i, :-1], own

    def mask_probabilities(
        self,
        levels: Maps,
        boxes: np.ndarray,
        images: np.ndarray,
        labels: np.ndarray,
        context: Context,
    ) -> np.ndarray:
        masks = [stage.mask_probabilities(levels, boxes, images, labels, context) for stage in self.stages]
        return np.mean(masks, axis=0)


def _likeliest(boxes: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Each region's box for its most probable class, (n, 4), from boxes (n, num_classes, 4)."""
    return boxes[np.arange(len(boxes)), _foreground(logits)]


def _foreground(logits: np.ndarray) -> np.ndarray:
    """The class of each region, (n,), the background excluded even where it is the most probable."""
    return logits[:, :-1].argmax(axis=1)
