"""A transformer block, and a stage: a row of blocks on maps of one size (DAT, Fig. 3)."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..nn import Backward, Context, LayerNorm, LayerScale, Module, depthwise_conv
from .config import DEFORMABLE, NEIGHBORHOOD, SHIFTED_WINDOW, ModelConfig, StageConfig
from .deformable_attention import DeformableAttention
from .inference import infer_in_parts, plus_identity, residual
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
        if not (context.gradients or context.training):
            return self._infer(x, context), None  # type: ignore[return-value]
        if self.perception is not None:
            local, perception_backward = self.perception.forward(x, context)
            x = residual(x, local)
        branch, attention_backward = self._branch(x, self.norm1, self.attention, self.scale1, context)
        x = residual(x, branch)
        branch, mlp_backward = self._branch(x, self.norm2, self.mlp, self.scale2, context)
        output = residual(x, branch)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_x = d_output + mlp_backward(d_output)
            d_x += attention_backward(d_x)
            if self.perception is not None:
                d_x += perception_backward(d_x)
            return d_x

        return output, backward

    def _branch(
        self, x: np.ndarray, norm: LayerNorm, layer: Module, scale: LayerScale | None, context: Context
    ) -> tuple[np.ndarray, Backward]:
        """drop_path(scale(layer(norm(x))))."""
        normed, norm_backward = norm.forward(x, context)
        branch, layer_backward = layer.forward(normed, context)
        if scale is not None:
            branch, scale_backward = scale.forward(branch, context)
        drops = context.training and self.drop_rate > 0
        if drops:
            branch, drop_backward = context.apply(ops.drop_path, branch, rate=self.drop_rate, rng=context.rng)

        def backward(d_branch: np.ndarray) -> np.ndarray:
            if drops:
                d_branch = drop_backward(d_branch)
            if scale is not None:
                d_branch = scale_backward(d_branch)
            return norm_backward(layer_backward(d_branch))

        return branch, backward

    def _infer(self, x: np.ndarray, context: Context) -> np.ndarray:
        """The same with fewer passes over the map, and nothing kept."""
        if self.perception is not None:
            weight, bias = self.perception.weight.value, self.perception.bias
            x, _ = context.apply(ops.conv2d, x, plus_identity(weight), bias, padding=1, groups=x.shape[-1])

        def branch(part: np.ndarray, norm: LayerNorm, layer: Module, scale: LayerScale | None) -> np.ndarray:
            output, _ = layer.forward(norm.forward(part, context)[0], context)
            return residual(part, output, None if scale is None else scale.weight.value)

        x = branch(x, self.norm1, self.attention, self.scale1)
        if self.mlp.depthwise is not None:
            return branch(x, self.norm2, self.mlp, self.scale2)
        tokens = x.reshape(-1, x.shape[-1])  # each by itself
        hidden = len(self.mlp.fc1.weight.value)
        output = infer_in_parts(lambda part: branch(tokens[part], self.norm2, self.mlp, self.scale2), tokens, hidden)
        return output.reshape(x.shape)


class Stage(Module):
    """The blocks of one stage; x: (B, H, W, dim) -> the same shape.

    In inference each thread takes its share of the images through all the blocks. Drop rates are those of the blocks,
    in order.
    """

    def __init__(self, config: ModelConfig, index: int, drop_rates: list[float]) -> None:
        stage = config.stages[index]
        self.blocks = [
            Block(config, stage, build_attention(kind, stage, config.table_map_size(index)), rate)
            for kind, rate in zip(stage.blocks, drop_rates, strict=True)
        ]

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        tracing = context.trace is not None or context.local_trace is not None
        if context.gradients or context.training or tracing:
            return self._forward(x, context)
        output = infer_in_parts(lambda part: self._forward(x[part], context)[0], x, x.shape[-1])
        return output, None  # type: ignore[return-value]

    def _forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        backwards = []
        for block in self.blocks:
            x, block_backward = block.forward(x, context)
            if context.gradients:
                backwards.append(block_backward)

        def backward(d_x: np.ndarray) -> np.ndarray:
            for block_backward in reversed(backwards):
                d_x = block_backward(d_x)
            return d_x

        return x, backward


def build_attention(kind: str, stage: StageConfig, table_size: tuple[int, int]) -> Module:
    """The attention module of a block of `kind` (see config.ATTENTIONS)."""
    if kind == DEFORMABLE:
        assert stage.deformable is not None  # the config has been checked
        return DeformableAttention(stage.dim, stage.heads, stage.deformable, table_size)
    if kind == NEIGHBORHOOD:
        return NeighborhoodAttention(stage.dim, stage.heads, stage.neighborhood)
    return WindowAttention(stage.dim, stage.heads, stage.window, shifted=kind == SHIFTED_WINDOW)
