"""`minidat download`: fetch a model that the authors published."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .shared import say


def add(commands: Any) -> None:
    command = commands.add_parser(
        "download",
        help="fetch a model that the authors published",
        description="Fetch a model from where its authors publish it, check it, and write it as a file of minidat. "
        "A download that broke off goes on where it stopped.",
    )
    command.add_argument(
        "name",
        metavar="NAME",
        help="such as dat_tiny; `minidat info` lists all; a detector's name with _1x: "
        "its weights after 12 epochs, not 36",
    )
    command.add_argument(
        "destination", nargs="?", metavar="DST", help="the .npz file to write, or a .pth file for the authors' own "
        "(default: NAME.npz)",
    )  # fmt: skip
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from ..checkpoints.published import download

    on_terminal = sys.stderr.isatty()
    try:
        path = download(
            arguments.name,
            arguments.destination or f"{arguments.name}.npz",
            progress=_show_progress if on_terminal else None,
        )
    finally:
        if on_terminal:
            print(file=sys.stderr)
    say(f"{path}: {arguments.name}, {os.path.getsize(path) / 1e6:.1f} MB")


def _show_progress(done: int, total: int | None) -> None:
    whole = "" if total is None else f" of {total / 1e6:.1f}"
    print(f"\r{done / 1e6:.1f}{whole} MB", end="", file=sys.stderr, flush=True)
