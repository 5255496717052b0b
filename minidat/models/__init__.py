"""The networks of the two papers."""

from .backbone import Backbone, DenseBackbone
from .config import DeformableConfig, ModelConfig, StageConfig, get_config, list_models
from .dat import DAT, create_model

__all__ = [
    "DAT",
    "Backbone",
    "DeformableConfig",
    "DenseBackbone",
    "ModelConfig",
    "StageConfig",
    "create_model",
    "get_config",
    "list_models",
]
