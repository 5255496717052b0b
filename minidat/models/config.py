"""Every published model as data, and the dataclasses any other model is described with.

DAT (CVPR 2022, arXiv 2201.00520) models are called `dat_*`, DAT++ (arXiv 2309.01430) models `datpp_*` and `datplus_*`.
"""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, shown

WINDOW, SHIFTED_WINDOW, DEFORMABLE, NEIGHBORHOOD = "window", "shifted_window", "deformable", "neighborhood"
ATTENTIONS = (WINDOW, SHIFTED_WINDOW, DEFORMABLE, NEIGHBORHOOD)
POSITION_RULES = ("dat", "dat++")
POSITION_ENCODINGS = ("relative", "fixed", "depthwise", "log_mlp", "none")

# No model has larger ones, and a config may come from a file that means harm.
MAX_SIDE = 4096  # of an image, in pixels
MAX_WINDOW = 255  # of windows, neighborhoods, kernels, strides and patches
MAX_DIM = 1 << 16
MAX_CLASSES = 1 << 20
MAX_BLOCKS = 1024
MAX_FACTOR = 1e6
MOST = 1 << 20  # of any number in a config from a file
MAX_PARAMETERS = 1 << 31  # numbers in a model


@dataclass(frozen=True)
class DeformableConfig:
    """The deformable attention of one stage.

    groups: channel groups that are offset separately (they divide the heads); kernel: side of the offset network's
    depthwise convolution; stride: queries per sampling point on each axis; range_factor: offsets are squashed to
    +-range_factor / (number of points), None leaves them unbounded and bounds the positions instead; position_rule: the
    paper whose coordinates are meant, "dat" or "dat++"; position_encoding: what tells the scores of the distance
    between query and key, "relative" (a table), "fixed" (a number a pair), "depthwise" (a convolution of the queries
    that is added to the output), "log_mlp" (a small network) or "none"; offsets: False samples at the reference points
    (an ablation).
    """

    groups: int
    kernel: int
    stride: int = 1
    range_factor: float | None = 2.0
    position_rule: str = "dat"
    position_encoding: str = "relative"
    offsets: bool = True


@dataclass(frozen=True)
class StageConfig:
    """One of the four stages.

    dim: channels of its maps; heads: of every attention, a divisor of dim; blocks: the attention of each block, in
    order: "window", "shifted_window", "deformable" or "neighborhood"; window: side of the windows, in tokens;
    neighborhood: side of the neighborhoods, an odd number; deformable: needed if a block is deformable.
    """

    dim: int
    heads: int
    blocks: tuple[str, ...]
    window: int = 7
    neighborhood: int = 7
    deformable: DeformableConfig | None = None


