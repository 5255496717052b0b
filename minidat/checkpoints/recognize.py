"""Which model a state dict is for: its config, read off names and shapes."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._pickle_machine import Placeholder
from ..errors import CheckpointError
from ..models.config import (
    DEFORMABLE,
    NEIGHBORHOOD,
    PUBLISHED_CONFIGS,
    SHIFTED_WINDOW,
    WINDOW,
    DeformableConfig,
    ModelConfig,
    StageConfig,
)
from .convert import attention_kind, is_buffer, mask_side, without_wrapper

DEFAULT_IMAGE_SIZE = 224
IMAGENET_CLASSES = 1000
DEFAULT_HEAD_WIDTH = 32  # of all published models
DEFAULT_LAYER_SCALE = 1e-5  # what the authors start with; the trained factors are in the file
DATPP_STRIDES = (8, 4, 2, 1)  # of all published DAT++ models
OFFSET_KERNELS = (9, 7, 5, 3)  # of all published models
TABLE, FIXED_TABLE = "relative_position_bias_table", "fixed_position_bias"
ENCODINGS = {
    "relative": TABLE,
    "fixed": FIXED_TABLE,
    "depthwise": "position_conv.weight",
    "log_mlp": "position_mlp.hidden.weight",
}
OFFSET_PARTS = ("offset_conv.weight", "offset_conv.bias", "offset_norm.weight", "offset_projection.weight")
SMALLEST_CROPPED_IMAGE = 128  # smaller ones, such as CIFAR's, are taken as they are
BLOCK_NAME = re.compile(r"stages\.([0-3])\.blocks\.(0|[1-9][0-9]{0,3})\.(.+)")
MASK_NAME = re.compile(r"stages\.([0-3])\.attns\.(0|[1-9][0-9]{0,3})\.attn_mask")


@dataclass(frozen=True)
class Hints:
    """What a file by the authors' trainer tells beyond its weights, as far as it does: None where it does not.

    shifted: the (stage, block) pairs with a shifted window; image_size: (height, width) in pixels; patches: side of the
    whole image in patches; cropped: whether test images are resized to more than the image size and cropped; is_datpp:
    whether the settings are those of the second paper's code; strides, range_factors, offsets: one entry a stage, of
    the deformable attention.
    """

    name: str | None = None
    shifted: frozenset[tuple[int, int]] | None = None
    image_size: tuple[int, int] | None = None
    patches: int | None = None
    patch_size: int | None = None
    cropped: bool | None = None
    is_datpp: bool = False
    drop_path: float | None = None
    strides: tuple[int, ...] | None = None
    range_factors: tuple[float, ...] | None = None
    offsets: tuple[bool, ...] | None = None


def read_hints(authors_state: Mapping[str, np.ndarray], config: Any = None) -> Hints:
    """Hints from the buffers in the authors' state dict, and from the `yacs` config pickled beside it, if any.

    `config` is a Placeholder or a dict of nested settings; values of unexpected types are passed over.
    """
    shifted, patches = set(), None
    for name, value in without_wrapper(authors_state).items():
        if match := MASK_NAME.fullmatch(name):
            stage, block = int(match[1]), int(match[2])
            shifted.add((stage, block))
            side = mask_side(np.shape(value))
            patches = patches or (side << stage if side else None)
    has_buffers = any(is_buffer(name) for name in without_wrapper(authors_state))

    def setting(kind: type, *path: str) -> Any:
        value = config
        for key in path:
            value = value.items if isinstance(value, Placeholder) else value
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, kind) and not (kind is int and isinstance(value, bool)) else None

    def per_stage(kind: Any, key: str) -> Any:
        values = setting(list, "MODEL", "DAT", key)
        return tuple(values) if values and len(values) == 4 and all(isinstance(v, kind) for v in values) else None

    size = setting(int, "DATA", "IMG_SIZE") or setting(int, "MODEL", "DAT", "img_size")
    patch_size = setting(int, "MODEL", "DAT", "patch_size")
    no_offsets = per_stage(bool, "no_offs")
    drop_path = setting(float, "MODEL", "DAT", "drop_path_rate")
    return Hints(
        name=setting(str, "MODEL", "NAME"),
        shifted=frozenset(shifted) if has_buffers else None,
        image_size=(size, size) if size and 0 < size < 1 << 16 else None,
        patches=patches,
        patch_size=patch_size if patch_size and 0 < patch_size < 1 << 8 else None,
        cropped=setting(bool, "TEST", "CROP"),
        is_datpp=setting(list, "MODEL", "DAT", "nat_ksizes") is not None,
        drop_path=drop_path if drop_path is not None and 0 <= drop_path < 1 else None,
        strides=per_stage(int, "strides"),
        range_factors=per_stage((int, float), "offset_range_factor"),
        offsets=None if no_offsets is None else tuple(not off for off in no_offsets),
    )


def recognize_config(
    our_state: Mapping[str, np.ndarray],
    *,
    name: str | None = None,
    image_size: tuple[int, int] | None = None,
    hints: Hints | None = None,
    classifier: bool = True,
) -> ModelConfig:
    """The config of the model whose weights `our_state` is, {our name: array}. Only shapes are looked at.

    Without a `classifier` they are a backbone's, whose number of classes is of no meaning.

    A published config is returned where all it says agrees (with the number of classes, and the image size, that the
    weights have); otherwise one called by its hint's name, or "custom". `name` demands one published model.

    What shapes do not tell is taken from `hints`, and without one:
    - image size: for CVPR models that of the deformable bias tables, else of the shifted windows' masks, else the hint,
      else `image_size`, else 224. For DAT++ models, whose tables do not follow the image, the hint, else `image_size`,
      else the size that the tables are for, else 224: `datpp_base` and `datpp_base_384` differ in nothing else.
    - shifted windows: a window block right after a plain one is shifted, as in the papers.
    - range factor: 2 for the rule of the CVPR paper, None for DAT++. Strides: 1, and 8 4 2 1 for DAT++; a fixed table
      and an even kernel tell theirs. Patch size of convolutional patches: 4. Head width of a stage without any table:
      that of another stage, else 32.
    - the position rule: DAT++ where any of its parts occurs (neighborhood attention, convolutional patches or MLPs,
      local perception, layer scale, MLP bias), else that of the CVPR paper.

    Raises CheckpointError naming what is missing or of an impossible shape, or if the weights are not those of `name`;
    ConfigError if what was read cannot be a model.
    """
    config = _Reader(our_state, hints or Hints()).config(image_size, classifier=classifier)
    published = [known for known in PUBLISHED_CONFIGS.values() if _same_network(config, known)]
    if name is not None and name not in [known.name for known in published]:
        found = published[0].name if published else "another network"
        raise CheckpointError(f"found the weights of {found}, expected those of {name}")
    if name is not None:
        published = [known for known in published if known.name == name]
    if not published:
        return config
    exact = [known for known in published if known.image_size == config.image_size]
    chosen = (exact or published)[0]
    size = chosen.image_size if name is not None and chosen.table_image_size is not None else config.image_size
    return chosen.replace(image_size=size, num_classes=config.num_classes)


def _same_network(config: ModelConfig, known: ModelConfig) -> bool:
    """Whether two configs describe the same weights and arithmetic: all but names, image sizes and classes agree."""
    return known == dataclasses.replace(
        config,
        name=known.name,
        image_size=known.image_size,
        resize_size=known.resize_size,
        num_classes=known.num_classes,
        drop_path=known.drop_path,
    )


class _Reader:
    """Reads a config off the names and shapes of one state dict."""

    def __init__(self, state: Mapping[str, np.ndarray], hints: Hints) -> None:
        self.state = state
        self.hints = hints
        self.parts: list[list[set[str]]] = []  # stage -> block -> names of its parameters, within the block
        found: list[dict[int, set[str]]] = [{} for _ in range(4)]
        for name in state:
            if match := BLOCK_NAME.fullmatch(name):
                found[int(match[1])].setdefault(int(match[2]), set()).add(match[3])
        for stage, blocks in enumerate(found):
            if sorted(blocks) != list(range(max(len(blocks), 1))):
                raise CheckpointError(
                    f"stage {stage} has the blocks {sorted(blocks)[:8]}, expected 0, 1, ...: weights are missing"
                )
            self.parts.append([blocks[block] for block in range(len(blocks))])
        self.kinds = [self.block_kinds(stage) for stage in range(4)]

    def config(self, image_size: tuple[int, int] | None, *, classifier: bool = True) -> ModelConfig:
        hints = self.hints
        convolutional_patches = "patch_embedding.conv2.weight" in self.state
        if convolutional_patches:
            patch_size = hints.patch_size or 4
        else:
            patch_size = self.shape("patch_embedding.projection.weight", 4)[2]
        if self.shape("downsamplings.0.reduction.weight", 4)[2] != (3 if convolutional_patches else 2):
            raise CheckpointError(
                "patch embedding and down-sampling are not of one kind, expected plain or DAT++'s convolutional ones "
                "(the CVPR code's 7x7 patches are not supported)"
            )
        is_datpp = (
            hints.is_datpp
            or convolutional_patches
            or any(NEIGHBORHOOD in kinds for kinds in self.kinds)
            or any(map(self.anywhere, ("perception.", "mlp.depthwise.", "scale1.", "attention.position_mlp.")))
        )
        heads = self.heads()
        stages = tuple(self.stage(stage, heads[stage], is_datpp) for stage in range(4))
        table_image = self.table_image_size(patch_size)
        masked = (hints.patches * patch_size,) * 2 if hints.patches else None
        told = (hints.image_size, image_size)
        sizes = (*told, table_image) if is_datpp else (table_image, masked, *told)
        size = next((size for size in sizes if size is not None), (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE))
        is_cropped = hints.cropped is not False and max(size) >= SMALLEST_CROPPED_IMAGE
        name = hints.name or "custom"
        return ModelConfig(
            name="custom" if name in PUBLISHED_CONFIGS or not name.isprintable() or len(name) > 80 else name,
            image_size=size,
            num_classes=self.shape("head.weight", 2)[0] if classifier else IMAGENET_CLASSES,
            stages=stages,
            resize_size=256 * max(size) // 224 if is_cropped else max(size),
            patch_size=patch_size,
            mlp_ratio=self.shape("stages.0.blocks.0.mlp.fc1.weight", 2)[0] // stages[0].dim,
            convolutional_patches=convolutional_patches,
            local_perception=self.anywhere("perception."),
            convolutional_mlp=self.anywhere("mlp.depthwise."),
            layer_scale=DEFAULT_LAYER_SCALE if self.anywhere("scale1.") else None,
            drop_path=hints.drop_path or 0.0,
            table_image_size=table_image if is_datpp else None,
        )

    # --- names and shapes ---

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of the entry `name`. Raises CheckpointError if it is missing or has not `axes` axes."""
        if name not in self.state:
            raise CheckpointError(f"the weights lack {name}")
        shape = np.shape(self.state[name])
        if len(shape) != axes or 0 in shape:
            raise CheckpointError(f"{name} has shape {shape}, expected {axes} axes, none of them 0")
        return shape

    def anywhere(self, part: str) -> bool:
        """Whether any block has a parameter whose name begins with `part`."""
        return any(name.startswith(part) for stage in self.parts for names in stage for name in names)

    def attention(self, stage: int, part: str, *kinds: str) -> str | None:
        """The full name of the attention parameter `part` in the first block of these kinds that has it, else None."""
        for block, kind in enumerate(self.kinds[stage]):
            if kind in kinds and f"attention.{part}" in self.parts[stage][block]:
                return f"stages.{stage}.blocks.{block}.attention.{part}"
        return None

    def expected(self, stage: int, part: str, *kinds: str) -> str:
        """As `attention`, but where no block has it, the name it would have in the first block of these kinds."""
        block = next(block for block, kind in enumerate(self.kinds[stage]) if kind in kinds)
        return self.attention(stage, part, *kinds) or f"stages.{stage}.blocks.{block}.attention.{part}"

    # --- stages ---

    def block_kinds(self, stage: int) -> tuple[str, ...]:
        kinds: list[str] = []
        for block in range(len(self.parts[stage])):
            kind = attention_kind(self.state, f"stages.{stage}.blocks.{block}")
            if kind == WINDOW:
                follows_plain_one = block > 0 and kinds[-1] == WINDOW
                shifted = follows_plain_one if self.hints.shifted is None else (stage, block) in self.hints.shifted
                kind = SHIFTED_WINDOW if shifted else WINDOW
            kinds.append(kind)
        return tuple(kinds)

    def dim(self, stage: int) -> int:
        return self.shape(f"stages.{stage}.blocks.0.norm1.weight", 1)[0]

    def heads(self) -> list[int]:
        """Heads of the four stages. A stage that does not tell has the head width of one that does."""
        told = [self.told_heads(stage) for stage in range(4)]
        widths = [self.dim(stage) // heads for stage, heads in enumerate(told) if heads]
        width = max(1, widths[0]) if widths else DEFAULT_HEAD_WIDTH
        return [heads or max(1, self.dim(stage) // width) for stage, heads in enumerate(told)]

    def told_heads(self, stage: int) -> int | None:
        """By a table with an entry for each head, or an MLP with an output for each head of a group."""
        if name := self.attention(stage, TABLE, WINDOW, SHIFTED_WINDOW):
            return self.shape(name, 2)[1]
        for part in (TABLE, FIXED_TABLE):
            if name := self.attention(stage, part, NEIGHBORHOOD, DEFORMABLE):
                return self.shape(name, 3)[0]
        if name := self.attention(stage, "position_mlp.output.weight", DEFORMABLE):
            return self.shape(name, 2)[0] * self.offset_network(stage)[0]
        return None

    def stage(self, stage: int, heads: int, is_datpp: bool) -> StageConfig:
        kinds, settings = self.kinds[stage], {}
        if WINDOW in kinds or SHIFTED_WINDOW in kinds:
            name = self.expected(stage, TABLE, WINDOW, SHIFTED_WINDOW)
            rows = self.shape(name, 2)[0]
            side = math.isqrt(rows)
            if side % 2 == 0 or side**2 != rows:
                raise CheckpointError(f"{name} has {rows} rows, expected (2 window - 1)^2")
            settings["window"] = (side + 1) // 2
        if NEIGHBORHOOD in kinds:
            settings["neighborhood"] = (self.shape(self.expected(stage, TABLE, NEIGHBORHOOD), 3)[1] + 1) // 2
        deformable = self.deformable(stage, is_datpp) if DEFORMABLE in kinds else None
        return StageConfig(self.dim(stage), heads, kinds, **settings, deformable=deformable)

    def offset_network(self, stage: int) -> tuple[int, int | None]:
        """(groups, kernel) by the shape of its convolution, whose channels are one group's; kernel None without one."""
        if not any(self.attention(stage, part, DEFORMABLE) for part in OFFSET_PARTS):
            return 1, None
        channels, _, kernel, _ = self.shape(self.expected(stage, "offset_conv.weight", DEFORMABLE), 4)
        return max(1, self.dim(stage) // channels), kernel

    def deformable(self, stage: int, is_datpp: bool) -> DeformableConfig:
        encoding = next((kind for kind, part in ENCODINGS.items() if self.attention(stage, part, DEFORMABLE)), "none")
        groups, kernel = self.offset_network(stage)
        stride = DATPP_STRIDES[stage] if is_datpp else 1
        if self.hints.strides is not None:
            stride = max(1, self.hints.strides[stage])
        if encoding == "fixed":
            _, queries, keys = self.shape(self.expected(stage, FIXED_TABLE, DEFORMABLE), 3)
            stride = max(1, round(math.sqrt(queries / keys))) if queries > 1 else stride
        if kernel is not None and kernel % 2 == 0:
            stride = kernel  # only such a convolution needs no padding
        factor: float | None = None if is_datpp else 2.0
        if self.hints.range_factors is not None:
            told = self.hints.range_factors[stage]
            factor = None if told < 0 else float(told)
        return DeformableConfig(
            groups=groups,
            kernel=kernel or OFFSET_KERNELS[stage],
            stride=stride,
            range_factor=factor,
            position_rule="dat++" if is_datpp else "dat",
            position_encoding=encoding,
            offsets=kernel is not None,
        )

    def table_image_size(self, patch_size: int) -> tuple[int, int] | None:
        """The image that the deformable bias tables are made for, by those of the finest map; None without any."""
        for stage in range(4):
            if name := self.attention(stage, TABLE, DEFORMABLE):
                _, rows, columns = self.shape(name, 3)
                height, width = (rows + 1) // 2, (columns + 1) // 2
            elif name := self.attention(stage, FIXED_TABLE, DEFORMABLE):
                height = width = math.isqrt(self.shape(name, 3)[1])
            else:
                continue
            return height * patch_size << stage, width * patch_size << stage
        return None
