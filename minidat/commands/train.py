"""`minidat train`: train a classifier, a detector or a segmentor on your own pictures."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, listed
from .dense_data import add_label_options, open_dense_dataset, readable
from .shared import add_skip_unreadable, progress_bar, say, skipping

if TYPE_CHECKING:
    from ..training import Recipe, Start


def add(commands: Any) -> None:
    command = commands.add_parser(
        "train",
        help="train a model on your own pictures",
        description="Train a model on your own pictures. Classifiers take an image folder (<class>/<picture>; also a "
        ".zip of it) or CIFAR-10; detectors, annotations in COCO's JSON (annotations/instances_<split>.json and "
        "images/<split>); segmentors, label maps (images/<split>, labels/<split>, classes.txt). The run, with weights, "
        "log, learning curve and checkpoints, is kept in a folder. Stop it with Ctrl-C; the same command with --resume "
        "goes on, and ends with the same weights as if it had not been stopped.",
    )
    command.add_argument("--data", required=True, metavar="PATH", help="the training images: a folder, or a .zip of it")
    command.add_argument("--output", required=True, metavar="FOLDER", help="where to keep the run")
    command.add_argument("--split", metavar="NAME", help="which part of the data (default: train, if there is one)")
    command.add_argument(
        "--validation", type=float, default=0.05, metavar="SHARE", help="of the images kept apart (default: 0.05)"
    )
    command.add_argument(
        "--validation-split", metavar="NAME", help="validate on this part of the data, and keep nothing apart"
    )
    command.add_argument(
        "--model", metavar="MODEL", help="a published architecture (see `minidat info`), or a .json file with the "
        "fields of its config (default: the architecture of the weights that come with minidat)",
    )  # fmt: skip
    command.add_argument(
        "--weights", metavar="FILE", help="begin with these weights, and their architecture, instead of random ones "
        "(but for what depends on the classes, if they are others)",
    )  # fmt: skip
    command.add_argument(
        "--backbone", metavar="FILE", help="begin the backbone of a detector or segmentor with a classifier's weights"
    )
    command.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the images (default: the model's)")
    command.add_argument("--epochs", type=int, metavar="N", help="passes over the images (default: the recipe's)")
    command.add_argument("--batch", type=int, metavar="N", help="images a step")
    command.add_argument("--learning-rate", type=float, metavar="RATE", help="the highest one")
    command.add_argument("--seed", type=int, metavar="N", help="of all that is random (default: 0)")
    command.add_argument(
        "--workers", type=int, metavar="N", help="processes that share a batch (default: one a core, or those of the "
        "run that goes on)",
    )  # fmt: skip
    command.add_argument(
        "--recipe", metavar="FILE", help="a .json file with fields of Recipe, augmentation among them; options go first"
    )
    add_label_options(command)
    add_skip_unreadable(command)
    command.add_argument("--resume", action="store_true", help="go on with the run in the folder, if there is one")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from ..models import ModelConfig
    from ..training import show_progress, train

    config, source = _model(arguments)
    recipe = _recipe(arguments, config)
    classifies = isinstance(config, ModelConfig)
    training, validation = (_labeled if classifies else _dense)(arguments, config, recipe)
    config = config.replace(num_classes=len(training.classes))
    start = _start(arguments, config, source, training.classes)
    with show_progress() as show:
        train(
            config, training, validation, recipe, arguments.output,
            initial=start, resume=arguments.resume, progress=show,
        )  # fmt: skip
    use = "classify {weights} IMAGE" if classifies else "evaluate {weights} --data " + arguments.data
    say(f"done; try `minidat {use.format(weights=f'--weights {arguments.output}/weights.npz')}`")


def _labeled(arguments: argparse.Namespace, config: Any, recipe: Recipe) -> tuple[Any, Any]:
    """Pictures with a label each, for training and for validation, in memory."""
    from ..data.datasets import split_dataset
    from ..data.opening import open_dataset

    dataset = open_dataset(arguments.data, arguments.split, default_split="train")
    other = None if arguments.validation_split is None else open_dataset(arguments.data, arguments.validation_split)
    with skipping(arguments) as on_error, progress_bar("images read") as progress:
        pictures = dataset.in_memory(config.image_size, progress=progress, on_error=on_error)
        if other is not None:
            return pictures, other.in_memory(config.image_size, on_error=on_error)
    return split_dataset(pictures, fraction=arguments.validation, seed=recipe.seed)


def _dense(arguments: argparse.Namespace, config: Any, recipe: Recipe) -> tuple[Any, Any]:
    """Pictures with boxes or label maps, for training and for validation, which stay in their files."""
    from ..data.datasets import split_dataset

    dataset = open_dense_dataset(arguments, config, arguments.split, "train")
    part = arguments.validation_split
    other = None if part is None else open_dense_dataset(arguments, config, part)
    with skipping(arguments) as on_error, progress_bar("images read") as progress:
        if on_error is not None:
            dataset = readable(dataset, on_error, progress)
            other = None if other is None else readable(other, on_error, progress)
    if other is not None:
        return dataset, other
    return split_dataset(dataset, fraction=arguments.validation, seed=recipe.seed)


def _model(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The architecture to train, and the model whose weights it begins with, if any."""
    from ..catalog import config_from_dict, get_config
    from ..checkpoints import load_model, load_npz
    from ..classification import default_weights
    from ..files.reading import read_json
    from ..segmentation import SegmentorConfig

    if arguments.weights is not None and arguments.model is not None:
        raise ConfigError("--weights, --model: found both, expected one: the weights bring their architecture")
    source = None
    if arguments.weights is not None:
        source = load_model(arguments.weights, image_size=arguments.image_size)
        config = source.config
    elif arguments.model is None:
        config = load_npz(default_weights()).config
    elif arguments.model.endswith(".json"):
        config = config_from_dict(read_json(arguments.model, ConfigError))
    else:
        config = get_config(arguments.model)
    if arguments.image_size is not None:
        config = config.replace(image_size=(arguments.image_size, arguments.image_size))
        if isinstance(config, SegmentorConfig):  # crops of the pictures' short side, as with the authors
            config = config.replace(resize_size=(4 * arguments.image_size, arguments.image_size))
    return config, source


