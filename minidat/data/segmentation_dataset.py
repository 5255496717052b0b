"""Pictures with a class for each pixel: folders of pictures and of label maps, plain or inside a .zip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np

from ..errors import DatasetError, ImageError, MinidatError, listed, printable
from .dense_dataset import DenseDataset, choose_split, find_root
from .file_tree import PICTURE_SUFFIXES, Place, open_tree, read_file
from .image import numbers_or_colors, upright_rgb

PathLike = str | os.PathLike[str]

LABEL_SUFFIXES = (".png",)  # nothing that loses a number
LABEL_FOLDERS = ("labels", "annotations")  # the latter is ADE20K's
CLASS_FILE = "classes.txt"
MAX_TEXT_BYTES = 1 << 20
IGNORED = 255  # the label of a pixel that counts neither for nor against a model
MAX_CLASSES = IGNORED

Palette = dict[tuple[int, int, int], str]


class SegmentationDataset(DenseDataset[np.ndarray]):
    """Pictures and label maps: a class number for each pixel, 255 where none is given.

    path: a folder or a .zip that holds `images/<split>/<stem>.<suffix>` and `labels/<split>/<stem>.png` (or
    `annotations/...`), or the same without splits, possibly inside a folder that holds nothing else. split: the part to
    take; None: the only one there is, or else `default_split`.

    classes: their names; None: those in `classes.txt` beside the folders, one a line, or else the palette's.
    A label map is a PNG of gray values or with a palette, whose numbers are taken, whatever colors they stand for; or,
    with `palette`, a file of lines `red green blue name`, a picture in these colors, of which those whose name is none
    of the classes become 255. reduce_zero_label: of numbers, 0 becomes 255 and all others are one less, as for ADE20K.

    An item's targets are its labels, (H, W) uint8. `pictures` and `label_maps` are the files' names below `path`.

    Raises DatasetError for other layouts, a picture without its label map or the reverse, and names or a palette that
    cannot be; loading one reports labels that are no class, unknown colors and a size that is not the picture's.
    """

    def __init__(
        self,
        path: PathLike,
        split: str | None = None,
        *,
        default_split: str | None = None,
        classes: Sequence[str] | None = None,
        palette: PathLike | None = None,
        reduce_zero_label: bool = False,
    ) -> None:
        self.path = Path(path)
        self.name = str(path)
        self._tree = open_tree(path)
        root = find_root(self._tree, ("images", *LABEL_FOLDERS))
        self.reduce_zero_label = reduce_zero_label
        self._colors = None if palette is None else read_palette(palette)
        self.classes = self._find_classes(root, classes)
        self.pictures, self.label_maps = self._find_pairs(root, split, default_split)

    def __len__(self) -> int:
        return len(self.pictures)

    def subset(self, indices: Sequence[int]) -> Self:
        part = copy(self)
        part.pictures = [self.pictures[index] for index in indices]
        part.label_maps = [self.label_maps[index] for index in indices]
        return part

    def load_many(self, indices: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray] | MinidatError]:
        images = self._tree.load_images([self.pictures[index] for index in indices])
        convert = numbers_or_colors if self._colors is None else upright_rgb
        maps = self._tree.load_images([self.label_maps[index] for index in indices], convert)
        items: list[tuple[np.ndarray, np.ndarray] | MinidatError] = []
        for index, image, found in zip(indices, images, maps, strict=True):
            if isinstance(image, ImageError):
                items.append(image)
            elif isinstance(found, ImageError):
                items.append(found)
            else:
                try:
                    name = f"{self.path}/{self.label_maps[index]}"
                    items.append((image, self._labels(found, image.shape[:2], name)))
                except DatasetError as error:
                    items.append(error)
        return items

    def _labels(self, found: np.ndarray, size: tuple[int, ...], name: str) -> np.ndarray:
        """The labels (H, W) uint8 that the content of a label map means."""
        if found.shape[:2] != size:
            raise DatasetError(
                f"{name}: found {found.shape[0]} x {found.shape[1]} pixels (height x width), expected {size[0]} x "
                f"{size[1]} as its picture has"
            )
        if self._colors is not None:
            return self._labels_of_colors(found, name)
        if found.ndim == 3 or found.dtype.kind not in "bui":
            kind = "colors" if found.ndim == 3 else str(found.dtype)
            raise DatasetError(f"{name}: found {kind}, expected a class number in each pixel; or give the palette")
        numbers = found.astype(np.int64)
        if self.reduce_zero_label:
            numbers = np.where((numbers == 0) | (numbers == IGNORED), IGNORED, numbers - 1)
        wrong = numbers[(numbers >= len(self.classes)) & (numbers != IGNORED)]
        if wrong.size:
            raise DatasetError(
                f"{name}: found the label {wrong.max() + self.reduce_zero_label} in {wrong.size} pixels, expected "
                f"{len(self.classes)} classes: at most {len(self.classes) - 1 + self.reduce_zero_label}, or {IGNORED} "
                "for none"
            )
        return numbers.astype(np.uint8)

    def _labels_of_colors(self, found: np.ndarray, name: str) -> np.ndarray:
        assert self._colors is not None
        numbers = {label: number for number, label in enumerate(self.classes)}
        codes = _code(np.array(list(self._colors)))
        labels = np.array([numbers.get(label, IGNORED) for label in self._colors.values()], np.uint8)
        order = np.argsort(codes)
        pixels = _code(found)
        place = order[np.minimum(np.searchsorted(codes, pixels, sorter=order), len(order) - 1)]
        unknown = codes[place] != pixels
        if unknown.any():
            color = tuple(found[unknown][0].tolist())
            raise DatasetError(f"{name}: found the color {color} (red, green, blue), expected those of the palette")
        return labels[place]

    def _find_classes(self, root: Place, classes: Sequence[str] | None) -> tuple[str, ...]:
        file = "/".join((*root, CLASS_FILE))
        if classes is not None:
            names, where = tuple(classes), "classes"
        elif self._tree.has(file):
            where = f"{self.path}/{file}"
            names = tuple(_lines(self._tree.read(file, most=MAX_TEXT_BYTES), where))
        elif self._colors is not None:
            names, where = tuple(dict.fromkeys(self._colors.values())), "palette"
        else:
            raise DatasetError(f"{self.path}: found no {file}, expected the names of the classes in it, one a line")
        if not 0 < len(names) <= MAX_CLASSES or len(set(names)) < len(names) or not all(map(str.isprintable, names)):
            raise DatasetError(
                f"{where}: found {len(names)} names, {len(set(names))} of them different, expected 1 to {MAX_CLASSES} "
                "different ones, one a line"
            )
        return names

    def _find_pairs(self, root: Place, split: str | None, default_split: str | None) -> tuple[list[str], list[str]]:
        """The names of the pictures and of their label maps, in the same order."""
        folders = self._tree.folders(root)
        label_folder = next((folder for folder in LABEL_FOLDERS if folder in folders), None)
        if "images" not in folders or label_folder is None:
            raise DatasetError(
                f"{self.path}: found the folders {listed(folders) or 'none'}, expected images and labels"
            )
        images, labels = (*root, "images"), (*root, label_folder)
        if splits := self._tree.folders(images):
            part = choose_split(self.name, splits, split, default_split)
            self.name += f" ({part})"
            images, labels = (*images, part), (*labels, part)
        elif split is not None:
            raise DatasetError(
                f"{self.name}: has no part {printable(split)!r}: found pictures alone; leave the split out"
            )
        pictures, label_maps = self._by_stem(images, PICTURE_SUFFIXES), self._by_stem(labels, LABEL_SUFFIXES)
        for some, others, place in ((pictures, label_maps, labels), (label_maps, pictures, images)):
            if alone := sorted(set(some) - set(others)):
                raise DatasetError(
                    f"{self.name}: {len(alone)} of {len(some)} files, such as {printable(some[alone[0]])}, have no "
                    f"partner, expected one of the same name in {printable('/'.join(place))}"
                )
        if not pictures:
            raise DatasetError(f"{self.name}: found no pictures, expected some in {printable('/'.join(images))}")
        return list(pictures.values()), [label_maps[stem] for stem in pictures]

    def _by_stem(self, place: Place, suffixes: tuple[str, ...]) -> dict[str, str]:
        """The files with one of the suffixes, by their name without it."""
        found: dict[str, str] = {}
        for file in self._tree.files(place):
            stem, suffix = os.path.splitext(file)
            if suffix.lower() in suffixes:
                if stem in found:
                    raise DatasetError(
                        f"{self.name}: found {printable(file)} and another {printable(stem)}, expected one"
                    )
                found[stem] = "/".join((*place, file))
        return found


def read_palette(path: PathLike) -> Palette:
    """The name of each color in a file of lines `red green blue name`, numbers of 0 to 255.

    Several colors may have one name. Raises DatasetError for a file that cannot be read or has other lines, or a color
    twice.
    """
    colors: Palette = {}
    for i, line in enumerate(_lines(read_file(path, most=MAX_TEXT_BYTES), str(path)), start=1):
        *numbers, name = line.split(None, 3)
        if len(numbers) != 3 or not all(
            number.isascii() and number.isdigit() and int(number) < 256 for number in numbers
        ):
            raise DatasetError(f"{path}: line {i}: found {printable(line)[:60]!r}, expected red green blue name")
        red, green, blue = map(int, numbers)
        if (red, green, blue) in colors:
            raise DatasetError(f"{path}: line {i}: found the color {red} {green} {blue} a second time")
        colors[red, green, blue] = name
    return colors


def _lines(content: bytes, name: str) -> list[str]:
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except ValueError:
        raise DatasetError(f"{name}: not UTF-8 text") from None
    if "" in lines or not lines:
        number = lines.index("") + 1 if lines else 1
        raise DatasetError(f"{name}: line {number} is empty, expected one entry a line")
    return lines


def _code(colors: np.ndarray) -> np.ndarray:
    """(..., 3) -> (...), each color as one number."""
    return colors.astype(np.int64) @ np.array((1 << 16, 1 << 8, 1))
