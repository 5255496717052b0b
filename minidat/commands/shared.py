"""What several sub-commands share: the parser, options, and what is printed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ConfigError, MinidatError, printable

DETECTOR, SEGMENTOR = "dat_mini_bccd", "dat_mini_camvid"  # the names of the weights that come with minidat


class Parser(argparse.ArgumentParser):
    """Tells a mistake in the command line in one line, as all errors are told: without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {printable(message)}; see {self.prog} --help\n")


def add_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights",
        metavar="FILE",
        help="the model: a .npz or .pth file, or the name of one that comes with minidat (default: dat_mini_cifar10)",
    )


def chosen_weights(arguments: argparse.Namespace) -> str | os.PathLike[str]:
    """The file that --weights names, or else the one that comes with minidat."""
    from ..classification import default_weights

    return default_weights() if arguments.weights is None else arguments.weights


def load_classifier(weights: str | os.PathLike[str]) -> Any:
    return _load("classify", weights)


def load_detector(weights: str | None) -> Any:
    from ..files.shipped import WEIGHTS, shipped_file

    return _load("detect", shipped_file(WEIGHTS, DETECTOR, ".npz") if weights is None else weights)


def load_segmentor(weights: str | None) -> Any:
    from ..files.shipped import WEIGHTS, shipped_file

    return _load("segment", shipped_file(WEIGHTS, SEGMENTOR, ".npz") if weights is None else weights)


def _load(command: str, weights: str | os.PathLike[str]) -> Any:
    """The model in a file. Raises ConfigError unless it is of the kind that this command takes."""
    from ..checkpoints import load_model
    from ..detection import Detector
    from ..segmentation import Segmentor

    model = load_model(weights)
    kind, fitting = "classifier", "classify"
    if isinstance(model, Detector):
        kind, fitting = "detector", "detect"
    elif isinstance(model, Segmentor):
        kind, fitting = "segmentor", "segment"
    if fitting != command:
        raise ConfigError(f"{weights}: found the {kind} {model.config.name}; use `minidat {fitting}` with it")
    return model


def output_files(images: Sequence[str], folder: str | None, ending: str, option: str) -> list[Path]:
    """Where to write something for each image: STEM and the ending, in a folder (None: here).

    Raises MinidatError, before the work and not after it, if that is no folder, or if a file would be written twice or
    is an image itself.
    """
    parent = Path(folder or "")
    if parent.exists() and not parent.is_dir():
        raise MinidatError(f"{option}: {parent} is no folder")
    files = [parent / f"{Path(image).stem}{ending}" for image in images]
    for i, file in enumerate(files):
        if file in files[:i]:
            first = images[files.index(file)]
            raise MinidatError(f"{file}: both {first} and {images[i]} would be written there; take them one at a time")
        for image in images:
            if file.exists() and os.path.exists(image) and os.path.samefile(file, image):
                raise MinidatError(f"{file}: this is the image itself; give another folder with {option}")
    return files


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


def write_json(value: Any, path: Path) -> None:
    """The same in a file, which appears when it is complete."""
    import json

    from ..files.atomic import writing

    with writing(path) as file:
        file.write(json.dumps(value).encode())
