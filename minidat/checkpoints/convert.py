"""The authors' names of the weights, and ours: one table, used both ways.

The authors keep parallel lists in a stage (`layer_norms`, `attns`, `mlps`), ours keep everything of a block together.
Their 1x1 convolutions, (D, C, 1, 1), are our linear layers, (D, C). This file is the only place that knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import CheckpointError
from .archive import one_line

# In a name, {s} is a stage, {b} a block, {i} a step between two stages; * is weight or bias. {2b} and {2b+1} count the
# two branches of block b. The third column says where the authors have a 1x1 convolution. One row a kind of parameter:
# the authors' name, ours, "1x1" or "".
PLAIN_PATCHES = (
    ("patch_proj.0.*", "patch_embedding.projection.*", ""),
    ("patch_proj.1.norm.*", "patch_embedding.norm.*", ""),
)
CONVOLUTIONAL_PATCHES = (
    ("patch_proj.0.*", "patch_embedding.conv1.*", ""),
    ("patch_proj.1.norm.*", "patch_embedding.norm1.*", ""),
    ("patch_proj.3.*", "patch_embedding.conv2.*", ""),
    ("patch_proj.4.norm.*", "patch_embedding.norm2.*", ""),
)
EVERYWHERE = (
    ("stages.{s}.layer_norms.{2b}.norm.*", "stages.{s}.blocks.{b}.norm1.*", ""),
    ("stages.{s}.layer_norms.{2b+1}.norm.*", "stages.{s}.blocks.{b}.norm2.*", ""),
    ("stages.{s}.layer_scales.{2b}.weight", "stages.{s}.blocks.{b}.scale1.weight", ""),
    ("stages.{s}.layer_scales.{2b+1}.weight", "stages.{s}.blocks.{b}.scale2.weight", ""),
    ("stages.{s}.local_perception_units.{b}.*", "stages.{s}.blocks.{b}.perception.*", ""),
    ("down_projs.{i}.0.weight", "downsamplings.{i}.reduction.weight", ""),
    ("down_projs.{i}.1.norm.*", "downsamplings.{i}.norm.*", ""),
    ("cls_norm.norm.*", "norm.*", ""),
    ("cls_head.*", "head.*", ""),
)
WINDOW_ATTENTION = (
    ("stages.{s}.attns.{b}.proj_qkv.*", "stages.{s}.blocks.{b}.attention.qkv.*", ""),
    ("stages.{s}.attns.{b}.proj_out.*", "stages.{s}.blocks.{b}.attention.projection.*", ""),
    (
        "stages.{s}.attns.{b}.relative_position_bias_table",
        "stages.{s}.blocks.{b}.attention.relative_position_bias_table",
        "",
    ),
)
NEIGHBORHOOD_ATTENTION = (
    ("stages.{s}.attns.{b}.qkv.*", "stages.{s}.blocks.{b}.attention.qkv.*", ""),
    ("stages.{s}.attns.{b}.proj.*", "stages.{s}.blocks.{b}.attention.projection.*", ""),
    ("stages.{s}.attns.{b}.rpb", "stages.{s}.blocks.{b}.attention.relative_position_bias_table", ""),
)
DEFORMABLE_ATTENTION = (
    ("stages.{s}.attns.{b}.proj_q.*", "stages.{s}.blocks.{b}.attention.query.*", "1x1"),
    ("stages.{s}.attns.{b}.proj_k.*", "stages.{s}.blocks.{b}.attention.key.*", "1x1"),
    ("stages.{s}.attns.{b}.proj_v.*", "stages.{s}.blocks.{b}.attention.value.*", "1x1"),
    ("stages.{s}.attns.{b}.proj_out.*", "stages.{s}.blocks.{b}.attention.projection.*", "1x1"),
    ("stages.{s}.attns.{b}.conv_offset.0.*", "stages.{s}.blocks.{b}.attention.offset_conv.*", ""),
    ("stages.{s}.attns.{b}.conv_offset.1.norm.*", "stages.{s}.blocks.{b}.attention.offset_norm.*", ""),
    ("stages.{s}.attns.{b}.conv_offset.3.weight", "stages.{s}.blocks.{b}.attention.offset_projection.weight", "1x1"),
    ("stages.{s}.attns.{b}.rpe_table", "stages.{s}.blocks.{b}.attention.relative_position_bias_table", ""),
    ("stages.{s}.attns.{b}.rpe_table", "stages.{s}.blocks.{b}.attention.fixed_position_bias", ""),
    ("stages.{s}.attns.{b}.rpe_table.*", "stages.{s}.blocks.{b}.attention.position_conv.*", ""),
    ("stages.{s}.attns.{b}.rpe_table.0.*", "stages.{s}.blocks.{b}.attention.position_mlp.hidden.*", ""),
    ("stages.{s}.attns.{b}.rpe_table.2.weight", "stages.{s}.blocks.{b}.attention.position_mlp.output.weight", ""),
)
PLAIN_MLP = (
    ("stages.{s}.mlps.{b}.chunk.linear1.*", "stages.{s}.blocks.{b}.mlp.fc1.*", ""),
    ("stages.{s}.mlps.{b}.chunk.linear2.*", "stages.{s}.blocks.{b}.mlp.fc2.*", ""),
)
CONVOLUTIONAL_MLP = (
    ("stages.{s}.mlps.{b}.linear1.0.*", "stages.{s}.blocks.{b}.mlp.fc1.*", "1x1"),
    ("stages.{s}.mlps.{b}.linear2.0.*", "stages.{s}.blocks.{b}.mlp.fc2.*", "1x1"),
    ("stages.{s}.mlps.{b}.dwc.*", "stages.{s}.blocks.{b}.mlp.depthwise.*", ""),
)
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


def _compile(section: tuple[tuple[str, str, str], ...]) -> tuple[_Row, ...]:
    rows = []
    for authors, ours, kind in section:
        branch = 1 if "{2b+1}" in authors else 0 if "{2b}" in authors else None
        templates = [
            name.replace("{2b}", "{n}").replace("{2b+1}", "{n}").replace("*", "{leaf}") for name in (authors, ours)
        ]
        patterns = [re.compile(_pattern(template)) for template in templates]
        rows.append(_Row(patterns[0], patterns[1], templates[0], templates[1], branch, kind == "1x1"))
    return tuple(rows)


def _pattern(template: str) -> str:
    numbers = {"s": "[0-3]", "i": "[0-2]", "b": "0|[1-9][0-9]{0,3}", "n": "0|[1-9][0-9]{0,3}", "leaf": "weight|bias"}
    return re.sub(r"\{(\w+)\}", lambda field: f"(?P<{field[1]}>{numbers[field[1]]})", template.replace(".", r"\."))


_PLAIN_PATCHES, _CONVOLUTIONAL_PATCHES = _compile(PLAIN_PATCHES), _compile(CONVOLUTIONAL_PATCHES)
_EVERYWHERE = _compile(EVERYWHERE)
_ATTENTION = {
    "window": _compile(WINDOW_ATTENTION),
    "neighborhood": _compile(NEIGHBORHOOD_ATTENTION),
    "deformable": _compile(DEFORMABLE_ATTENTION),
}
_PLAIN_MLP, _CONVOLUTIONAL_MLP = _compile(PLAIN_MLP), _compile(CONVOLUTIONAL_MLP)
_IN_BLOCKS = (*_ATTENTION["deformable"], *_ATTENTION["window"], *_ATTENTION["neighborhood"])


def convert_state_dict(authors_state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The authors' weights under our names: {name: array} -> {name: array}, arrays not copied.

    1x1 convolutions lose their two last axes, dtypes stay, buffers are dropped, and a `module.` before every name (left
    by PyTorch's data-parallel wrapper) is taken off. The authors call two kinds of bias `rpe_table`: `is_fixed_table`
    tells them apart. Raises CheckpointError listing every name that is none of the authors', or that occurs twice.
    """
    state = without_wrapper(authors_state)
    patches = _CONVOLUTIONAL_PATCHES if "patch_proj.3.weight" in state else _PLAIN_PATCHES
    rows = (*_IN_BLOCKS, *_EVERYWHERE, *_PLAIN_MLP, *_CONVOLUTIONAL_MLP, *patches)
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
        for other_row, other_new in matches[1:]:  # proj_out may be a 1x1 convolution, rpe_table fixed
            if other_row.pointwise == is_1x1 and other_new.endswith(".fixed_position_bias") == fixed:
                row, new = other_row, other_new
        if new in ours:
            problems.append(f"a second entry for {new}, {one_line(name)}")
        ours[new] = array.reshape(array.shape[:2]) if row.pointwise and is_1x1 else array
    if problems:
        raise CheckpointError(f"not a state dict of the authors' DAT or DAT++: {'; '.join(problems)}")
    return ours


