"""CIFAR-10 as its authors publish it: `cifar-10-python.tar.gz` and `cifar-10-binary.tar.gz`, or either one extracted.

60,000 pictures of 32 x 32 pixels in ten classes, 50,000 for training in five batches and 10,000 for testing
(https://www.cs.toronto.edu/~kriz/cifar.html; Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009).
A picture is 3072 bytes: all of red, then green, then blue, each row by row.

- Binary: `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`; for each picture its label, then its bytes.
- Python: the same names without `.bin`; each is a pickle of a dict with `labels`, a list, and `data`, an array of
  (N, 3072). The pickles are interpreted by minidat's own machine: nothing in them is executed.
"""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterator, Sequence
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError
from ..files.pickle_machine import ALLOWANCE, PickleError, PickleMachine, Placeholder, describe
from ..files.reading import open_regular
from .datasets import ArrayDataset
from .labels import cifar10_labels

PathLike = str | os.PathLike[str]

BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
NAMES = {name for names in BATCHES.values() for stem in names for name in (stem, f"{stem}.bin")}
PUBLISHED_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")
SIDE = 32
PICTURE_BYTES = 3 * SIDE * SIDE
MAX_FILE_BYTES = 64 << 20  # a batch has 31 MB; nothing larger is in the archives
MAX_FILES = 100
BYTES_PER_BYTE = 2  # that reading a batch's pickle may take: a text of its pixels becomes bytes
SMALLEST_LIMIT, PLAUSIBLE_COMPRESSION = 4 << 20, 20  # pictures shrink by a tenth; a thousandfold is a bomb
AGAIN = "download the archive again"


def is_cifar10(path: PathLike) -> bool:
    """Whether there is one of the archives at `path`, or any file that may be one (a tar), or its extracted folder."""
    path = Path(path)
    if path.is_dir():
        return any(any((folder / name).is_file() for name in NAMES) for folder in _folders(path))
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError:
        return False  # whoever opens it next says what is wrong
    return start.startswith(b"\x1f\x8b") or start[257:262] == b"ustar"


