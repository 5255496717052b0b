"""What the design asks of the code's form: documented operators, imports in one direction only, a light cold start."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import minidat
from minidat import errors, ops

PACKAGE = Path(minidat.__file__).parent
FILES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# --- docstrings of the operators --------------------------------------------------------------------------------------


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


# --- imports ----------------------------------------------------------------------------------------------------------

# Each part of the package and the parts it may import, besides itself and `errors`.
BELOW_MODELS = {"ops", "nn"}
NETWORKS = {"models", "detection", "segmentation"}
BELOW_TOOLS = {"ops", "nn", *NETWORKS, "catalog", "data", "_pickle_machine", "_files"}
TOOLS = {"checkpoints", "grading", "training", "evaluation", "visualization", "benchmark", "classification", "info"}
COMPOSERS = {"", "__main__", "cli"}  # the package's root and the command, which may import everything
MAY_IMPORT = {
    "errors": set(),
    "_files": set(),
    "ops": set(),
    "nn": {"ops"},
    "models": BELOW_MODELS,
    "detection": {"ops", "nn", "models", "data"},
    "segmentation": {"ops", "nn", "models", "data"},
    "catalog": NETWORKS,
    "_pickle_machine": set(),
    "data": {"ops", "_pickle_machine"},  # of ops only the threads; neither models nor nn
    "dense": BELOW_TOOLS | {"checkpoints"},
    **dict.fromkeys(TOOLS, BELOW_TOOLS | TOOLS),
}


def our_imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[str, bool]]:
    """(dotted path below minidat, whether at import time) for each import of ours in a file, wherever it stands.

    Imports under `if TYPE_CHECKING` never happen and do not count.
    """
    tree = ast.parse(source)
    inside_functions = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for_types_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    package = module.split("/") if is_package else module.split("/")[:-1]
    for node in ast.walk(tree):
        if id(node) in for_types_only:
            continue
        at_import = id(node) not in inside_functions
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "minidat":
                    yield alias.name.removeprefix("minidat").lstrip("."), at_import
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if node.level:
                base = package[: len(package) + 1 - node.level]
                prefix = ".".join([*base, *name.split(".")]).strip(".")
            elif name.split(".")[0] == "minidat":
                prefix = name.removeprefix("minidat").lstrip(".")
            else:
                continue
            # `from ..ops import conv2d` and `from .. import ops` look alike: what is imported may be a module
            for alias in node.names:
                yield f"{prefix}.{alias.name}".lstrip("."), at_import


def module_and_package(relative: str) -> tuple[str, bool]:
    """Our name of a file: `ops/__init__` is the package `ops`, the root's `__init__` is ``."""
    if relative == "__init__":
        return "", True
    return (relative.removesuffix("/__init__"), True) if relative.endswith("/__init__") else (relative, False)


def forbidden_imports(relative: str, source: str) -> list[str]:
    """The imports of a file that go against the arrows of the design."""
    module, is_package = module_and_package(relative)
    part = module.split("/")[0]
    if part in COMPOSERS:
        return []
    allowed = MAY_IMPORT[part] | {part, "errors"}
    return [name for name, _ in our_imports(source, module, is_package=is_package) if name.split(".")[0] not in allowed]


@pytest.mark.parametrize("relative", FILES)
def test_imports_point_one_way(relative: str) -> None:
    forbidden = forbidden_imports(relative, FILES[relative].read_text("utf-8"))
    assert not forbidden, f"minidat/{relative}.py imports {', '.join(forbidden)}: against the arrows of DESIGN"


def test_every_part_of_the_package_has_its_place_in_the_order() -> None:
    parts = {module_and_package(relative)[0].split("/")[0] for relative in FILES}
    assert parts <= set(MAY_IMPORT) | COMPOSERS, "say in MAY_IMPORT what the new part may import"


def test_nothing_imports_the_command() -> None:
    for relative, path in FILES.items():
        module, is_package = module_and_package(relative)
        imported = {
            name.split(".")[0] for name, _ in our_imports(path.read_text("utf-8"), module, is_package=is_package)
        }
        assert "cli" not in imported or module in COMPOSERS, f"minidat/{relative}.py imports the command"


def test_modules_import_each_other_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for relative, path in FILES.items():
        module, is_package = module_and_package(relative)
        if is_package:  # a package's __init__ gathers its own files, which name each other directly
            continue
        targets = set()
        for name, at_import in our_imports(path.read_text("utf-8"), module, is_package=is_package):
            if at_import:
                parts = name.split(".")
                targets |= {"/".join(parts[:n]) for n in range(1, len(parts) + 1)} & set(FILES)
        graph[relative] = targets
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {name for name, targets in graph.items() if name not in done and targets <= done | {name}}
        assert ready, f"import circle among {', '.join(sorted(set(graph) - done))}"
        done |= ready


@pytest.mark.parametrize("relative", FILES)
def test_slow_libraries_are_imported_where_they_are_needed(relative: str) -> None:
    """`import minidat` must stay fast: SciPy costs 0.3 s."""
    tree = ast.parse(FILES[relative].read_text("utf-8"))
    for statement in tree.body:
        names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
        if isinstance(statement, ast.ImportFrom) and not statement.level:
            names = [statement.module or ""]
        slow = [name for name in names if name.split(".")[0] in ("scipy", "torch")]
        assert not slow, f"minidat/{relative}.py imports {', '.join(slow)} at its head"


@pytest.mark.parametrize(
    ("relative", "source", "forbidden"),
    [
        ("ops/linear", "from ._threads import chunked\nfrom ..errors import ShapeError\nimport numpy as np", []),
        ("ops/linear", "from ..nn.module import Module", ["nn.module.Module"]),
        ("ops/linear", "def f():\n    from minidat.models import config", ["models.config"]),
        ("ops/__init__", "from .linear import linear", []),
        ("ops/__init__", "from ..nn import Linear", ["nn.Linear"]),
        ("nn/layers", "from .. import ops\nfrom .module import Module", []),
        ("nn/layers", "from .. import models", ["models"]),
        ("data/image", "import minidat.nn", ["nn"]),
        ("data/image", "from minidat.models.config import ModelConfig", ["models.config.ModelConfig"]),
        ("data/image", "if TYPE_CHECKING:\n    from ..models.config import ModelConfig", []),
        ("models/dat", "from ..checkpoints import npz", ["checkpoints.npz"]),
        ("training/trainer", "from ..data import image\nfrom ..cli import main", ["cli.main"]),
        ("visualization", "from .models.dat import DAT\nfrom .nn import Context", []),
        ("cli", "from .training import trainer\nfrom . import benchmark", []),
    ],
)
def test_the_arrows_test_can_fail(relative: str, source: str, forbidden: list[str]) -> None:
    assert forbidden_imports(relative, source) == forbidden
