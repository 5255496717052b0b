"""How much a segmentor computes, part by part: multiply-adds, counted as in `minidat.models.complexity`.

Batch normalization counts nothing: inference folds it into the convolution before. The auxiliary head is not run.
"""

from __future__ import annotations

from collections import Counter

from ..models.complexity import Part, Size, backbone_parts, count_convolution, pixels, pyramid_part
from ..nn import ConvNorm
from .semantic_fpn import SemanticFPN
from .upernet import UperNet

BILINEAR = 4  # an output element


def upernet_parts(model: UperNet, image_size: Size) -> dict[str, Part]:
    """The parts of an UperNet by name, in order, for one image of (height, width); the model needs no values."""
    head, config = model.decode_head, model.config
    sizes = [config.backbone.map_size(stage, image_size) for stage in model.backbone.out_indices]
    channels, dim = config.channels, config.backbone.stages[-1].dim
    operations = _conv_norm(head.pyramid_pooling.bottleneck, sizes[-1]) + _conv_norm(head.fusion, sizes[0])
    for scale, branch in zip(head.pyramid_pooling.scales, head.pyramid_pooling.branches, strict=True):
        operations += _conv_norm(branch, (scale, scale))
        operations += Counter({"pooling": pixels(sizes[-1]) * dim})
        operations += Counter({"sampling": BILINEAR * pixels(sizes[-1]) * channels})
    for size, lateral, smoothing in zip(sizes[:-1], head.laterals, head.smoothing, strict=True):
        operations += _conv_norm(lateral, size) + _conv_norm(smoothing, size)
        operations += Counter({"sampling": BILINEAR * pixels(size) * channels})  # brings the coarser one to this size
    operations += Counter({"sampling": BILINEAR * (len(sizes) - 1) * pixels(sizes[0]) * channels})
    operations += count_convolution(head.classifier, sizes[0])
    parts = backbone_parts(model.backbone, image_size) | {"head": Part(operations, (head,))}
    if model.auxiliary_head is not None:
        parts["auxiliary head"] = Part(Counter(), (model.auxiliary_head,))
    return parts


def semantic_fpn_parts(model: SemanticFPN, image_size: Size) -> dict[str, Part]:
    """The parts of a Semantic FPN by name, in order, for one image of (height, width); the model needs no values."""
    sizes = [model.config.backbone.map_size(stage, image_size) for stage in model.backbone.out_indices]
    pyramid, levels = pyramid_part(model.pyramid, sizes)
    operations: Counter[str] = Counter()
    channels = model.config.channels
    for level, scale_head in zip(levels, model.decode_head.scale_heads, strict=True):
        for i, conv in enumerate(scale_head.convs):
            size = level[0] * 2**i, level[1] * 2**i
            operations += _conv_norm(conv, size)
            if scale_head.steps > 0:
                operations += Counter({"sampling": BILINEAR * 4 * pixels(size) * channels})
    operations += Counter({"sampling": BILINEAR * (len(levels) - 1) * pixels(levels[0]) * channels})
    operations += count_convolution(model.decode_head.classifier, levels[0])
    return backbone_parts(model.backbone, image_size) | {
        "pyramid": pyramid,
        "head": Part(operations, (model.decode_head,)),
    }


def _conv_norm(layer: ConvNorm, output_size: Size) -> Counter[str]:
    return count_convolution(layer.conv, output_size)
