"""Detections as COCO's results files hold them (https://cocodataset.org/#format-results)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.labels import coco_category_ids, coco_labels
from ..data.masks import encode_rle
from .detections import Detection


def coco_results(detections: Sequence[Detection], image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """One object a detection, in the order given: image_id, category_id, bbox [x, y, w, h], score, segmentation (RLE)
    if it has a mask.

    category_ids: that of each class number.
    """
    results = []
    for found in detections:
        result = {
            "image_id": image_id,
            "category_id": category_ids[found.index],
            "bbox": corner_and_size(found),
            "score": found.score,
        }
        if found.mask is not None:
            result["segmentation"] = encode_rle(found.mask)
        results.append(result)
    return results


def category_ids(labels: Sequence[str] | None, num_classes: int) -> list[int]:
    """The category id of each class number: COCO's own for its 80 classes, else counted from 1."""
    if labels is not None and tuple(labels) == coco_labels():
        return list(coco_category_ids())
    return list(range(1, num_classes + 1))


def corner_and_size(found: Detection) -> list[float]:
    """The box as [x, y, w, h]."""
    x1, y1, x2, y2 = found.box
    return [x1, y1, x2 - x1, y2 - y1]
