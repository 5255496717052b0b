"""`minidat train`: train a model on your own pictures."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .shared import add_skip_unreadable, progress_bar, say, skipping

if TYPE_CHECKING:
    from ..models import DAT, ModelConfig
    from ..training import Recipe


def add(commands: Any) -> None:
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
    add_skip_unreadable(command)
    command.add_argument("--resume", action="store_true", help="go on with the run in the folder, if there is one")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from ..data.datasets import ArrayDataset, split_validation
    from ..data.opening import open_dataset
    from ..training import show_progress, train

    recipe = _recipe(arguments)
    config, start = _model(arguments)
    dataset = open_dataset(arguments.data, arguments.split, default_split="train")
    with skipping(arguments) as on_error, progress_bar("images read") as progress:
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
    say(f"done; try `minidat classify --weights {arguments.output}/weights.npz IMAGE`")


def _model(arguments: argparse.Namespace) -> tuple[ModelConfig, DAT | None]:
    """The architecture to train, and the model whose weights it begins with, if any."""
    from ..checkpoints import load_model, load_npz
    from ..classification import default_weights
    from ..files.reading import read_json
    from ..models import ModelConfig, get_config

    if arguments.weights is not None and arguments.model is not None:
        raise ConfigError("--weights, --model: found both, expected one: the weights bring their architecture")
    start = None
    if arguments.weights is not None:
        start = load_model(arguments.weights, image_size=arguments.image_size)
        config = start.config
    elif arguments.model is None:
        config = load_npz(default_weights()).config
    elif arguments.model.endswith(".json"):
        config = ModelConfig.from_dict(read_json(arguments.model, ConfigError))
    else:
        config = get_config(arguments.model)
    if arguments.image_size is not None:
        config = config.replace(image_size=(arguments.image_size, arguments.image_size))
    return config, start


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe in the file that --recipe names, over which the options go."""
    from ..files.reading import read_json
    from ..runtime.threads import thread_count
    from ..training import Recipe

    options = ("epochs", "batch", "learning_rate", "seed", "workers")
    given = {name: getattr(arguments, name) for name in options if getattr(arguments, name) is not None}
    fields = {} if arguments.recipe is None else read_json(arguments.recipe, ConfigError)
    return Recipe.from_dict({**fields, **given} if isinstance(fields, dict) else fields, Recipe(workers=thread_count()))
