"""`minidat evaluate`: the accuracy of a model on a data set."""

from __future__ import annotations

import argparse
from typing import Any

from .shared import add_skip_unreadable, add_weights, chosen_weights, print_json, progress_bar, say, skipping


def add(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="the accuracy of a model on a data set",
        description="Classify all pictures of a data set: top-1 and top-5 accuracy, class by class.",
    )
    add_weights(command)
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
    add_skip_unreadable(command)
    command.add_argument("--json", action="store_true", help="print one object for programs")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from ..checkpoints import load_model
    from ..data.opening import open_dataset
    from ..evaluation import check_picture_path, draw_confusion_matrix, evaluate, format_evaluation, save_picture

    if arguments.confusion is not None:
        check_picture_path(arguments.confusion)  # before the work, not after it
    weights = chosen_weights(arguments)
    model = load_model(weights)
    dataset = open_dataset(arguments.data, arguments.split, default_split="test")
    with skipping(arguments) as on_error, progress_bar("images") as progress:
        evaluation = evaluate(model, dataset, batch=arguments.batch, progress=progress, on_error=on_error)
    if arguments.confusion is not None:
        save_picture(draw_confusion_matrix(*evaluation.occurring()), arguments.confusion)
    if arguments.json:
        print_json({"weights": str(weights), "data": dataset.name, **evaluation.to_dict()})
    else:
        say(f"{weights} on {dataset.name}")
        print(format_evaluation(evaluation))
