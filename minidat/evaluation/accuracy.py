"""Accuracy of a classifier on a data set: top-1, top-5, class by class, and what is taken for what."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.datasets import Dataset, Progress, unreadable
from ..data.image import preprocess, preprocess_batch, resized
from ..errors import CheckpointError, ConfigError, DatasetError, ImageError, SessionError, listed
from ..runtime.session import Session
from .tables import shortened

if TYPE_CHECKING:
    from ..data.dense_dataset import DenseDataset
    from ..detection import Detector
    from ..models import DAT
    from ..segmentation import Segmentor

TOP = 5
WORDNET_IDENTIFIER = re.compile(r"n\d{8}")  # how ImageNet's folders are called
IMAGENET_CLASSES = 1000
SESSION_PIXELS = 2_000_000  # in all images: from here on helper processes gain more time than they take to start


@dataclass(frozen=True)
class ClassResult:
    """One class of an evaluation.

    label: its name; images: those of this class; correct: which of them were recognized; predicted: all images taken
    for this class; confused_with: the label that most of the others were taken for, None if there are none; confused:
    how many of them.
    """

    label: str
    images: int
    correct: int
    predicted: int
    confused_with: str | None
    confused: int

    @property
    def accuracy(self) -> float:
        """Share of this class's images that were recognized (recall), in [0, 1]."""
        return self.correct / self.images

    @property
    def precision(self) -> float | None:
        """Share of the images taken for this class that are of it; None if there are none."""
        return self.correct / self.predicted if self.predicted else None


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    labels: the model's K classes; confusion: (K, K) int64, the number of images of the class [row] that were taken for
    the class [column]; in_top5: images whose class is among the five most probable (among all, if K < 5); seconds: what
    reading and classifying them took; skipped: images that could not be read.
    """

    labels: tuple[str, ...]
    confusion: np.ndarray
    in_top5: int
    seconds: float
    skipped: int

    @property
    def images(self) -> int:
        """The number of images classified."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of the images whose most probable class is the right one, in [0, 1]."""
        return int(np.trace(self.confusion)) / self.images

    @property
    def top5(self) -> float:
        return self.in_top5 / self.images

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds

    @property
    def classes(self) -> list[ClassResult]:
        """The classes that there are images of, in the order of the model's labels."""
        counts, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        results = []
        for index in np.flatnonzero(counts):
            others = self.confusion[index].copy()
            others[index] = 0
            worst = int(others.argmax())
            results.append(
                ClassResult(
                    label=self.labels[index],
                    images=int(counts[index]),
                    correct=int(self.confusion[index, index]),
                    predicted=int(predicted[index]),
                    confused_with=self.labels[worst] if others[worst] else None,
                    confused=int(others[worst]),
                )
            )
        return results

    def occurring(self) -> tuple[np.ndarray, list[str]]:
        """The part of the confusion matrix, and its labels, of the classes that are true or predicted anywhere."""
        kept = np.flatnonzero(self.confusion.any(axis=0) | self.confusion.any(axis=1))
        return self.confusion[np.ix_(kept, kept)], [self.labels[index] for index in kept]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts and lists, for JSON."""
        return {
            "images": self.images,
            "skipped": self.skipped,
            "top1": self.top1,
            "top5": self.top5,
            "images_per_second": self.images_per_second,
            "classes": [
                {
                    "label": result.label,
                    "images": result.images,
                    "top1": result.accuracy,
                    "precision": result.precision,
                    "confused_with": result.confused_with,
                    "confused": result.confused,
                }
                for result in self.classes
            ],
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
        }


def evaluate(
    model: DAT,
    dataset: Dataset,
    *,
    batch: int = 64,
    progress: Progress | None = None,
    on_error: Callable[[ImageError], None] | None = None,
) -> Evaluation:
    """Classify all images of a data set, `batch` at a time, prepared as `preprocess` does.

    The data set's classes are found among the model's labels by their names, wherever they are; it need not have them
    all (ImageNet's 1000 folders, which are called n01440764 and so on, fit a model of 1000 classes in alphabetical
    order). Of equally probable classes the first counts as the answer.

    progress: called with (done, total) now and then. on_error: called for each image that cannot be read, which is left
    out; without it, one error counts them all. Raises DatasetError for those and for classes that the model does not
    know, ConfigError if `batch` is below 1 or the model has no labels, and CheckpointError if the weights give logits
    that are not finite.
    """
    if batch < 1:
        raise ConfigError(f"batch: found {batch}, expected at least 1")
    if len(dataset) == 0:
        raise DatasetError(f"{dataset.name}: has no pictures, expected at least one")
    columns = match_classes(model, dataset)  # (classes of the data set,) indices among the logits
    labels = tuple(model.labels or ())
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    in_top5 = 0
    errors: list[ImageError] = []
    start_time = time.perf_counter()
    with _classifier(model, dataset) as classify:
        for start in range(0, len(dataset), batch):
            indices = range(start, min(start + batch, len(dataset)))
            images = dataset.load_many(indices, resized(model.config))
            good = {index: image for index, image in zip(indices, images, strict=True) if isinstance(image, np.ndarray)}
            bad = [image for image in images if isinstance(image, ImageError)]
            errors += bad
            if on_error is not None:
                for error in bad:
                    on_error(error)
            if good and (not errors or on_error is not None):  # else only the bad ones are still counted
                logits = _logits(classify, list(good.values()), model)
                targets = columns[dataset.labels[list(good)]]
                np.add.at(confusion, (targets, logits.argmax(axis=1)), 1)
                in_top5 += int((_ranks(logits, targets) < TOP).sum())
            if progress is not None:
                progress(indices.stop, len(dataset))
    if errors and (on_error is None or len(errors) == len(dataset)):
        raise unreadable(dataset, errors)
    return Evaluation(labels, confusion, in_top5, time.perf_counter() - start_time, len(errors))


def _classifier(model: DAT, dataset: Dataset) -> AbstractContextManager[Callable[[np.ndarray], np.ndarray]]:
    """What gives the logits: a session of the model, or for few or small images the model itself."""
    height, width = model.config.image_size
    if len(dataset) * height * width < SESSION_PIXELS:
        return nullcontext(model)
    try:
        return Session(model)
    except SessionError:  # a model that cannot be copied can still classify
        return nullcontext(model)


def _logits(classify: Callable[[np.ndarray], np.ndarray], images: Sequence[np.ndarray], model: DAT) -> np.ndarray:
    """Of pictures of any size, (B, K)."""
    logits = classify(_prepared(images, model))
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{model.config.name}: the logits are not finite numbers; use undamaged weights")
    return logits


def match_classes(model: DAT | Detector | Segmentor, dataset: Dataset | DenseDataset[Any]) -> np.ndarray:
    """The index among the model's logits of each class of the data set, (K,) int64, by its name.

    Raises ConfigError if the model has no labels, or not one for each class, and DatasetError for classes that are not
    among them.
    """
    name, num_classes = model.config.name, model.config.num_classes
    if model.labels is None:
        raise ConfigError(
            f"{name}: the model does not name its classes, expected labels to compare with the data set's; add them "
            "with: minidat convert SRC DST --labels FILE"
        )
    if len(set(model.labels)) != num_classes or len(model.labels) != num_classes:
        raise ConfigError(f"{name}: labels: found {len(set(model.labels))} different ones, expected {num_classes}")
    has_identifiers = all(map(WORDNET_IDENTIFIER.fullmatch, dataset.classes))
    if has_identifiers and len(dataset.classes) == num_classes == IMAGENET_CLASSES:
        return np.arange(num_classes)
    columns = {label: index for index, label in enumerate(model.labels)}
    unknown = [label for label in dataset.classes if label not in columns]
    if unknown:
        raise DatasetError(
            f"{dataset.name}: {len(unknown)} of its {len(dataset.classes)} classes are not among the model's labels: "
            f"{listed(unknown)}; expected some of {listed(model.labels)}: rename the folders, or the labels with "
            "minidat convert SRC DST --labels FILE"
        )
    return np.array([columns[label] for label in dataset.classes], np.int64)


def _prepared(images: Sequence[np.ndarray], model: DAT) -> np.ndarray:
    """Pictures of any size -> (B, h, w, 3) float32."""
    if len({image.shape for image in images}) == 1:
        return preprocess_batch(np.stack(images), model.config)
    return np.stack([preprocess(image, model.config) for image in images])


def _ranks(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How many classes come before the right one, (B,): those with a larger logit, and equal ones before it."""
    own = np.take_along_axis(logits, targets[:, np.newaxis], axis=1)
    is_before = np.arange(logits.shape[1]) < targets[:, np.newaxis]
    return ((logits > own) | ((logits == own) & is_before)).sum(axis=1)


def format_evaluation(evaluation: Evaluation) -> str:
    """A table for a terminal: the totals, then a line for each class that there are images of."""
    skipped = f" ({evaluation.skipped} more could not be read)" if evaluation.skipped else ""
    lines = [
        f"{evaluation.images:,} images{skipped}, {evaluation.images_per_second:.0f} images/s",
        f"top-1 {evaluation.top1:.2%}   top-{min(TOP, len(evaluation.labels))} {evaluation.top5:.2%}",
        "",
    ]
    results = evaluation.classes
    width = max(5, *(len(shortened(result.label)) for result in results))
    lines.append(f"{'class':<{width}}  images   top-1  precision  most often taken for")
    for result in results:
        precision = "-" if result.precision is None else f"{result.precision:.1%}"
        mistake = "" if result.confused_with is None else f"{shortened(result.confused_with)} ({result.confused})"
        figures = f"{result.images:>6}  {result.accuracy:>6.1%}  {precision:>9}  {mistake}"
        lines.append(f"{shortened(result.label):<{width}}  {figures}".rstrip())
    return "\n".join(lines)
