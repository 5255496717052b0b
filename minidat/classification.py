"""What is in a picture: the best labels of a model for one image, and how a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .data.image import preprocess
from .errors import CheckpointError, ConfigError
from .files.shipped import WEIGHTS, shipped_file
from .models.config import ModelConfig

if TYPE_CHECKING:
    from .models import DAT

DEFAULT_WEIGHTS = "dat_mini_cifar10.npz"
EIGHTHS = " ▏▎▍▌▋▊▉█"  # bars are drawn to an eighth of a character


@dataclass(frozen=True)
class Prediction:
    """One answer.

    label: the class's name; probability: in [0, 1]; index: of the class among the logits.
    """

    label: str
    probability: float
    index: int


def classify(model: DAT, image: np.ndarray, top: int = 5) -> list[Prediction]:
    """The `top` most probable classes (all, if there are fewer) of an (H, W, 3) uint8 RGB image, best first.

    Probabilities are the softmax of the logits, in float64. A model without labels answers "class 0", "class 1", ...

    Raises ShapeError for another kind of image, ConfigError if `top` is below 1 or the labels are not one a class, and
    CheckpointError if the weights give logits that are not finite.
    """
    if top < 1:
        raise ConfigError(f"top: found {top}, expected at least 1")
    if not isinstance(model.config, ModelConfig):
        raise ConfigError(f"{model.config.name}: found a {type(model).__name__}, expected a classifier")
    logits = model(preprocess(image, model.config)[np.newaxis])[0].astype(np.float64)  # (num_classes,)
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{model.config.name}: the logits are not finite numbers; use undamaged weights")
    labels = _labels(model, len(logits))
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = np.argsort(-probabilities, kind="stable")[:top]
    return [Prediction(labels[index], float(probabilities[index]), int(index)) for index in best]


def _labels(model: DAT, num_classes: int) -> Sequence[str]:
    """One name a class."""
    if model.labels is None:
        return [f"class {index}" for index in range(num_classes)]
    if len(model.labels) != num_classes:
        raise ConfigError(
            f"{model.config.name}: labels: found {len(model.labels)}, expected {num_classes}, one a class"
        )
    return model.labels


def default_weights(name: str = DEFAULT_WEIGHTS) -> Path:
    """A weights file that comes with minidat, the classifier's or another. Raises MinidatError if it is absent."""
    return shipped_file(WEIGHTS, name.removesuffix(".npz"), ".npz")


def format_predictions(
    name: str, predictions: Sequence[Prediction], *, width: int = 80, encoding: str = "utf-8"
) -> str:
    """The image's `name` on a line, then one line of at most `width` characters (at least 40) for each prediction.

    A bar as long as its column is a probability of 1. Bars are made of block characters, or of # where `encoding` lacks
    those; what it lacks in names shows as ?, and so do control characters. Long labels are cut to half the width.
    """
    width = max(width, 40)
    has_blocks = _printable(EIGHTHS, encoding) == EIGHTHS
    labels = [_printable(prediction.label, encoding)[: width // 2] for prediction in predictions]
    label_width = max(map(len, labels), default=0)
    bar_width = width - label_width - 11  # two spaces, label, " 100.0%", two spaces
    lines = [_printable(name, encoding)]
    for label, prediction in zip(labels, predictions, strict=True):
        length = prediction.probability * bar_width
        bar = EIGHTHS[8] * int(length) + EIGHTHS[int(length * 8) % 8].strip() if has_blocks else "#" * round(length)
        lines.append(f"  {label:<{label_width}} {prediction.probability:6.1%}  {bar}".rstrip())
    return "\n".join(lines)


def _printable(text: str, encoding: str) -> str:
    """`text` with ? for control characters and for what `encoding` cannot write."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text.encode(encoding, "replace").decode(encoding)
