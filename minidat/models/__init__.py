"""The networks of the two papers."""

from .config import DeformableConfig, ModelConfig, StageConfig, get_config, list_models
from .dat import DAT, create_model

__all__ = ["DAT", "DeformableConfig", "ModelConfig", "StageConfig", "create_model", "get_config", "list_models"]
