"""Checking one function of a solution: all cases, a verdict on each check, an explanation of the first failure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .attempt import Ask, Attempt, attempt
from .cases import Case, growing_cases, simplify
from .diagnosis import Evidence, axis_names, diagnose, differences, equal, order_pattern, place_pattern, size_pattern
from .exercise import Function

DERIVATIVE, UNCHANGED = "finite differences", "arguments unchanged"
STEP = 1e-5  # of finite differences
KEEPDIMS = (
    "(A sum or a mean loses its axis, unless it has keepdims=True: is there one that is subtracted from an array?)"
)
VISIBLE = 1e-2  # a counter-example's numbers should differ by this, so that one sees it


@dataclass(frozen=True)
class Verdict:
    """checks: whether each passed, by name. explanation: of the first failure; printed: by the function meanwhile."""

    checks: dict[str, bool]
    explanation: str = ""
    printed: str = ""


@dataclass(frozen=True)
class Run:
    """A case, the right answers by quantity, and what the student's function made of it."""

    case: Case
    expected: Mapping[str, np.ndarray]
    attempt: Attempt

    def right(self, quantity: str) -> bool:
        got = self.attempt.values.get(quantity)
        return got is not None and equal(got, self.expected[quantity])


def check_names(function: Function) -> list[str]:
    """Every quantity; that backward is the derivative of the student's own forward; that no argument is modified."""
    return [*function.quantities, *([DERIVATIVE] if function.gradients else []), UNCHANGED]


def right_answers(function: Function, case: Case) -> dict[str, np.ndarray]:
    """What the reference gives, by quantity."""
    reference = function.reference(*case.arrays.values(), **case.settings)
    output, backward = reference if function.gradients else (reference, None)
    outputs = output if len(function.outputs) > 1 else (output,)
    gradients = () if backward is None else backward(case.d_output)
    arrays = [np.asarray(array) for array in (*outputs, *gradients)]
    return dict(zip(function.quantities, arrays, strict=True))


