"""Our own files: a `.npz` with a model's weights, its config and its labels.

It is a plain NumPy archive, `np.load(path, allow_pickle=False)` reads it: one array for each parameter, under its name,
and two JSON texts as arrays of bytes, `config` (`config_to_dict`) and `labels` (a list, or null). The same model gives
the same bytes.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._files import writing
from ..catalog import config_from_dict, config_to_dict
from ..errors import CheckpointError, ConfigError
from .archive import Archive, PathLike, one_line

MAX_TEXT_BYTES = 4 << 20  # config and labels
EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # a zip entry must have a date; the same one makes files comparable
MAX_AXES = 32
HEADER = re.compile(  # what np.save writes for an array of numbers; see numpy.lib.format
    rb"\x93NUMPY(?:\x01.(?P<size>..)|[\x02\x03].(?P<long>....))"
    rb"(?P<text>\{'descr': '(?P<descr>[^']{1,16})', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>[0-9, ]{0,600})\), \} *\n)",
    re.DOTALL,
)
DTYPE = re.compile(rb"[<>|=](f[248]|[iu][1248]|b1)")
STORAGE_DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Checkpoint:
    """What a weights file holds: arrays by our names, the config, and the class labels, if it has any."""

    state: dict[str, np.ndarray]
    config: Any
    labels: list[str] | None


def save_npz(
    path: PathLike,
    state: Mapping[str, np.ndarray],
    config: Any,
    labels: Sequence[str] | None = None,
    *,
    dtype: Any = None,
) -> None:
    """Write weights (`model.state_dict()`), config and labels to `path`, which must end in .npz.

    dtype: store the weights as float16 (half the size; read back as float32, about 3 digits), float32 or float64; None
    keeps their own. The file appears under its name only when it is complete.
    Raises CheckpointError if it cannot be written, if a value is too large for `dtype`, or for another number of labels
    than classes.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise CheckpointError(f"{path}: found the suffix {path.suffix!r}, expected .npz")
    if dtype is not None and np.dtype(dtype) not in STORAGE_DTYPES:
        raise ConfigError(f"dtype: found {np.dtype(dtype)}, expected float16, float32 or float64")
    if labels is not None and len(labels) != config.num_classes:
        raise CheckpointError(f"{path}: labels: found {len(labels)}, expected {config.num_classes}, one for each class")
    texts = {"config": config_to_dict(config), "labels": None if labels is None else list(labels)}
    with writing(path, CheckpointError) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in texts.items():
            _write_array(archive, name, np.frombuffer(json.dumps(content).encode(), np.uint8))
        for name, value in state.items():
            _write_array(archive, name, _stored(path, name, np.asarray(value), dtype))


def load_npz(path: PathLike, *, dtype: Any = np.float32) -> Checkpoint:
    """Read what `save_npz` wrote; floating-point weights come back as `dtype`.

    Nothing is unpickled, and every size is checked against the file before memory is taken. The config is validated,
    but not compared with the weights (`load_model` does). Raises CheckpointError for a file that is missing, damaged,
    or no file of minidat.
    """
    with Archive(path) as archive:
        names = [name.removesuffix(".npy") for name in archive if name.endswith(".npy")]
        if "config" not in names:
            raise archive.error("an archive of arrays, but not of a minidat model: it has no config")
        config = _config(archive)
        labels = _labels(archive, config.num_classes) if "labels" in names else None
        state = {name: _read_array(archive, name, dtype) for name in names if name not in ("config", "labels")}
    return Checkpoint(state, config, labels)


def _stored(path: Path, name: str, value: np.ndarray, dtype: Any) -> np.ndarray:
    if dtype is None or value.dtype.kind != "f":
        return value
    with np.errstate(over="ignore"):
        stored = value.astype(dtype, copy=False)
    if not np.array_equal(np.isfinite(stored), np.isfinite(value)):
        raise CheckpointError(f"{path}: {name} has values too large for {np.dtype(dtype)}, expected a wider dtype")
    return stored


def _write_array(archive: zipfile.ZipFile, name: str, value: np.ndarray) -> None:
    entry = zipfile.ZipInfo(f"{name}.npy", EARLIEST_DATE)
    with archive.open(entry, "w", force_zip64=True) as stream:
        np.lib.format.write_array(stream, value, allow_pickle=False)


def _config(archive: Archive) -> Any:
    try:
        return config_from_dict(_text(archive, "config"))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise archive.error(f"its config cannot be used: {one_line(error, 300)}") from None


def _labels(archive: Archive, num_classes: int) -> list[str] | None:
    labels = _text(archive, "labels")
    if labels is None:
        return None
    if not isinstance(labels, list) or len(labels) != num_classes or not all(type(label) is str for label in labels):
        raise archive.error(f"its labels are not a list of {num_classes} texts")
    return labels


def _text(archive: Archive, name: str) -> Any:
    """The JSON in the array of bytes called `name`."""
    if archive.size(f"{name}.npy") > MAX_TEXT_BYTES:
        raise archive.error(f"{name} has {archive.size(f'{name}.npy')} bytes, expected at most {MAX_TEXT_BYTES}")
    array = _read_array(archive, name, np.float32)
    try:
        return json.loads(array.tobytes() if array.dtype == np.uint8 else b"")
    except (ValueError, RecursionError):
        raise archive.error(f"{name} is not JSON: the file is damaged, or not written by minidat") from None


def _read_array(archive: Archive, name: str, dtype: Any) -> np.ndarray:
    """One array, as `dtype` if it holds floats. What its header declares must be what its record holds."""
    record = f"{name}.npy"
    chunks = archive.chunks(record)
    start = next(chunks, b"")
    header = HEADER.match(start)
    if header is None or int.from_bytes(header["size"] or header["long"], "little") != len(header["text"]):
        raise archive.error(f"{one_line(name)} has no plain .npy header: the file is damaged, or not written by NumPy")
    if header["descr"].endswith(b"O"):
        raise archive.error(f"{one_line(name)} holds pickled objects, expected numbers: minidat executes nothing")
    description = header["descr"].decode("latin-1")  # whatever the bytes
    if DTYPE.fullmatch(header["descr"]) is None:
        raise archive.error(f"{one_line(name)} has dtype {one_line(description)}, expected numbers")
    stored_dtype = np.dtype(description)
    try:
        shape = tuple(int(size) for size in header["shape"].replace(b" ", b"").split(b",") if size)
        count = math.prod(shape)
        held = archive.size(record) - header.end()
        if count * stored_dtype.itemsize != held or len(shape) > MAX_AXES:
            raise ValueError
        array = np.empty(shape, dtype if stored_dtype.kind == "f" else stored_dtype.newbyteorder("="))
    except (ValueError, OverflowError):
        raise archive.error(
            f"{one_line(name)} declares another shape than its record holds: the file is damaged"
        ) from None

    flat, position, rest = array.reshape(-1), 0, start[header.end() :]
    with np.errstate(over="ignore"):
        while True:
            whole = len(rest) // stored_dtype.itemsize
            flat[position : position + whole] = np.frombuffer(rest, stored_dtype, whole)
            position, rest = position + whole, rest[whole * stored_dtype.itemsize :]
            chunk = next(chunks, None)
            if chunk is None:
                break
            rest += chunk
    return array.reshape(shape[::-1]).T if header["fortran"] == b"True" else array
