"""UperNet and Semantic FPN in PyTorch, under mmsegmentation's names. Maps are channels first, (B, C, H, W).

model = build_segmentor(minidat.catalog.get_config("upernet_dat_tiny"))
logits = model(torch.randn(1, 3, 512, 512))     # at a quarter of the size
losses = model.loss(images, labels)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidat.models.config import ModelConfig
from minidat.segmentation import SegmentorConfig, SemanticFPNConfig, UperNetConfig

from .dat import DAT
from .layers import LayerNorm2d


def build_segmentor(config: SegmentorConfig) -> Segmentor:
    """The model that `config` describes, with PyTorch's default initial values, in training mode as modules are."""
    return Segmentor(config)


class DenseBackbone(DAT):
    """The backbone without its classifier; every stage's map ends in a norm of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        del self.cls_norm, self.cls_head
        self.norms = nn.ModuleList(LayerNorm2d(stage.dim) for stage in config.stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [norm(feature) for norm, feature in zip(self.norms, self.features(x), strict=True)]


class Segmentor(nn.Module):
    """Backbone, neck (Semantic FPN), decode head, and the auxiliary head if there is one."""

    def __init__(self, config: SegmentorConfig) -> None:
        super().__init__()
        dims = [stage.dim for stage in config.backbone.stages]
        self.backbone = DenseBackbone(config.backbone)
        self.auxiliary_weight = config.auxiliary_weight
        self.class_weights = config.class_weights
        if isinstance(config, SemanticFPNConfig):
            self.neck = FPN(dims, config.pyramid_channels)
            self.decode_head = FPNHead(len(dims), config)
        else:
            assert isinstance(config, UperNetConfig)
            self.neck = nn.Identity()
            self.decode_head = UPerHead(dims, config)
            if config.auxiliary_channels is not None:
                self.auxiliary_head = FCNHead(dims[2], config)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, classes, H / 4, W / 4)."""
        return self.decode_head(self.neck(self.backbone(x)))

    def loss(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The two losses for labels (B, H, W), 255 where a pixel is ignored."""
        features = self.backbone(x)
        losses = {"decode": map_loss(self.decode_head(self.neck(features)), labels, self.class_weights)}
        if hasattr(self, "auxiliary_head"):
            auxiliary = map_loss(self.auxiliary_head(features[2]), labels, self.class_weights)
            losses["auxiliary"] = self.auxiliary_weight * auxiliary
        return losses


def resize(x: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def map_loss(logits: Tensor, labels: Tensor, class_weights: tuple[float, ...] = ()) -> Tensor:
    """Averaged over all pixels, the ignored ones too."""
    weight = torch.tensor(class_weights, dtype=logits.dtype) if class_weights else None
    logits = resize(logits, labels.shape[1:])
    of_pixels = F.cross_entropy(logits, labels, weight, ignore_index=255, reduction="none")
    return of_pixels.mean()


class ConvModule(nn.Module):
    """Convolution, batch normalization if `norm`, ReLU if `norm`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=not norm)
        if norm:
            self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.relu(self.bn(x), inplace=True) if hasattr(self, "bn") else x


class FPN(nn.Module):
    def __init__(self, in_channels: list[int], channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvModule(width, channels, 1, norm=False) for width in in_channels)
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3, norm=False) for _ in in_channels)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = [lateral(x) for lateral, x in zip(self.lateral_convs, features, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=tuple(maps[i - 1].shape[2:]), mode="nearest")
        return [conv(x) for conv, x in zip(self.fpn_convs, maps, strict=True)]


class DecodeHead(nn.Module):
    """What heads share: dropout of channels, and the classes."""

    def __init__(self, channels: int, config: SegmentorConfig) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, config.num_classes, 1)
        self.dropout = nn.Dropout2d(config.dropout)

    def classify(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.dropout(x))


class UPerHead(DecodeHead):
    def __init__(self, in_channels: list[int], config: UperNetConfig) -> None:
        channels = config.channels
        super().__init__(channels, config)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvModule(in_channels[-1], channels, 1))
            for scale in config.pool_scales
        )
        self.bottleneck = ConvModule(in_channels[-1] + len(config.pool_scales) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvModule(width, channels, 1) for width in in_channels[:-1])
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3) for _ in in_channels[:-1])
        self.fpn_bottleneck = ConvModule(len(in_channels) * channels, channels, 3)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        pyramid = [resize(module(x), x.shape[2:]) for module in self.psp_modules]
        maps = [lateral(x) for lateral, x in zip(self.lateral_convs, features[:-1], strict=True)]
        maps.append(self.bottleneck(torch.cat([x, *pyramid], dim=1)))
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + resize(maps[i], maps[i - 1].shape[2:])
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, maps[:-1], strict=True)] + maps[-1:]
        outputs = [resize(x, maps[0].shape[2:]) for x in outputs]
        return self.classify(self.fpn_bottleneck(torch.cat(outputs, dim=1)))


class FPNHead(DecodeHead):
    def __init__(self, levels: int, config: SemanticFPNConfig) -> None:
        super().__init__(config.channels, config)
        self.scale_heads = nn.ModuleList()
        for level in range(levels):
            steps = []
            for i in range(max(1, level)):
                steps.append(ConvModule(config.pyramid_channels if i == 0 else config.channels, config.channels, 3))
                if level > 0:
                    steps.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.scale_heads.append(nn.Sequential(*steps))

    def forward(self, levels: list[Tensor]) -> Tensor:
        output = self.scale_heads[0](levels[0])
        for head, level in zip(self.scale_heads[1:], levels[1:], strict=True):
            output = output + resize(head(level), output.shape[2:])
        return self.classify(output)


class FCNHead(DecodeHead):
    def __init__(self, in_channels: int, config: UperNetConfig) -> None:
        assert config.auxiliary_channels is not None
        super().__init__(config.auxiliary_channels, config)
        self.convs = nn.Sequential(ConvModule(in_channels, config.auxiliary_channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.convs(x))
