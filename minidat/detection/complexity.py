"""How much a detector computes, part by part: multiply-adds, counted as in `minidat.models.complexity`."""

from __future__ import annotations

from collections import Counter

from ..models.complexity import Part, Size, backbone_parts, count_convolution, pyramid_part
from .region_stage import BOX_SIZE, MASK_SIZE, RegionStage
from .retinanet import RetinaNet
from .two_stage import TwoStageDetector

MASKS = 100  # detections an image whose masks are counted: the most there can be


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


def two_stage_parts(model: TwoStageDetector, image_size: Size) -> dict[str, Part]:
    """The parts of a Mask R-CNN or its cascade by name, in order, for one image of (height, width).

    With as many proposals as the config allows and 100 masks, as mmdetection counts it; RoIAlign is not counted.
    """
    config = model.config
    sizes = [config.backbone.map_size(stage, image_size) for stage in model.backbone.out_indices]
    pyramid, levels = pyramid_part(model.pyramid, sizes)
    proposals: Counter[str] = Counter()
    for conv in (model.proposals.conv, model.proposals.classifier, model.proposals.regressor):
        for size in levels:
            proposals += count_convolution(conv, size)
    regions: Counter[str] = Counter()
    for stage in model.region_stages:
        regions += _stage_operations(stage, config.proposals)
    return backbone_parts(model.backbone, image_size) | {
        "pyramid": pyramid,
        "region proposals": Part(proposals, (model.proposals,)),
        "region heads": Part(regions, tuple(model.region_stages)),
    }


def _stage_operations(stage: RegionStage, boxes: int) -> Counter[str]:
    """A box head on so many regions, and a mask head on MASKS of them, each region being a map in a column of them."""
    box_head, mask_head = stage.box_head, stage.mask_head
    operations: Counter[str] = Counter()
    for conv in box_head.convs:
        operations += count_convolution(conv.conv, (boxes * BOX_SIZE, BOX_SIZE))
    for linear in (*box_head.linears, box_head.classifier, box_head.regressor):
        operations["linear"] += boxes * linear.weight.size
    for layer in mask_head.convs:
        operations += count_convolution(layer, (MASKS * MASK_SIZE, MASK_SIZE))
    operations["convolution"] += MASKS * MASK_SIZE**2 * mask_head.upsampling.weight.size
    return operations + count_convolution(mask_head.classifier, (2 * MASKS * MASK_SIZE, 2 * MASK_SIZE))
