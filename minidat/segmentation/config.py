"""The segmentors of both papers as data, and the dataclasses any other is described with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..models.config import (
    MAX_CLASSES,
    MAX_DIM,
    MAX_WINDOW,
    ModelConfig,
    check,
    check_image_size,
    check_size,
    from_fields_with_backbone,
    get_config,
)

ADE20K_CLASSES = 150
MOST_SCALES = 16


@dataclass(frozen=True)
class SegmentorConfig:
    """What every segmentor has.

    name: for messages and files; backbone: its image_size gives the bias tables their size, not the pictures;
    num_classes: kinds of pixels; image_size: (height, width) of the crops it is trained on; resize_size: (long side,
    short side) that a picture is resized to fit in; channels: width of the head; dropout: rate at which channels are
    dropped before the last layer in training; auxiliary_weight: of the auxiliary head's loss, if there is such a head;
    class_weights: what a pixel of each class counts in the loss, none of them for 1 each.
    """

    name: str
    backbone: ModelConfig
    num_classes: int = ADE20K_CLASSES
    image_size: tuple[int, int] = (512, 512)
    resize_size: tuple[int, int] = (2048, 512)
    channels: int = 512
    dropout: float = 0.1
    auxiliary_weight: float = 0.4
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raise ConfigError, naming the field, for a segmentor that cannot be built."""
        check_size(self.name, "num_classes", self.num_classes, MAX_CLASSES)
        check_size(self.name, "channels", self.channels, MAX_DIM)
        for field in ("image_size", "resize_size"):
            check_image_size(self.name, field, getattr(self, field))
        check(0 <= self.dropout < 1, self.name, "dropout", self.dropout, "a rate in [0, 1)")
        check(self.auxiliary_weight >= 0, self.name, "auxiliary_weight", self.auxiliary_weight, "a number >= 0")
        fits = len(self.class_weights) in (0, self.num_classes) and all(weight >= 0 for weight in self.class_weights)
        expected = f"none, or {self.num_classes} numbers >= 0"
        check(fits, self.name, "class_weights", self.class_weights, expected)

    def replace(self, **changes: Any) -> Any:
        """A copy with some fields changed. The class weights belong to their classes: others take them away."""
        if changes.get("num_classes", self.num_classes) != self.num_classes:
            changes = {"class_weights": (), **changes}
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, as JSON keeps them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The inverse of `to_dict`. Raises ConfigError for unknown, missing or ill-typed fields."""
        return from_fields_with_backbone(cls, data)


@dataclass(frozen=True)
class UperNetConfig(SegmentorConfig):
    """UperNet. pool_scales: bins a side of each grid; auxiliary_channels: the auxiliary head's width, None: no head."""

    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    auxiliary_channels: int | None = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        scales, width = self.pool_scales, self.auxiliary_channels
        fits = 0 < len(scales) <= MOST_SCALES and all(1 <= scale <= MAX_WINDOW for scale in scales)
        check(fits, self.name, "pool_scales", scales, f"one to {MOST_SCALES} numbers, each 1 to {MAX_WINDOW}")
        if width is not None:
            check_size(self.name, "auxiliary_channels", width, MAX_DIM)


@dataclass(frozen=True)
class SemanticFPNConfig(SegmentorConfig):
    """Semantic FPN. pyramid_channels: width of the feature pyramid."""

    channels: int = 128
    pyramid_channels: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.name, "pyramid_channels", self.pyramid_channels, MAX_DIM)


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
