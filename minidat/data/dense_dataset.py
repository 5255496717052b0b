"""What data sets for detection and segmentation have in common: items are a picture and what is to be found in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Generic, TypeVar

import numpy as np

from ..errors import DatasetError, MinidatError, listed, printable
from .file_tree import MAX_DEPTH, PICTURE_SUFFIXES, FileTree, Place

Targets = TypeVar("Targets")


class DenseDataset(ABC, Generic[Targets]):
    """Pictures, each with its targets.

    name: for messages; classes: their names, by class number.
    """

    name: str
    classes: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load_many(self, indices: Sequence[int]) -> list[tuple[np.ndarray, Targets] | MinidatError]:
        """The pictures of these indices, (H, W, 3) uint8, each with its targets, or what is wrong with its files.

        Several threads share the pictures.
        """

    def load(self, index: int) -> tuple[np.ndarray, Targets]:
        """One picture, (H, W, 3) uint8, and its targets. Raises MinidatError if its files cannot be read."""
        (item,) = self.load_many([index])
        if isinstance(item, MinidatError):
            raise item
        return item


def find_root(tree: FileTree, landmarks: Collection[str]) -> Place:
    """The first place on the way down that holds one of the folders `landmarks`, a picture, or not exactly one folder.

    So that a zip may hold `street/images/...` as well as `images/...`.
    """
    place: Place = ()
    while len(place) < MAX_DEPTH:
        folders = tree.folders(place)
        pictures = any(file.lower().endswith(PICTURE_SUFFIXES) for file in tree.files(place))
        if len(folders) != 1 or folders[0] in landmarks or pictures:
            break
        place = (*place, folders[0])
    return place


def choose_split(name: str, found: Sequence[str], split: str | None, default_split: str | None) -> str:
    """The part of a data set to take: `split`; if that is None the only one there is, or else `default_split`.

    Raises DatasetError, with the parts that were found, if there is no such part or the choice is not clear.
    """
    if split is None:
        split = found[0] if len(found) == 1 else default_split
    if split is None or (split not in found):
        wanted = "say which one, as the split" if split is None else f"expected {printable(split)!r}"
        raise DatasetError(f"{name}: found the parts {listed(found)}; {wanted}")
    return split