class Checker:
    """Checks a solution that is asked by `ask`. `on_case` is told each case before it is run."""

    def __init__(self, function: Function, ask: Ask, on_case: Callable[[str], None]) -> None:
        self.function, self.ask, self.on_case = function, ask, on_case

    def check(self, seed: int) -> Verdict:
        runs = [self.run(case) for case in growing_cases(self.function, seed)]
        unwritten = [run for run in runs if run.attempt.problem is not None and run.attempt.problem.unwritten]
        if unwritten:
            return Verdict(dict.fromkeys(check_names(self.function), False), self._unwritten(unwritten[0]))
        wrong: dict[str, Run | None] = {  # the first case in which a check fails
            quantity: next((run for run in runs if not run.right(quantity)), None)
            for quantity in self.function.quantities
        }
        if self.function.gradients:
            wrong[DERIVATIVE] = next((run for run in runs if not self.own_derivative(run)), None)
        wrong[UNCHANGED] = next((run for run in runs if run.attempt.changed or run.attempt.problem), None)
        checks = {name: run is None for name, run in wrong.items()}
        for name, run in wrong.items():
            if run is None:
                continue
            if run.attempt.problem is not None and name not in run.attempt.values:
                return Verdict(checks, self._explain_problem(name, run, runs), run.attempt.printed)
            if name in self.function.quantities:
                return Verdict(checks, self._explain_difference(name, run, runs, checks), run.attempt.printed)
            if name == UNCHANGED:
                return Verdict(checks, self._explain_change(run), run.attempt.printed)
        return Verdict(checks)

    def run(self, case: Case) -> Run:
        self.on_case(f"{self.function.name} with {shapes(case)}")
        return Run(case, right_answers(self.function, case), attempt(self.ask, self.function, case))

    # --- finite differences -------------------------------------------------------------------------------------------

    def own_derivative(self, run: Run) -> bool:
        """Whether backward is the derivative of the student's own forward, right or wrong, along a random direction."""
        if run.attempt.problem is not None or run.case.d_output is None:
            return False
        rng = np.random.default_rng(0)
        for name in self.function.gradients:
            gradient = run.attempt.values[f"d_{name}"]
            if gradient.shape != run.case.arguments[name].shape:
                return False
            direction = rng.standard_normal(gradient.shape)
            slope = self.slope(run.case, name, direction)
            size = 1e-8 + 1e-4 * max(float(np.linalg.norm(gradient)), abs(slope or 0))
            if slope is None or not abs(float(np.sum(gradient * direction)) - slope) <= size:
                return False
        return True

    def slope(self, case: Case, name: str, direction: np.ndarray) -> float | None:
        """The derivative of sum(output * d_output), of the student's own forward, as an argument moves.

        Central differences; None if the forward fails.
        """
        sums = []
        for step in (STEP, -STEP):
            moved = {**case.arguments, name: case.arguments[name] + step * direction}
            result = attempt(self.ask, self.function, replace(case, arguments=moved, d_output=None))
            output = result.values.get(self.function.outputs[0])
            if output is None or case.d_output is None or output.shape != case.d_output.shape:
                return None
            sums.append(float(np.sum(output * case.d_output)))
        return (sums[0] - sums[1]) / (2 * STEP)

    # --- explanations -------------------------------------------------------------------------------------------------

    def _unwritten(self, run: Run) -> str:
        assert run.attempt.problem is not None
        where = "backward" if run.attempt.values else self.function.name
        line = run.attempt.problem.text.split(",")[0]  # "line 12, in ..."
        return (
            f"{where} is not written yet: {line} still raises NotImplementedError.\n"
            "Put your code in its place. Stuck? --hint 1 says where to look, --hint 2 the idea, --hint 3 the formula."
        )

    def _explain_problem(self, name: str, run: Run, runs: list[Run]) -> str:
        assert run.attempt.problem is not None
        text = run.attempt.problem.text
        advice = [KEEPDIMS] if "could not be broadcast" in text else []
        case = f"The smallest case in which this happens:\n\n{inputs(run.case)}"
        return "\n\n".join([text, case, *advice, *self._observations(name, runs)])

    def _explain_difference(self, name: str, run: Run, runs: list[Run], checks: Mapping[str, bool]) -> str:
        is_gradient = name not in self.function.outputs
        title = f"{name}, the gradient of {name[2:]}," if is_gradient else f"The output `{name}`"
        title = title.replace("output `output`", "output")
        got, expected = run.attempt.values[name], run.expected[name]
        if got.shape != expected.shape:
            found, wanted = (
                axis_names([(r.case, arrays[name]) for r in runs if name in (arrays := select(r))])
                for select in (lambda r: r.attempt.values, lambda r: r.expected)
            )
            results = {f"expected {name}": expected, f"got {name}": got}
            text = (
                f"{title} has the shape {_named_shape(got, found)}, expected {_named_shape(expected, wanted)}. "
                f"The smallest case in which it is wrong:\n\n{inputs(run.case, cotangent=is_gradient)}\n\n"
                f"{_lines(results)}"
            )
            advice = [KEEPDIMS] if got.ndim == expected.ndim and got.size > expected.size else []
            return "\n\n".join([text, *advice, *self._observations(name, runs)])
        run = self._simplest(name, run)
        got, expected = run.attempt.values[name], run.expected[name]
        case, results = inputs(run.case, cotangent=is_gradient), {f"expected {name}": expected, f"got {name}": got}
        text = f"{title} is wrong. The smallest case in which it is:\n\n{case}\n\n{_lines(results)}"
        place = tuple(int(i) for i in np.argwhere(differences(got, expected))[0])
        first = f"First difference{' at ' + str(list(place)) if place else ''}: "
        first += f"expected {expected[place]:.8g}, got {got[place]:.8g}"
        if is_gradient:
            one = np.zeros_like(expected)
            one[place] = 1
            slope = self.slope(run.case, name[2:], one)
            first += "" if slope is None else f"; finite differences of your own forward give {slope:.8g}"
        observations = self._observations(name, runs)
        if not is_gradient and checks.get(DERIVATIVE):
            observations.append(
                "Your backward is the derivative of your forward (finite differences agree): look at the forward only."
            )
        return "\n\n".join([text, first + ".", *observations])

    def _explain_change(self, run: Run) -> str:
        name = run.attempt.changed[0]
        return (
            f"{self.function.name} modifies its argument {name}, which others may still need. Make new arrays: "
            f"`{name} = {name} + 1` does, `{name} += 1` and `{name}[...] = 1` change the caller's.\n\n"
            f"The smallest case in which this happens:\n\n{inputs(run.case)}"
        )

    def _simplest(self, name: str, run: Run) -> Run:
        """The same failure with simpler numbers."""

        def visible(r: Run) -> bool:
            got, expected = r.attempt.values.get(name), r.expected[name]
            if got is None or got.shape != expected.shape or equal(got, expected):
                return False
            return not np.isfinite(got).all() or float(np.abs(np.subtract(got, expected, dtype=float)).max()) > VISIBLE

        finite = np.isfinite(run.attempt.values[name]).all()

        def still_wrong(r: Run) -> bool:
            return visible(r) and np.isfinite(r.attempt.values[name]).all() == finite

        if not visible(run):
            return run
        simpler = self.run(simplify(run.case, lambda case: still_wrong(self.run(case)), self.function.fixed))
        return simpler if still_wrong(simpler) else run  # a solution that draws lots may be right by now

    def _observations(self, name: str, runs: list[Run]) -> list[str]:
        """What happened, it seems; else in which cases or places."""
        evidence = {
            quantity: [
                Evidence(run.case, run.attempt.values[quantity], run.expected[quantity], run.expected)
                for run in runs
                if quantity in run.attempt.values
            ]
            for quantity in self.function.quantities
        }
        for quantity in (name, *self.function.quantities):  # a mistake in another one may be the cause
            diagnosis = diagnose(self.function, quantity, evidence[quantity])
            if diagnosis is not None:
                also = "" if quantity == name else f"There is a mistake in {quantity}. "
                return [f"{also}It seems that {diagnosis}."]
        patterns = [
            order_pattern(evidence[name]),
            size_pattern([(run.case.sizes, run.right(name)) for run in runs]),
            place_pattern(evidence[name]),
        ]
        return [text for text in patterns if text is not None]


