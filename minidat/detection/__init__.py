"""Detectors: what is where in a picture."""

from .config import DetectorConfig, RetinaNetConfig
from .detections import Detection, Detections, detect
from .detector import Detector
from .retinanet import RetinaNet

__all__ = ["Detection", "Detections", "Detector", "DetectorConfig", "RetinaNet", "RetinaNetConfig", "detect"]
