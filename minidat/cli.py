"""The `minidat` command. Each sub-command calls public functions, which it imports itself: starting up stays quick."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from . import __version__
from .errors import ConfigError, MinidatError, printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit status.

    0: done; 1: a solution failed (`grade`); 2: bad input or a mistake in the command line, told in one line on stderr
    (after a mistake, as after --help, argparse ends the program itself); 130: interrupted by the user.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name that the terminal cannot show must not stop the program
        sys.stdout.reconfigure(errors="backslashreplace")
    status = 0
    try:
        arguments = _parser().parse_args(argv)
        status = arguments.run(arguments) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more at exit
    except (MinidatError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "not enough memory"
        print(f"minidat: error: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(f"minidat: {interruption.args[0] if interruption.args else 'interrupted'}", file=sys.stderr)
        return 130
    return status


class Parser(argparse.ArgumentParser):
    """Tells a mistake in the command line in one line, as all errors are told: without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {printable(message)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="minidat", description="The Deformable Attention Transformer in readable NumPy: image classification."
    )
    parser.add_argument("--version", action="version", version=f"minidat {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add_command in (
        _add_classify,
        _add_visualize,
        _add_info,
        _add_convert,
        _add_download,
        _add_train,
        _add_evaluate,
        _add_bench,
        _add_grade,
    ):
        add_command(commands)
    return parser


def _add_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights", metavar="FILE", help="the model: a .npz or .pth file (default: the one that comes with minidat)"
    )


def _weights(arguments: argparse.Namespace) -> str | os.PathLike[str]:
    """The file that --weights names, or else the one that comes with minidat."""
    from .classification import default_weights

    return default_weights() if arguments.weights is None else arguments.weights


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2))


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
    from .classification import classify, format_predictions
    from .data.image import load_image

    model = load_model(_weights(arguments))
    answers = [(path, classify(model, load_image(path), arguments.top)) for path in arguments.images]
    if arguments.json:
        from dataclasses import asdict

        _print_json([{"image": path, "predictions": [asdict(p) for p in answer]} for path, answer in answers])
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


# --- visualize --------------------------------------------------------------------------------------------------------


def _add_visualize(commands: Any) -> None:
    command = commands.add_parser(
        "visualize",
        help="draw where a model looks on an image",
        description="Draw where the blocks of a model look on an image: the points that deformable attention samples, "
        "and how much attention they get; for window and neighborhood attention, a heat map.",
    )
    command.add_argument("image", metavar="IMAGE", help="a JPEG, PNG, WebP, GIF, TIFF or BMP file")
    _add_weights(command)
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
    command.set_defaults(run=_visualize)


def _visualize(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from .checkpoints import load_model
    from .data.image import load_image
    from .evaluation import check_picture_path, save_picture
    from .visualization import visualize

    output = arguments.output or f"{Path(arguments.image).stem}_attention.png"
    check_picture_path(output)  # before the work, not after it
    image = load_image(arguments.image)
    if os.path.exists(output) and os.path.samefile(arguments.image, output):
        raise MinidatError(f"{output}: this is the image itself; give another file to write with --output")
    model = load_model(_weights(arguments))
    query = None if arguments.query is None else tuple(arguments.query)
    save_picture(visualize(model, image, blocks=arguments.block, head=arguments.head, query=query), output)
    print(output)


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
    _add_weights(command)
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
    _add_skip_unreadable(command)
    command.add_argument("--json", action="store_true", help="print one object for programs")
    command.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    from .checkpoints import load_model
    from .data.datasets import open_dataset
    from .evaluation import check_picture_path, draw_confusion_matrix, evaluate, format_evaluation, save_picture

    if arguments.confusion is not None:
        check_picture_path(arguments.confusion)  # before the work, not after it
    weights = _weights(arguments)
    model = load_model(weights)
    dataset = open_dataset(arguments.data, arguments.split, default_split="test")
    with _skipping(arguments) as on_error, _progress_bar("images") as progress:
        evaluation = evaluate(model, dataset, batch=arguments.batch, progress=progress, on_error=on_error)
    if arguments.confusion is not None:
        save_picture(draw_confusion_matrix(*evaluation.occurring()), arguments.confusion)
    if arguments.json:
        _print_json({"weights": str(weights), "data": dataset.name, **evaluation.to_dict()})
    else:
        print(f"{weights} on {dataset.name}")
        print(format_evaluation(evaluation))


def _add_skip_unreadable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out pictures that cannot be read, and name them on stderr (default: they are an error)",
    )


@contextmanager
def _skipping(arguments: argparse.Namespace) -> Iterator[Callable[[MinidatError], None] | None]:
    """What is to be called for each unreadable picture, None if they are not to be skipped; names them at the end."""
    skipped: list[MinidatError] = []
    yield skipped.append if arguments.skip_unreadable else None
    for error in skipped:
        print(f"minidat: skipped: {printable(str(error))}", file=sys.stderr)


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


# --- train ------------------------------------------------------------------------------------------------------------


