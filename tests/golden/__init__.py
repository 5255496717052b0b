"""Recordings of the authors' implementation (see README.md here): `dat_tiny_224`, `datpp_tiny_224`, `datplus_tiny_224`,
and the names and shapes of every published model's state dict."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .formula_weights import formula_state_dict

FOLDER = Path(__file__).parent
RECORDINGS = tuple(sorted(path.stem for path in FOLDER.glob("*.npz")))
KEY_FILES = tuple(sorted(path.name.removesuffix(".keys.tsv") for path in FOLDER.glob("*.keys.tsv")))


class Key(NamedTuple):
    """One entry of the authors' state dict; kind is "param" or "buffer"."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str


def load_recording(name: str) -> dict[str, np.ndarray]:
    """The arrays recorded for `name`, such as "dat_tiny_224", under the keys that README.md explains."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def formula_state(name: str) -> dict[str, np.ndarray]:
    """The float64 weights the recording `name` was made with, under the authors' names. No buffers."""
    return formula_state_dict(str(FOLDER / f"{name}.keys.tsv"))


def keys(name: str) -> list[Key]:
    """Every entry of the authors' state dict of the model `name`, such as "datpp_base_384", in their order."""
    lines = (FOLDER / f"{name}.keys.tsv").read_text().splitlines()
    entries = (line.split("\t") for line in lines)
    return [Key(key, tuple(map(int, shape.split("x"))), dtype, kind) for key, shape, dtype, kind in entries]
