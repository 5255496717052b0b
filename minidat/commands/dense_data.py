"""Options that say how label maps are to be read, and the data set that fits a model."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..errors import DatasetError, MinidatError


def add_label_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--palette", metavar="FILE", help="label maps are in these colors: a text file of lines `red green blue name`"
    )
    command.add_argument(
        "--reduce-zero-label", action="store_true", help="label maps count classes from 1, and 0 is none (ADE20K)"
    )


def open_dense_dataset(
    arguments: argparse.Namespace, config: Any, split: str | None, default_split: str | None = None
) -> Any:
    """The DetectionDataset or SegmentationDataset at --data, as the model needs it."""
    from ..data import DetectionDataset, SegmentationDataset
    from ..detection import DetectorConfig

    if isinstance(config, DetectorConfig):
        return DetectionDataset(arguments.data, split, default_split=default_split)
    return SegmentationDataset(
        arguments.data,
        split,
        default_split=default_split,
        palette=arguments.palette,
        reduce_zero_label=arguments.reduce_zero_label,
    )


def readable(
    dataset: Any, on_error: Callable[[MinidatError], None], progress: Callable[[int, int], None] | None
) -> Any:
    """The part of a data set that can be read; each other picture is told to `on_error`."""
    kept = []
    for index in range(len(dataset)):
        (item,) = dataset.load_many([index])
        if isinstance(item, MinidatError):
            on_error(item)
        else:
            kept.append(index)
        if progress is not None:
            progress(index + 1, len(dataset))
    if not kept:
        raise DatasetError(f"{dataset.name}: none of its {len(dataset)} pictures can be read, expected at least one")
    return dataset.subset(kept)
