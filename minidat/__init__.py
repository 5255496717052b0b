"""minidat: the Deformable Attention Transformer in readable NumPy.

    model = minidat.load_model("dat_mini_cifar10")
    for prediction in minidat.classify(model, minidat.example_image("cat")):
        print(prediction.label, prediction.probability)

Names are imported when first used, so that `import minidat` costs little more than `import numpy`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalog import create_model, list_models
    from .checkpoints import convert_state_dict, load_model, save_npz
    from .classification import Prediction, classify
    from .data import example_image, load_image, preprocess
    from .data.targets import BoxTargets
    from .detection import Detection, Detections, detect
    from .errors import MinidatError
    from .models import DAT, ModelConfig
    from .nn import Context
    from .runtime.session import Session
    from .segmentation import Segmentation, segment

__version__ = "0.1.0"

_HOMES = {
    "BoxTargets": "data.targets",
    "Context": "nn",
    "DAT": "models",
    "Detection": "detection",
    "Detections": "detection",
    "MinidatError": "errors",
    "ModelConfig": "models",
    "Prediction": "classification",
    "Session": "runtime.session",
    "Segmentation": "segmentation",
    "classify": "classification",
    "convert_state_dict": "checkpoints",
    "create_model": "catalog",
    "detect": "detection",
    "example_image": "data",
    "list_models": "catalog",
    "load_image": "data",
    "load_model": "checkpoints",
    "preprocess": "data",
    "save_npz": "checkpoints",
    "segment": "segmentation",
}

__all__ = [
    "DAT",
    "BoxTargets",
    "Context",
    "Detection",
    "Detections",
    "MinidatError",
    "ModelConfig",
    "Prediction",
    "Segmentation",
    "Session",
    "classify",
    "convert_state_dict",
    "create_model",
    "detect",
    "example_image",
    "list_models",
    "load_image",
    "load_model",
    "preprocess",
    "save_npz",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'minidat' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
