"""The authors' names of the weights, and ours: one table, used both ways.

The authors keep parallel lists in a stage (`layer_norms`, `attns`, `mlps`), ours keep everything of a block together.
Their 1x1 convolutions, (D, C, 1, 1), are our linear layers, (D, C). In a detector or segmentor the backbone's names
begin with `backbone.`, and the heads' are those of mmdetection and mmsegmentation. This file is the only place that
knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..errors import CheckpointError
from .archive import one_line

# The table. A section: what its names begin with, the authors' and ours, then one row a kind of parameter: how the
# authors' name goes on, how ours does, and whether theirs is a 1x1 convolution where ours is linear.
# {s} is a stage, {b} a block, {2b} and {2b+1} its branches, {i} a step between two stages; * is weight or bias.
# In the heads, {n} is any number, and # is weight, bias or one of the running statistics.
Section = tuple[str, str, tuple[tuple[str, str, str], ...]]


def _conv_norm(authors: str, ours: str) -> tuple[tuple[str, str, str], ...]:
    """The rows of a convolution and its batch normalization (mmcv's ConvModule)."""
    return (f"{authors}.conv.weight", f"{ours}.conv.weight", ""), (f"{authors}.bn.#", f"{ours}.norm.#", "")


def _region_heads(stage: str, ours: str) -> tuple[tuple[str, str, str], ...]:
    """The rows of a box head and a mask head, whose authors' names have a number in a cascade."""
    return (
        *_conv_norm(f"bbox_head{stage}.shared_convs.{{n}}", f"{ours}.box_head.convs.{{n}}"),
        (f"bbox_head{stage}.shared_fcs.{{n}}.*", f"{ours}.box_head.linears.{{n}}.*", ""),
        (f"bbox_head{stage}.fc_cls.*", f"{ours}.box_head.classifier.*", ""),
        (f"bbox_head{stage}.fc_reg.*", f"{ours}.box_head.regressor.*", ""),
        (f"mask_head{stage}.convs.{{n}}.conv.*", f"{ours}.mask_head.convs.{{n}}.*", ""),
        (f"mask_head{stage}.upsample.*", f"{ours}.mask_head.upsampling.*", ""),
        (f"mask_head{stage}.conv_logits.*", f"{ours}.mask_head.classifier.*", ""),
    )


TABLE: dict[str, Section] = {
    "plain patches": (
        "patch_proj.", "patch_embedding.", (
            ("0.*", "projection.*", ""),
            ("1.norm.*", "norm.*", ""),
        ),
    ),
    "convolutional patches": (
        "patch_proj.", "patch_embedding.", (
            ("0.*", "conv1.*", ""),
            ("1.norm.*", "norm1.*", ""),
            ("3.*", "conv2.*", ""),
            ("4.norm.*", "norm2.*", ""),
        ),
    ),
    "window": (
        "stages.{s}.attns.{b}.", "stages.{s}.blocks.{b}.attention.", (
            ("proj_qkv.*", "qkv.*", ""),
            ("proj_out.*", "projection.*", ""),
            ("relative_position_bias_table", "relative_position_bias_table", ""),
        ),
    ),
    "neighborhood": (
        "stages.{s}.attns.{b}.", "stages.{s}.blocks.{b}.attention.", (
            ("qkv.*", "qkv.*", ""),
            ("proj.*", "projection.*", ""),
            ("rpb", "relative_position_bias_table", ""),
        ),
    ),
    "deformable": (
        "stages.{s}.attns.{b}.", "stages.{s}.blocks.{b}.attention.", (
            ("proj_q.*", "query.*", "1x1"),
            ("proj_k.*", "key.*", "1x1"),
            ("proj_v.*", "value.*", "1x1"),
            ("proj_out.*", "projection.*", "1x1"),
            ("conv_offset.0.*", "offset_conv.*", ""),
            ("conv_offset.1.norm.*", "offset_norm.*", ""),
            ("conv_offset.3.weight", "offset_projection.weight", "1x1"),
            ("rpe_table", "relative_position_bias_table", ""),
            ("rpe_table", "fixed_position_bias", ""),
            ("rpe_table.*", "position_conv.*", ""),
            ("rpe_table.0.*", "position_mlp.hidden.*", ""),
            ("rpe_table.2.weight", "position_mlp.output.weight", ""),
        ),
    ),
    "plain mlp": (
        "stages.{s}.mlps.{b}.", "stages.{s}.blocks.{b}.mlp.", (
            ("chunk.linear1.*", "fc1.*", ""),
            ("chunk.linear2.*", "fc2.*", ""),
        ),
    ),
    "convolutional mlp": (
        "stages.{s}.mlps.{b}.", "stages.{s}.blocks.{b}.mlp.", (
            ("linear1.0.*", "fc1.*", "1x1"),
            ("linear2.0.*", "fc2.*", "1x1"),
            ("dwc.*", "depthwise.*", ""),
        ),
    ),
    "rest of a block": (
        "stages.{s}.", "stages.{s}.blocks.{b}.", (
            ("layer_norms.{2b}.norm.*", "norm1.*", ""),
            ("layer_norms.{2b+1}.norm.*", "norm2.*", ""),
            ("layer_scales.{2b}.weight", "scale1.weight", ""),
            ("layer_scales.{2b+1}.weight", "scale2.weight", ""),
            ("local_perception_units.{b}.*", "perception.*", ""),
        ),
    ),
    "rest": (
        "", "", (
            ("down_projs.{i}.0.weight", "downsamplings.{i}.reduction.weight", ""),
            ("down_projs.{i}.1.norm.*", "downsamplings.{i}.norm.*", ""),
            ("norms.{s}.norm.*", "norms.{s}.*", ""),
            ("cls_norm.norm.*", "norm.*", ""),
            ("cls_head.*", "head.*", ""),
        ),
    ),
}  # fmt: skip
BACKBONE = "backbone."
HEADS: dict[str, Section] = {
    "feature pyramid": (
        "neck.", "pyramid.", (
            ("lateral_convs.{n}.conv.*", "laterals.{n}.*", ""),
            ("fpn_convs.{n}.conv.*", "outputs.{n}.*", ""),
        ),
    ),
    "RetinaNet": (
        "bbox_head.", "head.", (
            ("cls_convs.{n}.conv.*", "classes.convs.{n}.*", ""),
            ("retina_cls.*", "classes.output.*", ""),
            ("reg_convs.{n}.conv.*", "boxes.convs.{n}.*", ""),
            ("retina_reg.*", "boxes.output.*", ""),
        ),
    ),
    "region proposals": (
        "rpn_head.", "proposals.", (
            ("rpn_conv.*", "conv.*", ""),
            ("rpn_cls.*", "classifier.*", ""),
            ("rpn_reg.*", "regressor.*", ""),
        ),
    ),
    "Mask R-CNN and its cascade": (
        "roi_head.", "", (
            *_region_heads("", "regions"),
            *_region_heads(".{s}", "stages.{s}"),
        ),
    ),
    "UperNet and Semantic FPN": (
        "decode_head.", "decode_head.", (
            *_conv_norm("psp_modules.{n}.1", "pyramid_pooling.branches.{n}"),
            *_conv_norm("bottleneck", "pyramid_pooling.bottleneck"),
            *_conv_norm("lateral_convs.{n}", "laterals.{n}"),
            *_conv_norm("fpn_convs.{n}", "smoothing.{n}"),
            *_conv_norm("fpn_bottleneck", "fusion"),
            *_conv_norm("scale_heads.{s}.{2b}", "scale_heads.{s}.convs.{b}"),
            ("conv_seg.*", "classifier.*", ""),
        ),
    ),
    "auxiliary head": (
        "auxiliary_head.", "auxiliary_head.", (
            *_conv_norm("convs.0", "conv"),
            ("conv_seg.*", "classifier.*", ""),
        ),
    ),
}  # fmt: skip
STEPS_SEEN = "num_batches_tracked"  # a batch normalization's count, for an average nobody uses
# Not learned, and recomputed by our modules; the last two are of older versions of the authors' code.
BUFFERS = ("relative_position_index", "attn_mask", "q_grid", "reference")


@dataclass(frozen=True)
class _Row:
    """One row of the table, ready to match: patterns and templates of both names, and which branch of a block."""

    authors: re.Pattern[str]
    ours: re.Pattern[str]
    authors_template: str
    ours_template: str
    branch: int | None
    pointwise: bool

    def to_ours(self, name: str) -> str | None:
        """Our name for the authors' `name`, None if it is not of this row."""
        match = self.authors.fullmatch(name)
        if match is None:
            return None
        parts = match.groupdict()
        if self.branch is not None:
            block, branch = divmod(int(parts["n"]), 2)
            if branch != self.branch:
                return None
            parts["b"] = str(block)
        return self.ours_template.format(**parts)

    def to_authors(self, name: str) -> str | None:
        match = self.ours.fullmatch(name)
        if match is None:
            return None
        parts = match.groupdict()
        if self.branch is not None:
            parts["n"] = str(2 * int(parts["b"]) + self.branch)
        return self.authors_template.format(**parts)


@cache
def _section(title: str) -> tuple[_Row, ...]:
    """The rows of a section of the table."""
    their_start, our_start, section = (TABLE | HEADS)[title]
    rows = []
    for authors, ours, kind in section:
        branch = 1 if "{2b+1}" in authors else 0 if "{2b}" in authors else None
        templates = [
            name.replace("{2b}", "{n}").replace("{2b+1}", "{n}").replace("*", "{leaf}").replace("#", "{norm}")
            for name in (their_start + authors, our_start + ours)
        ]
        patterns = [re.compile(_pattern(template)) for template in templates]
        rows.append(_Row(patterns[0], patterns[1], templates[0], templates[1], branch, kind == "1x1"))
    return tuple(rows)


def _pattern(template: str) -> str:
    numbers = {"s": "[0-3]", "i": "[0-2]", "b": "0|[1-9][0-9]{0,3}", "n": "0|[1-9][0-9]{0,3}", "leaf": "weight|bias"}
    numbers["norm"] = "weight|bias|running_mean|running_var"
    return re.sub(r"\{(\w+)\}", lambda field: f"(?P<{field[1]}>{numbers[field[1]]})", template.replace(".", r"\."))


def convert_state_dict(authors_state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The authors' weights under our names: {name: array} -> {name: array}, arrays not copied.

    1x1 convolutions lose their two last axes, dtypes stay, buffers are dropped but for running statistics, and a
    `module.` before every name (left by PyTorch's data-parallel wrapper) is taken off. The authors call two kinds of
    bias `rpe_table`: `is_fixed_table` tells them apart. A `backbone.` means a detector or a segmentor.
    Raises CheckpointError listing every name that is none of the authors', or that occurs twice.
    """
    state = without_wrapper(authors_state)
    if is_dense(state):
        backbone, heads = _split(state)
        heads = {name: value for name, value in heads.items() if not name.endswith("." + STEPS_SEEN)}
        converted = {BACKBONE + name: value for name, value in convert_state_dict(backbone).items()}
        return converted | _renamed(heads, _Row.to_ours, "the heads of mmdetection or mmsegmentation")
    patches = "convolutional patches" if "patch_proj.3.weight" in state else "plain patches"
    sections = [title for title in TABLE if not title.endswith("patches") or title == patches]
    rows = [row for title in sections for row in _section(title)]
    sides = _known_sides(state)
    ours: dict[str, np.ndarray] = {}
    problems = []
    for name, value in state.items():
        if is_buffer(name):
            continue
        array = np.asarray(value)
        is_1x1 = array.ndim == 4 and array.shape[2:] == (1, 1)
        fixed = name.endswith(".rpe_table") and is_fixed_table(name, array.shape, sides)
        matches = [(row, new) for row in rows if (new := row.to_ours(name)) is not None]
        if not matches:
            problems.append(f"unknown {one_line(name)}")
            continue
        row, new = matches[0]
        for other, other_new in matches[1:]:  # proj_out is either kind of layer, rpe_table either kind of table
            if other.pointwise == is_1x1 and other_new.endswith(".fixed_position_bias") == fixed:
                row, new = other, other_new
        if new in ours:
            problems.append(f"a second entry for {new}, {one_line(name)}")
        ours[new] = array.reshape(array.shape[:2]) if row.pointwise and is_1x1 else array
    if problems:
        raise CheckpointError(f"not a state dict of the authors' DAT or DAT++: {'; '.join(problems)}")
    return ours


def to_authors_state_dict(our_state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `convert_state_dict`: our weights under the authors' names and in their shapes, arrays not copied.

    Buffers do not come back, but for running statistics: load the result into the authors' model with `strict=False`.
    Raises CheckpointError listing every name that is none of ours.
    """
    if is_dense(our_state):
        backbone, heads = _split(our_state)
        converted = {BACKBONE + name: value for name, value in to_authors_state_dict(backbone).items()}
        return converted | _renamed(heads, _Row.to_authors, "minidat's heads")
    patches = "convolutional patches" if "patch_embedding.conv2.weight" in our_state else "plain patches"
    theirs: dict[str, np.ndarray] = {}
    unknown = []
    for name, value in our_state.items():
        array = np.asarray(value)
        attention = attention_kind(our_state, _block(name))
        mlp = "convolutional mlp" if f"{_block(name)}.mlp.depthwise.weight" in our_state else "plain mlp"
        rows = [row for title in (attention, mlp, patches, "rest of a block", "rest") for row in _section(title)]
        row, new = next(((row, new) for row in rows if (new := row.to_authors(name)) is not None), (None, ""))
        if row is None:
            unknown.append(one_line(name))
            continue
        theirs[new] = array[:, :, None, None] if row.pointwise and array.ndim == 2 else array
    if unknown:
        raise CheckpointError(f"not a state dict of minidat: unknown {', '.join(unknown)}")
    return theirs


def is_dense(state: Mapping[str, np.ndarray]) -> bool:
    """Whether a state dict, the authors' or ours, is one of a backbone with heads, rather than a classifier's."""
    return any(name.startswith(BACKBONE) for name in state)


def _split(state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The backbone's part, without `backbone.` before its names, and the heads'."""
    backbone = {
        name.removeprefix(BACKBONE): np.asarray(value) for name, value in state.items() if name.startswith(BACKBONE)
    }
    return backbone, {name: np.asarray(value) for name, value in state.items() if not name.startswith(BACKBONE)}


def _renamed(
    heads: Mapping[str, np.ndarray], rename: Callable[[_Row, str], str | None], whose: str
) -> dict[str, np.ndarray]:
    """The heads' arrays under the names that `rename` gives them by the rows of HEADS."""
    rows = [row for title in HEADS for row in _section(title)]
    renamed: dict[str, np.ndarray] = {}
    unknown = []
    for name, value in heads.items():
        new = next((new for row in rows if (new := rename(row, name)) is not None), None)
        if new is None:
            unknown.append(one_line(name))
        else:
            renamed[new] = value
    if unknown:
        raise CheckpointError(f"not {whose}: unknown {', '.join(unknown)}")
    return renamed


def attention_kind(our_state: Mapping[str, np.ndarray], block: str) -> str:
    """What attends in `block` (stages.0.blocks.1): "window", shifted or not, "neighborhood" or "deformable".

    Only deformable attention has projections of its own for queries, keys and values; of the others, neighborhood
    attention's bias table has three axes, a window's two.
    """
    if any(f"{block}.attention.{part}.weight" in our_state for part in ("query", "key", "value", "offset_conv")):
        return "deformable"
    table = our_state.get(f"{block}.attention.relative_position_bias_table")
    return "neighborhood" if table is not None and np.ndim(table) == 3 else "window"


def without_wrapper(authors_state: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The state dict without the `module.` that PyTorch's DistributedDataParallel puts before every name."""
    if authors_state and all(name.startswith("module.") for name in authors_state):
        return {name.removeprefix("module."): value for name, value in authors_state.items()}
    return authors_state


def is_buffer(name: str) -> bool:
    """Whether the authors' `name` is that of a buffer, which can be recomputed."""
    return name.startswith("stages.") and name.rpartition(".")[2] in BUFFERS


def is_fixed_table(name: str, shape: tuple[int, ...], sides: set[int]) -> bool:
    """Whether an `rpe_table` of this shape is a fixed bias (heads, H W, Hk Wk), not a relative one (heads, 2H-1, 2W-1).

    An even axis cannot be 2n - 1. Odd ones that are no square numbers cannot be the area of the authors' square maps.
    Where both could be, `sides` decides: the sides, in patches, that other tables and masks give for the whole image.
    If they do not say that it is fixed, it is the relative table of the published models.
    """
    if len(shape) != 3:
        return False
    if any(size % 2 == 0 for size in shape[1:]):
        return True
    if any(math.isqrt(size) ** 2 != size for size in shape[1:]):
        return False
    stage = _stage(name)
    return math.isqrt(shape[1]) << stage in sides and ((shape[1] + 1) // 2) << stage not in sides


def mask_side(shape: tuple[int, ...]) -> int | None:
    """Side of the square map that a shifted-window mask (windows, N, N) is for, None if it is for none."""
    if len(shape) != 3 or shape[1] != shape[2]:
        return None
    across, window = math.isqrt(shape[0]), math.isqrt(shape[1])
    return across * window if across**2 == shape[0] and window**2 == shape[1] else None


def _known_sides(state: Mapping[str, np.ndarray]) -> set[int]:
    """Sides of the image in patches, as told by the masks and by those bias tables that can only be of one kind."""
    sides = set()
    for name, value in state.items():
        shape = np.shape(value)
        if name.endswith(".attn_mask") and (side := mask_side(shape)):
            sides.add(side << _stage(name))
        elif name.endswith(".rpe_table") and len(shape) == 3:
            if is_fixed_table(name, shape, set()):
                sides.add(math.isqrt(shape[1]) << _stage(name))
            elif math.isqrt(shape[1]) ** 2 != shape[1]:
                sides.add((shape[1] + 1) // 2 << _stage(name))
    return sides


def _stage(name: str) -> int:
    """The stage in the authors' or our name of a block's parameter; 0 for a name that has none."""
    number = name.split(".")[1:2]
    return int(number[0]) if number and number[0] in ("0", "1", "2", "3") else 0


def _block(name: str) -> str:
    """stages.0.blocks.1.norm1.weight -> stages.0.blocks.1"""
    return ".".join(name.split(".")[:4])
