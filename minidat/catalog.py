"""Every network by name: one table of families, and the three functions that read it.

A family is a kind of network: its class, its config's class, and the published configs by name. A config is a frozen
dataclass with `name`, `image_size`, `num_classes`, `replace`, `to_dict` and `from_dict`; a network is built from a
config alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .detection import CascadeMaskRCNN, CascadeMaskRCNNConfig, MaskRCNN, MaskRCNNConfig, RetinaNet, RetinaNetConfig
from .detection.complexity import retinanet_parts, two_stage_parts
from .detection.config import RETINANET_CONFIGS
from .detection.two_stage_config import CASCADE_MASK_RCNN_CONFIGS, MASK_RCNN_CONFIGS
from .errors import ConfigError
from .models import DAT, ModelConfig
from .models.complexity import Part, classifier_parts
from .models.config import PUBLISHED_CONFIGS
from .models.dat import build
from .segmentation import SemanticFPN, SemanticFPNConfig, UperNet, UperNetConfig
from .segmentation.complexity import semantic_fpn_parts, upernet_parts
from .segmentation.config import SEMANTIC_FPN_CONFIGS, UPERNET_CONFIGS


@dataclass(frozen=True)
class Family:
    """network: a class called with a config; config: that config's class; published: configs by name; parts: called
    with a network and the size of an image, gives its parts by name (see `minidat.models.complexity`)."""

    network: Any
    config: Any
    published: Mapping[str, Any]
    parts: Callable[[Any, tuple[int, int]], dict[str, Part]]


FAMILIES: dict[str, Family] = {
    "classifier": Family(DAT, ModelConfig, PUBLISHED_CONFIGS, classifier_parts),
    "retinanet": Family(RetinaNet, RetinaNetConfig, RETINANET_CONFIGS, retinanet_parts),
    "mask_rcnn": Family(MaskRCNN, MaskRCNNConfig, MASK_RCNN_CONFIGS, two_stage_parts),
    "cascade_mask_rcnn": Family(CascadeMaskRCNN, CascadeMaskRCNNConfig, CASCADE_MASK_RCNN_CONFIGS, two_stage_parts),
    "upernet": Family(UperNet, UperNetConfig, UPERNET_CONFIGS, upernet_parts),
    "semantic_fpn": Family(SemanticFPN, SemanticFPNConfig, SEMANTIC_FPN_CONFIGS, semantic_fpn_parts),
}


def list_models() -> list[str]:
    """The names `create_model` knows: classifiers in the order of the papers, then detectors and segmentors."""
    return [name for family in FAMILIES.values() for name in family.published]


def get_config(name: str) -> Any:
    """The published configuration called `name`. Raises ConfigError listing the names there are."""
    for family in FAMILIES.values():
        if name in family.published:
            return family.published[name]
    raise ConfigError(f"model name: found {name!r}, expected one of {', '.join(list_models())}")


def family_of(config: Any) -> str:
    """The name in FAMILIES that a config belongs to. Raises ConfigError for anything that is no config."""
    for name, family in FAMILIES.items():
        if type(config) is family.config:
            return name
    raise ConfigError(f"model: found {type(config).__name__}, expected a name or a config such as ModelConfig")


def create_model(
    name_or_config: Any,
    *,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    dtype: Any = np.float32,
    seed: int = 0,
) -> Any:
    """A network with fresh random weights: a DAT, a RetinaNet, ..., as the name or the config says.

    name_or_config: one of `list_models()`, or a config; image_size: pixels, one side of a square or (height, width),
    and num_classes replace those of the config; dtype: float32 or float64; the same seed draws the same weights.
    Raises ConfigError for an unknown name or a config that cannot be built.
    """
    config = get_config(name_or_config) if isinstance(name_or_config, str) else name_or_config
    network = FAMILIES[family_of(config)].network
    return build(network, config, image_size=image_size, num_classes=num_classes, dtype=dtype, seed=seed)


def config_to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON keeps it, with its `family`. A classifier's has none: files from before there were others."""
    family = family_of(config)
    return config.to_dict() if family == "classifier" else {"family": family, **config.to_dict()}


def config_from_dict(data: Any) -> Any:
    """The inverse of `config_to_dict`. Raises ConfigError for unknown, missing or ill-typed fields."""
    if not isinstance(data, dict):
        raise ConfigError(f"model config: found {type(data).__name__}, expected a dict")
    data = dict(data)
    family = data.pop("family", "classifier")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ConfigError(f"model config: family: found {family!r}, expected one of {', '.join(FAMILIES)}")
    return FAMILIES[family].config.from_dict(data)
