"""What a wrong result has in common with the right one: hypotheses, each tested on all results of a student.

A hypothesis predicts the wrong result from a case. It is believed if it predicts every result the student's function
gave, in cases of different sizes and with random numbers: that is hardly an accident.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np

from .cases import Case
from .exercise import Function, call_by_names

TOLERANCE = 1e-7  # of float64 results, relative to the largest number expected (or to 1)


@dataclass(frozen=True)
class Evidence:
    """One quantity in one case. `all_expected` has the other quantities too."""

    case: Case
    got: np.ndarray
    expected: np.ndarray
    all_expected: Mapping[str, np.ndarray]


# What it says; prediction(evidence, *given) -> the result it expects; given.
Hypothesis = tuple[str, Callable[..., Any], tuple[Any, ...]]


def differences(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Where two arrays of one shape differ; a number that is not finite differs from every finite one."""
    with np.errstate(all="ignore"):
        scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
        return ~(np.abs(np.subtract(got, expected, dtype=np.float64)) <= TOLERANCE * scale)


def equal(got: np.ndarray, expected: np.ndarray) -> bool:
    return got.shape == expected.shape and not differences(got, expected).any()


def diagnose(function: Function, quantity: str, evidence: Sequence[Evidence]) -> str | None:
    """The first hypothesis that explains all the evidence, to complete "It seems that ..."."""
    if not any(not equal(e.got, e.expected) for e in evidence):
        return None
    for text, prediction, given in _hypotheses(function, quantity, evidence):
        if all(_predicts(prediction, given, e) for e in evidence):
            return text
    return None


def _predicts(prediction: Callable[..., Any], given: tuple[Any, ...], e: Evidence) -> bool:
    try:
        with np.errstate(all="ignore"):
            predicted = np.asarray(prediction(e, *given))
    except (ValueError, IndexError, TypeError, ZeroDivisionError):  # it cannot be done in this case
        return False
    if predicted.dtype.kind not in "biuf":  # None: it does not hold
        return False
    same = np.array_equal(e.got, predicted, equal_nan=True)  # infinities too, which are not `equal`
    return same or equal(e.got, predicted)


def _hypotheses(function: Function, quantity: str, evidence: Sequence[Evidence]) -> Iterator[Hypothesis]:
    """The most particular ones first."""
    for mistake in function.mistakes:
        if mistake.of == quantity:
            yield mistake.text, lambda e, result: call_by_names(result, e.case.values), (mistake.result,)
    yield from _of_other_quantities(function, quantity)
    yield from _of_axes(quantity, evidence)
    yield from _of_factors(quantity, evidence)
    for name in (*function.gradients, "d_output"):
        yield f"{quantity} is just a copy of {name}", lambda e, name: e.case.values[name], (name,)
    yield f"{quantity} is always 0", lambda e: np.zeros_like(e.expected), ()
    integers = f"the numbers of {quantity} are cut off to integers: they are stored in an array of integers"
    yield integers, lambda e: np.trunc(e.expected), ()


def _of_other_quantities(function: Function, quantity: str) -> Iterator[Hypothesis]:
    for other in function.quantities:
        if other != quantity:
            text = f"{quantity} and {other} are mixed up: what is returned as {quantity} equals {other}"
            yield text, lambda e, other: e.all_expected[other], (other,)


def _of_axes(quantity: str, evidence: Sequence[Evidence]) -> Iterator[Hypothesis]:
    expected_axes = axis_names([(e.case, e.expected) for e in evidence])
    got_axes = axis_names([(e.case, e.got) for e in evidence])
    count, got_count = len(expected_axes), len(got_axes)

    for axes in permutations(range(count)):
        if axes != tuple(range(count)):
            order = ", ".join(expected_axes[a] for a in axes)
            text = f"{quantity} is transposed: its axes are ({order}), expected ({', '.join(expected_axes)})"
            yield text, lambda e, axes: e.expected.transpose(axes), (axes,)
    text = f"{quantity} has the right numbers, in the right order, but another shape"
    yield text, lambda e: e.expected.reshape(e.got.shape), ()
    # if the sum of what was got is what was expected, this explains it as well as a prediction
    for axes in combinations(range(got_count), max(got_count - count, 0)):
        text = f"the sum over {_listed(axes, got_axes)} is missing: {quantity} has the shape ({', '.join(got_axes)})"
        yield text, lambda e, axes: e.got if equal(e.got.sum(axis=axes), e.expected) else None, (axes,)
    for length in range(1, count + 1):
        for axes in combinations(range(count), length):
            text = f"{quantity} is summed over {_listed(axes, expected_axes)}, which should stay"
            yield text, lambda e, axes: e.expected.sum(axis=axes, keepdims=e.got.ndim == e.expected.ndim), (axes,)
    for axis, name in enumerate(expected_axes):
        swap = "y and x are swapped" if name == "2" else f"axis {axis} ({name}) runs backwards"
        yield f"{swap} in {quantity}", lambda e, axis: np.flip(e.expected, axis), (axis,)


