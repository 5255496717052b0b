"""Which detector or segmentor a state dict is for: its config, read off names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..detection.config import RETINANET_CONFIGS, RetinaNetConfig
from ..detection.two_stage_config import (
    CASCADE_MASK_RCNN_CONFIGS,
    CASCADE_STDS,
    MASK_RCNN_CONFIGS,
    CascadeMaskRCNNConfig,
    MaskRCNNConfig,
    TwoStageConfig,
)
from ..errors import CheckpointError
from ..models.config import ModelConfig
from ..segmentation.config import SEMANTIC_FPN_CONFIGS, UPERNET_CONFIGS, SemanticFPNConfig, UperNetConfig
from .convert import BACKBONE
from .recognize import Hints, recognize_config

FUSION = "decode_head.fusion.conv.weight"
SCALE_HEAD = "decode_head.scale_heads.0.convs.0.conv.weight"
AUXILIARY = "auxiliary_head.conv.conv.weight"
LATERAL = "pyramid.laterals.0.weight"
RETINANET_BOXES, RETINANET_CLASSES = "head.boxes.output.weight", "head.classes.output.weight"
PROPOSALS = "proposals.classifier.weight"
PUBLISHED = RETINANET_CONFIGS | MASK_RCNN_CONFIGS | CASCADE_MASK_RCNN_CONFIGS | UPERNET_CONFIGS | SEMANTIC_FPN_CONFIGS

State = Mapping[str, np.ndarray]


def recognize_dense(our_state: State, *, name: str | None = None, hints: Hints | None = None) -> Any:
    """The config of the network whose weights `our_state` is, {our name: array}: a backbone and heads.

    A published config, with the number of classes that the weights have, where all that shapes tell agrees; otherwise
    one called "custom". `name` demands one published network. What shapes do not tell (rates of dropout and stochastic
    depth, sizes of images, scales and ratios of anchors, thresholds) is as published: an R-CNN without convolutions for
    the levels beyond the backbone's has one more, pooled, and other numbers of anchors or of pooling grids than the
    published ones cannot be told.

    Raises CheckpointError naming what is missing or of an impossible shape, or if the weights are not those of `name`.
    """
    backbone_state = {key.removeprefix(BACKBONE): value for key, value in our_state.items() if key.startswith(BACKBONE)}
    backbone = recognize_config(backbone_state, hints=hints, classifier=False)
    beginnings = {key.partition(".")[0] for key in our_state}
    config: Any
    if "decode_head" in beginnings:
        config = _segmentor(our_state, backbone)
    elif "proposals" in beginnings:
        config = _two_stage_detector(our_state, backbone)
    elif "head" in beginnings:
        config = _retinanet(our_state, backbone)
    else:
        raise CheckpointError(
            "the weights lack heads, expected those of RetinaNet, Mask R-CNN, its cascade, UperNet or Semantic FPN"
        )
    for known in PUBLISHED.values():
        if known.replace(num_classes=config.num_classes) == config.replace(
            name=known.name, backbone=backbone.replace(drop_path=known.backbone.drop_path)
        ):
            config = known.replace(num_classes=config.num_classes)
    if name not in (None, config.name):
        found = "another network" if config.name == "custom" else config.name
        raise CheckpointError(f"found the weights of {found}, expected those of {name}")
    return config


def _segmentor(state: State, backbone: ModelConfig) -> UperNetConfig | SemanticFPNConfig:
    num_classes = _shape(state, "decode_head.classifier.weight")[0]
    if FUSION in state:
        grids = sum(key.endswith(".conv.weight") and "pyramid_pooling.branches" in key for key in state)
        if grids != 4:
            raise CheckpointError(f"found {grids} grids of pyramid pooling, whose sizes no shape tells; expected 4")
        return UperNetConfig(
            "custom",
            backbone,
            num_classes=num_classes,
            channels=_shape(state, FUSION)[0],
            auxiliary_channels=_shape(state, AUXILIARY)[0] if AUXILIARY in state else None,
        )
    if SCALE_HEAD in state:
        channels, pyramid_channels = _shape(state, SCALE_HEAD)[:2]
        return SemanticFPNConfig(
            "custom", backbone, num_classes=num_classes, channels=channels, pyramid_channels=pyramid_channels
        )
    raise CheckpointError(f"its heads lack {FUSION} and {SCALE_HEAD}, expected those of UperNet or Semantic FPN")


def _pyramid(state: State) -> dict[str, Any]:
    """What a feature pyramid tells: the first stage it takes, its width, and its levels that have a convolution."""
    laterals = _count(state, "pyramid.laterals")
    if not 1 <= laterals <= 4:
        raise CheckpointError(f"found {laterals} of pyramid.laterals, expected 1 to 4, one for each stage that is used")
    return {
        "first_stage": 4 - laterals,
        "pyramid_channels": _shape(state, LATERAL)[0],
        "pyramid_levels": _count(state, "pyramid.outputs"),
    }


def _retinanet(state: State, backbone: ModelConfig) -> RetinaNetConfig:
    anchors = _shape(state, RETINANET_BOXES)[0] // 4
    if anchors != 9:
        raise CheckpointError(f"found {anchors} anchors a position, whose scales and ratios no shape tells; expected 9")
    return RetinaNetConfig(
        "custom",
        backbone,
        num_classes=_shape(state, RETINANET_CLASSES)[0] // anchors,
        head_convolutions=_count(state, "head.classes.convs"),
        **_pyramid(state),
    )


def _two_stage_detector(state: State, backbone: ModelConfig) -> TwoStageConfig:
    anchors = _shape(state, PROPOSALS)[0]
    if anchors != 3:
        raise CheckpointError(f"found {anchors} anchors a position, whose ratios no shape tells; expected 3")
    stages = _count(state, "stages")
    if stages not in (0, len(CASCADE_STDS)):
        raise CheckpointError(
            f"found {stages} stages of region heads, expected {len(CASCADE_STDS)} or one of no number"
        )
    heads = "stages.0" if stages else "regions"
    pyramid = _pyramid(state)
    pooled = pyramid["pyramid_levels"] == 4 - pyramid["first_stage"]
    box_linears = _count(state, f"{heads}.box_head.linears")
    classes, features = _shape(state, f"{heads}.box_head.classifier.weight", axes=2)
    kind = CascadeMaskRCNNConfig if stages else MaskRCNNConfig
    return kind(
        "custom",
        backbone,
        num_classes=classes - 1,
        pooled_level=pooled,
        box_convolutions=_count(state, f"{heads}.box_head.convs"),
        box_linears=box_linears,
        box_features=features if box_linears else kind.box_features,
        mask_convolutions=_count(state, f"{heads}.mask_head.convs"),
        **{**pyramid, "pyramid_levels": pyramid["pyramid_levels"] + pooled},
    )


def _count(state: State, start: str) -> int:
    """How many different numbers follow `start`. in names."""
    pattern = re.compile(re.escape(start) + r"\.([0-9]+)\.")
    return len({match[1] for key in state if (match := pattern.match(key))})


def _shape(state: State, name: str, axes: int = 4) -> tuple[int, ...]:
    """The shape of a layer's weight. Raises CheckpointError if it is missing or has other axes."""
    if name not in state:
        raise CheckpointError(f"the weights lack {name}")
    shape = np.shape(state[name])
    if len(shape) != axes or 0 in shape:
        raise CheckpointError(f"{name} has shape {shape}, expected {axes} axes, none of them 0")
    return shape
