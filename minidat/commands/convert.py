"""`minidat convert`: turn a checkpoint of the authors into a file of minidat."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .shared import say


def add(commands: Any) -> None:
    command = commands.add_parser(
        "convert",
        help="turn a checkpoint of the authors into a file of minidat",
        description="Turn a checkpoint of the authors (.pth) into a file of minidat (.npz). PyTorch is not needed, and "
        "nothing in the file is executed.",
    )
    command.add_argument("source", metavar="SRC", help="a .pth file (or a .npz file, to change its labels)")
    command.add_argument("destination", metavar="DST", help="the .npz file to write")
    command.add_argument(
        "--labels",
        metavar="FILE",
        help="the names of the classes: a text file with one a line, or `imagenet`, `cifar10`, `ade20k` or `coco`",
    )
    command.add_argument("--half", action="store_true", help="store 16 bits a weight: half the size, about 3 digits")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from ..checkpoints import convert
    from ..data.labels import load_labels

    labels = None if arguments.labels is None else load_labels(arguments.labels)
    dtype = "float16" if arguments.half else "float32"
    config = convert(arguments.source, arguments.destination, labels=labels, dtype=dtype)
    height, width = config.image_size
    size = os.path.getsize(arguments.destination) / 1e6
    say(
        f"{arguments.destination}: {config.name}, {config.num_classes} classes, images of {height} x {width} pixels, "
        f"{size:.1f} MB"
    )
