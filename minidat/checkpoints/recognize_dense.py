"""Which segmentor a state dict is for: its config, read off names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..segmentation.config import SEMANTIC_FPN_CONFIGS, UPERNET_CONFIGS, SemanticFPNConfig, UperNetConfig
from .convert import BACKBONE
from .recognize import Hints, recognize_config

FUSION = "decode_head.fusion.conv.weight"
SCALE_HEAD = "decode_head.scale_heads.0.convs.0.conv.weight"
AUXILIARY = "auxiliary_head.conv.conv.weight"


def recognize_dense(our_state: Mapping[str, np.ndarray], *, name: str | None = None, hints: Hints | None = None) -> Any:
    """The config of the network whose weights `our_state` is, {our name: array}: a backbone and heads.

    A published config, with the number of classes that the weights have, where all that shapes tell agrees; otherwise
    one called "custom". `name` demands one published network. What shapes do not tell (rates of dropout and stochastic
    depth, sizes of images) is as published; pooling grids that are not four cannot be told.

    Raises CheckpointError naming what is missing or of an impossible shape, or if the weights are not those of `name`.
    """
    backbone_state = {key.removeprefix(BACKBONE): value for key, value in our_state.items() if key.startswith(BACKBONE)}
    backbone = recognize_config(backbone_state, hints=hints, classifier=False)
    num_classes = _shape(our_state, "decode_head.classifier.weight")[0]
    config: UperNetConfig | SemanticFPNConfig
    if FUSION in our_state:
        grids = sum(key.endswith(".conv.weight") and "pyramid_pooling.branches" in key for key in our_state)
        if grids != 4:
            raise CheckpointError(f"found {grids} grids of pyramid pooling, whose sizes no shape tells; expected 4")
        config = UperNetConfig(
            "custom",
            backbone,
            num_classes=num_classes,
            channels=_shape(our_state, FUSION)[0],
            auxiliary_channels=_shape(our_state, AUXILIARY)[0] if AUXILIARY in our_state else None,
        )
    elif SCALE_HEAD in our_state:
        channels, pyramid_channels = _shape(our_state, SCALE_HEAD)[:2]
        config = SemanticFPNConfig(
            "custom", backbone, num_classes=num_classes, channels=channels, pyramid_channels=pyramid_channels
        )
    else:
        raise CheckpointError(f"its heads lack {FUSION} and {SCALE_HEAD}, expected those of UperNet or Semantic FPN")
    for known in (UPERNET_CONFIGS | SEMANTIC_FPN_CONFIGS).values():
        if known.replace(num_classes=num_classes) == config.replace(
            name=known.name, backbone=backbone.replace(drop_path=known.backbone.drop_path)
        ):
            config = known.replace(num_classes=num_classes)
    if name not in (None, config.name):
        found = "another network" if config.name == "custom" else config.name
        raise CheckpointError(f"found the weights of {found}, expected those of {name}")
    return config


def _shape(state: Mapping[str, np.ndarray], name: str) -> tuple[int, ...]:
    """The shape of a convolution's weight. Raises CheckpointError if it is missing or has other axes."""
    if name not in state:
        raise CheckpointError(f"the weights lack {name}")
    shape = np.shape(state[name])
    if len(shape) != 4 or 0 in shape:
        raise CheckpointError(f"{name} has shape {shape}, expected 4 axes, none of them 0")
    return shape
