"""The detectors of both papers as data, and the dataclasses any other is described with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..models.config import (
    MAX_CLASSES,
    MAX_DIM,
    ModelConfig,
    check,
    check_image_size,
    check_size,
    from_fields_with_backbone,
    get_config,
)

COCO_CLASSES = 80
MOST_LEVELS, MOST_LAYERS, MOST_ANCHORS = 16, 64, 64


@dataclass(frozen=True)
class DetectorConfig:
    """What every detector has.

    name: for messages and files; backbone: its image_size gives the bias tables their size, not the pictures;
    num_classes: kinds of objects, without the background; image_size: (height, width) it is made for (`info` and
    `bench` count and measure with it); resize_size: (long side, short side) that a picture is resized to fit in;
    first_stage: 0 to 3, the first of the backbone's stages whose map is used; pyramid_levels: maps of the pyramid, at
    least one for each of these stages; pyramid_channels: width of the pyramid.
    """

    name: str
    backbone: ModelConfig
    num_classes: int = COCO_CLASSES
    image_size: tuple[int, int] = (800, 1280)
    resize_size: tuple[int, int] = (1333, 800)
    first_stage: int = 0
    pyramid_levels: int = 5
    pyramid_channels: int = 256

    def __post_init__(self) -> None:
        """Raise ConfigError, naming the field, for a detector that cannot be built."""
        check_size(self.name, "num_classes", self.num_classes, MAX_CLASSES)
        check_size(self.name, "pyramid_channels", self.pyramid_channels, MAX_DIM)
        for field in ("image_size", "resize_size"):
            check_image_size(self.name, field, getattr(self, field))
        stages = len(self.backbone.stages)
        check(0 <= self.first_stage < stages, self.name, "first_stage", self.first_stage, f"0 to {stages - 1}")
        fewest = stages - self.first_stage
        check_size(self.name, "pyramid_levels", self.pyramid_levels, MOST_LEVELS, fewest)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image for each pixel of a level of the pyramid."""
        return tuple(self.backbone.patch_size * 2 ** (self.first_stage + i) for i in range(self.pyramid_levels))

    def replace(self, **changes: Any) -> Any:
        """A copy with some fields changed. A new image_size makes resize_size its long and short side."""
        if "image_size" in changes and "resize_size" not in changes:
            changes["resize_size"] = max(changes["image_size"]), min(changes["image_size"])
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, as JSON keeps them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The inverse of `to_dict`. Raises ConfigError for unknown, missing or ill-typed fields."""
        return from_fields_with_backbone(cls, data)


@dataclass(frozen=True)
class RetinaNetConfig(DetectorConfig):
    """RetinaNet.

    anchor_scales: sides of a square anchor, in strides of its level; anchor_ratios: height / width of the anchors;
    head_convolutions: 3x3 convolutions before the last one, for classes and boxes each; prior: the probability that
    every anchor gives every class before training; positive_iou: an anchor whose IoU with an object is at least that is
    to find it; negative_iou: one whose IoU with all objects is less is to find nothing, and those between do not count.
    """

    first_stage: int = 1
    anchor_scales: tuple[float, ...] = (4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3))
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    head_convolutions: int = 4
    prior: float = 0.01
    positive_iou: float = 0.5
    negative_iou: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("anchor_scales", "anchor_ratios"):
            value = getattr(self, field)
            check(1 <= len(value) <= MOST_ANCHORS and min(value) > 0, self.name, field, value, "positive numbers")
        check_size(self.name, "head_convolutions", self.head_convolutions, MOST_LAYERS, 0)
        check(0 < self.prior < 1, self.name, "prior", self.prior, "a probability in (0, 1)")
        ordered = 0 <= self.negative_iou <= self.positive_iou <= 1
        check(ordered, self.name, "negative_iou", self.negative_iou, f"0 to positive_iou ({self.positive_iou})")


# --- the published models ---------------------------------------------------------------------------------------------

# Rates of stochastic depth: those of the authors' 3x configs for DAT++ (`rtn_*_dp*`), of Swin's for DAT.
DROP_PATH = {
    "dat_tiny": 0.2,
    "dat_small": 0.2,
    "dat_base": 0.3,
    "datpp_tiny": 0.2,
    "datpp_small": 0.5,
    "datpp_base": 0.7,
}
RETINANET_CONFIGS = {
    f"retinanet_{name}": RetinaNetConfig(f"retinanet_{name}", get_config(name).replace(drop_path=rate))
    for name, rate in DROP_PATH.items()
}