# --- arrays as text ---------------------------------------------------------------------------------------------------


def shapes(case: Case) -> str:
    """The arguments in one line: `x (1, 2), window 2`."""
    arrays = [f"{name} {array.shape}" for name, array in case.arrays.items()]
    return ", ".join(arrays + [f"{name} {value}" for name, value in case.settings.items()])


def inputs(case: Case, *, cotangent: bool = True) -> str:
    """The arguments, and what was handed to backward, each on a line of its own."""
    given = dict(case.arguments)
    if cotangent and case.d_output is not None:
        given["d_output"] = case.d_output
    return _lines(given)


def _lines(values: Mapping[str, Any]) -> str:
    width = max(map(len, values))
    lines = []
    for name, value in values.items():
        start = f"    {name:{width}} = "
        text = format_array(value) if isinstance(value, np.ndarray) else str(value)
        lines.append(start + textwrap.indent(text, " " * len(start)).lstrip())
        if isinstance(value, np.ndarray) and value.ndim:
            lines[-1] += f"   shape {value.shape}"
    return "\n".join(lines)


def format_array(array: np.ndarray) -> str:
    text = np.array2string(
        array,
        separator=", ",
        max_line_width=100,
        threshold=100,
        edgeitems=3,
        formatter={"float_kind": lambda number: f"{number + 0:.4g}"},  # + 0: no -0
    )
    return re.sub(r"\n+", "\n", text)  # no empty lines between the matrices


def _named_shape(array: np.ndarray, names: list[str]) -> str:
    """`(2, 3) = (outputs, inputs)`."""
    numbers = ", ".join(map(str, array.shape)) + ("," if array.ndim == 1 else "")
    if (
        array.ndim != len(names)
        or "?" in names
        or all(name == str(n) for name, n in zip(names, array.shape, strict=True))
    ):
        return f"({numbers})"
    return f"({numbers}) = ({', '.join(names)}{',' if len(names) == 1 else ''})"
