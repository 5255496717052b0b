"""How an exercise is described: what to write, hints, cases that grow from tiny ones, the right answer, mistakes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STAGES = 3  # of hints


@dataclass(frozen=True)
class Mistake:
    """A wrong way to compute one quantity: whoever gets what `result` gives is told `text`.

    of: "output" (or another name in Function.outputs), or "d_x" for the gradient of the argument x.
    text: what went on, to complete the sentence "It seems that ...".
    result: called with those of the function's arguments, sizes and `d_output` that its parameters name.
    """

    of: str
    text: str
    result: Callable[..., Any]


@dataclass(frozen=True)
class Hints:
    """Help in three stages, each asked for on its own: where to look, the idea, the formula."""

    where: str
    idea: str
    formula: str

    def stage(self, number: int) -> str:
        """Stage 1, 2 or 3, with its name: "Hint 1 of 3, where to look: ..."."""
        name, text = (("where to look", self.where), ("the idea", self.idea), ("the formula", self.formula))[number - 1]
        separator = "\n" if text.startswith(" ") else " "  # a formula has lines of its own
        return f"Hint {number} of {STAGES}, {name}:{separator}{text}"


@dataclass(frozen=True)
class Function:
    """One function that the student writes.

    sizes: the values that each size of the arrays takes, in ascending order; all combinations are tried.
    case: case(numbers, **sizes) -> the arguments by name; None for sizes that do not go together. Arrays are handed to
        the student's function by position, all other arguments by keyword.
    reference: the right answer, called like the student's function. It returns the output, a tuple of arrays if
        `outputs` has several names, or (output, backward) if there are `gradients`.
    gradients: the arguments whose gradients backward returns, in order.
    fixed: the arrays in which a counter-example keeps its numbers (others become 0 and 1 where possible).
    """

    name: str
    hints: Hints
    sizes: Mapping[str, Sequence[int]]
    case: Callable[..., Mapping[str, Any] | None]
    reference: Callable[..., Any]
    outputs: tuple[str, ...] = ("output",)
    gradients: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    fixed: frozenset[str] = frozenset()

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of all arrays that the function and its backward give."""
        return (*self.outputs, *(f"d_{name}" for name in self.gradients))


@dataclass(frozen=True)
class Outcome:
    """Of a finale. problem: what is wrong, "" if nothing is; function: the one to blame; remark: what came out."""

    problem: str = ""
    function: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Finale:
    """A last check, of all functions together, once each is right by itself.

    run: run(ask, seed) -> Outcome; `ask` puts questions to the solution's process.
    """

    name: str
    run: Callable[[Callable[[dict[str, Any]], dict[str, Any]], int], Outcome]


@dataclass(frozen=True)
class Exercise:
    """One file of examples/exercises. `chapter` is the tutorial's, such as "03-layer-norm"."""

    chapter: str
    functions: tuple[Function, ...]
    finale: Finale | None = None


class Numbers:
    """Fills the arrays of a case: with small integers, easy to follow by hand, or with random numbers."""

    def __init__(self, rng: np.random.Generator, *, simple: bool) -> None:
        self.rng, self.simple = rng, simple

    def normal(self, *shape: int) -> np.ndarray:
        """Integers from -2 to 3, or standard normal numbers. Never 0, which hides mistakes."""
        if self.simple:
            return self.rng.choice([-2.0, -1.0, 1.0, 2.0, 3.0], size=shape)
        return self.rng.standard_normal(shape)

    def counted(self, *shape: int) -> np.ndarray:
        """0, 1, 2, ..., so that one sees where each number went; or standard normal numbers."""
        return np.arange(float(np.prod(shape))).reshape(shape) if self.simple else self.normal(*shape)

    def positive(self, *shape: int) -> np.ndarray:
        """As `normal`, without the signs."""
        return np.abs(self.normal(*shape))

    def pixels(self, count: int, size: int) -> np.ndarray:
        """`count` coordinates on an axis of `size` pixels, some just outside, at least 1/4 away from any center.

        There, between two pixels, bilinear sampling has a derivative; never half-way, where the nearest is not defined.
        """
        fraction = self.rng.choice([0.25, 0.75], count) if self.simple else self.rng.uniform(0.25, 0.45, count)
        return self.rng.integers(-1, size, count) + fraction

    def positions(self, count: int, height: int, width: int) -> np.ndarray:
        """(count, 2) points (y, x), where -1 and 1 are the centers of the first and last pixel of the map."""
        columns = [2 * self.pixels(count, n) / (n - 1) - 1 if n > 1 else self.pixels(count, 1) for n in (height, width)]
        return np.stack(columns, axis=-1)


def call_by_names(function: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """Call `function` with those of `values` that its parameters name; other parameters keep their defaults."""
    names = inspect.signature(function).parameters
    return function(**{name: values[name] for name in names if name in values})
