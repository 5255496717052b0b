"""The whole network: patches, four stages, and the classifier (DAT, Fig. 3; DAT++, Fig. 3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..errors import ConfigError
from ..nn import Backward, Context, LayerNorm, Linear, Module
from ..nn.module import check_images
from . import team
from .block import Stage
from .config import ModelConfig, as_image_size, check_dtype, get_config
from .patch_embedding import ConvolutionalPatchEmbedding, Downsampling, PatchEmbedding


class DAT(Module):
    """images (B, H, W, 3), normalised floats -> logits (B, num_classes).

    Images may have any size, square or not. Where a patch, a window or a stride does not divide a map, the map is
    padded with zeros at the right and the bottom (see PatchEmbedding, WindowAttention and NeighborhoodAttention).

    `labels` names the classes, in the order of the logits, or is None.

    Without gradients, helper processes share the work from about the third pass on (see `minidat.models.team`). The
    parameters' values then lie in memory that the helpers see: other arrays than before, with the same numbers.
    """

    def __init__(self, config: ModelConfig, labels: list[str] | None = None) -> None:
        self.config = config
        self.labels = labels
        dims = [stage.dim for stage in config.stages]
        embedding = ConvolutionalPatchEmbedding if config.convolutional_patches else PatchEmbedding
        self.patch_embedding = embedding(dims[0], config.patch_size)
        depths = [len(stage.blocks) for stage in config.stages]
        drop_rates = np.linspace(0, config.drop_path, sum(depths)).tolist()
        self.stages = [
            Stage(config, i, drop_rates[sum(depths[:i]) : sum(depths[: i + 1])]) for i in range(len(config.stages))
        ]
        self.downsamplings = [
            Downsampling(dims[i], dims[i + 1], overlapping=config.convolutional_patches) for i in range(len(dims) - 1)
        ]
        self.norm = LayerNorm(dims[-1])
        self.head = Linear(dims[-1], config.num_classes)
        for path, module in self.named_modules():
            module.path = path

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the weights, which images are converted to."""
        return self.head.weight.value.dtype

    def features(self, images: np.ndarray) -> list[np.ndarray]:
        """The four stages' maps, for dense prediction: (B, H / p, W / p, dim), then half the size each (inference)."""
        images, context = np.asarray(images), Context()
        check_images(images)
        features = team.run(self, "forward_features", images, context)
        return self.forward_features(images, context)[0] if features is None else features

    def forward_features(self, images: np.ndarray, context: Context) -> tuple[list[np.ndarray], Backward]:
        """As `features`; backward takes four gradients in a list, None for an unused map, and returns d_images."""
        images = np.asarray(images)
        check_images(images)
        x, embedding_backward = self.patch_embedding.forward(images.astype(self.dtype, copy=False), context)
        features, backwards = [], []
        for i, stage in enumerate(self.stages):
            x, stage_backward = stage.forward(x, context)
            features.append(x)
            backwards.append(stage_backward)
            if i < len(self.downsamplings):
                x, downsampling_backward = self.downsamplings[i].forward(x, context)
                backwards.append(downsampling_backward)

        def backward(d_features: list[np.ndarray | None]) -> np.ndarray:
            d_x = None
            for i in reversed(range(len(self.stages))):
                d_feature = d_features[i]
                if d_x is not None:
                    d_x = backwards[2 * i + 1](d_x)
                if d_feature is not None:
                    d_x = d_feature if d_x is None else d_x + d_feature
                if d_x is not None:
                    d_x = backwards[2 * i](d_x)
            if d_x is None:
                return np.zeros(images.shape, self.dtype)
            return embedding_backward(d_x)

        return features, backward

    def forward(self, images: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        images = np.asarray(images)
        check_images(images)
        logits = team.run(self, "forward", images, context)
        if logits is not None:
            return logits, None  # type: ignore[return-value]
        features, features_backward = self.forward_features(images, context)
        x, norm_backward = self.norm.forward(features[-1], context)
        pooled, pool_backward = context.apply(ops.global_average_pool, x)
        logits, head_backward = self.head.forward(pooled, context)

        def backward(d_logits: np.ndarray) -> np.ndarray:
            d_x = norm_backward(pool_backward(head_backward(d_logits)))
            return features_backward([None, None, None, d_x])

        return logits, backward if context.gradients else None  # type: ignore[return-value]


def create_model(
    name_or_config: str | ModelConfig,
    *,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    dtype: Any = np.float32,
    seed: int = 0,
) -> DAT:
    """A model with fresh random weights.

    name_or_config: one of `list_models()`, or a ModelConfig; image_size: pixels, one side of a square or (height,
    width), and num_classes replace those of the config; dtype: float32 or float64; the same seed draws the same
    weights. Raises ConfigError for an unknown name or a config that cannot be built.
    """
    config = get_config(name_or_config) if isinstance(name_or_config, str) else name_or_config
    if not isinstance(config, ModelConfig):
        raise ConfigError(f"model: found {type(config).__name__}, expected a name or a ModelConfig")
    dtype = check_dtype(dtype)
    if image_size is not None:
        config = config.replace(image_size=as_image_size(image_size))
    if num_classes is not None:
        config = config.replace(num_classes=num_classes)
    model = DAT(config)
    model.initialize(np.random.default_rng(seed), dtype)
    return model
