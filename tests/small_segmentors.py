"""A small segmentor for the tests."""

from __future__ import annotations

from minidat.segmentation import UperNetConfig
from tests.small_detectors import small_backbone


def small_upernet() -> UperNetConfig:
    """An UperNet for three classes on 64 x 64 pixels."""
    return UperNetConfig(
        "small_upernet",
        small_backbone(),
        num_classes=3,
        image_size=(64, 64),
        resize_size=(64, 64),
        channels=12,
        auxiliary_channels=8,
    )
