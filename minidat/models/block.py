"""A transformer block, and a stage: a row of blocks on maps of one size (DAT, Fig. 3)."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, LayerNorm, LayerScale, Module, depthwise_conv, run_in_order
from .config import DEFORMABLE, NEIGHBORHOOD, SHIFTED_WINDOW, ModelConfig, StageConfig
from .deformable_attention import DeformableAttention
from .mlp import MLP
from .neighborhood_attention import NeighborhoodAttention
from .window_attention import WindowAttention


class Block(Module):
    """x += attention(norm1(x)), x += mlp(norm2(x)); x: (B, H, W, dim) -> the same shape.

    In front of them DAT++ has a local perception unit, x += depthwise 3x3 convolution of x. Each branch may have a
    learned factor a channel (layer scale), and while training it is dropped for whole images at `drop_rate`
    (stochastic depth).
    """

    def __init__(self, config: ModelConfig, stage: StageConfig, attention: Module, drop_rate: float) -> None:
        dim = stage.dim
        self.perception = depthwise_conv(dim) if config.local_perception else None
        self.norm1 = LayerNorm(dim)
        self.attention = attention
        self.scale1 = None if config.layer_scale is None else LayerScale(dim, config.layer_scale)
        self.norm2 = LayerNorm(dim)
        self.mlp = MLP(dim, dim * config.mlp_ratio, convolutional=config.convolutional_mlp)
        self.scale2 = None if config.layer_scale is None else LayerScale(dim, config.layer_scale)
        self.drop_rate = drop_rate

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        if self.perception is not None:
            x, perception_backward = context.apply(
                ops.local_perception, x, self.perception.weight, self.perception.bias
            )
        first = self.norm1, self.attention, self.scale1
        second = self.norm2, self.mlp, self.scale2
        x, attention_backward = self._add_branch(x, *first, context)
        output, mlp_backward = self._add_branch(x, *second, context)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_x = attention_backward(mlp_backward(d_output))
            return d_x if self.perception is None else perception_backward(d_x)

        return output, backward

    def _add_branch(
        self, x: np.ndarray, norm: LayerNorm, layer: Module, scale: LayerScale | None, context: Context
    ) -> tuple[np.ndarray, Backward]:
        """x + scale * drop_path(layer(norm(x)))."""
        normed, norm_backward = norm.forward(x, context)
        branch, layer_backward = layer.forward(normed, context)
        drops = context.training and self.drop_rate > 0
        if drops:
            chance = {"rate": self.drop_rate, "rng": context.rng}
            branch, drop_backward = context.apply(ops.drop_path, branch, **chance)
        factors = None if scale is None else scale.weight
        output, residual_backward = context.apply(ops.residual, x, branch, factors)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_x, d_branch = residual_backward(d_output)
            if drops:
                d_branch = drop_backward(d_branch)
            return d_x + norm_backward(layer_backward(d_branch))

        return output, backward


class Stage(Module):
    """The blocks of one stage; x: (B, H, W, dim) -> the same shape.

    Drop rates are those of the blocks, in order.
    """

    def __init__(self, config: ModelConfig, index: int, drop_rates: list[float]) -> None:
        stage = config.stages[index]
        self.blocks = [
            Block(config, stage, build_attention(kind, stage, config.table_map_size(index)), rate)
            for kind, rate in zip(stage.blocks, drop_rates, strict=True)
        ]

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        return run_in_order(self.blocks, x, context)


def build_attention(kind: str, stage: StageConfig, table_size: tuple[int, int]) -> Module:
    """The attention module of a block of `kind` (see config.ATTENTIONS)."""
    if kind == DEFORMABLE:
        assert stage.deformable is not None  # the config has been checked
        return DeformableAttention(stage.dim, stage.heads, stage.deformable, table_size)
    if kind == NEIGHBORHOOD:
        return NeighborhoodAttention(stage.dim, stage.heads, stage.neighborhood)
    return WindowAttention(stage.dim, stage.heads, stage.window, shifted=kind == SHIFTED_WINDOW)
