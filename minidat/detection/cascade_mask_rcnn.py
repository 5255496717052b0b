"""Cascade Mask R-CNN: several looks, each at the boxes that the one before has moved (arXiv 1712.00726, 1906.09756)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .. import ops
from ..data.targets import BoxTargets
from ..nn import Backward, Context
from .config import CascadeMaskRCNNConfig
from .region_stage import RegionStage, add_maps, sample_regions
from .two_stage import Sizes, TwoStageDetector


class CascadeMaskRCNN(TwoStageDetector):
    """Three stages of region heads, each trained on regions that overlap their objects better than the last one's.

    A detection's class is that of the stages' mean logits, its box the last stage's, its mask the mean of all stages'.
    See `TwoStageDetector` for what can be done with it.
    """

    def __init__(self, config: CascadeMaskRCNNConfig, labels: list[str] | None = None) -> None:
        super().__init__(config, labels)
        self.stages = [RegionStage(config, stage) for stage in config.stages]
        self.set_paths()

    def regions_loss(
        self,
        levels: Sequence[np.ndarray],
        proposals: Sequence[np.ndarray],
        targets: Sequence[BoxTargets],
        size: tuple[int, int],
        context: Context,
    ) -> tuple[dict[str, float], Backward]:
        losses: dict[str, float] = {}
        backwards = []
        for number, stage in enumerate(self.stages, start=1):
            sampled = sample_regions(proposals, targets, stage.config, self.config, context)
            stage_losses, (logits, deltas), stage_backward = stage.loss(levels, sampled, targets, size, context)
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
        self, levels: Sequence[np.ndarray], proposals: Sequence[np.ndarray], sizes: Sizes, context: Context
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        images = np.repeat(np.arange(len(proposals)), [len(boxes) for boxes in proposals])
        all_logits = []
        for stage in self.stages:
            (logits, deltas), _ = stage.forward_boxes(levels, np.concatenate(proposals), images, context)
            all_logits.append(logits)
            moved = [
                stage.move(boxes[:, None], deltas[images == i], sizes[i])  # (n, num_classes, 4)
                for i, boxes in enumerate(proposals)
            ]
            best = _foreground(logits)
            proposals = [boxes[np.arange(len(boxes)), best[images == i]] for i, boxes in enumerate(moved)]
        probabilities, _ = ops.softmax(sum(all_logits) / len(self.stages))
        for i, boxes in enumerate(moved):
            yield probabilities[images == i, :-1], boxes

    def mask_probabilities(
        self,
        levels: Sequence[np.ndarray],
        boxes: np.ndarray,
        images: np.ndarray,
        labels: np.ndarray,
        context: Context,
    ) -> np.ndarray:
        return sum(s.mask_probabilities(levels, boxes, images, labels, context) for s in self.stages) / len(self.stages)


def _foreground(logits: np.ndarray) -> np.ndarray:
    """The class of each region, (n,), the background excluded even where it is the most probable."""
    return logits[:, :-1].argmax(axis=1)
