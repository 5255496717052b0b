"""Open a zip file that may be damaged or hostile: both `.pth` and `.npz` are zip files.

Every promise a zip makes about its contents is checked against the size of the file before anything is allocated, every
checksum is verified while reading, and whatever goes wrong becomes one CheckpointError.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from ..errors import CheckpointError
from ..files.reading import open_regular

PathLike = str | os.PathLike[str]

CHUNK_BYTES = 1 << 20  # stays in the L2 cache between reading, checking and copying
PLAUSIBLE_COMPRESSION = 20  # float weights shrink by a tenth at most; a thousandfold is a zip bomb
LEGACY_TORCH_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # pickled 0x1950a86a20f9469cfc6c, PyTorch before 1.6

_READING_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error,
    EOFError, OSError, RuntimeError, ValueError, OverflowError, NotImplementedError,
)  # fmt: skip


class Archive:
    """A zip file open for reading; use it as a context manager.

    Raises CheckpointError for a missing file, a folder, a file that is no zip, and a zip that is cut off, encrypted or
    declares more content than its bytes can hold.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            self.file_bytes = os.fstat(self._file.fileno()).st_size
            self._check_kind()
            self._zip = zipfile.ZipFile(self._file)
            self._entries = {entry.filename: entry for entry in self._zip.infolist()}
            self._check_entries()
        except _READING_ERRORS as error:
            self._file.close()
            raise self.error(f"a cut-off or damaged zip file ({one_line(error)}): download or copy it again") from None
        except CheckpointError:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()  # also where a record is still being read

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def size(self, name: str) -> int:
        """Bytes that the record `name` holds. Raises CheckpointError if there is none."""
        if name not in self._entries:
            raise self.error(f"the record {one_line(name)} is missing: the file is damaged, download or copy it again")
        return self._entries[name].file_size

    def read(self, name: str, *, limit: int) -> bytes:
        """The content of a small record, of at most `limit` bytes."""
        if self.size(name) > limit:
            raise self.error(f"the record {one_line(name)} has {self.size(name)} bytes, expected at most {limit}")
        return b"".join(self.chunks(name))

    def read_into(self, name: str, array: np.ndarray) -> None:
        """Fill `array`, a contiguous one of exactly the record's size, without a second copy of the record."""
        target = array.reshape(-1).view(np.uint8)
        position = 0
        for chunk in self.chunks(name):
            target[position : position + len(chunk)] = np.frombuffer(chunk, np.uint8)
            position += len(chunk)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The record's bytes in pieces of CHUNK_BYTES (the last one shorter), checksum verified at the end."""
        remaining = self.size(name)
        try:
            with self._zip.open(self._entries[name]) as stream:
                while remaining > 0:
                    chunk = stream.read(min(CHUNK_BYTES, remaining))
                    if not chunk:
                        raise EOFError("unexpected end")
                    remaining -= len(chunk)
                    yield chunk
        except _READING_ERRORS as error:
            raise self.error(
                f"the record {one_line(name)} is damaged ({one_line(error)}): download or copy the file again"
            ) from None

    def refuse_unknown(self, known: Callable[[str], bool]) -> None:
        """Raise CheckpointError for an entry of another name: a damaged name must not make an entry go unnoticed."""
        for name in self:
            if not known(name):
                raise self.error(
                    f"holds the unknown entry {one_line(name)}: the file is damaged, download or copy it again"
                )

    def error(self, problem: str) -> CheckpointError:
        """A CheckpointError that names this file."""
        return CheckpointError(f"{self.path}: {problem}")

    def _check_kind(self) -> None:
        """Raise CheckpointError, saying what else it is, if the file does not begin as a zip does."""
        start = self._file.read(512)
        if not start:
            raise self.error("the file is empty, expected a .pth or .npz file: download or copy it again")
        if LEGACY_TORCH_MAGIC in start[:64]:
            raise self.error(
                "PyTorch's format from before version 1.6, expected its zip format: "
                "re-save it with torch.save(torch.load(old, map_location='cpu'), new); "
                "if torch.load refuses and you trust the file, add weights_only=False"
            )
        if not start.startswith(b"PK"):
            raise self.error(f"{_describe_start(start)}, expected a zip file (.pth or .npz)")

    def _check_entries(self) -> None:
        if len(self._entries) != len(self._zip.infolist()):
            raise self.error("two records of the same name: the file is damaged, download or copy it again")
        held = 0.0
        for name, entry in self._entries.items():
            if entry.flag_bits & 0x1:
                raise self.error("an encrypted zip file, expected a plain one: unpack and save it without a password")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self.error(f"the record {one_line(name)} has an unknown compression, expected none or deflate")
            is_stored = entry.compress_type == zipfile.ZIP_STORED
            held += entry.file_size / (1 if is_stored else PLAUSIBLE_COMPRESSION)
            if held > self.file_bytes:
                raise self.error(
                    f"its records claim to hold more than its {self.file_bytes} bytes can: damaged, or a zip bomb"
                )


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: a folder, expected a .pth or .npz file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise CheckpointError(f"{path}: cannot be read: {reason}, expected a .pth or .npz file") from None


def _describe_start(start: bytes) -> str:
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if start.startswith(b"\x93NUMPY"):
        return "a single .npy array"
    if start[:1] == b"\x80":
        return "a bare pickle"
    return f"starts with {start[:8]!r}"


def one_line(value: object, longest: int = 80) -> str:
    """A short printable text, whatever a file put into it."""
    text = " ".join(str(value).split())
    return ascii(text[:longest])[1:-1]
