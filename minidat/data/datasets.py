"""Data sets of labelled pictures: folders with one sub-folder a class, plain or inside a .zip, and CIFAR-10's archives.

A `Dataset` knows its classes and the label of each picture, and reads pictures when asked to. Nothing is extracted to
disk, and nothing in a file is executed.
"""

from __future__ import annotations

import io
import os
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from ..errors import ConfigError, DatasetError, ImageError, ShapeError, listed, printable
from .image import load_images, resize_image

PathLike = str | os.PathLike[str]
Progress = Callable[[int, int], None]  # called with the number of pictures done and the number of all

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
MAX_PICTURE_BYTES = 256 << 20  # of a file inside a zip, which may claim any size
MAX_LEADING_FOLDERS = 16
IMAGES_AT_ONCE = 256
NAMED_IN_ERRORS = 3  # of many bad pictures


class Dataset(ABC):
    """Labelled pictures.

    name: for messages; classes: their names; labels: (N,) int64, the index among `classes` of each picture's class.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def load_many(self, indices: Sequence[int]) -> list[np.ndarray | ImageError]:
        """The pictures of these indices, (H, W, 3) uint8 each, or what is wrong with the file."""

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
            for index, image in zip(indices, self.load_many(indices), strict=True):
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
                images[len(kept)] = image if size is None else resize_image(image, size)
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

    def load_many(self, indices: Sequence[int]) -> list[np.ndarray | ImageError]:
        return [self.images[index] for index in indices]


class ImageFolder(Dataset):
    """Pictures in folders named after their class, `<class>/<picture>`, in a folder or inside a .zip.

    path: the folder or the .zip. Folders that only hold one other folder are passed over, so that a zip may hold
    `pets/<class>/<picture>`. split: which part to take where the classes are one level deeper, as in
    `train/<class>/<picture>` beside `test/<class>/<picture>`; default_split: the part to take if `split` is None and
    there is such a part.

    Classes are in alphabetical order (by code point), pictures by class, then by name; `pictures` are their paths,
    relative to `path`. A picture is a file with one of the suffixes of the formats that `load_image` reads. Files and
    folders whose name begins with a dot are left out. Only names are looked at here; files are opened by `load`,
    `load_many` and `load_all`.

    Raises DatasetError if there is nothing at `path`, if it is not laid out so, for a zip file that is damaged, if the
    split is missing or not clear, and for a class without pictures or with folders among them.
    """

    def __init__(self, path: PathLike, split: str | None = None, *, default_split: str | None = None) -> None:
        self.path = Path(path)
        self.name = str(path)
        self._files: _Files = _FolderFiles(self.path) if self.path.is_dir() else _ZipFiles(self.path)
        place, self.split = self._find_classes(split, default_split)
        if self.split is not None:
            self.name += f" ({self.split})"
        self.classes = tuple(self._files.entries(place)[0])
        self.pictures: list[str] = []
        counts = []
        for label in self.classes:
            folders, pictures = self._files.entries((*place, label))
            if folders:
                raise DatasetError(
                    f"{self.name}: the class {printable(label)} holds the folder {printable(folders[0])}, expected "
                    "pictures alone; move them up, or give the folder of the classes itself"
                )
            if not pictures:
                raise DatasetError(
                    f"{self.name}: the class {printable(label)} has no pictures ({', '.join(SUFFIXES)}); "
                    "add some, or remove its folder"
                )
            counts.append(len(pictures))
            self.pictures += ["/".join((*place, label, picture)) for picture in pictures]
        self.labels = np.repeat(np.arange(len(counts)), counts)

    def load_many(self, indices: Sequence[int]) -> list[np.ndarray | ImageError]:
        """Several threads share the pictures."""
        return load_images([f"{self.path}/{self.pictures[index]}" for index in indices], self._files.source)

    def _find_classes(self, split: str | None, default_split: str | None) -> tuple[Place, str | None]:
        """The folder that holds the classes' folders, and the split it belongs to, if any."""
        place: Place = ()
        taken: str | None = None
        for _ in range(MAX_LEADING_FOLDERS):
            folders, pictures = self._files.entries(place)
            if any(self._files.entries((*place, folder))[1] for folder in folders):
                if split is not None and taken is None:
                    raise DatasetError(
                        f"{self.name}: has no part {split!r}: found the classes {listed(folders)}; leave the split out"
                    )
                return place, taken
            wanted = split if split is not None else default_split
            if taken is None and wanted is not None and wanted in folders:
                taken = wanted
                place = (*place, wanted)
            elif len(folders) == 1:
                place = (*place, folders[0])
            elif folders and taken is None:
                found = f"{self.name}: found the parts {listed(folders)}"
                raise DatasetError(
                    f"{found}; say which one, as the split" if split is None else f"{found}, expected {split!r}"
                )
            else:
                break
        where = f"{self.name}/{printable('/'.join(place))}" if place else self.name
        found = f"{len(pictures)} pictures without a class" if pictures else "no pictures"
        raise DatasetError(f"{where}: found {found}, expected a folder for each class with its pictures in it")


