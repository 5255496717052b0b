"""To learn what is in a picture: cross-entropy with augmented images, measured by the share of hits."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..data.augmentation import Augmentation
from ..data.datasets import ArrayDataset
from ..data.image import preprocess_batch
from ..errors import ConfigError
from ..models import DAT, ModelConfig
from ..nn import Context
from .recipe import Recipe
from .tasks import Objective, Part, Task

VALIDATION_BATCH = 250


def part_gradients(
    model: DAT,
    augmentation: Augmentation,
    images: np.ndarray,
    labels: np.ndarray,
    batch: int,
    rng: np.random.Generator,
) -> Part:
    """Forward, loss and backward of a part of a batch of `batch` images: gradients of (sum of its losses) / batch.

    images: (b, H, W, 3) uint8, labels: (b,) integers; gradients are set, not added to those there were.
    """
    inputs, targets = augmentation(images, labels, rng, classes=model.config.num_classes)
    model.zero_grad()
    logits, backward = model.forward(inputs, Context(gradients=True, training=True, rng=rng))
    loss, loss_backward = ops.cross_entropy(logits, targets=targets)
    (d_logits,) = loss_backward(logits.dtype.type(len(images) / batch))
    backward(d_logits)
    correct = logits.argmax(axis=1) == targets.argmax(axis=1)
    return Part(len(images), {"loss": float(loss) * len(images)}, int(correct.sum()))


@dataclass(frozen=True)
class ClassificationObjective(Objective):
    """Items are (image (H, W, 3) uint8, label)."""

    augmentation: Augmentation

    def gradients(self, model: DAT, items: Sequence[Any], batch: int, rng: np.random.Generator) -> Part:
        images, labels = (np.stack(column) for column in zip(*items, strict=True))
        return part_gradients(model, self.augmentation, images, labels, batch, rng)


class ClassificationTask(Task):
    """Images of `config.image_size` and their labels, in memory; training and validation have the same classes.

    Raises ConfigError for data that do not fit the model or the recipe.
    """

    figure = "accuracy"

    def __init__(self, config: ModelConfig, training: ArrayDataset, validation: ArrayDataset, recipe: Recipe) -> None:
        for dataset in (training, validation):
            if dataset.images.shape[1:3] != config.image_size:
                raise ConfigError(
                    f"{dataset.name}: found images of {dataset.images.shape[1:3]} pixels, expected "
                    f"{config.image_size}, the model's own (height, width)"
                )
        self.config, self.classes = config, training.classes
        self.training, self.validation = training, validation
        assert isinstance(recipe.augmentation, Augmentation)
        self.objective = ClassificationObjective(recipe.augmentation)

    def __len__(self) -> int:
        return len(self.training)

    def items(self, indices: np.ndarray, epoch: int) -> list[Any]:
        return list(zip(self.training.images[indices], self.training.labels[indices], strict=True))

    def fingerprint(self) -> dict[str, Any]:
        return {
            name: {"images": len(data), "checksum": checksum(data.images, data.labels)}
            for name, data in (("training", self.training), ("validation", self.validation))
        }

    def validate(self, model: DAT) -> dict[str, float]:
        """The mean cross-entropy, "loss", and the share of hits, "accuracy"."""
        loss, correct, dataset = 0.0, 0, self.validation
        for start in range(0, len(dataset), VALIDATION_BATCH):
            part = slice(start, start + VALIDATION_BATCH)
            labels = dataset.labels[part]
            logits = model(preprocess_batch(dataset.images[part], model.config))
            loss += float(ops.cross_entropy(logits, targets=labels)[0]) * len(labels)
            correct += int((logits.argmax(axis=1) == labels).sum())
        return {"loss": loss / len(dataset), "accuracy": correct / len(dataset)}


def checksum(*arrays: np.ndarray) -> int:
    """A number that hardly any other arrays have."""
    found = 0
    for array in arrays:
        found = zlib.crc32(np.ascontiguousarray(array).data, found) if array.size else found
    return found
