"""The whole model of both papers, for any `ModelConfig`. Maps are channels first, (B, C, H, W)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidat.models.config import DEFORMABLE, NEIGHBORHOOD, SHIFTED_WINDOW, ModelConfig, StageConfig

from .deformable_attention import DeformableAttention
from .layers import MLP, ConvolutionalMLP, DropPath, LayerNorm2d, LayerScale
from .neighborhood_attention import NeighborhoodAttention
from .window_attention import ShiftedWindowAttention, WindowAttention


def build(config: ModelConfig) -> DAT:
    """The model that `config` describes, with PyTorch's default initial values, in training mode as modules are."""
    return DAT(config)


class DAT(nn.Module):
    """Patch embedding, four stages with down-sampling between them, and the classification head.

    Where a patch or a down-sampling does not divide what it sees, that is padded with zeros, as in Swin's detectors.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dims = [stage.dim for stage in config.stages]
        rates = torch.linspace(0, config.drop_path, sum(len(stage.blocks) for stage in config.stages), device="cpu")
        rates = iter(rates.tolist())

        if config.convolutional_patches:
            self.patch_proj = nn.Sequential(
                nn.Conv2d(3, dims[0] // 2, 3, stride=2, padding=1),
                LayerNorm2d(dims[0] // 2),
                nn.GELU(),
                nn.Conv2d(dims[0] // 2, dims[0], 3, stride=config.patch_size // 2, padding=1),
                LayerNorm2d(dims[0]),
            )
        else:
            patches = nn.Conv2d(3, dims[0], config.patch_size, config.patch_size)
            self.patch_proj = nn.Sequential(patches, LayerNorm2d(dims[0]))
        self.stages = nn.ModuleList(
            Stage(config, i, list(itertools.islice(rates, len(stage.blocks)))) for i, stage in enumerate(config.stages)
        )
        kernel, padding = (3, 1) if config.convolutional_patches else (2, 0)
        self.down_projs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(narrow, wide, kernel, 2, padding, bias=False), LayerNorm2d(wide))
            for narrow, wide in itertools.pairwise(dims)
        )
        self.cls_norm = LayerNorm2d(dims[-1])
        self.cls_head = nn.Linear(dims[-1], config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, num_classes), of images (B, 3, H, W)."""
        x = self.stages[0](self.patch_proj(padded(x, self.patch_proj[0])))
        for down_projection, stage in zip(self.down_projs, self.stages[1:], strict=True):
            x = down_projection(padded(x, down_projection[0]))
            x = stage(x)
        x = F.adaptive_avg_pool2d(self.cls_norm(x), 1)
        return self.cls_head(torch.flatten(x, 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """The outputs of the four stages, each (B, C, H, W), before the down-sampling that follows."""
        maps = [self.stages[0](self.patch_proj(padded(x, self.patch_proj[0])))]
        for down_projection, stage in zip(self.down_projs, self.stages[1:], strict=True):
            maps.append(stage(down_projection(padded(maps[-1], down_projection[0]))))
        return maps


def padded(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """With zeros at the right and the bottom, if the kernel is the stride and does not divide the map."""
    if convolution.kernel_size != convolution.stride:
        return x
    bottom, right = (-side % step for side, step in zip(x.shape[2:], convolution.stride, strict=True))
    return F.pad(x, (0, right, 0, bottom)) if bottom or right else x


class Stage(nn.Module):
    """Blocks of one width. The lists are parallel, two entries a block in some, because the authors' names are."""

    def __init__(self, config: ModelConfig, index: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        stage = config.stages[index]
        dim, blocks = stage.dim, range(len(stage.blocks))
        mlp = ConvolutionalMLP if config.convolutional_mlp else MLP
        self.layer_norms = nn.ModuleList(LayerNorm2d(dim) for _ in range(2 * len(blocks)))
        self.mlps = nn.ModuleList(mlp(dim, config.mlp_ratio) for _ in blocks)
        self.attns = nn.ModuleList(_attention(kind, config, stage, index) for kind in stage.blocks)
        self.drop_path = nn.ModuleList(DropPath(rate) for rate in drop_path_rates)
        self.layer_scales = nn.ModuleList(
            nn.Identity() if config.layer_scale is None else LayerScale(dim, config.layer_scale)
            for _ in range(2 * len(blocks))
        )
        self.local_perception_units = nn.ModuleList(
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if config.local_perception else nn.Identity() for _ in blocks
        )
        self.local_perception = config.local_perception

    def forward(self, x: Tensor) -> Tensor:
        for i, (attention, mlp, drop_path) in enumerate(zip(self.attns, self.mlps, self.drop_path, strict=True)):
            if self.local_perception:
                x = self.local_perception_units[i](x.contiguous()) + x
            x = drop_path(self.layer_scales[2 * i](attention(self.layer_norms[2 * i](x)))) + x
            x = drop_path(self.layer_scales[2 * i + 1](mlp(self.layer_norms[2 * i + 1](x)))) + x
        return x


def _attention(kind: str, config: ModelConfig, stage: StageConfig, index: int) -> nn.Module:
    """The attention called `kind` of one block of stage `index`."""
    if kind == DEFORMABLE:
        assert stage.deformable is not None
        return DeformableAttention(stage.dim, stage.heads, stage.deformable, config.table_map_size(index))
    if kind == NEIGHBORHOOD:
        return NeighborhoodAttention(stage.dim, stage.heads, stage.neighborhood)
    if kind == SHIFTED_WINDOW:
        return ShiftedWindowAttention(stage.dim, stage.heads, stage.window, config.map_size(index))
    return WindowAttention(stage.dim, stage.heads, stage.window)
