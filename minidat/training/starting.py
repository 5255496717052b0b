"""Weights to begin with: a classifier's for the backbone of a detector or segmentor, or those of a similar model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..catalog import FAMILIES, family_of
from ..checkpoints import resize_tables
from ..errors import ConfigError
from ..models import DAT

BACKBONE = "backbone."


@dataclass(frozen=True)
class Start:
    """weights: what `train` takes as `initial`; fresh: the parameters that it does not cover, which are drawn at
    random; unused: those of the source that found no place."""

    weights: dict[str, np.ndarray]
    fresh: list[str]
    unused: list[str]


def backbone_weights(source: DAT, config: Any) -> Start:
    """A classifier's weights for the backbone of the detector or segmentor that `config` describes.

    Names match but for the prefix `backbone.`; bias tables are resized if the backbone's are of another image size. The
    classifier's last norm and its head have no place there, the norms behind the stages and all heads are fresh.
    Raises ConfigError for a config without a backbone, and if none of the weights fits.
    """
    if not hasattr(config, "backbone"):
        raise ConfigError(f"{config.name}: a classifier has no backbone; start it with all of its weights")
    state = resize_tables(source.state_dict(), source.config, config.backbone)
    return _matching(
        {BACKBONE + name: value for name, value in state.items()}, config, f"the backbone of {config.name}"
    )


def fitting_weights(source: Any, config: Any, classes: tuple[str, ...]) -> Start:
    """A model's weights for another of its kind: all of the same name and shape.

    What depends on the classes is fresh, if `source.labels` are not `classes`. Raises ConfigError if none fits.
    """
    state = source.state_dict()
    if source.labels != list(classes):
        network = FAMILIES[family_of(source.config)].network
        more = network(source.config.replace(num_classes=source.config.num_classes + 1))
        shapes = {name: array.shape for name, array in more.named_state()}
        state = {name: value for name, value in state.items() if value.shape == shapes[name]}
    return _matching(state, config, config.name)


def _matching(state: Mapping[str, np.ndarray], config: Any, what: str) -> Start:
    model = FAMILIES[family_of(config)].network(config)
    shapes = {name: array.shape for name, array in model.named_state()}
    weights = {name: value for name, value in state.items() if shapes.get(name) == value.shape}
    if not weights:
        raise ConfigError(f"{what}: none of the weights fits it by name and shape; begin with those of a similar model")
    fresh = [name for name in shapes if name not in weights]
    return Start(weights, fresh, [name for name in state if name not in weights])
