"""Small detectors and generated pictures for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidat import BoxTargets
from minidat.detection import CascadeMaskRCNNConfig, Detections, MaskRCNNConfig, RetinaNetConfig
from minidat.models import DeformableConfig, ModelConfig, StageConfig
from minidat.ops import box_iou

SQUARE, DISK = 0, 1
SMALL_REGIONS: dict[str, Any] = {
    "num_classes": 2,
    "image_size": (64, 64),
    "resize_size": (64, 64),
    "pyramid_levels": 4,
    "pyramid_channels": 32,
    "anchor_scale": 4.0,
    "anchor_sample": 64,
    "proposals_per_level": 100,
    "proposals": 50,
    "training_proposals_per_level": 100,
    "training_proposals": 100,
    "region_sample": 64,
    "box_features": 64,
    "mask_convolutions": 2,
}


def small_backbone() -> ModelConfig:
    """Window attention and, in two stages, deformable attention, for images of about 64 x 64 pixels."""
    deformable = DeformableConfig(groups=2, kernel=3)
    stages = (
        StageConfig(16, 2, ("window",), window=4),
        StageConfig(32, 2, ("window",), window=4),
        StageConfig(48, 2, ("window", "deformable"), window=4, deformable=deformable),
        StageConfig(48, 2, ("deformable",), window=4, deformable=deformable),
    )
    return ModelConfig("small_backbone", (64, 64), 2, stages, resize_size=64, mlp_ratio=2)


def small_retinanet(**changes: Any) -> RetinaNetConfig:
    """A RetinaNet of 300,000 parameters for squares and disks on 64 x 64 pixels."""
    config = RetinaNetConfig(
        "small_retinanet",
        small_backbone(),
        num_classes=2,
        image_size=(64, 64),
        resize_size=(64, 64),
        first_stage=0,
        pyramid_levels=4,
        pyramid_channels=32,
        head_convolutions=1,
        anchor_scales=(3.0, 4.5),
    )
    return config.replace(**changes)


def small_mask_rcnn(**changes: Any) -> MaskRCNNConfig:
    """A Mask R-CNN of 270,000 parameters for squares and disks on 64 x 64 pixels."""
    return MaskRCNNConfig("small_mask_rcnn", small_backbone(), **SMALL_REGIONS).replace(**changes)


def small_cascade(**changes: Any) -> CascadeMaskRCNNConfig:
    """Its cascade."""
    config = CascadeMaskRCNNConfig("small_cascade", small_backbone(), **SMALL_REGIONS, box_convolutions=1)
    return config.replace(**changes)


def generated_pictures(number: int, seed: int = 0) -> tuple[np.ndarray, list[BoxTargets]]:
    """Pictures (number, 64, 64, 3) of noise with two colored squares or disks each, apart, and where they are."""
    rng = np.random.default_rng(seed)
    pictures = rng.normal(0, 0.1, (number, 64, 64, 3)).astype(np.float32)
    targets = []
    for picture in pictures:
        boxes: list[np.ndarray] = []
        labels: list[int] = []
        masks: list[np.ndarray] = []
        while len(boxes) < 2:
            side = int(rng.integers(12, 28))
            x, y = (int(start) for start in rng.integers(0, 64 - side, 2))
            box = np.array([x, y, x + side, y + side], np.float32)
            if boxes and box_iou(box, np.array(boxes))[0].any():
                continue
            label, color = int(rng.integers(2)), rng.uniform(1, 2, 3) * rng.choice([-1, 1])
            steps = (np.arange(side) + 0.5) / side - 0.5
            inside = (steps[:, None] ** 2 + steps**2 <= 0.25) | (label == SQUARE)
            picture[y : y + side, x : x + side][inside] = color
            boxes.append(box)
            labels.append(label)
            masks.append(np.zeros((64, 64), bool))
            masks[-1][y : y + side, x : x + side] = inside
        targets.append(BoxTargets(np.array(boxes), np.array(labels), list(masks)))
    return pictures, targets


def average_precision(found: list[Detections], targets: list[BoxTargets], *, iou: float = 0.5) -> float:
    """The mean over the classes of the precision at 101 recalls, a detection being right at this IoU (COCO's AP50)."""
    precisions = []
    for label in np.unique(np.concatenate([target.labels for target in targets])):
        rows, objects = [], 0
        for detections, target in zip(found, targets, strict=True):
            boxes = target.boxes[target.labels == label]
            free = np.ones(len(boxes), bool)
            objects += len(boxes)
            own = detections.labels == label
            for box, score in zip(detections.boxes[own], detections.scores[own], strict=True):
                overlaps = np.where(free, box_iou(box, boxes)[0], -1)
                right = bool(len(boxes)) and overlaps.max() >= iou
                if right:
                    free[overlaps.argmax()] = False
                rows.append((-float(score), right))
        rights = np.cumsum([right for _, right in sorted(rows)])
        precision, recall = rights / np.arange(1, len(rows) + 1), rights / objects
        precisions.append(np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]))
    return float(np.mean(precisions))