def open_dataset(path: PathLike, split: str | None = None, *, default_split: str | None = None) -> Dataset:
    """The data set at `path`, whose kind is told by its content.

    An image folder, or a .zip of one (see ImageFolder, also for `split` and `default_split`); CIFAR-10's archives
    `cifar-10-python.tar.gz` and `cifar-10-binary.tar.gz`, or a folder that one was extracted to, whose splits are
    "train" and "test" (see minidat.data.cifar10). Raises DatasetError.
    """
    from .cifar10 import is_cifar10, read_cifar10

    if is_cifar10(path):
        if split is None and default_split is None:
            raise DatasetError(f"{path}: CIFAR-10 has the parts test, train; say which one, as the split")
        return read_cifar10(path, split or default_split or "")
    return ImageFolder(path, split, default_split=default_split)


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


# --- where the files of an image folder are ---------------------------------------------------------------------------

Place = tuple[str, ...]  # a folder: the names that lead to it
Entries = tuple[list[str], list[str]]  # the names of the folders and of the pictures in a place, sorted


class _Files(Protocol):
    """A tree of folders and pictures."""

    def entries(self, place: Place) -> Entries: ...

    def source(self, name: str) -> str | BinaryIO:
        """What can be opened, `name` being the tree's path, a slash, and the picture's. Raises ImageError."""


class _FolderFiles:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[Place, Entries] = {}

    def entries(self, place: Place) -> Entries:
        if place not in self.known:
            folder = self.path.joinpath(*place)
            folders, pictures = [], []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if _is_hidden(entry.name):
                            continue
                        if entry.is_dir():
                            folders.append(entry.name)
                        elif _is_picture(entry.name):
                            pictures.append(entry.name)
            except OSError as error:
                raise DatasetError(f"{folder}: cannot be read: {error.strerror}; expected a folder") from None
            self.known[place] = sorted(folders), sorted(pictures)
        return self.known[place]

    def source(self, name: str) -> str | BinaryIO:
        return name


class _ZipFiles:
    """Names such as `../../x.jpg` do no harm: nothing is extracted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.zip = self._open()
        self.folders: dict[Place, set[str]] = {}
        self.pictures: dict[Place, dict[str, zipfile.ZipInfo]] = {}
        for info in self.zip.infolist():
            parts = tuple(part for part in info.filename.replace("\\", "/").split("/") if part)
            if any(map(_is_hidden, parts)) or len(parts) > MAX_LEADING_FOLDERS + 2:
                continue
            place = parts if info.is_dir() else parts[:-1]
            if not info.is_dir() and _is_picture(parts[-1]):
                self.pictures.setdefault(place, {})[parts[-1]] = info  # the later of two of one name, as unzip has it
            while place and place[-1] not in self.folders.setdefault(place[:-1], set()):
                self.folders[place[:-1]].add(place[-1])
                place = place[:-1]

    def _open(self) -> zipfile.ZipFile:
        if not self.path.exists():
            raise DatasetError(f"{self.path}: no such file or folder; expected a data set")
        try:
            if not self.path.is_file():
                raise zipfile.BadZipFile("not a regular file")
            return zipfile.ZipFile(self.path)
        except Exception as error:  # zipfile raises nearly anything on a damaged file
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise DatasetError(
                f"{self.path}: not a data set that can be read ({printable(reason)}); expected a folder of pictures, "
                "a .zip of one, or an archive of CIFAR-10"
            ) from None

    def entries(self, place: Place) -> Entries:
        return sorted(self.folders.get(place, ())), sorted(self.pictures.get(place, ()))

    def source(self, name: str) -> str | BinaryIO:
        *place, picture = name.removeprefix(f"{self.path}/").split("/")
        info = self.pictures[tuple(place)][picture]
        if info.file_size > MAX_PICTURE_BYTES:
            raise ImageError(f"{name}: has {info.file_size:,} bytes, expected at most {MAX_PICTURE_BYTES:,}")
        try:
            with self.lock:
                return io.BytesIO(self.zip.read(info))
        except Exception as error:  # zipfile raises nearly anything on a damaged file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(f"{name}: cannot be read from the zip file ({reason}); get another copy") from None


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # the latter is what macOS adds to a zip


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"
