"""How much a model computes: multiply-adds, counted by walking the model, without running it.

The rule is fvcore's, the one behind the papers' GFLOPs: a multiply-add counts 1 in every convolution, linear layer and
attention product; layer norm 5 an element; bilinear sampling 4 an output element, repeating the nearest pixel 1; the
final pooling 1 an input element; GELU, softmax and additions nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, cast

from ..nn import Conv2d, LayerNorm, Linear, Module
from .backbone import Backbone, DenseBackbone
from .block import Block, Stage
from .dat import DAT
from .deformable_attention import DeformableAttention
from .mlp import MLP
from .neighborhood_attention import NeighborhoodAttention
from .patch_embedding import ConvolutionalPatchEmbedding, Downsampling, PatchEmbedding
from .pyramid import FeaturePyramid
from .window_attention import WindowAttention

Size = tuple[int, int]
KINDS = ("convolution", "linear", "attention", "layer norm", "sampling", "pooling")


class Part(NamedTuple):
    """A part of a network: multiply-adds by kind (KINDS), its modules, and the stage it is, 0 to 3, or None."""

    operations: Counter[str]
    modules: tuple[Module, ...]
    stage: int | None = None


def count_operations(model: DAT, image_size: Size | None = None) -> dict[str, Counter[str]]:
    """Multiply-adds for one image of `image_size` (height, width; default: the config's), by part and by kind.

    -> {"patch embedding": {kind: number}, "stage 1": ..., ..., "classifier": ...}, kinds as in KINDS. A stage includes
    the down-sampling in front of it. The model needs no values.
    """
    parts = classifier_parts(model, image_size or model.config.image_size)
    return {name: part.operations for name, part in parts.items()}


def classifier_parts(model: DAT, image_size: Size) -> dict[str, Part]:
    """The parts of a classifier by name, in order; the model needs no values."""
    size, dim = model.config.map_size(3, image_size), model.config.stages[-1].dim
    pooling = Counter({"pooling": pixels(size) * dim})
    operations = _norm(model.norm, pixels(size)) + pooling + _linear(model.head, 1)
    return backbone_parts(model, image_size) | {"classifier": Part(operations, (model.norm, model.head))}


def backbone_parts(model: Backbone, image_size: Size) -> dict[str, Part]:
    """The parts of a backbone: a stage includes the down-sampling before it and, if its map is used, the norm after."""
    parts = {"patch embedding": Part(_embedding(model.patch_embedding, image_size), (model.patch_embedding,))}
    for i, stage in enumerate(model.stages):
        size = model.config.map_size(i, image_size)
        operations, modules = _stage(stage, size), [cast(Module, stage)]
        if i > 0:
            operations += _downsampling(model.downsamplings[i - 1], size)
            modules.append(model.downsamplings[i - 1])
        norm = model.norms[i] if isinstance(model, DenseBackbone) else None
        if norm is not None:
            operations += _norm(norm, pixels(size))
            modules.append(norm)
        parts[f"stage {i + 1}"] = Part(operations, tuple(modules), i)
    return parts


def pyramid_part(pyramid: FeaturePyramid, sizes: list[Size]) -> tuple[Part, list[Size]]:
    """A feature pyramid on maps of `sizes`, and the sizes of its levels."""
    levels = list(sizes)
    while len(levels) < len(sizes) + pyramid.extra_levels:
        levels.append(_divided(levels[-1], 2))
    operations: Counter[str] = Counter()
    for conv, size in zip(pyramid.laterals, sizes, strict=True):
        operations += count_convolution(conv, size)
    for conv, size in zip(pyramid.outputs, levels, strict=False):  # a pooled level has none
        operations += count_convolution(conv, size)
    channels = pyramid.outputs[0].weight.shape[0]
    operations["sampling"] += sum(pixels(size) * channels for size in sizes[:-1])
    return Part(operations, (pyramid,)), levels


def count_convolution(layer: Conv2d, output_size: Size) -> Counter[str]:
    """One for each weight and output pixel."""
    return Counter({"convolution": pixels(output_size) * layer.weight.size})


def pixels(size: Size) -> int:
    """How many pixels a map of this size has."""
    return size[0] * size[1]


def _linear(layer: Linear, tokens: int) -> Counter[str]:
    return Counter({"linear": tokens * layer.weight.size})


def _norm(layer: LayerNorm, tokens: int) -> Counter[str]:
    return Counter({"layer norm": 5 * tokens * layer.weight.size})


def _attention_products(each: int) -> Counter[str]:
    """Queries with keys, and probabilities with values: two products of `each` multiply-adds.

    fvcore reads the size of these off a report of NumPy's that shows the floating-point operations, twice as many, with
    four significant digits. So it is done here, for the sake of figures equal to the published ones.
    """
    return Counter({"attention": 2 * int(float(f"{2 * each:.3e}") // 2)})


def _embedding(module: PatchEmbedding | ConvolutionalPatchEmbedding, image: Size) -> Counter[str]:
    if isinstance(module, PatchEmbedding):
        tokens = _divided(image, module.projection.stride)
        return count_convolution(module.projection, tokens) + _norm(module.norm, pixels(tokens))
    middle = _divided(image, module.conv1.stride)
    tokens = _divided(middle, module.conv2.stride)
    first = count_convolution(module.conv1, middle) + _norm(module.norm1, pixels(middle))
    return first + count_convolution(module.conv2, tokens) + _norm(module.norm2, pixels(tokens))


def _downsampling(module: Downsampling, output_size: Size) -> Counter[str]:
    return count_convolution(module.reduction, output_size) + _norm(module.norm, pixels(output_size))


def _stage(stage: Stage, size: Size) -> Counter[str]:
    return sum((_block(block, size) for block in stage.blocks), Counter())


def _block(block: Block, size: Size) -> Counter[str]:
    operations = _norm(block.norm1, pixels(size)) + _norm(block.norm2, pixels(size)) + _mlp(block.mlp, size)
    if block.perception is not None:
        operations += count_convolution(block.perception, size)
    if isinstance(block.attention, DeformableAttention):
        return operations + _deformable_attention(block.attention, size)
    if isinstance(block.attention, NeighborhoodAttention):
        return operations + _neighborhood_attention(block.attention, size)
    assert isinstance(block.attention, WindowAttention)
    return operations + _window_attention(block.attention, size)


def _mlp(mlp: MLP, size: Size) -> Counter[str]:
    operations = _linear(mlp.fc1, pixels(size)) + _linear(mlp.fc2, pixels(size))
    return operations + count_convolution(mlp.depthwise, size) if mlp.depthwise else operations


def _window_attention(attention: WindowAttention, size: Size) -> Counter[str]:
    """Two products of each token with the w x w tokens of its window, on the padded map."""
    windows = _divided(size, attention.window)
    tokens = pixels(windows) * attention.window**2
    dim = attention.projection.weight.shape[0]
    products = _attention_products(tokens * attention.window**2 * dim)
    return products + _linear(attention.qkv, tokens) + _linear(attention.projection, tokens)


def _neighborhood_attention(attention: NeighborhoodAttention, size: Size) -> Counter[str]:
    """Two products of each token with its k x k neighbors, on the map padded to at least k x k."""
    tokens = pixels((max(size[0], attention.kernel), max(size[1], attention.kernel)))
    dim = attention.projection.weight.shape[0]
    products = _attention_products(tokens * attention.kernel**2 * dim)
    return products + _linear(attention.qkv, tokens) + _linear(attention.projection, tokens)


def _deformable_attention(attention: DeformableAttention, size: Size) -> Counter[str]:
    """Four projections, the offset network for each group, and the samples of the map and of the bias table."""
    config, queries = attention.config, pixels(size)
    dim = attention.projection.weight.shape[0]
    samples_size = attention.sample_grid(size)
    samples = pixels(samples_size)
    operations = Counter({"attention": 2 * queries * samples * dim})
    # the authors write these four as 1x1 convolutions
    for layer, tokens in (
        (attention.query, queries),
        (attention.key, samples),
        (attention.value, samples),
        (attention.projection, queries),
    ):
        operations["convolution"] += tokens * layer.weight.size
    if config.offsets:
        operations["sampling"] += 4 * samples * dim
        offsets = count_convolution(attention.offset_conv, samples_size) + _norm(attention.offset_norm, samples)
        offsets["convolution"] += samples * attention.offset_projection.weight.size
        operations += Counter({kind: config.groups * number for kind, number in offsets.items()})
    if config.position_encoding == "relative":
        operations["sampling"] += 4 * attention.heads * queries * samples
    elif config.position_encoding == "depthwise":
        operations += count_convolution(attention.position_conv, size)
    elif config.position_encoding == "log_mlp":
        pairs = config.groups * queries * samples
        operations += _linear(attention.position_mlp.hidden, pairs) + _linear(attention.position_mlp.output, pairs)
    return operations


def _divided(size: Size, by: int) -> Size:
    """Rounded up on both axes."""
    return -(-size[0] // by), -(-size[1] // by)
