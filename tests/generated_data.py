"""Data sets in folders, with generated pictures, for detectors and segmentors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .small_detectors import generated_pictures

CLASSES = ("square", "disk")
SURFACES = ("sky", "ground", "ball")


def write_detection_data(root: Path, *, training: int = 8, validation: int = 4, masks: bool = False) -> Path:
    """Squares and disks on 64 x 64 pixels, cut to several sizes, with COCO's JSON: splits train and val."""
    for split, count, seed in (("train", training, 0), ("val", validation, 1)):
        pictures, targets = generated_pictures(count, seed)
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        images, annotations = [], []
        for i, (picture, target) in enumerate(zip(pictures, targets, strict=True)):
            height, width = 64 - 4 * (i % 2), 64
            pixels = np.clip(picture[:height, :width] * 50 + 128, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{i}.png")
            images.append({"id": 10 + i, "file_name": f"{i}.png", "height": height, "width": width})
            for box, label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True):
                x1, y1, x2, y2 = box[0], box[1], box[2], min(box[3], height)
                if y2 - y1 < 8:
                    continue
                annotation = {
                    "id": len(annotations) + 1, "image_id": 10 + i, "category_id": 5 + label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0,
                }  # fmt: skip
                if masks:
                    annotation["segmentation"] = [[x1, y1, x2, y1, x2, y2, x1, y2]]
                annotations.append(annotation)
        categories = [{"id": 5 + i, "name": name} for i, name in enumerate(CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def write_segmentation_data(root: Path, *, training: int = 8, validation: int = 4) -> Path:
    """Sky, ground and a ball on about 64 x 64 pixels, some of them without a class: splits train and val."""
    colors = np.array([[80, 140, 230], [90, 160, 60], [220, 80, 60]])
    for split, count, seed in (("train", training, 0), ("val", validation, 1)):
        rng = np.random.default_rng(seed)
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            y, x = np.mgrid[: 64 - 3 * (i % 2), :64]
            labels = (y > 32 + rng.uniform(-0.5, 0.5) * (x - 32)).astype(np.uint8)
            center = rng.uniform(20, 44, 2)
            labels[(y - center[0]) ** 2 + (x - center[1]) ** 2 < 14**2] = 2
            picture = np.clip(colors[labels] + rng.normal(0, 12, (*labels.shape, 3)), 0, 255).astype(np.uint8)
            labels[0] = 255
            Image.fromarray(picture).save(root / "images" / split / f"{i}.png")
            Image.fromarray(labels).save(root / "labels" / split / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(SURFACES) + "\n")
    return root
