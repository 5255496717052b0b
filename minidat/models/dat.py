"""The classifier: the backbone, a norm, the average of the map, a linear layer (DAT, Fig. 3; DAT++, Fig. 3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..errors import ConfigError
from ..nn import Backward, Context, LayerNorm, Linear, Module
from .backbone import Backbone
from .config import MAX_PARAMETERS, ModelConfig, as_image_size, check, check_dtype, get_config


class DAT(Backbone):
    """images (B, H, W, 3), normalized floats of any size -> logits (B, num_classes).

    `labels` names the classes, in the order of the logits, or is None.
    """

    def __init__(self, config: ModelConfig, labels: list[str] | None = None) -> None:
        super().__init__(config)
        self.labels = labels
        dim = config.stages[-1].dim
        self.norm = LayerNorm(dim)
        self.head = Linear(dim, config.num_classes)
        for path, module in self.named_modules():
            module.path = path

    def forward(self, images: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
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
    model = build(DAT, config, image_size=image_size, num_classes=num_classes, dtype=dtype, seed=seed)
    assert isinstance(model, DAT)
    return model


def build(
    network: Any,
    config: Any,
    *,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    dtype: Any = np.float32,
    seed: int = 0,
) -> Module:
    """`network(config)` with fresh random weights, after the changes of `create_model` to the config."""
    dtype = check_dtype(dtype)
    if image_size is not None:
        config = config.replace(image_size=as_image_size(image_size))
    if num_classes is not None:
        config = config.replace(num_classes=num_classes)
    model = network(config)
    count = model.parameter_count()
    check(count <= MAX_PARAMETERS, config.name, "parameters", count, f"at most {MAX_PARAMETERS}: choose smaller sizes")
    try:
        model.initialize(np.random.default_rng(seed), dtype)
    except MemoryError:
        raise ConfigError(f"{config.name}: there is not enough memory for a model of {count:,} parameters") from None
    return model