def _add_train(commands: Any) -> None:
    command = commands.add_parser(
        "train",
        help="train a model on your own pictures",
        description="Train a model from random weights on an image folder (<class>/<picture>; also a .zip of it) or on "
        "CIFAR-10. The run, with weights, log, learning curve and checkpoints, is kept in a folder. Stop it with "
        "Ctrl-C; the same command with --resume goes on, and ends with the same weights as if it had not been stopped.",
    )
    command.add_argument("--data", required=True, metavar="PATH", help="the training images")
    command.add_argument("--output", required=True, metavar="FOLDER", help="where to keep the run")
    command.add_argument("--split", metavar="NAME", help="which part of the data (default: train, if there is one)")
    command.add_argument(
        "--validation", type=float, default=0.05, metavar="SHARE", help="of the images kept apart (default: 0.05)"
    )
    command.add_argument(
        "--model", metavar="MODEL", help="a published architecture (see `minidat info`), or a .json file with the "
        "fields of ModelConfig (default: the architecture of the weights that come with minidat)",
    )  # fmt: skip
    command.add_argument(
        "--weights", metavar="FILE", help="begin with these weights, and their architecture, instead of random ones "
        "(but for the classifier, if the classes are others)",
    )  # fmt: skip
    command.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the images (default: the model's)")
    command.add_argument("--epochs", type=int, metavar="N", help="passes over the images (default: 100)")
    command.add_argument("--batch", type=int, metavar="N", help="images a step (default: 128)")
    command.add_argument("--learning-rate", type=float, metavar="RATE", help="the highest one (default: 0.001)")
    command.add_argument("--seed", type=int, metavar="N", help="of all that is random (default: 0)")
    command.add_argument("--workers", type=int, metavar="N", help="processes that share a batch (default: one a core)")
    command.add_argument(
        "--recipe", metavar="FILE", help="a .json file with fields of Recipe, augmentation among them; options go first"
    )
    _add_skip_unreadable(command)
    command.add_argument("--resume", action="store_true", help="go on with the run in the folder, if there is one")
    command.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> None:
    from .checkpoints import load_model, load_npz
    from .classification import default_weights
    from .data.datasets import ArrayDataset, open_dataset, split_validation
    from .models import ModelConfig, get_config
    from .runtime.threads import thread_count
    from .training import Recipe, show_progress, train

    if arguments.weights is not None and arguments.model is not None:
        raise ConfigError("--weights, --model: found both, expected one: the weights bring their architecture")
    start = None
    if arguments.weights is not None:
        start = load_model(arguments.weights, image_size=arguments.image_size)
        config = start.config
    elif arguments.model is None:
        config = load_npz(default_weights()).config
    elif arguments.model.endswith(".json"):
        config = ModelConfig.from_dict(_read_json(arguments.model))
    else:
        config = get_config(arguments.model)
    if arguments.image_size is not None:
        config = config.replace(image_size=(arguments.image_size, arguments.image_size))
    options = ("epochs", "batch", "learning_rate", "seed", "workers")
    given = {name: getattr(arguments, name) for name in options if getattr(arguments, name) is not None}
    fields = {} if arguments.recipe is None else _read_json(arguments.recipe)
    recipe = Recipe.from_dict(
        {**fields, **given} if isinstance(fields, dict) else fields, Recipe(workers=thread_count())
    )

    dataset = open_dataset(arguments.data, arguments.split, default_split="train")
    with _skipping(arguments) as on_error, _progress_bar("images read") as progress:
        images, labels = dataset.load_all(config.image_size, progress=progress, on_error=on_error)
    parts = split_validation(labels, fraction=arguments.validation, seed=recipe.seed)
    training, validation = (
        ArrayDataset(images[part], labels[part], dataset.classes, name=dataset.name) for part in parts
    )
    config = config.replace(num_classes=len(dataset.classes))
    initial = {} if start is None else start.state_dict()
    if start is not None and start.labels != list(dataset.classes):
        initial = {name: value for name, value in initial.items() if not name.startswith("head.")}
    with show_progress() as show:
        train(
            config, training, validation, recipe, arguments.output,
            initial=initial, resume=arguments.resume, progress=show,
        )  # fmt: skip
    print(f"done; try `minidat classify --weights {arguments.output}/weights.npz IMAGE`")


def _read_json(path: str) -> Any:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"no JSON: {error}"
        raise ConfigError(f"{path}: cannot be read ({reason})") from None


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
        _print_json(models)
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
        _print_json(result)
    else:
        print(format_benchmark(result))


# --- course -----------------------------------------------------------------------------------------------------------


def _add_grade(commands: Any) -> None:
    command = commands.add_parser(
        "grade",
        help="check solutions of the course's exercises",
        description="Check solutions of the course's exercises (the stubs are in examples/exercises), and explain what "
        "is wrong by the smallest example in which it is. A solution is a program: it is executed, with your rights, "
        "in a process of its own. Exit status: 0 if all passed, 1 if one failed, 2 if a file is no exercise.",
    )
    command.add_argument(
        "files", nargs="+", metavar="FILE", help="a completed stub; a line `# minidat exercise: NAME`, or else the "
        "file's name, says of which exercise",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print a list of objects for programs, one for each file")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the numbers in the examples (default: 0)")
    command.add_argument(
        "--limit", type=float, default=20, metavar="SECONDS", help="the time that a file is given (default: 20)"
    )
    command.set_defaults(run=_grade)


def _grade(arguments: argparse.Namespace) -> int:
    from .grading import Report, format_report, grade, read_submission

    submissions = [read_submission(path) for path in arguments.files]  # before the work, not after it
    reports: list[Report] = []
    for submission in submissions:
        report = grade(submission, seed=arguments.seed, time_limit=arguments.limit)
        if not arguments.json:
            print(("\n" if reports else "") + format_report(report), flush=True)
        reports.append(report)
    passed = sum(report.passed for report in reports)
    if arguments.json:
        _print_json([report.to_dict() for report in reports])
    elif len(reports) > 1:
        print(f"\n{passed} of {len(reports)} files passed")
    return 0 if passed == len(reports) else 1
