"""What is where in a picture: the class of every pixel, and how much of the picture each class covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.dense_preprocessing import preprocess_segmentation
from ..errors import CheckpointError, ConfigError
from .segmentor import Segmentor


@dataclass(frozen=True)
class Segmentation:
    """The answer for one picture.

    labels: (H, W) class numbers, of the picture's own size; classes: the names of all classes, in the order of their
    numbers; shares: (classes,) the share of the picture that each covers, of sum 1.
    """

    labels: np.ndarray
    classes: tuple[str, ...]
    shares: np.ndarray

    def largest(self) -> list[tuple[str, float]]:
        """(name, share) of each class that is there, largest first."""
        order = np.argsort(-self.shares, kind="stable")
        return [(self.classes[i], float(self.shares[i])) for i in order if self.shares[i] > 0]


def segment(model: Segmentor, image: np.ndarray) -> Segmentation:
    """The class of every pixel of an (H, W, 3) uint8 RGB picture of any size.

    The picture is resized to fit in `model.config.resize_size`, and the logits are brought back to its own size. A
    model without labels calls its classes "class 0", "class 1", ...

    Raises ShapeError for another kind of image, ConfigError if the labels are not one a class, and CheckpointError if
    the weights give logits that are not finite.
    """
    num_classes = model.config.num_classes
    names = [f"class {i}" for i in range(num_classes)] if model.labels is None else model.labels
    if len(names) != num_classes:
        raise ConfigError(f"{model.config.name}: labels: found {len(names)}, expected {num_classes}, one a class")
    pixels = preprocess_segmentation(image, scale=model.config.resize_size)
    (logits,) = model.full_logits(pixels[np.newaxis], [image.shape[:2]])
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{model.config.name}: the logits are not finite numbers; use undamaged weights")
    labels = logits.argmax(axis=-1).astype(model.label_dtype)
    shares = np.bincount(labels.ravel(), minlength=num_classes) / labels.size
    return Segmentation(labels, tuple(names), shares)
