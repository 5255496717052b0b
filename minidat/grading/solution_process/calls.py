"""Loading a solution and calling its functions: what came out, or what went wrong and at which line of the file."""

from __future__ import annotations

import ast
import io
import linecache
import traceback
import types
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np

from .guard import FOREIGN
from .wire import MOST_AXES, MOST_BYTES, Message

LONGEST_PRINT = 2000  # characters of what a function prints that are kept
LONGEST_MESSAGE = 500


class UnusableError(Exception):
    """A file, or what came back from it, is not what was asked for."""


class Printed(io.TextIOBase):
    """Keeps the beginning of what is printed."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text[: LONGEST_PRINT - len(self.text)]
        return len(text)


class Solution:
    """Answers the judge's messages: first `load`, then any number of `call`."""

    def __init__(self) -> None:
        self.file = ""
        self.module = types.ModuleType("exercise")

    def answer(self, message: Message) -> Message:
        """The reply to a message. What a solution does wrong is a `problem` in it, not an exception."""
        arguments = {name: value for name, value in message.items() if name != "ask"}
        printed = Printed()
        with redirect_stdout(printed), redirect_stderr(printed):
            reply = self.load(**arguments) if message["ask"] == "load" else self.call(**arguments)
        return {**reply, "printed": printed.text}

    def load(self, file: str, source: np.ndarray, functions: Sequence[str]) -> Message:
        """Execute the file, whose bytes are `source`.

        In the reply: `problem`; `found`, those of `functions` that are there; `own`, the functions that it defines.
        """
        self.file = file
        problem = None
        try:
            self._execute(source.tobytes())
        except UnusableError as error:
            problem = str(error)
        except SyntaxError as error:
            place = f"line {error.lineno}:\n    {(error.text or '').strip()}\n" if error.lineno else ""
            problem = f"{place}{type(error).__name__}: {error.msg}"
        except BaseException as error:
            problem = describe_exception(error, file)
        content = dict(vars(self.module))
        own = [name for name, value in content.items() if isinstance(value, types.FunctionType)]
        found = [name for name in functions if callable(content.get(name))]
        return {"problem": problem, "found": found, "own": own}

    def _execute(self, text: bytes) -> None:
        lines = text.decode("utf-8", errors="replace").splitlines(keepends=True)
        linecache.cache[self.file] = (len(text), None, lines, self.file)  # for exceptions: the file may have changed
        tree = ast.parse(text, self.file)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.split(".")[0] in FOREIGN:
                    raise UnusableError(f"line {node.lineno} imports {name}: the exercise is to do it with NumPy alone")
        self.module.__file__ = self.file
        exec(compile(tree, self.file, "exec"), self.module.__dict__)

    def call(
        self,
        function: str,
        arrays: dict[str, np.ndarray],
        settings: dict[str, Any],
        d_output: np.ndarray | None,
        outputs: Sequence[str],
        gradients: Sequence[str],
    ) -> Message:
        """Call a function, and the backward that it returns if there are `gradients` and a `d_output`.

        In the reply: `values`, what came out by name, as far as it went; `problem`, why some are missing, and whether
        it is `unwritten`; `given`, the arguments as they are afterwards.
        """
        values: dict[str, np.ndarray] = {}
        problem, unwritten = None, False
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = getattr(self.module, function)(*arrays.values(), **settings)
                _take(function, result, d_output, outputs, gradients, values)
            except UnusableError as error:
                problem = str(error)
            except BaseException as error:
                problem, unwritten = describe_exception(error, self.file), isinstance(error, NotImplementedError)
        given = {**arrays, **({} if d_output is None else {"d_output": d_output})}
        return {"problem": problem, "unwritten": unwritten, "values": values, "given": given}


def _take(
    name: str,
    result: Any,
    d_output: np.ndarray | None,
    outputs: Sequence[str],
    gradients: Sequence[str],
    values: dict[str, np.ndarray],
) -> None:
    """Fill `values` with the outputs in `result`, then with what its backward gives."""
    backward: Callable[..., Any] | None = None
    if gradients:
        if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
            raise UnusableError(f"{name} returned {_kind(result)}, expected (output, backward)")
        result, backward = result
    elif isinstance(result, tuple) and len(result) == 2 and callable(result[1]):
        result, _ = result  # a backward that nobody has asked for
    _collect(name, outputs, result, values)
    output = values[outputs[0]].copy()
    if backward is not None and d_output is not None:
        _collect("backward", [f"d_{argument}" for argument in gradients], backward(d_output), values)
        if not np.array_equal(output, values[outputs[0]], equal_nan=True):
            raise UnusableError("backward modified the output that the forward had returned: work on a copy")


def _collect(source: str, names: Sequence[str], result: Any, values: dict[str, np.ndarray]) -> None:
    """The arrays in what a function returned: a tuple of several, or a single one, which a tuple may contain too."""
    expected = f"({', '.join(names)})" if len(names) > 1 else names[0]
    if len(names) == 1 and not (isinstance(result, tuple) and len(result) == 1):
        result = (result,)
    if not (isinstance(result, tuple | list) and len(result) == len(names)):
        raise UnusableError(f"{source} returned {_kind(result)}, expected {expected}")
    for name, value in zip(names, result, strict=True):
        try:
            array = np.asarray(value)
        except ValueError:  # a list of lists of different lengths
            array = np.asarray(None)
        if array.dtype.kind not in "fiub":
            raise UnusableError(f"{source} returned {_kind(value)} for {name}, expected an array of numbers")
        if array.ndim > MOST_AXES or 8 * array.size > MOST_BYTES:
            raise UnusableError(f"{source} returned {_kind(array)} for {name}: far too large")
        values[name] = array


def _kind(value: Any) -> str:
    if value is None:
        return "None (is there a `return`?)"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} ({', '.join(type(v).__name__ for v in value)})"
    return f"a {type(value).__name__}"


def describe_exception(error: BaseException, file: str) -> str:
    """The exception's type and message, below the line of the student's file that it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    try:
        text = str(error)
    except Exception:  # its __str__ is the student's
        text = ""
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE] + " ..."
    if frames:
        message = f"line {frames[-1].lineno}, in {frames[-1].name}:\n    {frames[-1].line}\n{message}"
    return message
