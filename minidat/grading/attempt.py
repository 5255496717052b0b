"""One call of a student's function, as the judge sees it: a question to the solution's process, and its reply.

The reply may be forged: the solution can write whatever it likes into its own process. So it holds no verdict, only
numbers, and everything in it is checked for its form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cases import Case
from .exercise import Function
from .solution_process.wire import Message

LONGEST_TEXT = 4000  # characters of a text in a reply
LONGEST_NAME, MOST_NAMES = 100, 20

Ask = Callable[[Message], Message]  # a solution's process: question -> reply, or SolutionError


class SolutionError(Exception):
    """The solution's process gives no answer: it has ended, is too slow, or writes what is none. line: where it is."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class Problem:
    """Why a call gave no results, in words. `unwritten`: NotImplementedError."""

    text: str
    unwritten: bool = False


@dataclass(frozen=True)
class Loaded:
    """What came of loading the file. found: the functions asked for; own: all that it defines."""

    problem: str | None
    found: list[str]
    own: list[str]
    printed: str


@dataclass
class Attempt:
    """One call of a function, and of its backward if there is one."""

    values: dict[str, np.ndarray] = field(default_factory=dict)  # by the names in Function.quantities
    problem: Problem | None = None  # why some are missing
    changed: list[str] = field(default_factory=list)  # arguments that were modified
    printed: str = ""


def load(ask: Ask, file: str, source: bytes, functions: Sequence[str]) -> Loaded:
    """Have the file executed, with `source` in it. Raises SolutionError."""
    reply = ask({"ask": "load", "file": file, "source": np.frombuffer(source, np.uint8), "functions": list(functions)})
    problem = reply.get("problem")
    found, own = (_names(reply.get(name)) for name in ("found", "own"))
    return Loaded(None if problem is None else _text(problem), found, own, _text(reply.get("printed")))


def attempt(ask: Ask, function: Function, case: Case) -> Attempt:
    """Have a function called with copies of the case's arrays; backward too if there is a d_output.

    Raises SolutionError.
    """
    d_output = case.d_output if function.gradients else None
    reply = ask(
        {
            "ask": "call",
            "function": function.name,
            "arrays": case.arrays,
            "settings": case.settings,
            "d_output": d_output,
            "outputs": function.outputs,
            "gradients": function.gradients,
        }
    )
    problem, values, given = reply.get("problem"), _arrays(reply.get("values")), _arrays(reply.get("given"))
    expected = function.quantities if d_output is not None else function.outputs
    if not set(values) <= set(expected) or (problem is None and set(values) != set(expected)):
        raise _no_answer("other results than asked for")
    sent = case.arrays if d_output is None else {**case.arrays, "d_output": d_output}
    if set(given) != set(sent):
        raise _no_answer("other arguments than sent")
    return Attempt(
        values,
        None if problem is None else Problem(_text(problem), reply.get("unwritten") is True),
        [name for name, array in sent.items() if not np.array_equal(given[name], array)],
        _text(reply.get("printed")),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _no_answer("a text is missing")
    return value[:LONGEST_TEXT]


def _names(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise _no_answer("a list of names is missing")
    return [_text(name)[:LONGEST_NAME] for name in value[:MOST_NAMES]]


def _arrays(value: Any) -> dict[str, np.ndarray]:
    if not (isinstance(value, dict) and all(isinstance(array, np.ndarray) for array in value.values())):
        raise _no_answer("arrays are missing")
    return value


def _no_answer(why: str) -> SolutionError:
    return SolutionError(f"what came back from the solution's process is no answer: {why}.")
