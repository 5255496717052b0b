"""Whatever data set there is at a path."""

from __future__ import annotations

from ..errors import DatasetError
from .cifar10 import is_cifar10, read_cifar10
from .datasets import Dataset, PathLike
from .image_folder import ImageFolder


def open_dataset(path: PathLike, split: str | None = None, *, default_split: str | None = None) -> Dataset:
    """The data set at `path`, whose kind is told by its content.

    An image folder, or a .zip of one (see ImageFolder, also for `split` and `default_split`); CIFAR-10's archives
    `cifar-10-python.tar.gz` and `cifar-10-binary.tar.gz`, or a folder that one was extracted to, whose splits are
    "train" and "test" (see minidat.data.cifar10). Raises DatasetError.
    """
    if is_cifar10(path):
        if split is None and default_split is None:
            raise DatasetError(f"{path}: CIFAR-10 has the parts test, train; say which one, as the split")
        return read_cifar10(path, split or default_split or "")
    return ImageFolder(path, split, default_split=default_split)