def _start(arguments: argparse.Namespace, config: Any, source: Any, classes: tuple[str, ...]) -> dict[str, Any]:
    """The weights to begin with; what is taken and what not is told on stderr."""
    from ..checkpoints import load_model
    from ..models import DAT
    from ..training import backbone_weights, fitting_weights

    if source is not None and arguments.backbone is not None:
        raise ConfigError("--weights, --backbone: found both, expected one: the weights bring their backbone")
    if source is not None:
        start = fitting_weights(source, config, classes)
        _tell(arguments.weights, start)
        return start.weights
    if arguments.backbone is None:
        return {}
    classifier = load_model(arguments.backbone)
    if not isinstance(classifier, DAT):
        raise ConfigError(f"--backbone: {arguments.backbone} is {classifier.config.name}, expected a classifier")
    start = backbone_weights(classifier, config)
    _tell(arguments.backbone, start)
    return start.weights


def _tell(file: str, start: Start) -> None:
    texts = [f"{len(start.weights)} arrays from {file}"]
    for names, what in ((start.fresh, "begin at random"), (start.unused, "of the file are not used")):
        if names:
            texts.append(f"{len(names)} {what} ({listed(names)})")
    print(f"minidat: {'; '.join(texts)}", file=sys.stderr)


def _recipe(arguments: argparse.Namespace, config: Any) -> Recipe:
    """The recipe in the file that --recipe names, over which the options go."""
    from ..files.reading import read_json
    from ..runtime.threads import thread_count
    from ..segmentation import SegmentorConfig
    from ..training import Recipe, default_recipe, recorded_workers

    options = ("epochs", "batch", "learning_rate", "seed", "workers")
    given = {name: getattr(arguments, name) for name in options if getattr(arguments, name) is not None}
    fields = {} if arguments.recipe is None else read_json(arguments.recipe, ConfigError)
    recipe = Recipe.from_dict({**fields, **given} if isinstance(fields, dict) else fields, default_recipe(config))
    if "workers" in fields or "workers" in given:
        return recipe
    recorded = recorded_workers(arguments.output) if arguments.resume else None
    fewest = 2 if isinstance(config, SegmentorConfig) else 1  # images for a worker
    return dataclasses.replace(recipe, workers=recorded or max(1, min(thread_count(), recipe.batch // fewest)))
