"""RetinaNet in PyTorch, under mmdetection's names. Maps are channels first, (B, C, H, W).

model = build_retinanet(minidat.catalog.get_config("retinanet_dat_tiny"))
class_logits, box_deltas = model(torch.randn(1, 3, 800, 1088))     # a list each, a level each
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from minidat.detection import RetinaNetConfig

from .dat import DAT
from .layers import LayerNorm2d
from .segmentation import ConvModule


def build_retinanet(config: RetinaNetConfig) -> RetinaNet:
    """The model that `config` describes, with PyTorch's default initial values, in training mode as modules are."""
    return RetinaNet(config)


class RetinaNet(nn.Module):
    """Backbone, neck and head."""

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.neck = Neck(config)
        self.bbox_head = Head(config)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, anchors classes, H, W) and deltas (B, anchors 4, H, W) of each level."""
        outputs = [self.bbox_head(level) for level in self.neck(self.backbone(x))]
        return [logits for logits, _ in outputs], [deltas for _, deltas in outputs]


class Backbone(DAT):
    """Without its classifier; the maps from `first_stage` on, each after a norm of its own."""

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__(config.backbone)
        del self.cls_norm, self.cls_head
        self.norms = nn.ModuleDict(
            {str(i): LayerNorm2d(config.backbone.stages[i].dim) for i in range(config.first_stage, 4)}
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self.features(x)
        return [norm(features[int(i)]) for i, norm in self.norms.items()]


class Neck(nn.Module):
    """mmdetection's FPN with extra convolutions on its last input."""

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__()
        widths = [stage.dim for stage in config.backbone.stages[config.first_stage :]]
        channels = config.pyramid_channels
        self.lateral_convs = nn.ModuleList(ConvModule(width, channels, 1, norm=False) for width in widths)
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3, norm=False) for _ in widths)
        for i in range(config.pyramid_levels - len(widths)):
            extra = ConvModule(widths[-1] if i == 0 else channels, channels, 3, norm=False)
            extra.conv.stride = (2, 2)
            self.fpn_convs.append(extra)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = [lateral(x) for lateral, x in zip(self.lateral_convs, features, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=tuple(maps[i - 1].shape[2:]), mode="nearest")
        levels = [conv(x) for conv, x in zip(self.fpn_convs, maps, strict=False)]
        x = features[-1]
        for conv in self.fpn_convs[len(maps) :]:
            x = conv(x)
            levels.append(x)
        return levels


class Head(nn.Module):
    """mmdetection's RetinaHead."""

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__()
        channels, number = config.pyramid_channels, config.head_convolutions
        anchors = len(config.anchor_scales) * len(config.anchor_ratios)
        self.cls_convs = nn.ModuleList(ConvModule(channels, channels, 3, norm=False) for _ in range(number))
        self.reg_convs = nn.ModuleList(ConvModule(channels, channels, 3, norm=False) for _ in range(number))
        self.retina_cls = nn.Conv2d(channels, anchors * config.num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(channels, anchors * 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        of_classes = of_boxes = x
        for conv in self.cls_convs:
            of_classes = F.relu(conv(of_classes), inplace=True)
        for conv in self.reg_convs:
            of_boxes = F.relu(conv(of_boxes), inplace=True)
        return self.retina_cls(of_classes), self.retina_reg(of_boxes)
