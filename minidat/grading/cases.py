"""The inputs that a solution is tried on, the smallest first: so the first failure is the smallest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from .exercise import Function, Numbers

SMALL_CASES = 40  # with small integers, growing
RANDOM_CASES = 10  # of any size, with random numbers
SIMPLIFICATIONS = 200  # of a counter-example's numbers that are tried


@dataclass(frozen=True)
class Case:
    """The arguments of one call, by name, and what is handed to backward (None if there is no backward)."""

    sizes: Mapping[str, int]
    arguments: Mapping[str, Any]
    d_output: np.ndarray | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {name: value for name, value in self.arguments.items() if isinstance(value, np.ndarray)}

    @property
    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in self.arguments.items() if not isinstance(value, np.ndarray)}

    @property
    def values(self) -> dict[str, Any]:
        """Arguments, sizes and `d_output` by name."""
        return {**self.sizes, **self.arguments, "d_output": self.d_output}


def growing_cases(function: Function, seed: int) -> list[Case]:
    """SMALL_CASES from the smallest on, then RANDOM_CASES."""
    rng = np.random.default_rng(seed)
    grid = [dict(zip(function.sizes, sizes, strict=True)) for sizes in product(*function.sizes.values())]
    grid.sort(key=lambda sizes: math.prod(sizes.values()))
    small = (_build(function, sizes, Numbers(rng, simple=True)) for sizes in grid)
    cases = _some(small, SMALL_CASES)
    other = (_build(function, grid[i], Numbers(rng, simple=False)) for i in rng.permutation(len(grid)))
    return cases + _some(other, RANDOM_CASES)


def _some(cases: Iterator[Case | None], count: int) -> list[Case]:
    """The first `count` that exist."""
    found: list[Case] = []
    for case in cases:
        if case is not None:
            found.append(case)
        if len(found) == count:
            break
    return found


def _build(function: Function, sizes: Mapping[str, int], numbers: Numbers) -> Case | None:
    arguments = function.case(numbers, **sizes)
    if arguments is None:
        return None
    case = Case(sizes, arguments)
    if not function.gradients:
        return case
    output, _ = function.reference(*case.arrays.values(), **case.settings)
    return replace(case, d_output=np.asarray(numbers.normal(*output.shape)))  # an array, for a loss too


def simplify(case: Case, still_wrong: Callable[[Case], bool], fixed: frozenset[str]) -> Case:
    """Replace as many numbers by 0, or else by 1, as leave a case wrong: whole arrays first, then each number."""
    tries = SIMPLIFICATIONS
    for name in (*case.arrays, "d_output"):
        if name in fixed or case.values[name] is None:
            continue
        for index in (..., *np.ndindex(case.values[name].shape)):
            for number in (0, 1):
                array = case.values[name].copy()
                if tries == 0 or np.isin(array[index], (0, number)).all():  # as simple already
                    continue
                tries -= 1
                array[index] = number
                simpler = _with(case, name, array)
                if still_wrong(simpler):
                    case = simpler
    return case


def _with(case: Case, name: str, array: np.ndarray) -> Case:
    if name == "d_output":
        return replace(case, d_output=array)
    return replace(case, arguments={**case.arguments, name: array})
