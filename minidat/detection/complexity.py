"""How much a detector computes, part by part: multiply-adds, counted as in `minidat.models.complexity`."""

from __future__ import annotations

from collections import Counter

from ..models.complexity import Part, Size, backbone_parts, count_convolution, pyramid_part
from .retinanet import RetinaNet


def retinanet_parts(model: RetinaNet, image_size: Size) -> dict[str, Part]:
    """The parts of a RetinaNet by name, in order, for one image of (height, width); the model needs no values."""
    config = model.config
    sizes = [config.backbone.map_size(stage, image_size) for stage in model.backbone.out_indices]
    pyramid, levels = pyramid_part(model.pyramid, sizes)
    operations: Counter[str] = Counter()
    for tower in (model.head.classes, model.head.boxes):
        for conv in (*tower.convs, tower.output):
            for size in levels:
                operations += count_convolution(conv, size)
    return backbone_parts(model.backbone, image_size) | {
        "pyramid": pyramid,
        "head": Part(operations, (model.head,)),
    }