def _listed(axes: tuple[int, ...], names: Sequence[str]) -> str:
    return " and ".join(f"axis {a} ({names[a]})" for a in axes)


def _of_factors(quantity: str, evidence: Sequence[Evidence]) -> Iterator[Hypothesis]:
    """Multiples of what is expected: by -1, by sizes or settings of the function, or by any one number."""
    yield f"{quantity} has the wrong sign", lambda e: -e.expected, ()
    case = evidence[0].case
    names = [*case.sizes, *(name for name, value in case.settings.items() if isinstance(value, int | float))]
    for factor in [(name,) for name in dict.fromkeys(names)] + list(combinations(case.sizes, 2)):
        text = " * ".join(factor)
        more = f"{quantity} is multiplied by {text} once too often, or not divided by it"
        less = f"{quantity} is divided by {text} once too often, or not multiplied by it"
        yield more, lambda e, factor: e.expected * math.prod(e.case.values[name] for name in factor), (factor,)
        yield less, lambda e, factor: e.expected / math.prod(e.case.values[name] for name in factor), (factor,)
    ratio = _common_factor(evidence)
    if ratio is not None:
        yield f"{quantity} is always {ratio:.6g} times what it should be", lambda e: e.expected * ratio, ()


def _common_factor(evidence: Sequence[Evidence]) -> float | None:
    for e in evidence:
        if e.got.shape == e.expected.shape and np.abs(e.expected).max(initial=0) > 0:
            place = np.unravel_index(np.abs(e.expected).argmax(), e.expected.shape)
            return float(e.got[place] / e.expected[place])
    return None


# --- where it happens -------------------------------------------------------------------------------------------------


def axis_names(arrays: Sequence[tuple[Case, np.ndarray]]) -> list[str]:
    """For each axis the size of the case that is always its length; else its length, or "?" if that changes."""
    names = []
    for axis in range(min(array.ndim for _, array in arrays)):
        lengths = [array.shape[axis] for _, array in arrays]
        matching = [
            name
            for name in arrays[0][0].sizes
            if all(case.sizes[name] == n for (case, _), n in zip(arrays, lengths, strict=True))
        ]
        names.append(matching[0] if matching else str(lengths[0]) if len(set(lengths)) == 1 else "?")
    return names


def size_pattern(outcomes: Sequence[tuple[Mapping[str, int], bool]]) -> str | None:
    """What tells the sizes of right cases from those of wrong ones. outcomes: (sizes, whether right).

    It must tell all of them: in a map of one column much is right by chance.
    """
    names = list(outcomes[0][0])
    smallest = {name: min(sizes[name] for sizes, _ in outcomes) for name in names}
    groups = [(f"{name} is {n}", [sizes[name] == n for sizes, _ in outcomes]) for name, n in smallest.items()]
    groups += [
        (f"{a} and {b} are the same", [sizes[a] == sizes[b] for sizes, _ in outcomes])
        for a, b in combinations(names, 2)
    ]
    for text, members in groups:
        inside = [right for (_, right), member in zip(outcomes, members, strict=True) if member]
        outside = [right for (_, right), member in zip(outcomes, members, strict=True) if not member]
        if len(inside) >= 3 and all(inside) and len(outside) >= 3 and not any(outside):
            return f"It is right whenever {text}, and wrong otherwise."
    return None


def order_pattern(evidence: Sequence[Evidence]) -> str | None:
    """Whether all numbers are right, only not where they should be."""
    same = all(equal(np.sort(e.got, axis=None), np.sort(e.expected, axis=None)) for e in evidence)
    return "All its numbers are right, but some are in the wrong places." if same and evidence else None


def place_pattern(evidence: Sequence[Evidence]) -> str | None:
    """The axis along which all differences lie at one end, in every wrong case."""
    wrong = [e for e in evidence if e.got.shape == e.expected.shape and not equal(e.got, e.expected)]
    wrong = [e for e in wrong if e.expected.size > 1]
    if len(wrong) < 2:
        return None
    names = axis_names([(e.case, e.expected) for e in wrong])
    for axis, name in enumerate(names):
        found = [set(np.nonzero(differences(e.got, e.expected))[axis].tolist()) for e in wrong]
        lengths = [e.expected.shape[axis] for e in wrong]
        if sum(n > 1 for n in lengths) < 2:
            continue
        if all(indices == {0} for indices in found):
            return f"All differences are at index 0 of axis {axis} ({name})."
        if all(indices == {n - 1} for indices, n in zip(found, lengths, strict=True)):
            return f"All differences are at the last index of axis {axis} ({name})."
    return None
