"""What several sub-commands share: the parser, options, and what is printed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ..errors import MinidatError, printable


class Parser(argparse.ArgumentParser):
    """Tells a mistake in the command line in one line, as all errors are told: without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {printable(message)}; see {self.prog} --help\n")


def add_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights", metavar="FILE", help="the model: a .npz or .pth file (default: the one that comes with minidat)"
    )


def chosen_weights(arguments: argparse.Namespace) -> str | os.PathLike[str]:
    """The file that --weights names, or else the one that comes with minidat."""
    from ..classification import default_weights

    return default_weights() if arguments.weights is None else arguments.weights


def add_skip_unreadable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out pictures that cannot be read, and name them on stderr (default: they are an error)",
    )


@contextmanager
def skipping(arguments: argparse.Namespace) -> Iterator[Callable[[MinidatError], None] | None]:
    """What is to be called for each unreadable picture, None if they are not to be skipped; names them at the end."""
    skipped: list[MinidatError] = []
    yield skipped.append if arguments.skip_unreadable else None
    for error in skipped:
        print(f"minidat: skipped: {error}", file=sys.stderr)


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None] | None]:
    """Something to call with (done, total), for people: None if stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", file=sys.stderr, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def say(text: str) -> None:
    """Print a line; what files, paths and labels have put into it does not steer the terminal."""
    print(printable(text))


def print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2))
