"""Detectors: what is where in a picture."""

from .cascade_mask_rcnn import CascadeMaskRCNN
from .config import DetectorConfig, RetinaNetConfig
from .detections import Detection, Detections, detect
from .detector import Detector
from .mask_rcnn import MaskRCNN
from .retinanet import RetinaNet
from .two_stage_config import CascadeMaskRCNNConfig, MaskRCNNConfig, StageSettings, TwoStageConfig

__all__ = [
    "CascadeMaskRCNN",
    "CascadeMaskRCNNConfig",
    "Detection",
    "Detections",
    "Detector",
    "DetectorConfig",
    "MaskRCNN",
    "MaskRCNNConfig",
    "RetinaNet",
    "RetinaNetConfig",
    "StageSettings",
    "TwoStageConfig",
    "detect",
]
