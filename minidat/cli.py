"""The `minidat` command. Each sub-command calls public functions, which it imports itself: starting up stays quick."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import __version__
from .errors import MinidatError, printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit status.

    0: done; 2: bad input, told in one line on stderr, or a mistake in the command line; 130: interrupted by the user.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name that the terminal cannot show must not stop the program
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more at exit
    except (MinidatError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "not enough memory"
        print(f"minidat: error: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minidat: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minidat", description="The Deformable Attention Transformer in readable NumPy: image classification."
    )
    parser.add_argument("--version", action="version", version=f"minidat {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_command in (_add_classify, _add_info, _add_convert, _add_download, _add_evaluate, _add_bench):
        add_command(commands)
    return parser


# --- classify ---------------------------------------------------------------------------------------------------------


def _add_classify(commands: Any) -> None:
    command = commands.add_parser("classify", help="say what is in images", description="Say what is in images.")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="a JPEG, PNG, WebP, GIF, TIFF or BMP file")
    command.add_argument(
        "--weights", metavar="FILE", help="the model: a .npz file of minidat or a .pth file of the authors (default: a "
        "small one for ten kinds of animals and vehicles that comes with minidat)",
    )  # fmt: skip
    command.add_argument(
        "--top", type=int, default=5, metavar="N", help="how many answers to give for each image (default: 5)"
    )
    command.add_argument("--json", action="store_true", help="print a list of objects for programs")
    command.set_defaults(run=_classify)


def _classify(arguments: argparse.Namespace) -> None:
    """Nothing is printed before every image is classified: the output is whole or absent."""
    from .checkpoints import load_model
    from .classification import classify, default_weights, format_predictions
    from .data.image import load_image

    model = load_model(default_weights() if arguments.weights is None else arguments.weights)
    answers = [(path, classify(model, load_image(path), arguments.top)) for path in arguments.images]
    if arguments.json:
        import json
        from dataclasses import asdict

        result = [{"image": path, "predictions": [asdict(p) for p in predictions]} for path, predictions in answers]
        print(json.dumps(result, indent=2))
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
        print(f"\n{arguments.weights} does not name its classes; add names with: minidat convert SRC DST --labels FILE")


# --- weights ----------------------------------------------------------------------------------------------------------


def _add_convert(commands: Any) -> None:
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
        help="the names of the classes: a text file with one a line, or `imagenet` or `cifar10`",
    )
    command.add_argument("--half", action="store_true", help="store 16 bits a weight: half the size, about 3 digits")
    command.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> None:
    from .checkpoints import convert
    from .data.labels import load_labels

    labels = None if arguments.labels is None else load_labels(arguments.labels)
    dtype = "float16" if arguments.half else "float32"
    config = convert(arguments.source, arguments.destination, labels=labels, dtype=dtype)
    height, width = config.image_size
    size = os.path.getsize(arguments.destination) / 1e6
    print(
        f"{arguments.destination}: {config.name}, {config.num_classes} classes, images of {height} x {width} pixels, "
        f"{size:.1f} MB"
    )


def _add_download(commands: Any) -> None:
    command = commands.add_parser(
        "download",
        help="fetch a model that the authors published",
        description="Fetch a model from where its authors publish it, check it, and write it as a file of minidat. "
        "A download that broke off goes on where it stopped.",
    )
    command.add_argument("name", metavar="NAME", help="such as dat_tiny; `minidat info` lists all")
    command.add_argument(
        "destination", nargs="?", metavar="DST", help="the .npz file to write, or a .pth file for the authors' own "
        "(default: NAME.npz)",
    )  # fmt: skip
    command.set_defaults(run=_download)


def _download(arguments: argparse.Namespace) -> None:
    from .checkpoints.published import download

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
    print(f"{path}: {arguments.name}, {os.path.getsize(path) / 1e6:.1f} MB")


def _show_progress(done: int, total: int | None) -> None:
    whole = "" if total is None else f" of {total / 1e6:.1f}"
    print(f"\r{done / 1e6:.1f}{whole} MB", end="", file=sys.stderr, flush=True)


# --- evaluate ---------------------------------------------------------------------------------------------------------


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="the accuracy of a model on a data set",
        description="Classify all pictures of a data set: top-1 and top-5 accuracy, class by class.",
    )
    command.add_argument(
        "--weights", metavar="FILE", help="the model: a .npz or .pth file (default: the one that comes with minidat)"
    )
    command.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="a folder with a sub-folder of pictures for each class, a .zip of one, or CIFAR-10 as published (.tar.gz, "
        "or extracted)",
    )
    command.add_argument(
        "--split", metavar="NAME", help="the part of the data, such as train or test (default: test, if there is one)"
    )
    command.add_argument("--batch", type=int, default=64, metavar="N", help="pictures at once (default: 64)")
    command.add_argument("--confusion", metavar="FILE", help="draw what is taken for what: the .png file to write")
    command.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out pictures that cannot be read, and name them on stderr (default: they are an error)",
    )
    command.add_argument("--json", action="store_true", help="print one object for programs")
    command.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    from .checkpoints import load_model
    from .classification import default_weights
    from .data.datasets import open_dataset
    from .evaluation import check_picture_path, draw_confusion_matrix, evaluate, format_evaluation, save_picture

    if arguments.confusion is not None:
        check_picture_path(arguments.confusion)  # before the work, not after it
    weights = default_weights() if arguments.weights is None else arguments.weights
    model = load_model(weights)
    dataset = open_dataset(arguments.data, arguments.split, default_split="test")
    skipped: list[MinidatError] = []
    on_error = skipped.append if arguments.skip_unreadable else None
    with _progress_bar("images") as progress:
        evaluation = evaluate(model, dataset, batch=arguments.batch, progress=progress, on_error=on_error)
    for error in skipped:
        print(f"minidat: skipped: {printable(str(error))}", file=sys.stderr)
    if arguments.confusion is not None:
        save_picture(draw_confusion_matrix(*evaluation.occurring()), arguments.confusion)
    if arguments.json:
        import json

        print(json.dumps({"weights": str(weights), "data": dataset.name, **evaluation.to_dict()}, indent=2))
    else:
        print(f"{weights} on {dataset.name}")
        print(format_evaluation(evaluation))


@contextmanager
def _progress_bar(unit: str) -> Iterator[Callable[[int, int], None] | None]:
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


# --- figures ----------------------------------------------------------------------------------------------------------


def _add_info(commands: Any) -> None:
    command = commands.add_parser(
        "info",
        help="the models: parameters, GFLOPs, accuracy",
        description="A table of the published models, or one of them part by part.",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="one model, such as dat_tiny (default: all)")
    command.add_argument("--json", action="store_true", help="print a list of objects for programs")
    command.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> None:
    from .info import describe_all, describe_model, format_model, format_models

    models = [describe_model(arguments.name)] if arguments.name else describe_all()
    if arguments.json:
        import json

        print(json.dumps(models, indent=2))
    else:
        print(format_model(models[0]) if arguments.name else format_models(models))


def _add_bench(commands: Any) -> None:
    command = commands.add_parser(
        "bench",
        help="time and memory of a model, beside PyTorch's",
        description="Measure inference, or a training step, on random images; beside the PyTorch transcription in the "
        "project's tests, if both are there. Takes up to a minute or two.",
    )
    command.add_argument("model", metavar="MODEL", help="such as dat_tiny; `minidat info` lists all")
    command.add_argument("--batch", type=int, default=1, metavar="N", help="images at once (default: 1)")
    command.add_argument("--train", action="store_true", help="a training step: forward, loss, backward")
    command.add_argument("--threads", type=int, metavar="N", help="for NumPy and PyTorch alike (default: all cores)")
    command.add_argument("--json", action="store_true", help="print one object for programs")
    command.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> None:
    from .benchmark import format_benchmark, run_benchmark

    result = run_benchmark(arguments.model, batch=arguments.batch, train=arguments.train, threads=arguments.threads)
    if arguments.json:
        import json

        print(json.dumps(result, indent=2))
    else:
        print(format_benchmark(result))
