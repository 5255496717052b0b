"""Patches and four stages: the part of the network that classification and dense prediction share (DAT, Fig. 3)."""

from __future__ import annotations

import numpy as np

from ..nn import Backward, Context, LayerNorm, Module
from ..nn.module import check_images
from .block import Stage
from .config import ModelConfig
from .patch_embedding import ConvolutionalPatchEmbedding, Downsampling, PatchEmbedding


class Backbone(Module):
    """images (B, H, W, 3), normalized floats -> the stages' maps, the first (B, H / patch, W / patch, dim).

    Images may have any size, square or not. Where a patch, a window or a stride does not divide a map, the map is
    padded with zeros at the right and the bottom (see PatchEmbedding, WindowAttention and NeighborhoodAttention).
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
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

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the weights, which images are converted to."""
        return next(parameter for _, parameter in self.named_parameters()).value.dtype

    def features(self, images: np.ndarray) -> list[np.ndarray]:
        """The four stages' maps, for dense prediction: (B, H / p, W / p, dim), then half the size each (inference)."""
        return self.forward_features(images, Context())[0]

    def forward_features(self, images: np.ndarray, context: Context) -> tuple[list[np.ndarray], Backward]:
        """As `features`; backward takes four gradients in a list, None for an unused map, and returns d_images."""
        images = np.asarray(images)
        check_images(images)
        x = images.astype(self.dtype, copy=False)
        x, embedding_backward = self.patch_embedding.forward(x, context)
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


class DenseBackbone(Backbone):
    """A backbone for detection and segmentation: each map that is used ends in a layer norm of its own.

    images (B, H, W, 3) -> the maps of the stages `out_indices`, normalized, in a list. The next stage goes on from the
    map before that norm. Source: the authors' detection and segmentation code (`norms.i`).
    """

    def __init__(self, config: ModelConfig, out_indices: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        super().__init__(config)
        self.out_indices = out_indices
        self.norms = [LayerNorm(stage.dim) if i in out_indices else None for i, stage in enumerate(config.stages)]

    def forward(self, images: np.ndarray, context: Context) -> tuple[list[np.ndarray], Backward]:
        """Backward takes a list of gradients, one for each of `out_indices`, and returns d_images."""
        features, features_backward = self.forward_features(images, context)
        outputs, norm_backwards = [], []
        for i in self.out_indices:
            norm = self.norms[i]
            assert norm is not None
            output, norm_backward = norm.forward(features[i], context)
            outputs.append(output)
            norm_backwards.append(norm_backward)

        def backward(d_outputs: list[np.ndarray]) -> np.ndarray:
            d_features: list[np.ndarray | None] = [None] * len(features)
            for i, norm_backward, d_output in zip(self.out_indices, norm_backwards, d_outputs, strict=True):
                d_features[i] = norm_backward(d_output)
            return features_backward(d_features)

        return outputs, backward
