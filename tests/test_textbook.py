"""The form of the two texts: operators as short as on a blackboard, models without a word about who does the work."""

from __future__ import annotations

import ast
import inspect
import io
import re
import statistics
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minidat
from minidat import ops
from minidat.kernels import KERNELS

PACKAGE = Path(minidat.__file__).parent
OPERATORS = [getattr(ops, name) for name in ops.__all__]
LONGEST, MEDIAN = 40, 12  # lines of code
NOT_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)

# what belongs to the machine
MACHINE = r"\b(threads?|process(es)?|chunks?|tiles?|cores?|caches?|inference|runtime)\b|_GRAIN|_FLOATS|\bout="
MODELS = r"\b(threads?|process(es)?|chunks?|cores?|caches?|runtime)\b|_GRAIN|_FLOATS"


def lines_of_code(source: str) -> int:
    """Lines that hold code: no docstring, no comment, no blank one."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))  # type: ignore[operator]
    return len(lines)


def code_only(source: str) -> str:
    """The source without docstrings and comments."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.__name__)
def test_an_operator_can_be_taken_in_at_a_glance(op: Callable[..., Any]) -> None:
    assert lines_of_code(inspect.getsource(op)) <= LONGEST


def test_most_operators_are_short() -> None:
    assert statistics.median(lines_of_code(inspect.getsource(op)) for op in OPERATORS) <= MEDIAN


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").glob("*.py")), ids=lambda path: path.stem)
def test_the_textbook_has_no_machinery(path: Path) -> None:
    source = path.read_text("utf-8")
    found = re.search(MACHINE, code_only(source))
    assert not found, f"ops/{path.name} speaks of {found.group()!r}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            assert node.module == "errors", f"ops/{path.name} imports {node.module}"


@pytest.mark.parametrize(
    "path",
    [path for room in ("models", "detection", "segmentation") for path in sorted((PACKAGE / room).glob("*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_models_do_not_say_who_does_the_work(path: Path) -> None:
    found = re.search(MODELS, path.read_text("utf-8"))
    assert not found, f"{path.parent.name}/{path.name} speaks of {found.group()!r}"


@pytest.mark.parametrize("op", KERNELS, ids=lambda op: op.__name__)
def test_a_kernel_has_the_name_and_the_arguments_of_its_operator(op: Callable[..., Any]) -> None:
    kernel = KERNELS[op]
    assert kernel.__name__ == op.__name__
    own, plain = (dict(inspect.signature(f).parameters) for f in (kernel, op))
    own.pop("keep", None)
    assert [(p.name, p.kind, p.default) for p in own.values()] == [(p.name, p.kind, p.default) for p in plain.values()]


def test_these_tests_can_fail() -> None:
    source = 'def f(x):\n    """Text\n    in two lines."""\n    # a remark\n\n    return (x +\n            1)\n'
    assert lines_of_code(source) == 3
    assert re.search(MACHINE, code_only("np.exp(x, out=x)"))
    assert not re.search(MACHINE, code_only('"""In chunks."""\n# a chunk\nx = 1'))
    assert re.search(MODELS, "# each thread has its share")