def read_cifar10(path: PathLike, split: str) -> ArrayDataset:
    """The pictures of one split, "train" or "test", from one of the archives or from its extracted folder.

    The five batches of "train" follow one another. Raises DatasetError for another split, for a batch that is missing,
    damaged or of another size than the rest, and for an archive of something else.
    """
    if split not in BATCHES:
        raise DatasetError(f"{path}: CIFAR-10 has the parts test, train, expected one of them; found {split!r}")
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, content in _files(Path(path)):
        stem = name.removesuffix(".bin")
        if name not in NAMES or stem not in BATCHES[split]:
            continue
        if stem in batches:
            raise DatasetError(f"{path}: found the batch {stem} twice, expected it once; {AGAIN}")
        try:
            batches[stem] = _binary_batch(content) if name.endswith(".bin") else _python_batch(content)
        except ValueError as error:
            raise DatasetError(f"{path}: {name} is damaged, or not of CIFAR-10: {error}; {AGAIN}") from None
    missing = [name for name in BATCHES[split] if name not in batches]
    if missing:
        raise DatasetError(
            f"{path}: {' and '.join(missing)} of CIFAR-10 missing; expected {', '.join(BATCHES[split])}: {AGAIN}, or "
            "give a folder of pictures or a .zip of one"
        )
    parts = [batches[name] for name in BATCHES[split]]
    counts = [len(labels) for _, labels in parts]
    if len(set(counts)) > 1:
        raise DatasetError(
            f"{path}: its batches have {', '.join(map(str, counts))} pictures, expected as many; {AGAIN}"
        )
    images = np.concatenate([_channels_last(pixels) for pixels, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return ArrayDataset(images, labels, cifar10_labels(), name=f"{path} ({split})")


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    """(N, 3072) -> (N, 32, 32, 3)"""
    return pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


# --- where the batches are --------------------------------------------------------------------------------------------


def _folders(path: Path) -> list[Path]:
    """Where the batches may be: `path` itself, or the folder that extracting an archive makes in it."""
    return [path, *(path / name for name in PUBLISHED_FOLDERS)]


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the batches' files, wherever in an archive, or in the first folder that has any."""
    if not path.is_dir():
        yield from _archived_files(path)
        return
    for folder in _folders(path):
        names = sorted(name for name in NAMES if (folder / name).is_file())
        for name in names:
            try:
                size = (folder / name).stat().st_size
                if size > MAX_FILE_BYTES:
                    raise DatasetError(f"{folder / name}: has {size:,} bytes, expected at most {MAX_FILE_BYTES:,}")
                yield name, (folder / name).read_bytes()
            except OSError as error:
                raise DatasetError(f"{folder / name}: cannot be read: {error.strerror}; expected a file") from None
        if names:
            return


class _Bounded(BufferedReader):
    """Never returns more at once than a batch takes, whatever size a damaged archive claims, nor more than `limit`."""

    def __init__(self, raw: RawIOBase, limit: int) -> None:
        super().__init__(raw)
        self.limit = self.remaining = limit

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_FILE_BYTES:
            raise ValueError(f"a part of {size} bytes, expected at most {MAX_FILE_BYTES:,}")
        content = super().read(min(size, self.remaining + 1))
        self.remaining -= len(content)
        if self.remaining < 0:
            raise ValueError(f"it unpacks to more than the {self.limit:,} bytes that are plausible for its size")
        return content


def _archived_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """As `_files`, out of a tar file, compressed with gzip or plain. Nothing is extracted to disk."""
    try:
        with open_regular(path) as file:
            is_compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            raw: Any = gzip.GzipFile(fileobj=file) if is_compressed else file
            file_bytes = os.fstat(file.fileno()).st_size
            stream = _Bounded(raw, SMALLEST_LIMIT + PLAUSIBLE_COMPRESSION * file_bytes)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for count, member in enumerate(archive):
                    if member.size > MAX_FILE_BYTES or count >= MAX_FILES:
                        raise ValueError(f"more than {MAX_FILES} files, or one of more than {MAX_FILE_BYTES:,} bytes")
                    name = member.name.rpartition("/")[2]
                    if name in NAMES and member.isreg():
                        content = archive.extractfile(member)
                        yield name, b"" if content is None else content.read()
            stream.read(MAX_FILE_BYTES)  # what pads the tar, up to gzip's checksum, which is then compared
    except Exception as error:  # tarfile and zlib raise nearly anything on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(
            f"{path}: a damaged or cut-off archive, or none of CIFAR-10 ({ascii(reason[:200])[1:-1]}): {AGAIN}, or "
            "give a folder of pictures or a .zip of one"
        ) from None


# --- the two formats of a batch ---------------------------------------------------------------------------------------


def _binary_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3072) uint8 and (N,) labels. Raises ValueError."""
    if not content or len(content) % (1 + PICTURE_BYTES):
        raise ValueError(f"found {len(content):,} bytes, expected a multiple of {1 + PICTURE_BYTES:,}")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + PICTURE_BYTES)
    return records[:, 1:], _checked_labels(records[:, 0].tolist())


def _python_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3072) uint8 and (N,) labels. Raises ValueError."""
    try:
        machine = PickleMachine(content, {}, lambda identity: None, allowance=ALLOWANCE + BYTES_PER_BYTE * len(content))
        batch = machine.run()
    except PickleError as error:
        raise ValueError(f"its pickle holds {error}") from None
    if not isinstance(batch, dict):
        raise ValueError(f"found {describe(batch)}, expected a dict")
    # keys and labels are Python 2's; a pickle written by Python 3 from what it read may have bytes for them
    data, labels = (batch.get(key, batch.get(key.encode())) for key in ("data", "labels"))
    pixels = _pickled_array(data)
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"labels: found {describe(labels)}, expected a list of integers")
    if len(labels) != len(pixels) or not labels:
        raise ValueError(f"found {len(labels)} labels and {len(pixels)} pictures, expected as many, at least one")
    return pixels, _checked_labels(labels)


def _pickled_array(data: Any) -> np.ndarray:
    """The array (N, 3072) of uint8 that NumPy pickled, out of what the machine made of it. Raises ValueError.

    An array is pickled as a call of `_reconstruct`, followed by its state: (version, shape, dtype, is Fortran-ordered,
    bytes), the bytes being a text in Latin-1 if Python 2 wrote it. The module's name changed in NumPy 2.
    """
    match data:
        case Placeholder(
            module="numpy.core.multiarray" | "numpy._core.multiarray",
            name="_reconstruct",
            state=(_, (int(count), int(width)), Placeholder(name="dtype", arguments=(kind, *_)), is_fortran, raw),
        ) if width == PICTURE_BYTES and kind in ("u1", b"u1"):
            pass
        case _:
            raise ValueError(f"data: found {describe(data)}, expected a NumPy array of (N, {PICTURE_BYTES}) bytes")
    if isinstance(raw, str):
        raw = raw.encode("latin-1")  # UnicodeEncodeError is a ValueError
    if not isinstance(raw, bytes) or count < 0 or len(raw) != count * PICTURE_BYTES:
        raise ValueError(f"data: found other bytes than a shape of ({count}, {PICTURE_BYTES}) takes")
    pixels = np.frombuffer(raw, np.uint8)
    return pixels.reshape(PICTURE_BYTES, count).T if is_fortran is True else pixels.reshape(count, PICTURE_BYTES)


def _checked_labels(labels: Sequence[int]) -> np.ndarray:
    wrong = [label for label in labels if not 0 <= label <= 9]
    if wrong:
        raise ValueError(f"found {len(wrong)} labels outside of 0 to 9")
    return np.array(labels, np.int64)
