"""`minidat evaluate`: how good a model is on a data set."""

from __future__ import annotations

import argparse
import math
from typing import Any

from ..errors import ConfigError
from .dense_data import add_label_options, open_dense_dataset
from .shared import add_skip_unreadable, add_weights, chosen_weights, print_json, progress_bar, say, skipping


def add(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="how good a model is on a data set",
        description="Try a model on all pictures of a data set. Classifiers: top-1 and top-5 accuracy. Detectors: "
        "COCO's average precision of boxes and masks. Segmentors: mean IoU. All of it class by class, too.",
    )
    add_weights(command)
    command.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="for a classifier a folder with a sub-folder of pictures for each class, or CIFAR-10 as published "
        "(.tar.gz, or extracted); for a detector a folder with annotations in COCO's JSON; for a segmentor one with "
        "images and labels; or a .zip of a folder",
    )
    command.add_argument(
        "--split", metavar="NAME", help="the part of the data, such as train, val or test (default: test, if there is "
        "one; for detectors and segmentors val)",
    )  # fmt: skip
    command.add_argument("--batch", type=int, default=64, metavar="N", help="pictures at once (default: 64)")
    command.add_argument("--confusion", metavar="FILE", help="draw what is taken for what: the .png file to write")
    command.add_argument(
        "--multi-scale", action="store_true", help="average a segmentor's answers at six sizes, also mirrored"
    )
    add_label_options(command)
    add_skip_unreadable(command)
    command.add_argument("--json", action="store_true", help="print one object for programs")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from ..checkpoints import load_model
    from ..detection import Detector
    from ..evaluation import check_picture_path
    from ..segmentation import Segmentor

    if arguments.confusion is not None:
        check_picture_path(arguments.confusion)  # before the work, not after it
    weights = chosen_weights(arguments)
    model = load_model(weights)
    if arguments.multi_scale and not isinstance(model, Segmentor):
        raise ConfigError(f"--multi-scale: {model.config.name} is no segmentor, which this is for")
    if arguments.confusion is not None and isinstance(model, Detector | Segmentor):
        raise ConfigError(f"--confusion: {model.config.name} is no classifier, which this is for")
    if isinstance(model, Detector):
        _evaluate_detector(arguments, model, str(weights))
    elif isinstance(model, Segmentor):
        _evaluate_segmentor(arguments, model, str(weights))
    else:
        _evaluate_classifier(arguments, model, str(weights))


def _evaluate_classifier(arguments: argparse.Namespace, model: Any, weights: str) -> None:
    from ..data.opening import open_dataset
    from ..evaluation import draw_confusion_matrix, evaluate, format_evaluation, save_picture

    dataset = open_dataset(arguments.data, arguments.split, default_split="test")
    with skipping(arguments) as on_error, progress_bar("images") as progress:
        evaluation = evaluate(model, dataset, batch=arguments.batch, progress=progress, on_error=on_error)
    if arguments.confusion is not None:
        save_picture(draw_confusion_matrix(*evaluation.occurring()), arguments.confusion)
    if arguments.json:
        print_json({"weights": weights, "data": dataset.name, **evaluation.to_dict()})
    else:
        say(f"{weights} on {dataset.name}")
        print(format_evaluation(evaluation))


def _evaluate_detector(arguments: argparse.Namespace, model: Any, weights: str) -> None:
    from ..evaluation import evaluate_detector, format_detection_metrics

    dataset = open_dense_dataset(arguments, model.config, arguments.split, "val")
    with skipping(arguments) as on_error, progress_bar("images") as progress:
        found = evaluate_detector(model, dataset, progress=progress, on_error=on_error)
    if arguments.json:
        figures = {
            kind: {
                "images": metrics.images,
                **metrics.as_dict(),
                "classes": [{"label": name, "AP": ap, "AP50": ap50} for name, ap, ap50 in metrics.per_class],
            }
            for kind, metrics in found.items()
        }
        print_json({"weights": weights, "data": dataset.name, **figures})
    else:
        say(f"{weights} on {dataset.name}")
        print("\n\n".join(map(format_detection_metrics, found.values())))


def _evaluate_segmentor(arguments: argparse.Namespace, model: Any, weights: str) -> None:
    from ..evaluation import MULTI_SCALE, evaluate_segmentor, format_segmentation_metrics

    dataset = open_dense_dataset(arguments, model.config, arguments.split, "val")
    scales = MULTI_SCALE if arguments.multi_scale else (1.0,)
    with skipping(arguments) as on_error, progress_bar("images") as progress:
        metrics = evaluate_segmentor(
            model, dataset, scales=scales, flip=arguments.multi_scale, progress=progress, on_error=on_error
        )
    if arguments.json:
        classes = [
            {"label": name, "IoU": _number(iou), "accuracy": _number(accuracy)}
            for name, iou, accuracy in zip(metrics.classes, metrics.class_iou, metrics.class_accuracy, strict=True)
        ]
        totals = {name: _number(value) for name, value in metrics.as_dict().items()}
        print_json({"weights": weights, "data": dataset.name, "images": metrics.images, **totals, "classes": classes})
    else:
        say(f"{weights} on {dataset.name}")
        print(format_segmentation_metrics(metrics))


def _number(figure: float) -> float | None:
    """For JSON, which has no NaN."""
    return None if math.isnan(figure) else float(figure)
