"""Messages between the judge and a solution: one line of JSON each. Nothing in them can be executed."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

from .layers import Matrix, Square

Message = dict[str, Any]  # what JSON knows, arrays and layers

DTYPES = ("|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8")
MOST_AXES = 12
MOST_BYTES = 1 << 20  # of one array
LONGEST_LINE = 1 << 23


class WireError(Exception):
    """A line that is no message."""


def encode(message: Message) -> bytes:
    """The message as a line. Arrays of other types than DTYPES become float64."""
    return json.dumps(message, default=_describe).encode("ascii") + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line, whoever wrote it. Raises WireError."""
    try:
        message = json.loads(line, object_hook=_restore)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, MemoryError) as error:
        raise WireError(str(error)) from None
    if not isinstance(message, dict):
        raise WireError("no object")
    return message


def _describe(value: Any) -> dict[str, Any]:
    if isinstance(value, np.ndarray):
        dtype = value.dtype.newbyteorder("<").str
        array = value.astype(dtype if dtype in DTYPES else "<f8", order="C")
        return {"dtype": array.dtype.str, "shape": array.shape, "data": base64.b64encode(array.tobytes()).decode()}
    if isinstance(value, Square | Matrix):
        return {"layer": type(value).__name__, "factor": value.factor}
    raise TypeError(f"cannot send a {type(value).__name__}")


def _restore(value: dict[str, Any]) -> Any:
    if value.keys() == {"dtype", "shape", "data"}:
        return _array(**value)
    if value.keys() == {"layer", "factor"}:
        return {"Square": Square, "Matrix": Matrix}[value["layer"]](value["factor"])
    return value


def _array(dtype: Any, shape: Any, data: Any) -> np.ndarray:
    """Raises ValueError or TypeError if these do not describe an array."""
    if dtype not in DTYPES or len(shape) > MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of type {dtype} and shape {shape}")
    raw = base64.b64decode(data, validate=True)
    if len(raw) > MOST_BYTES or len(raw) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError(f"{len(raw)} bytes for shape {shape}")
    return np.frombuffer(raw, dtype).reshape(shape).copy()
