"""`minidat segment`: say which class each pixel of images belongs to."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import ConfigError
from .shared import load_segmentor, output_files, print_json, say


def add(commands: Any) -> None:
    command = commands.add_parser(
        "segment",
        help="say which class each pixel of images belongs to",
        description="Say which class each pixel of images belongs to, and how much of them each class covers. Draws "
        "the classes over IMAGE into IMAGE_segmentation.png, unless only label maps or JSON are asked for.",
    )
    command.add_argument("images", nargs="+", metavar="IMAGE", help="a JPEG, PNG, WebP, GIF, TIFF or BMP file")
    command.add_argument(
        "--weights",
        metavar="FILE",
        help="the segmentor: a .npz or .pth file, or a name that comes with minidat (default: dat_mini_camvid)",
    )
    command.add_argument("--output", metavar="DIR", help="the folder to draw into (default: here)")
    command.add_argument(
        "--labels",
        metavar="DIR",
        help="write the class numbers to DIR/IMAGE.png, of the picture's size, with a palette",
    )
    command.add_argument(
        "--opacity", type=float, default=0.5, metavar="A", help="the share of the classes' colors (default: 0.5)"
    )
    command.add_argument("--json", action="store_true", help="print a list of objects for programs")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Nothing is printed before all images are segmented: that output is whole or absent."""
    from ..data.image import load_image
    from ..evaluation import save_picture
    from ..segmentation import segment
    from ..visualization import draw_segmentation, label_picture

    if not 0 <= arguments.opacity <= 1:
        raise ConfigError(f"--opacity: found {arguments.opacity}, expected 0 to 1")
    is_drawn = arguments.output is not None or not (arguments.json or arguments.labels)
    overlays = output_files(arguments.images, arguments.output, "_segmentation.png", "--output") if is_drawn else []
    label_maps = output_files(arguments.images, arguments.labels, ".png", "--labels") if arguments.labels else []
    model = load_segmentor(arguments.weights)
    for path in arguments.images:  # a file that is no image stops the program before the work
        load_image(path)

    objects, lines = [], []
    for i, path in enumerate(arguments.images):
        image = load_image(path)
        found = segment(model, image)
        lines += [path, *(f"  {share:6.1%}  {label}" for label, share in found.largest())]
        objects.append(
            {"image": path, "classes": [{"label": label, "share": share} for label, share in found.largest()]}
        )
        if label_maps:
            label_maps[i].parent.mkdir(parents=True, exist_ok=True)
            save_picture(label_picture(found), label_maps[i])
            lines.append(f"  {label_maps[i]}")
        if is_drawn:
            overlays[i].parent.mkdir(parents=True, exist_ok=True)
            save_picture(draw_segmentation(image, found, opacity=arguments.opacity), overlays[i])
            lines.append(f"  {overlays[i]}")
    if arguments.json:
        print_json(objects)
        return
    for line in lines:
        say(line)
    if arguments.weights is None:
        print(f"\nThe segmentor that comes with minidat knows only street scenes: {', '.join(model.labels)}.")
        print("For ADE20K's 150 classes: minidat download upernet_datpp_tiny, then segment with --weights FILE")
