"""What the design asks of the operators' docstrings: a sentence, shapes, errors."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap

import pytest

from minidat import errors, ops


def undocumented(function: object) -> list[str]:
    """What the docstring of an operator lacks: a sentence, the shapes of its arrays and of its result, its errors."""
    assert inspect.isfunction(function)
    text = inspect.getdoc(function) or ""
    problems = [] if re.match(r"[A-Z].*[.:]$", text.split("\n")[0]) else ["a sentence on its first line"]
    for parameter in inspect.signature(function).parameters.values():
        # `x: (B, H, W, C)`, or in words, `bias: broadcastable to (..., K, Q)`
        if "ndarray" in str(parameter.annotation) and not re.search(rf"\b{parameter.name}: [^(:]*\(", text):
            problems.append(f"the shape of {parameter.name}, as in `{parameter.name}: (B, H, W, C)`")
    if not re.search(r"-> (\w+: )?(\(|the same)|: \(size,\)", " ".join(text.split())):
        problems.append("the shape of the result, as in `-> output: (B, H, W, C)`")
    return problems + [f"the error {error}" for error in sorted(raised_errors(function)) if error not in text]


def raised_errors(function: object) -> set[str]:
    """Names of the errors that a function raises itself, `check` being a way to raise ShapeError."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    found = {name for name in calls if isinstance(getattr(errors, name, None), type)}
    return found | ({"ShapeError"} if "check" in calls else set())


@pytest.mark.parametrize("name", ops.__all__)
def test_every_operator_is_documented(name: str) -> None:
    problems = undocumented(getattr(ops, name))
    assert not problems, f"the docstring of minidat.ops.{name} lacks {'; '.join(problems)}"


def test_the_docstring_test_can_fail() -> None:
    def bare(x: "np.ndarray", *, rate: float):  # noqa: F821, UP037
        raise ConfigError("")  # noqa: F821

    def complete(x: "np.ndarray", *, rate: float):  # noqa: F821, UP037
        """Do something.

        x: (B, C) -> output: (B,). Raises ConfigError for a rate that will not do.
        """
        raise ConfigError("")  # noqa: F821

    assert len(undocumented(bare)) == 4  # a sentence, two shapes, an error
    assert undocumented(complete) == []


def test_all_names_every_public_function_of_the_operators() -> None:
    """And each of them in its alphabetical place."""
    assert list(ops.__all__) == sorted(ops.__all__)
    imported = {name for name, value in vars(ops).items() if inspect.isfunction(value)}
    assert imported == set(ops.__all__)
