"""Image folders: pictures in a sub-folder for each class, plain or inside a .zip. Nothing is extracted to disk."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from ..errors import DatasetError, ImageError, listed, printable
from ..runtime.locks import Lock
from .datasets import Dataset, PathLike
from .image import load_images, resize_image, upright_rgb

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
MAX_PICTURE_BYTES = 256 << 20  # of a file inside a zip, which may claim any size
MAX_LEADING_FOLDERS = 16


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

    def load_many(self, indices: Sequence[int], size: tuple[int, int] | None = None) -> list[np.ndarray | ImageError]:
        """Several threads share the pictures."""
        names = [f"{self.path}/{self.pictures[index]}" for index in indices]
        if size is None:
            return load_images(names, self._files.source)
        return load_images(names, self._files.source, lambda image: resize_image(upright_rgb(image), size))

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
        self.lock = Lock()
        self.zip, self.process = self._open(), os.getpid()
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
                if self.process != os.getpid():  # a forked child would share the place in the file with its parent
                    self.zip, self.process = self._open(), os.getpid()
                return io.BytesIO(self.zip.read(info))
        except Exception as error:  # zipfile raises nearly anything on a damaged file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(f"{name}: cannot be read from the zip file ({reason}); get another copy") from None


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # the latter is what macOS adds to a zip
