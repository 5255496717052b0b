"""`minidat visualize`: draw where a model looks on an image."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..errors import ConfigError, MinidatError
from .shared import add_weights, chosen_weights, say


def add(commands: Any) -> None:
    command = commands.add_parser(
        "visualize",
        help="draw where a model looks on an image",
        description="Draw where the blocks of a model look on an image: the points that deformable attention samples, "
        "and how much attention they get; for window and neighborhood attention, a heat map. Detectors and "
        "segmentors see the image at full resolution; choose one --block for a large picture.",
    )
    command.add_argument("image", metavar="IMAGE", help="a JPEG, PNG, WebP, GIF, TIFF or BMP file")
    add_weights(command)
    command.add_argument(
        "--output", metavar="FILE", help="the .png file to write (default: <IMAGE>_attention.png, here)"
    )
    command.add_argument(
        "--block",
        action="append",
        metavar="NAME",
        help="a block to draw, such as stages.2.blocks.1; can be given several times (default: all deformable ones)",
    )
    command.add_argument("--head", type=int, metavar="N", help="one head, counted from 0 (default: the mean of all)")
    command.add_argument(
        "--query",
        type=float,
        nargs=2,
        metavar=("Y", "X"),
        help="the point that attends, as shares of the picture's height and width: 0 0 is the upper left corner, 1 1 "
        "the lower right one (default: the mean over all points, which shows what gets most attention)",
    )
    command.add_argument(
        "--points",
        type=int,
        metavar="N",
        help="draw the N points that get most attention (default: all of a classifier's, 200 of another model's)",
    )
    command.add_argument(
        "--object", type=int, metavar="N", help="what attends is the N-th best object that the detector finds, from 1"
    )
    command.add_argument(
        "--without-mean",
        action="store_true",
        help="draw each deformable block twice, the second time without the mean offset of each group: what depends "
        "on the place and on the picture",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from ..checkpoints import load_model
    from ..data.image import load_image
    from ..evaluation import check_picture_path, save_picture
    from ..visualization import visualize

    output = arguments.output or f"{Path(arguments.image).stem}_attention.png"
    check_picture_path(output)  # before the work, not after it
    image = load_image(arguments.image)
    if os.path.exists(output) and os.path.samefile(arguments.image, output):
        raise MinidatError(f"{output}: this is the image itself; give another file to write with --output")
    model = load_model(chosen_weights(arguments))
    query = None if arguments.query is None else tuple(arguments.query)
    box = None if arguments.object is None else _box(model, image, arguments.object)
    picture = visualize(
        model,
        image,
        blocks=arguments.block,
        head=arguments.head,
        query=query,
        points=arguments.points,
        box=box,
        without_mean=arguments.without_mean,
    )
    save_picture(picture, output)
    say(output)


def _box(model: Any, image: Any, number: int) -> tuple[float, float, float, float]:
    """Where the object of this number is, (x1, y1, x2, y2) in pixels, the best one being 1."""
    from ..detection import Detector, detect

    if not isinstance(model, Detector):
        raise ConfigError(f"--object: {model.config.name} is no detector, which this is for")
    found = detect(model, image, threshold=0)
    if not 1 <= number <= len(found):
        raise ConfigError(f"--object: found {number}, expected 1 to {len(found)}, the objects in the image")
    return found[number - 1].box
