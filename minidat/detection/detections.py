"""What a detector answers: arrays for programs, and a list for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data.dense_preprocessing import preprocess_detection
from ..errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from .detector import Detector


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best first.

    boxes: (n, 4), (x1, y1, x2, y2) in pixels; scores: (n,) in [0, 1]; labels: (n,) class numbers; masks: None, or
    (n, H, W) of bool.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Detection:
    """One object.

    label: the class's name; score: in [0, 1]; box: (x1, y1, x2, y2) in the picture's pixels; index: the class number;
    mask: (H, W) of bool, or None.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    index: int
    mask: np.ndarray | None = None


def detect(model: Detector, image: np.ndarray, threshold: float = 0.3) -> list[Detection]:
    """The objects in an (H, W, 3) uint8 RGB picture of any size whose score exceeds `threshold`, best first.

    The picture is resized to fit in `model.config.resize_size`, and the boxes are brought back to its own pixels.
    A model without labels answers "class 0", "class 1", ...

    Raises ShapeError for another kind of image, ConfigError for a threshold that is no number in [0, 1] or labels that
    are not one a class, and CheckpointError if the weights give scores that are not finite.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: found {threshold}, expected 0 to 1")
    labels = class_names(model)
    found = detect_picture(model, image, score_threshold=threshold)
    boxes = found.boxes.astype(np.float64).tolist()
    return [
        Detection(
            labels[index],
            float(found.scores[i]),
            tuple(boxes[i]),
            int(index),
            None if found.masks is None else found.masks[i],
        )
        for i, index in enumerate(found.labels)
    ]


def detect_picture(model: Detector, image: np.ndarray, *, score_threshold: float) -> Detections:
    """As `detect`, in arrays: what evaluation needs."""
    prepared = preprocess_detection(image, scale=model.config.resize_size)
    (found,) = model.detect(
        prepared.pixels[np.newaxis],
        [prepared.size],
        score_threshold=score_threshold,
        scale_factors=[prepared.scale_factor],
        picture_sizes=[(image.shape[0], image.shape[1])],
    )
    return found


def class_names(model: Detector) -> Sequence[str]:
    """One name a class. Raises ConfigError if the model's labels are not as many."""
    number = model.config.num_classes
    if model.labels is None:
        return [f"class {index}" for index in range(number)]
    if len(model.labels) != number:
        raise ConfigError(f"{model.config.name}: labels: found {len(model.labels)}, expected {number}, one a class")
    return model.labels


def check_finite(name: str, *arrays: np.ndarray) -> None:
    """Raise CheckpointError unless all numbers that a network gave are finite."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise CheckpointError(f"{name}: the scores are not finite numbers; use undamaged weights")
