"""`minidat classify`: say what is in images."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .shared import chosen_weights, load_classifier, print_json, say


def add(commands: Any) -> None:
    command = commands.add_parser("classify", help="say what is in images", description="Say what is in images.")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="a JPEG, PNG, WebP, GIF, TIFF or BMP file")
    command.add_argument(
        "--weights", metavar="FILE", help="the model: a .npz file of minidat or a .pth file of the authors (default: "
        "dat_mini_cifar10, a small one for ten kinds of animals and vehicles that comes with minidat)",
    )  # fmt: skip
    command.add_argument(
        "--top", type=int, default=5, metavar="N", help="how many answers to give for each image (default: 5)"
    )
    command.add_argument("--json", action="store_true", help="print a list of objects for programs")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Nothing is printed before every image is classified: the output is whole or absent."""
    from ..classification import classify, format_predictions
    from ..data.image import load_image

    model = load_classifier(chosen_weights(arguments))
    answers = [(path, classify(model, load_image(path), arguments.top)) for path in arguments.images]
    if arguments.json:
        from dataclasses import asdict

        print_json([{"image": path, "predictions": [asdict(p) for p in answer]} for path, answer in answers])
        return

    import shutil
    import textwrap

    width, encoding = min(shutil.get_terminal_size().columns, 100), sys.stdout.encoding or "ascii"
    print("\n\n".join(format_predictions(p, answer, width=width, encoding=encoding) for p, answer in answers))
    if arguments.weights is None:
        known = ", ".join(model.labels or [])
        print(f"\n{textwrap.fill(f'The model that comes with minidat knows only {known}.', width)}")
        print("For ImageNet's 1000 classes: minidat download dat_tiny, then classify with --weights dat_tiny.npz")
    elif model.labels is None:
        print()
        say(f"{arguments.weights} does not name its classes; add names with: minidat convert SRC DST --labels FILE")
