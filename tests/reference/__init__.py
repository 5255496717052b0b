"""The models of both papers in PyTorch: the tests' oracle for whole models, and the peer of `minidat bench`.

    from tests.reference import build
    model = build(minidat.models.config.get_config("dat_tiny"))     # a torch.nn.Module, channels first
    logits = model(torch.randn(1, 3, 224, 224))

It computes what the authors' public code computes, with the same PyTorch operators in the same memory layouts and under
the same parameter names (so a state dict of theirs loads strictly), because a peer slower than the original would make
a dishonest race. `tests/test_reference.py` holds it to recordings of the authors' own code.
"""

from __future__ import annotations

from typing import Any

from minidat.detection import RetinaNetConfig
from minidat.segmentation import SegmentorConfig

from . import dat
from .dat import DAT
from .detection import build_retinanet
from .segmentation import build_segmentor

__all__ = ["DAT", "build"]


def build(config: Any) -> Any:
    """The network that a config of any family describes, as a torch.nn.Module with random values."""
    if isinstance(config, RetinaNetConfig):
        return build_retinanet(config)
    return build_segmentor(config) if isinstance(config, SegmentorConfig) else dat.build(config)
