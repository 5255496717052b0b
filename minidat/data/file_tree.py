"""A tree of files, a folder or the inside of a .zip, that is read without extracting anything."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DatasetError, ImageError, printable
from .image import Convert, load_images, upright_rgb

Place = tuple[str, ...]  # a folder: the names that lead to it

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
MAX_PICTURE_BYTES = 256 << 20  # of a file, which inside a zip may claim any size
MAX_DEPTH = 18


class FileTree(ABC):
    """Folders and files, named by their path below the root with `/` between the parts.

    What begins with a dot is left out, and there is no way up: a name such as `../x.jpg` is that of no file.
    """

    path: Path

    @abstractmethod
    def folders(self, place: Place) -> list[str]:
        """The names of the folders in a place, sorted; none if there is no such place. Raises DatasetError."""

    @abstractmethod
    def files(self, place: Place) -> list[str]:
        """The names of the files in a place, sorted; none if there is no such place. Raises DatasetError."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""

    @abstractmethod
    def source(self, name: str) -> str | BinaryIO:
        """A file to read a picture from, a path or opened. Raises ImageError."""

    @abstractmethod
    def read(self, name: str, *, most: int) -> bytes:
        """The content of a file. Raises DatasetError for one that cannot be read or has more than `most` bytes."""

    def load_images(self, names: Sequence[str], convert: Convert = upright_rgb) -> list[np.ndarray | ImageError]:
        """The pictures in these files, which several threads share, or what is wrong with each (see `load_images`)."""
        root = f"{self.path}/"
        return load_images([root + name for name in names], lambda name: self.source(name.removeprefix(root)), convert)


def read_file(path: str | os.PathLike[str], *, most: int) -> bytes:
    """The content of a regular file. Raises DatasetError for another, or of more than `most` bytes."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would wait for somebody to write to it
            raise OSError(0, "not a regular file")
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:  # the latter for a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path}: cannot be read: {reason}; expected a file") from None
    if len(content) > most:
        raise DatasetError(f"{path}: has more than {most:,} bytes, expected at most as many")
    return content


def open_tree(path: str | os.PathLike[str]) -> FileTree:
    """The tree in the folder or the .zip at `path`. Raises DatasetError for anything else."""
    return _Folder(Path(path)) if os.path.isdir(path) else _Zip(Path(path))


class _Folder(FileTree):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[Place, tuple[set[str], set[str]]] = {}

    def folders(self, place: Place) -> list[str]:
        return sorted(self._entries(place)[0])

    def files(self, place: Place) -> list[str]:
        return sorted(self._entries(place)[1])

    def has(self, name: str) -> bool:
        *place, file = name.split("/")
        return file in self._entries(tuple(place))[1]

    def source(self, name: str) -> str:
        return str(self.path / name)

    def read(self, name: str, *, most: int) -> bytes:
        return read_file(self.path / name, most=most)

    def _entries(self, place: Place) -> tuple[set[str], set[str]]:
        """The names of folders and of files."""
        if place and place[-1] not in self._entries(place[:-1])[0]:
            return set(), set()  # and `..` is never looked at
        if place not in self.known:
            folder = self.path.joinpath(*place)
            folders: set[str] = set()
            files: set[str] = set()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if not _is_hidden(entry.name) and (entry.is_dir() or entry.is_file()):
                            (folders if entry.is_dir() else files).add(entry.name)
            except OSError as error:
                raise DatasetError(f"{folder}: cannot be read: {error.strerror}; expected a folder") from None
            self.known[place] = folders, files
        return self.known[place]


class _Zip(FileTree):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.zip = self._open()
        self.tree: dict[Place, tuple[set[str], set[str]]] = {(): (set(), set())}
        self.members: dict[str, zipfile.ZipInfo] = {}
        for info in self.zip.infolist():
            parts = tuple(part for part in info.filename.replace("\\", "/").split("/") if part)
            if any(map(_is_hidden, parts)) or not 0 < len(parts) <= MAX_DEPTH:
                continue
            for i in range(len(parts)):
                folders, files = self.tree.setdefault(parts[:i], (set(), set()))
                (folders if i < len(parts) - 1 or info.is_dir() else files).add(parts[i])
            if not info.is_dir():
                self.members["/".join(parts)] = info  # the later of two of one name, as unzip has it

    def folders(self, place: Place) -> list[str]:
        return sorted(self.tree.get(place, (set(), set()))[0])

    def files(self, place: Place) -> list[str]:
        return sorted(self.tree.get(place, (set(), set()))[1])

    def has(self, name: str) -> bool:
        return name in self.members

    def source(self, name: str) -> BinaryIO:
        try:
            return io.BytesIO(self.read(name, most=MAX_PICTURE_BYTES))
        except DatasetError as error:
            raise ImageError(str(error)) from None

    def read(self, name: str, *, most: int) -> bytes:
        info = self.members[name]
        if info.file_size > most:
            raise DatasetError(
                f"{self.path}/{printable(name)}: has {info.file_size:,} bytes, expected at most {most:,}"
            )
        try:
            with self.lock:
                return self.zip.read(info)
        except Exception as error:  # zipfile raises nearly anything on a damaged file
            reason = printable(" ".join(str(error).split())) or type(error).__name__
            raise DatasetError(
                f"{self.path}/{printable(name)}: cannot be read from the zip file ({reason}); get another copy"
            ) from None

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
                f"{self.path}: not a data set that can be read ({printable(reason)}); expected a folder or a .zip"
            ) from None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # the latter is what macOS adds to a zip
