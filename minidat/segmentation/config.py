"""The segmentors of both papers as data, and the dataclasses any other is described with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..models.config import ModelConfig, check, from_fields, get_config

ADE20K_CLASSES = 150


@dataclass(frozen=True)
class SegmentorConfig:
    """What every segmentor has.

    backbone: its image_size gives the bias tables their size, not the pictures; image_size: (height, width) of the
    crops it is trained on; resize_size: (long side, short side) that a picture is resized to fit in; channels: width
    of the head; dropout: rate at which channels are dropped before the last layer in training; auxiliary_weight: of the
    auxiliary head's loss, if there is such a head.
    """

    name: str
    backbone: ModelConfig
    num_classes: int = ADE20K_CLASSES
    image_size: tuple[int, int] = (512, 512)
    resize_size: tuple[int, int] = (2048, 512)
    channels: int = 512
    dropout: float = 0.1
    auxiliary_weight: float = 0.4

    def __post_init__(self) -> None:
        """Raise ConfigError, naming the field, for a segmentor that cannot be built."""
        for field in ("num_classes", "channels"):
            value = getattr(self, field)
            check(value >= 1, self.name, field, value, "at least 1")
        for field in ("image_size", "resize_size"):
            value = getattr(self, field)
            check(len(value) == 2 and min(value) >= 1, self.name, field, value, "two positive numbers")
        check(0 <= self.dropout < 1, self.name, "dropout", self.dropout, "a rate in [0, 1)")
        check(self.auxiliary_weight >= 0, self.name, "auxiliary_weight", self.auxiliary_weight, "a number >= 0")

    def replace(self, **changes: Any) -> Any:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, as JSON keeps them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The inverse of `to_dict`. Raises ConfigError for unknown, missing or ill-typed fields."""
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


@dataclass(frozen=True)
class UperNetConfig(SegmentorConfig):
    """UperNet. pool_scales: bins a side of each grid; auxiliary_channels: the auxiliary head's width, None: no head."""

    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    auxiliary_channels: int | None = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        scales, width = self.pool_scales, self.auxiliary_channels
        check(len(scales) > 0 and min(scales) >= 1, self.name, "pool_scales", scales, "positive numbers, at least one")
        check(width is None or width >= 1, self.name, "auxiliary_channels", width, "at least 1, or None")


@dataclass(frozen=True)
class SemanticFPNConfig(SegmentorConfig):
    """Semantic FPN. pyramid_channels: width of the feature pyramid."""

    channels: int = 128
    pyramid_channels: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.pyramid_channels >= 1, self.name, "pyramid_channels", self.pyramid_channels, "at least 1")


# --- the published models ---------------------------------------------------------------------------------------------

# Rates of stochastic depth: those of the authors' configs for DAT++, of Swin's for DAT.
DROP_PATH = {
    "dat_tiny": (0.3, 0.3),
    "dat_small": (0.3, 0.3),
    "dat_base": (0.3, 0.3),
    "datpp_tiny": (0.3, 0.4),
    "datpp_small": (0.5, 0.4),
    "datpp_base": (0.7, 0.7),
}
UPERNET_CONFIGS = {
    f"upernet_{name}": UperNetConfig(f"upernet_{name}", get_config(name).replace(drop_path=rate))
    for name, (rate, _) in DROP_PATH.items()
}
SEMANTIC_FPN_CONFIGS = {
    f"semantic_fpn_{name}": SemanticFPNConfig(f"semantic_fpn_{name}", get_config(name).replace(drop_path=rate))
    for name, (_, rate) in DROP_PATH.items()
}
