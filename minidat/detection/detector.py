"""What all detectors have in common: a backbone under a feature pyramid, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.targets import BoxTargets
from ..errors import ShapeError
from ..models.backbone import DenseBackbone
from ..models.pyramid import FeaturePyramid, Maps
from ..nn import Backward, Context, Module
from .config import DetectorConfig
from .detections import Detections

SCORE_THRESHOLD, IOU_THRESHOLD, LIMIT = 0.05, 0.5, 100  # the authors', for COCO

Sizes = Sequence[tuple[int, int]]


class Detector(Module):
    """images (B, H, W, 3), normalized floats of any size -> logits and box deltas, a loss, or detections.

    A subclass adds its heads, `forward`, `loss` and `detect`, and calls `set_paths` when it is complete. `labels` names
    the classes, by class number, or is None.
    """

    def __init__(self, config: DetectorConfig, labels: list[str] | None = None, *, pooled: bool = False) -> None:
        self.config = config
        self.labels = labels
        stages = config.backbone.stages[config.first_stage :]
        self.backbone = DenseBackbone(config.backbone, tuple(range(config.first_stage, len(config.backbone.stages))))
        self.pyramid = FeaturePyramid(
            [stage.dim for stage in stages],
            config.pyramid_channels,
            extra_levels=config.pyramid_levels - len(stages),
            pooled=pooled,
        )

    def set_paths(self) -> None:
        """Tell every module its dotted path."""
        for path, module in self.named_modules():
            module.path = path

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the weights, which images are converted to."""
        return self.backbone.dtype

    def levels(self, images: np.ndarray, context: Context) -> tuple[Maps, Backward]:
        """The pyramid's levels, fine to coarse; backward takes a list of gradients and returns d_images."""
        features, features_backward = self.backbone.forward(images, context)
        levels, pyramid_backward = self.pyramid.forward(features, context)

        def backward(d_levels: Maps) -> np.ndarray:
            return features_backward(pyramid_backward(d_levels))

        return levels, backward

    def loss(
        self, images: np.ndarray, targets: Sequence[BoxTargets], context: Context
    ) -> tuple[dict[str, float], Backward]:
        """The parts of the loss, which is their sum; `backward()` accumulates all gradients and returns d_images.

        targets: the objects of each image. Raises ShapeError for another number of targets.
        """
        raise NotImplementedError

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
        """The objects in each image, best first.

        sizes: (height, width) of each image inside its padding, None for the whole; score_threshold: what a score must
        exceed; iou_threshold: of two boxes of a class that overlap more, the better one stays; limit: at most so many
        objects. scale_factors: (4,) each, which boxes are divided by to bring them back to the picture that an image
        was made from; picture_sizes: (height, width) of these, the size of masks (None: that of the images).
        """
        raise NotImplementedError


def check_targets(images: np.ndarray, targets: Sequence[BoxTargets], num_classes: int) -> None:
    """Raise ShapeError unless there are targets for each image: boxes (n, 4) and labels (n,) in [0, num_classes)."""
    if len(targets) != len(images):
        raise ShapeError(f"targets: found {len(targets)}, expected {len(images)}, one an image")
    for i, target in enumerate(targets):
        boxes, labels = np.shape(target.boxes), np.shape(target.labels)
        if len(boxes) != 2 or boxes[1] != 4 or labels != boxes[:1]:
            raise ShapeError(f"targets[{i}]: found boxes {boxes} and labels {labels}, expected (n, 4) and (n,)")
        if labels[0] and not 0 <= np.min(target.labels) <= np.max(target.labels) < num_classes:
            found = f"{np.min(target.labels)} to {np.max(target.labels)}"
            raise ShapeError(f"targets[{i}]: labels: found {found}, expected 0 to {num_classes - 1}")


def image_sizes(images: np.ndarray, sizes: Sizes | None) -> Sizes:
    """`sizes`, or that of the images for each. Raises ShapeError for another number of them."""
    if sizes is None:
        return [(images.shape[1], images.shape[2])] * len(images)
    if len(sizes) != len(images):
        raise ShapeError(f"sizes: found {len(sizes)}, expected {len(images)}, one an image")
    return sizes
