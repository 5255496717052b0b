"""`minidat detect`: find the objects in images."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .shared import load_detector, output_files, print_json, say, write_json

RESULTS_FILE = "coco_results.json"


def add(commands: Any) -> None:
    command = commands.add_parser(
        "detect",
        help="find the objects in images",
        description="Find the objects in images: their classes, scores and boxes, and their masks if the model has "
        "any. Draws them into IMAGE_detections.png, unless only JSON is asked for.",
    )
    command.add_argument("images", nargs="+", metavar="IMAGE", help="a JPEG, PNG, WebP, GIF, TIFF or BMP file")
    command.add_argument(
        "--weights",
        metavar="FILE",
        help="the detector: a .npz or .pth file, or a name that comes with minidat (default: dat_mini_bccd)",
    )
    command.add_argument(
        "--threshold", type=float, default=0.3, metavar="T", help="the score that must be exceeded (default: 0.3)"
    )
    command.add_argument("--output", metavar="DIR", help="the folder to draw into (default: here)")
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="print a list of objects for programs")
    kind.add_argument(
        "--coco", action="store_true", help="print what COCO's tools read as results, and write it to "
        f"DIR/{RESULTS_FILE} if --output is given; an image's id is the number that is its name, as in COCO, or else "
        "its place in the command, from 1; a category's is COCO's for COCO's 80 classes, or else the class number + 1",
    )  # fmt: skip
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Nothing is printed before the objects of all images are found: that output is whole or absent."""
    from ..data.image import load_image
    from ..detection import detect
    from ..detection.coco_results import category_ids, coco_results, corner_and_size
    from ..evaluation import save_picture
    from ..visualization import draw_detections

    if not 0 <= arguments.threshold <= 1:
        raise ConfigError(f"--threshold: found {arguments.threshold}, expected 0 to 1")
    is_drawn = arguments.output is not None or not (arguments.json or arguments.coco)
    pictures = output_files(arguments.images, arguments.output, "_detections.png", "--output") if is_drawn else []
    model = load_detector(arguments.weights)
    for path in arguments.images:  # a file that is no image stops the program before the work
        load_image(path)

    ids, numbers = category_ids(model.labels, model.config.num_classes), image_ids(arguments.images)
    objects, results, lines = [], [], []
    for i, path in enumerate(arguments.images):
        image = load_image(path)
        found = detect(model, image, arguments.threshold)
        if is_drawn:
            pictures[i].parent.mkdir(parents=True, exist_ok=True)
            save_picture(draw_detections(image, found), pictures[i])
        if arguments.coco:
            results += coco_results(found, numbers[i], ids)
        elif arguments.json:
            answers = [{"label": d.label, "score": d.score, "bbox": corner_and_size(d)} for d in found]
            objects.append({"image": path, "detections": answers})
        else:
            lines.append(path)
            for d in found:
                x, y, width, height = corner_and_size(d)
                lines.append(f"  {d.label} {d.score:.1%}  at x {x:.0f}, y {y:.0f}, {width:.0f} x {height:.0f} pixels")
            lines.append(f"  {len(found) or 'no'} object{'' if len(found) == 1 else 's'}: {pictures[i]}")
    if arguments.coco and arguments.output is not None:
        write_json(results, Path(arguments.output) / RESULTS_FILE)
    if arguments.coco or arguments.json:
        print_json(results if arguments.coco else objects)
    for line in lines:
        say(line)
    if arguments.weights is None and lines:
        print(f"\nThe detector that comes with minidat knows only blood cells: {', '.join(model.labels)}.")
        print("For COCO's 80 classes: minidat download retinanet_datpp_tiny, then detect with --weights FILE")


def image_ids(images: Sequence[str | os.PathLike[str]]) -> list[int]:
    """The numbers that the images are called, or 1, 2, ... unless all have one of their own."""
    names = [Path(path).stem for path in images]
    numbers = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) <= 18]
    return numbers if len(set(numbers)) == len(names) else list(range(1, len(names) + 1))
