"""The networks of the two papers."""

from .backbone import Backbone, DenseBackbone
from .config import DeformableConfig, ModelConfig, StageConfig, get_config, list_models
from .dat import DAT, create_model
from .deformable_attention import DeformableAttention
from .neighborhood_attention import NeighborhoodAttention
from .pyramid import FeaturePyramid
from .window_attention import WindowAttention

__all__ = [
    "DAT",
    "Backbone",
    "DeformableAttention",
    "DeformableConfig",
    "DenseBackbone",
    "FeaturePyramid",
    "ModelConfig",
    "NeighborhoodAttention",
    "StageConfig",
    "WindowAttention",
    "create_model",
    "get_config",
    "list_models",
]
