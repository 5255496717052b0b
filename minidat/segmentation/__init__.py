"""Semantic segmentation: a class for every pixel, by UperNet and Semantic FPN."""

from .config import SegmentorConfig, SemanticFPNConfig, UperNetConfig
from .prediction import Segmentation, segment
from .segmentor import Segmentor
from .semantic_fpn import SemanticFPN
from .upernet import UperNet

__all__ = [
    "Segmentation",
    "Segmentor",
    "SegmentorConfig",
    "SemanticFPN",
    "SemanticFPNConfig",
    "UperNet",
    "UperNetConfig",
    "segment",
]
