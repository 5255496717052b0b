"""What a data set of labeled pictures is, and how a part of one is kept for validation.

A `Dataset` knows its classes and the label of each picture, and reads pictures when asked to. Its kinds are
`ArrayDataset` here, `ImageFolder` (image_folder) and CIFAR-10's archives (cifar10); `open_dataset` (opening) tells them
apart.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, DatasetError, ImageError, ShapeError, printable
from .image import resize_image

PathLike = str | os.PathLike[str]
Progress = Callable[[int, int], None]  # called with the number of pictures done and the number of all

IMAGES_AT_ONCE = 256
NAMED_IN_ERRORS = 3  # of many bad pictures


class Dataset(ABC):
    """Labeled pictures.

    name: for messages; classes: their names; labels: (N,) int64, the index among `classes` of each picture's class.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def load_many(self, indices: Sequence[int], size: tuple[int, int] | None = None) -> list[np.ndarray | ImageError]:
        """The pictures of these indices, (H, W, 3) uint8 each, or what is wrong with the file.

        size: (height, width) that each is resized to, the sooner the better: many large ones may not fit into memory.
        """

    def load(self, index: int) -> np.ndarray:
        """One picture, (H, W, 3) uint8. Raises ImageError if its file cannot be read, IndexError if there is none."""
        (image,) = self.load_many([index])
        if isinstance(image, ImageError):
            raise image
        return image

    def load_all(
        self,
        size: tuple[int, int] | None = None,
        *,
        progress: Progress | None = None,
        on_error: Callable[[ImageError], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """All pictures in one array: images (N, H, W, 3) uint8 and labels (N,) int64.

        size: (height, width) that pictures of another size are resized to (bicubic; the aspect ratio is not kept, as in
        `preprocess`); None: all must have the same. progress: called now and then. on_error: called for each picture
        that cannot be read, which is left out; without it, one error counts them all.

        Raises DatasetError for pictures that cannot be read (the first ones are named), for sizes that differ, and if
        a class would lose all its pictures.
        """
        if size is not None and min(size) < 1:
            raise ConfigError(f"size: found {size}, expected (height, width) of at least 1 pixel")
        images = np.empty((0, 1, 1, 3), np.uint8)
        kept: list[int] = []
        errors: list[ImageError] = []
        for start in range(0, len(self), IMAGES_AT_ONCE):
            indices = range(start, min(start + IMAGES_AT_ONCE, len(self)))
            for index, image in zip(indices, self.load_many(indices, size), strict=True):
                if isinstance(image, ImageError):
                    errors.append(image)
                    if on_error is not None:
                        on_error(image)
                    continue
                if not kept:
                    images = np.empty((len(self), *(size or image.shape[:2]), 3), np.uint8)
                if size is None and image.shape != images.shape[1:]:
                    raise DatasetError(
                        f"{self.name}: its pictures have several sizes, such as {_size(images[0])} and {_size(image)} "
                        "(height x width), expected one; choose a size to resize them to"
                    )
                images[len(kept)] = image
                kept.append(index)
            if progress is not None:
                progress(indices.stop, len(self))
        if errors and on_error is None:
            raise unreadable(self, errors)
        labels = self.labels[kept]
        for label in np.flatnonzero(np.bincount(labels, minlength=len(self.classes)) == 0):
            raise DatasetError(
                f"{self.name}: no picture of the class {self.classes[label]} can be read; expected at least one"
            )
        return images[: len(kept)], labels

    def in_memory(
        self,
        size: tuple[int, int] | None = None,
        *,
        progress: Progress | None = None,
        on_error: Callable[[ImageError], None] | None = None,
    ) -> ArrayDataset:
        """All pictures as an ArrayDataset, which training takes; see `load_all`."""
        images, labels = self.load_all(size, progress=progress, on_error=on_error)
        return ArrayDataset(images, labels, self.classes, name=self.name)


def unreadable(dataset: Dataset, errors: Sequence[ImageError]) -> DatasetError:
    """One error for all pictures of a data set that cannot be read: how many they are, and what is wrong with some."""
    some = "; ".join(printable(str(error)) for error in errors[:NAMED_IN_ERRORS])
    more = f"; and {len(errors) - NAMED_IN_ERRORS} more" if len(errors) > NAMED_IN_ERRORS else ""
    return DatasetError(
        f"{dataset.name}: {len(errors)} of {len(dataset)} pictures cannot be read; replace, remove or skip them "
        f"({some}{more})"
    )


class ArrayDataset(Dataset):
    """Pictures in memory: images (N, H, W, 3) uint8, labels (N,) integers below the number of classes.

    Raises ShapeError for other arrays, and ConfigError for labels that name no class.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, name: str = "the data"
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ShapeError(
                f"images: found shape {images.shape} of {images.dtype}, expected (N, height, width, 3) of uint8"
            )
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise ShapeError(
                f"labels: found shape {labels.shape} of {labels.dtype}, expected ({len(images)},) of integers"
            )
        if labels.size and (labels.min() < 0 or labels.max() >= len(classes)):
            raise ConfigError(
                f"labels: found {labels.min()} to {labels.max()}, expected 0 to {len(classes) - 1}, one for each class"
            )
        self.name = name
        self.classes = tuple(classes)
        self.images = images
        self.labels = labels.astype(np.int64)

    def load_many(self, indices: Sequence[int], size: tuple[int, int] | None = None) -> list[np.ndarray | ImageError]:
        images = [self.images[index] for index in indices]
        return [image if size is None else resize_image(image, size) for image in images]

    def subset(self, indices: Sequence[int]) -> ArrayDataset:
        """A data set of the pictures of these indices alone, in this order."""
        chosen = np.asarray(indices, np.intp)
        return ArrayDataset(self.images[chosen], self.labels[chosen], self.classes, name=self.name)


def split_validation(
    labels: np.ndarray, *, count: int | None = None, fraction: float | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Set some pictures apart for validation, from each class its share, as the seed has it.

    labels: (N,) integers; count or fraction: how many of the N, or which part of them; exactly one is given. Returns
    the indices left for training, (N - count,), and those for validation, (count,), both ascending. Shares that are no
    whole numbers are rounded by their largest remainders.

    Raises ConfigError unless both sets get a picture and every class keeps one for training.
    """
    total = len(labels)
    if fraction is not None and not -1 <= fraction <= 1:
        raise ConfigError(f"validation: found a share of {fraction}, expected one above 0 and below 1")
    if fraction is not None and count is None:
        count = round(total * fraction)
    elif count is None or fraction is not None:
        raise ConfigError("count, fraction: found both or neither, expected one of them")
    classes, sizes = np.unique(labels, return_counts=True)
    most = total - len(classes)
    if not 0 < count <= most:
        raise ConfigError(
            f"validation: found {count} of {total} pictures, expected 1 to {most}: every class keeps one for training"
        )
    taken, remainders = np.divmod(count * sizes, total)
    for i in np.argsort(-remainders, kind="stable"):
        if taken.sum() < count and taken[i] + 1 < sizes[i]:
            taken[i] += 1
    for i in np.argsort(-sizes, kind="stable"):  # what tiny classes could not give
        taken[i] += min(count - taken.sum(), sizes[i] - 1 - taken[i])
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:n] for label, n in zip(classes, taken, strict=True)]
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(total), validation), validation


def split_dataset(
    dataset: Any, *, count: int | None = None, fraction: float | None = None, seed: int = 0
) -> tuple[Any, Any]:
    """Set a part of an ArrayDataset, a DetectionDataset or a SegmentationDataset apart: (training, validation).

    See `split_validation`; where pictures have no label, all are of one class. Raises ConfigError as it does.
    """
    labels = getattr(dataset, "labels", None)
    alike = np.zeros(len(dataset), np.int64) if labels is None else labels
    kept, held_out = split_validation(alike, count=count, fraction=fraction, seed=seed)
    return dataset.subset(kept.tolist()), dataset.subset(held_out.tolist())


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"
