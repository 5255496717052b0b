"""What there is to learn, as the trainer sees it: pictures with answers, a loss, and a figure that tells how it goes.

Three tasks are the same training: classification, detection, segmentation. Each has two sides. A `Task` lives in the
process that leads a run: it has the data and measures the model. Its `Objective` goes to every worker: it turns a part
of a batch into gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..nn import Module


@dataclass(frozen=True)
class Part:
    """What a part of a batch gave.

    images: how many it was; losses: each term of the loss, summed up over the images; correct: how many images were
    taken for what they are (of a mixture of two that is the one with the larger share), None if that says nothing.
    """

    images: int
    losses: dict[str, float]
    correct: int | None = None

    @property
    def loss(self) -> float:
        """The sum of all terms."""
        return sum(self.losses.values())

    def __add__(self, other: Part) -> Part:
        losses = {name: self.losses[name] + other.losses[name] for name in self.losses}
        correct = None if self.correct is None or other.correct is None else self.correct + other.correct
        return Part(self.images + other.images, losses, correct)


class Objective(ABC):
    """How a part of a batch becomes gradients; sent to each worker once, so it must be picklable and small."""

    @abstractmethod
    def gradients(self, model: Any, items: Sequence[Any], batch: int, rng: np.random.Generator) -> Part:
        """Forward, loss and backward of some of a batch's items (`Task.items`), as training has them.

        Sets every parameter's gradient to that of (sum of their losses) / batch.
        """


class Task(ABC):
    """What there is to learn from.

    config: the model's; classes: the names of the classes; objective: for the workers; figure: the name of what
    validation is about, such as "accuracy".
    """

    config: Any
    classes: tuple[str, ...]
    objective: Objective
    figure: str

    @abstractmethod
    def __len__(self) -> int:
        """Images to train on."""

    @abstractmethod
    def items(self, indices: np.ndarray, epoch: int) -> list[Any]:
        """What workers need of the images of these indices. Raises DatasetError for one that cannot be read."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What tells these data from others, for `run.json`."""

    @abstractmethod
    def validate(self, model: Any) -> dict[str, float]:
        """Figures of the model on the validation images, among them `figure`, a share."""


def scale_gradients(model: Module, factor: float) -> None:
    """Multiply all gradients that there are."""
    if factor != 1:
        for _, parameter in model.named_parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad * parameter.grad.dtype.type(factor)
