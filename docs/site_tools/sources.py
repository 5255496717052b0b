"""The project's own source on a page: never retyped, always what the file says now.

A block in a page such as

    ```source
    minidat/ops/linear.py: linear -docstring
    ```

names a file and a function, class, method (`Class.method`), nested function (`linear.backward`) or constant in it.
Each `-name` leaves something out: `-docstring` the docstring, `-types` the type hints of signatures and what is said to
type checkers and formatters, any other name the body of the function of that name inside (`-backward`: the forward
alone). And

    ```source
    minidat/models/window_attention.py: WindowAttention.__init__ | self.shift
    ```

shows of that function only the innermost statement in which the text after the bar stands: usually one line.

Lines below cite the page's equations: `d_value = p @: (4e)` puts the comment `# (4e)` behind the one line of the
listing in which that text stands.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path

from wrapping import Line, wrapped

ROOT = Path(__file__).parents[2]
LINE_LENGTH = 88  # that the site shows without scrolling sideways
FOR_TOOLS = re.compile(r"  # (type: ignore|fmt: skip|noqa).*")
EQUATION = re.compile(r"\(\w+\)(, \(\w+\))*")
SPECIFICATION = re.compile(r"(?P<path>[\w./-]+\.py): *(?P<name>[\w.]+)(?P<omissions>( +-\w+)*)( +\| (?P<part>.+))?")

# Where users find names, innermost first; the API reference has a page for each (errors are on minidat's own).
PUBLIC_MODULES = (
    "minidat.ops",
    "minidat.kernels",
    "minidat.runtime.threads",
    "minidat.runtime.parts",
    "minidat.operator_times",
    "minidat.nn",
    "minidat.models",
    "minidat.segmentation",
    "minidat.detection",
    "minidat.checkpoints",
    "minidat.data",
    "minidat.training",
    "minidat.evaluation",
    "minidat.grading",
    "minidat.visualization",
    "minidat.errors",
    "minidat",
)


class SourceError(Exception):
    """A page asks for source that is not there."""


@dataclass(frozen=True)
class Source:
    """A piece of a file.

    public_name: what the API reference calls it, or the thing it is part of; None if private, and for a statement;
    numbers: of each line of `code` its number in the file, None for one that wrapping has made; owner: of a statement,
    the function that it is in.
    """

    path: str
    first_line: int
    last_line: int
    code: str
    public_name: str | None
    numbers: tuple[int | None, ...]
    owner: str = ""

    @property
    def title(self) -> str:
        """The file and the lines, for people."""
        place = f"{self.path}, line {self.first_line}"
        if self.first_line != self.last_line:
            place = f"{self.path}, lines {self.first_line} to {self.last_line}"
        return f"{place}, in {self.owner}" if self.owner else place


def find_source(specification: str, width: int = LINE_LENGTH) -> Source:
    """What a source block asks for, in lines of at most `width` characters where they can be broken.

    Raises SourceError, saying what is wrong, if there is no such thing.
    """
    specification, *citations = specification.strip().split("\n")
    match = SPECIFICATION.fullmatch(specification.strip())
    if match is None:
        raise SourceError(
            f"found {specification.strip()!r}, expected 'path/to/file.py: name', then -docstring or others, or | a text"
        )
    path = ROOT / match["path"]
    if not path.is_file():
        raise SourceError(f"{match['path']}: there is no such file in the repository")
    text = path.read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in match["name"].split("."):
        node = _child(node, part, match["path"], match["name"])
    omissions = [o.strip("- ") for o in match["omissions"].split()]
    if match["part"]:
        node = _statement(text, node, match["part"], f"{match['path']}: {match['name']}")
        cut = _cut(text, node, match["path"], match["name"], omissions, width)
        return replace(cut, public_name=None, owner=match["name"])
    source = _cut(text, node, match["path"], match["name"], omissions, width)
    return replace(source, code=_cited(source.code, citations, match["path"]))


def public_names(module_name: str) -> list[str]:
    """What a module offers: its `__all__`, or the classes and functions without underscore that it defines."""
    module = import_module(module_name)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = [n for n, value in vars(module).items() if getattr(value, "__module__", None) == module_name]
    return [n for n in own if not n.startswith("_")]


def home_of(module_name: str, name: str) -> tuple[str, int]:
    """(module, line) where a module's public name is defined; (`module_name`, 0) for what is no function or class."""
    value = getattr(import_module(module_name), name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return module_name, 0
    return value.__module__, inspect.getsourcelines(value)[1]


@cache
def _public_paths() -> dict[tuple[str, str], str]:
    """(file, name in it) -> public path, such as ("minidat/ops/linear.py", "linear") -> "minidat.ops.linear"."""
    paths: dict[tuple[str, str], str] = {}
    for module_name in PUBLIC_MODULES:
        for name in public_names(module_name):
            value = getattr(import_module(module_name), name)
            if inspect.isclass(value) or inspect.isfunction(value):
                file = value.__module__.replace(".", "/") + ".py"
                paths.setdefault((file, value.__qualname__), f"{module_name}.{name}")
    return paths


def _public_path(path: str, name: str) -> str | None:
    """The API reference's entry for a name in a file: its own, for what is nested in a function the function's."""
    public = _public_paths()
    parts = name.split(".")
    if (path, name) in public:
        return public[path, name]
    owner = public.get((path, parts[0]))
    if owner is None or len(parts) == 1:
        return None
    is_class = inspect.isclass(getattr(import_module(owner.rpartition(".")[0]), parts[0]))
    return f"{owner}.{parts[1]}" if is_class and not parts[1].startswith("_") else owner


def _child(node: ast.AST, name: str, path: str, full_name: str) -> ast.AST:
    for child in getattr(node, "body", []):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == name:
            return child
        targets = child.targets if isinstance(child, ast.Assign) else [getattr(child, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return child
    raise SourceError(f"{path}: it defines no {full_name!r}")


def _statement(text: str, node: ast.AST, part: str, where: str) -> ast.stmt:
    """The innermost statement in `node` that contains `part`, of which there must be one."""
    containing = [
        statement
        for statement in ast.walk(node)
        if isinstance(statement, ast.stmt) and part in (ast.get_source_segment(text, statement) or "")
    ]
    innermost = [s for s in containing if not any(inner is not s and _is_in(inner, s) for inner in containing)]
    if len(innermost) != 1:
        raise SourceError(f"{where}: found {part!r} in {len(innermost)} statements, expected it in one")
    return innermost[0]


def _is_in(inner: ast.stmt, outer: ast.stmt) -> bool:
    return any(node is inner for node in ast.walk(outer))


def _cut(text: str, node: ast.AST, path: str, name: str, omissions: list[str], width: int) -> Source:
    assert isinstance(node, ast.stmt)
    lines = text.splitlines()
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    last = node.end_lineno or first
    replaced: dict[int, str | None] = {}  # line number -> what stands there instead, None for nothing
    if "types" in omissions:
        for n in range(first, last + 1):
            replaced[n] = FOR_TOOLS.sub("", lines[n - 1])
        for function in ast.walk(node):
            if isinstance(function, ast.FunctionDef) and function.returns is not None:
                end = function.returns.end_lineno or 0
                replaced |= dict.fromkeys(range(function.lineno, end + 1))
                replaced[function.lineno] = _signature(function, text)
    for omission in omissions:
        if omission != "types":
            begin, end, instead = _omitted(node, omission, path, name)
            replaced |= dict.fromkeys(range(begin, end + 1)) | {begin: instead}
    shown: list[Line] = []
    for n in range(first, last + 1):
        if (line := replaced.get(n, lines[n - 1])) is not None:
            shown += [(n if i == 0 else None, part) for i, part in enumerate(line.split("\n"))]
    code = textwrap.dedent("\n".join(text for _, text in shown)).split("\n")
    shown = wrapped([(n, text) for (n, _), text in zip(shown, code, strict=True)], width)
    numbers = tuple(n for n, _ in shown)
    return Source(path, first, last, "\n".join(text for _, text in shown), _public_path(path, name), numbers)


def _cited(code: str, citations: list[str], path: str) -> str:
    """The code with a comment behind each line that a citation, "a part of the line: (4e)", names."""
    lines = code.split("\n")
    for citation in citations:
        part, _, equation = citation.rpartition(": ")
        places = [i for i, line in enumerate(lines) if part.strip() in line]
        if not EQUATION.fullmatch(equation) or len(places) != 1:
            raise SourceError(
                f"{path}: citation {citation!r}: found {len(places)} lines, expected one, and an equation such as (4e)"
            )
        separator = ", " if "  # " in lines[places[0]] else "  # "
        lines[places[0]] += separator + equation
    return "\n".join(lines)


def _signature(function: ast.FunctionDef, text: str) -> str:
    """A function's `def`, without type hints."""
    given = function.args
    arguments = [*given.args, *given.kwonlyargs]
    defaults = [*[None] * (len(given.args) - len(given.defaults)), *given.defaults, *given.kw_defaults]
    parts = [
        argument.arg if default is None else f"{argument.arg}={ast.get_source_segment(text, default)}"
        for argument, default in zip(arguments, defaults, strict=True)
    ]
    if given.vararg is not None or given.kwonlyargs:
        parts.insert(len(given.args), f"*{given.vararg.arg if given.vararg is not None else ''}")
    if given.kwarg is not None:
        parts.append(f"**{given.kwarg.arg}")
    indent = " " * function.col_offset
    line = f"{indent}def {function.name}({', '.join(parts)}):"
    if len(line) <= LINE_LENGTH:
        return line
    return "\n".join([f"{indent}def {function.name}(", *(f"{indent}    {part}," for part in parts), f"{indent}):"])


def _omitted(node: ast.AST, omission: str, path: str, name: str) -> tuple[int, int, str | None]:
    """(first line, last line, what to put there) of what a `-name` leaves out."""
    body = getattr(node, "body", [])
    if omission == "docstring":
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or ast.get_docstring(node) is None:
            raise SourceError(f"{path}: {name} has no docstring to leave out")
        return body[0].lineno, body[0].end_lineno, None
    for child in body:
        if isinstance(child, ast.FunctionDef) and child.name == omission:
            return child.body[0].lineno, child.end_lineno or 0, " " * child.body[0].col_offset + "..."
    raise SourceError(f"{path}: {name} has no function {omission!r} to leave out")