@dataclass(frozen=True)
class ModelConfig:
    """A whole model.

    name: for messages and files; image_size: (height, width) the model is made for, in pixels; num_classes: outputs of
    a classifier; stages: four of them; resize_size: side of the square an image is resized to before the center crop of
    image_size; patch_size: side of a patch, in pixels; mlp_ratio: width of an MLP's middle layer, in widths of its
    input; table_image_size: the image size whose maps give the deformable bias tables their size, None for image_size
    itself; convolutional_patches: overlapping 3x3 convolutions instead of non-overlapping patches; local_perception: a
    depthwise 3x3 convolution at the start of each block; convolutional_mlp: another between the two layers of the MLP;
    layer_scale: initial value of a learned factor per channel on each branch, None for no such factor; drop_path: rate
    of stochastic depth in the last block, growing linearly from 0 in the first.
    """

    name: str
    image_size: tuple[int, int]
    num_classes: int
    stages: tuple[StageConfig, ...]
    resize_size: int
    patch_size: int = 4
    mlp_ratio: int = 4
    convolutional_patches: bool = False
    local_perception: bool = False
    convolutional_mlp: bool = False
    layer_scale: float | None = None
    drop_path: float = 0.0
    table_image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError, naming the field, for a model that cannot be built."""
        check(len(self.stages) == 4, self.name, "stages", len(self.stages), "4 stages")
        check_image_size(self.name, "image_size", self.image_size)
        if self.table_image_size is not None:
            check_image_size(self.name, "table_image_size", self.table_image_size)
        for field, value, largest in (
            ("num_classes", self.num_classes, MAX_CLASSES),
            ("patch_size", self.patch_size, MAX_WINDOW),
            ("mlp_ratio", self.mlp_ratio, MAX_WINDOW),
        ):
            check_size(self.name, field, value, largest)
        longest = max(self.image_size)
        check(
            longest <= self.resize_size <= 2 * longest,
            self.name,
            "resize_size",
            self.resize_size,
            f"{longest} to {2 * longest}, once or twice the image size",
        )
        check(0 <= self.drop_path < 1, self.name, "drop_path", self.drop_path, "a rate in [0, 1)")
        check_factor(self.name, "layer_scale", self.layer_scale)
        if self.convolutional_patches:
            check(
                self.patch_size % 2 == 0,
                self.name,
                "patch_size",
                self.patch_size,
                "an even number for convolutional patches",
            )
        blocks = sum(len(stage.blocks) for stage in self.stages)
        check(blocks <= MAX_BLOCKS, self.name, "blocks", blocks, f"at most {MAX_BLOCKS} in all stages")
        for i, stage in enumerate(self.stages):
            check_stage(stage, f"{self.name}: stages[{i}]")

    def map_size(self, stage: int, image_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """(H, W) of the feature map of stage 0..3 for an image of `image_size` (default: the model's own)."""
        height, width = image_size or self.image_size
        reduction = self.patch_size * 2**stage
        return -(-height // reduction), -(-width // reduction)

    def table_map_size(self, stage: int) -> tuple[int, int]:
        """(H, W) of the map that the bias tables of `stage` are made for."""
        return self.map_size(stage, self.table_image_size)

    def replace(self, **changes: Any) -> ModelConfig:
        """A copy with some fields changed. A new image_size scales resize_size alike."""
        if "image_size" in changes and "resize_size" not in changes:
            changes["resize_size"] = max(
                self.resize_size * max(changes["image_size"]) // max(self.image_size), *changes["image_size"]
            )
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, as JSON keeps them."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`. Raises ConfigError for unknown, missing or ill-typed fields."""
        if not isinstance(data, dict):
            raise ConfigError(f"model config: found {type(data).__name__}, expected a dict")
        data = dict(data)
        try:
            stages = []
            for stage in data["stages"]:
                stage = dict(stage, blocks=tuple(stage["blocks"]))
                if stage.get("deformable") is not None:
                    stage["deformable"] = from_fields(DeformableConfig, stage["deformable"])
                stages.append(from_fields(StageConfig, stage))
            data["stages"] = tuple(stages)
            for field in ("image_size", "table_image_size"):
                if data.get(field) is not None:
                    data[field] = tuple(data[field])
            return from_fields(ModelConfig, data)
        except ConfigError:
            raise
        except KeyError as error:
            raise ConfigError(f"model config: the field {error} is missing, expected all of a model's") from None
        except (TypeError, AttributeError, ValueError) as error:
            raise ConfigError(f"model config: {str(error)[:200]}") from None


def from_fields(cls: Any, data: dict[str, Any]) -> Any:
    """cls(**data), after checking each of the dataclass's fields against its annotation: JSON brings whatever there is.

    Raises ConfigError for a field of another type, TypeError for one unknown or missing.
    """
    accepted: dict[str, Any] = {
        "int": int, "str": str, "bool": bool, "float": (int, float), "float | None": (int, float, type(None)),
        "tuple[int, int]": tuple, "tuple[int, int] | None": (tuple, type(None)), "tuple[str, ...]": tuple,
        "tuple[StageConfig, ...]": tuple, "tuple[int, ...]": tuple, "int | None": (int, type(None)),
        "tuple[float, ...]": tuple, "ModelConfig": ModelConfig,
        "DeformableConfig | None": (DeformableConfig, type(None)),
    }  # fmt: skip
    for field in dataclasses.fields(cls):
        value = data.get(field.name, field.default)
        numeric_bool = isinstance(value, bool) and field.type != "bool"
        items: tuple[type, ...] | None = (int,) if "tuple[int" in str(field.type) else None
        items = (int, float) if "tuple[float" in str(field.type) else items
        items_wrong = items is not None and value is not None and not all(type(v) in items for v in value)
        numbers = value if isinstance(value, tuple) else (value,)
        too_large = any(isinstance(v, int | float) and not -MOST <= v <= MOST for v in numbers)  # or no number at all
        unfit = not isinstance(value, accepted[str(field.type)]) or numeric_bool or items_wrong or too_large
        if field.name in data and unfit:
            raise ConfigError(f"model config: {field.name}: found {shown(value)}, expected {field.type}")
    return cls(**data)


def check(condition: bool, where: str, field: str, found: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{shown(where)[1:-1]}: {field}: found {shown(found)}, expected {expected}")


def check_size(where: str, field: str, found: int, largest: int, smallest: int = 1) -> None:
    """Raise ConfigError unless smallest <= found <= largest."""
    check(smallest <= found <= largest, where, field, found, f"{smallest} to {largest}")


def check_image_size(where: str, field: str, found: tuple[int, int]) -> None:
    fits = len(found) == 2 and all(1 <= side <= MAX_SIDE for side in found)
    check(fits, where, field, found, f"two numbers of 1 to {MAX_SIDE} pixels")


def check_factor(where: str, field: str, found: float | None) -> None:
    check(found is None or 0 <= found <= MAX_FACTOR, where, field, found, f"None or 0 to {MAX_FACTOR:g}")


def check_stage(stage: StageConfig, where: str) -> None:
    """Raise ConfigError, naming the field, for a stage that cannot be built."""
    check_size(where, "dim", stage.dim, MAX_DIM)
    check_size(where, "heads", stage.heads, stage.dim)
    check(
        stage.dim % stage.heads == 0,
        where,
        "dim",
        stage.dim,
        f"a multiple of heads ({stage.heads})",
    )
    check(len(stage.blocks) >= 1, where, "blocks", stage.blocks, "at least one block")
    for block in stage.blocks:
        check(block in ATTENTIONS, where, "blocks", block, f"one of {', '.join(ATTENTIONS)}")
    check_size(where, "window", stage.window, MAX_WINDOW)
    if SHIFTED_WINDOW in stage.blocks:
        check(stage.window >= 2, where, "window", stage.window, "at least 2 for shifted windows")
    check_size(where, "neighborhood", stage.neighborhood, MAX_WINDOW)
    if NEIGHBORHOOD in stage.blocks:
        check(
            stage.neighborhood % 2 == 1 and stage.neighborhood >= 3,
            where,
            "neighborhood",
            stage.neighborhood,
            "an odd number of at least 3",
        )
    if DEFORMABLE in stage.blocks:
        d = stage.deformable
        if d is None:
            raise ConfigError(f"{where}: deformable: found None, expected a DeformableConfig")
        check(
            1 <= d.groups <= stage.heads and stage.heads % d.groups == 0,
            where,
            "groups",
            d.groups,
            f"a divisor of heads ({stage.heads})",
        )
        check_size(where, "kernel", d.kernel, MAX_WINDOW)
        check_size(where, "stride", d.stride, MAX_WINDOW)
        if d.position_rule == "dat++" and not d.offsets:
            check(
                d.position_encoding == "none", where, "position_encoding", d.position_encoding, "none without offsets"
            )
        cells = d.position_rule == "dat++" and d.kernel == d.stride
        check(d.kernel % 2 == 1 or cells, where, "kernel", d.kernel, "an odd number, or the stride")
        check_factor(where, "range_factor", d.range_factor)
        check(
            d.position_rule in POSITION_RULES,
            where,
            "position_rule",
            d.position_rule,
            f"one of {', '.join(POSITION_RULES)}",
        )
        check(
            d.position_encoding in POSITION_ENCODINGS,
            where,
            "position_encoding",
            d.position_encoding,
            f"one of {', '.join(POSITION_ENCODINGS)}",
        )


def as_image_size(value: Any) -> tuple[int, int]:
    """(height, width) from one side of a square or a pair, in pixels. Raises ConfigError for anything else."""
    try:
        height, width = map(operator.index, (value, value) if np.ndim(value) == 0 else value)
    except (TypeError, ValueError):
        raise ConfigError(f"image_size: found {value!r}, expected a number of pixels or (height, width)") from None
    return height, width


def check_dtype(dtype: Any) -> np.dtype:
    """The NumPy dtype meant. Raises ConfigError for any but float32 and float64."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = dtype
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ConfigError(f"dtype: found {found}, expected float32 or float64")
    return found


# --- the published models ---------------------------------------------------------------------------------------------

LOCAL_PAIR = (WINDOW, SHIFTED_WINDOW)
DEFORMABLE_PAIR = (WINDOW, DEFORMABLE)
NEIGHBORHOOD_PAIR = (NEIGHBORHOOD, DEFORMABLE)


def _dat(
    name: str,
    size: int,
    dim: int,
    heads: int,
    third_stage_pairs: int,
    window: int,
    groups: tuple[int, int],
    drop_path: float,
) -> ModelConfig:
    """A model of the CVPR paper (its Table 1). `groups` are those of stages 3 and 4."""
    blocks = (LOCAL_PAIR, LOCAL_PAIR, DEFORMABLE_PAIR * third_stage_pairs, DEFORMABLE_PAIR)
    deformable = (
        None,
        None,
        DeformableConfig(groups=groups[0], kernel=5),
        DeformableConfig(groups=groups[1], kernel=3),
    )
    return ModelConfig(
        name=name,
        image_size=(size, size),
        num_classes=1000,
        resize_size=256 * size // 224,
        stages=tuple(
            StageConfig(dim * 2**i, heads * 2**i, blocks[i], window=window, deformable=deformable[i]) for i in range(4)
        ),
        drop_path=drop_path,
    )


def _datpp(
    name: str,
    size: int,
    dim: int,
    heads: int,
    groups: tuple[int, ...],
    drop_path: float,
    *,
    resize_size: int,
    convolutional: bool = True,
) -> ModelConfig:
    """A model of the DAT++ paper. Without `convolutional`, plain patches and MLPs (the authors' `dat_p`)."""
    blocks = (NEIGHBORHOOD_PAIR, NEIGHBORHOOD_PAIR * 2, NEIGHBORHOOD_PAIR * 9, (DEFORMABLE, DEFORMABLE))
    strides, kernels = (8, 4, 2, 1), (9, 7, 5, 3)
    return ModelConfig(
        name=name,
        image_size=(size, size),
        num_classes=1000,
        resize_size=resize_size,
        stages=tuple(
            StageConfig(
                dim * 2**i,
                heads * 2**i,
                blocks[i],
                deformable=DeformableConfig(
                    groups[i], kernels[i], strides[i], range_factor=None, position_rule="dat++"
                ),
            )
            for i in range(4)
        ),
        convolutional_patches=convolutional,
        local_perception=convolutional,
        convolutional_mlp=convolutional,
        drop_path=drop_path,
        table_image_size=(224, 224),
    )


PUBLISHED_CONFIGS = {
    config.name: config
    for config in (
        _dat("dat_tiny", 224, 96, 3, 3, 7, (3, 6), 0.2),
        _dat("dat_small", 224, 96, 3, 9, 7, (3, 6), 0.3),
        _dat("dat_base", 224, 128, 4, 9, 7, (4, 8), 0.5),
        _dat("dat_base_384", 384, 128, 4, 9, 12, (4, 8), 0.5),
        _datpp("datpp_tiny", 224, 64, 2, (1, 2, 4, 8), 0.2, resize_size=256),
        _datpp("datpp_small", 224, 96, 3, (1, 2, 3, 6), 0.4, resize_size=256),
        _datpp("datpp_base", 224, 128, 4, (2, 4, 8, 16), 0.7, resize_size=256),
        _datpp("datpp_base_384", 384, 128, 4, (2, 4, 8, 16), 0.6, resize_size=384),
        _datpp("datplus_tiny", 224, 64, 2, (1, 2, 4, 8), 0.2, resize_size=256, convolutional=False),
    )
}


def list_models() -> list[str]:
    """The names `create_model` knows, in the order of the papers."""
    return list(PUBLISHED_CONFIGS)


def get_config(name: str) -> ModelConfig:
    """The published configuration called `name`. Raises ConfigError listing the names there are."""
    if name not in PUBLISHED_CONFIGS:
        raise ConfigError(f"model name: found {name!r}, expected one of {', '.join(PUBLISHED_CONFIGS)}")
    return PUBLISHED_CONFIGS[name]


def from_fields_with_backbone(cls: type[Any], data: dict[str, Any]) -> Any:
    """A detector's or segmentor's config from plain dicts and lists, its backbone's among them.

    Raises ConfigError for unknown, missing or ill-typed fields.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"model config: found {type(data).__name__}, expected a dict")
    if "backbone" not in data:
        raise ConfigError("model config: backbone: missing")
    lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
    backbone = ModelConfig.from_dict(data["backbone"])
    try:
        return from_fields(cls, {**data, **lists, "backbone": backbone})
    except TypeError as error:
        raise ConfigError(f"model config: {error}") from None