def to_authors_state_dict(our_state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `convert_state_dict`: our weights under the authors' names and in their shapes, arrays not copied.

    Buffers do not come back: load the result into the authors' model with `strict=False`. Raises CheckpointError
    listing every name that is none of ours.
    """
    patches = _CONVOLUTIONAL_PATCHES if "patch_embedding.conv2.weight" in our_state else _PLAIN_PATCHES
    theirs: dict[str, np.ndarray] = {}
    unknown = []
    for name, value in our_state.items():
        array = np.asarray(value)
        mlp = _CONVOLUTIONAL_MLP if f"{_block(name)}.mlp.depthwise.weight" in our_state else _PLAIN_MLP
        attention = _ATTENTION[attention_kind(our_state, _block(name))]
        rows = (*attention, *mlp, *_EVERYWHERE, *patches)
        row, new = next(((row, new) for row in rows if (new := row.to_authors(name)) is not None), (None, ""))
        if row is None:
            unknown.append(one_line(name))
            continue
        theirs[new] = array[:, :, None, None] if row.pointwise and array.ndim == 2 else array
    if unknown:
        raise CheckpointError(f"not a state dict of minidat: unknown {', '.join(unknown)}")
    return theirs


def attention_kind(our_state: Mapping[str, np.ndarray], block: str) -> str:
    """What attends in `block`, a path like stages.0.blocks.1: "window" (shifted or not), "neighborhood" or
    "deformable".

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
