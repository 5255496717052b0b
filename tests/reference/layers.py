"""The small layers between the attentions. Maps are channels first, (B, C, H, W), as everywhere in this package.

Attribute names are the authors', because they become the names in the state dict.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """Layer normalization over the channels of a map. The result is a channels-last map seen as channels first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MLP(nn.Module):
    """Linear, exact GELU, linear, on tokens."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.chunk = nn.Sequential()
        self.chunk.add_module("linear1", nn.Linear(dim, ratio * dim))
        self.chunk.add_module("act", nn.GELU())
        self.chunk.add_module("linear2", nn.Linear(ratio * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.chunk(x.permute(0, 2, 3, 1).reshape(batch, height * width, channels))
        return tokens.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class ConvolutionalMLP(nn.Module):
    """The MLP of DAT++: a depthwise convolution is added to the hidden map before its GELU."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        hidden = ratio * dim
        self.linear1 = nn.Sequential(nn.Conv2d(dim, hidden, 1))
        self.act = nn.GELU()
        self.linear2 = nn.Sequential(nn.Conv2d(hidden, dim, 1))
        self.dwc = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        x = x + self.dwc(x)
        return self.linear2(self.act(x))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.view(-1, 1, 1)


class DropPath(nn.Module):
    """Stochastic depth: in training, a branch is dropped for a whole image at `rate`, else scaled by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(len(x), 1, 1, 1).bernoulli_(1 - self.rate)
        return x * kept.div_(1 - self.rate)
