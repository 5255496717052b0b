"""Calling a student's function: what came out, or what went wrong and at which line of their file."""

from __future__ import annotations

import io
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cases import Case
from .exercise import Function

LONGEST_PRINT = 2000  # characters of what a function prints that are kept
LONGEST_MESSAGE = 500


@dataclass(frozen=True)
class Problem:
    """Why a call gave no results, in words. `unwritten`: NotImplementedError."""

    text: str
    unwritten: bool = False


@dataclass
class Attempt:
    """One call of a function, and of its backward if there is one."""

    values: dict[str, np.ndarray] = field(default_factory=dict)  # by the names in Function.quantities
    problem: Problem | None = None  # why some are missing
    changed: list[str] = field(default_factory=list)  # arguments that were modified
    printed: str = ""


class _UnusableError(Exception):
    """What came back is not what was asked for."""


class Printed(io.TextIOBase):
    """Keeps the beginning of what is printed."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text[: LONGEST_PRINT - len(self.text)]
        return len(text)


def attempt(function: Function, call: Callable[..., Any], case: Case, file: str) -> Attempt:
    """Call `call`, which a student wrote in `file`, on copies of the case's arrays; backward too if it has d_output."""
    arrays = {name: array.copy() for name, array in case.arrays.items()}
    d_output = None if case.d_output is None else case.d_output.copy()
    result, printed = Attempt(), Printed()
    with redirect_stdout(printed), redirect_stderr(printed), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _run(function, call, list(arrays.values()), case, d_output, result.values)
        except _UnusableError as error:
            result.problem = Problem(str(error))
        except (Exception, SystemExit) as error:
            result.problem = describe_exception(error, file)
    result.printed = printed.text
    given = {**arrays, "d_output": d_output}
    result.changed = [
        name for name, array in given.items() if array is not None and not np.array_equal(array, case.values[name])
    ]
    return result


def _run(
    function: Function,
    call: Callable[..., Any],
    arrays: list[np.ndarray],
    case: Case,
    d_output: np.ndarray | None,
    values: dict[str, np.ndarray],
) -> None:
    """Fill `values`, as far as it goes."""
    result = call(*arrays, **case.settings)
    backward = None
    if function.gradients:
        if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
            raise _UnusableError(f"{function.name} returned {_kind(result)}, expected (output, backward)")
        result, backward = result
    _collect(function.name, function.outputs, result, values)
    output = values[function.outputs[0]].copy()
    if backward is not None and d_output is not None:
        _collect("backward", function.quantities[len(function.outputs) :], backward(d_output), values)
        if not np.array_equal(output, values[function.outputs[0]], equal_nan=True):
            raise _UnusableError("backward modified the output that the forward had returned: work on a copy")
    for name, value in values.items():
        values[name] = np.array(value)


def _collect(source: str, names: tuple[str, ...], result: Any, values: dict[str, np.ndarray]) -> None:
    """The arrays in what a function returned: a tuple of several, or a single one, which a tuple may contain too."""
    expected = f"({', '.join(names)})" if len(names) > 1 else names[0]
    if len(names) == 1 and not (isinstance(result, tuple) and len(result) == 1):
        result = (result,)
    if not (isinstance(result, tuple | list) and len(result) == len(names)):
        raise _UnusableError(f"{source} returned {_kind(result)}, expected {expected}")
    for name, value in zip(names, result, strict=True):
        try:
            array = np.asarray(value)
        except ValueError:  # a list of lists of different lengths
            array = np.asarray(None)
        if array.dtype.kind not in "fiub":
            raise _UnusableError(f"{source} returned {_kind(value)} for {name}, expected an array of numbers")
        values[name] = array


def _kind(value: Any) -> str:
    if value is None:
        return "None (is there a `return`?)"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} ({', '.join(type(v).__name__ for v in value)})"
    return f"a {type(value).__name__}"


def describe_exception(error: BaseException, file: str) -> Problem:
    """The exception's type and message, below the line of the student's file that it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE] + " ..."
    if frames:
        message = f"line {frames[-1].lineno}, in {frames[-1].name}:\n    {frames[-1].line}\n{message}"
    return Problem(message, unwritten=isinstance(error, NotImplementedError))
