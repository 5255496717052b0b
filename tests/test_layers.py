"""The arrows of the design's house: who may import whom, no two files each other, and a light cold start."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import minidat

PACKAGE = Path(minidat.__file__).parent
FILES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# Each room of the house and those it may import, besides itself and `errors`.
BELOW_NETS = {"ops", "kernels", "runtime", "nn", "models", "data", "files"}
NETS = BELOW_NETS | {"detection", "segmentation", "catalog"}
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "runtime": set(),
    "ops": set(),
    "kernels": {"ops", "runtime"},
    "nn": {"ops", "kernels", "runtime"},
    "models": {"nn", "ops"},
    "data": {"files", "runtime"},
    "detection": BELOW_NETS | {"segmentation"},
    "segmentation": BELOW_NETS,
    "catalog": {"detection", "models", "segmentation"},
    "visualization": NETS,
    "checkpoints": NETS,
    "classification": NETS,
    "grading": NETS | {"checkpoints", "evaluation"},
    "info": NETS | {"checkpoints"},
    "operator_times": NETS,
    "benchmark": NETS | {"checkpoints", "operator_times"},
    "evaluation": NETS | {"checkpoints", "visualization"},
    "training": NETS | {"checkpoints", "evaluation", "visualization"},
}
COMPOSERS = {"", "__main__", "commands"}  # the package's root and the command may import everything


def our_imports(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """The dotted path below minidat of each import of ours in a file, wherever it stands.

    Imports under `if TYPE_CHECKING` never happen and do not count.
    """
    tree = ast.parse(source)
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
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "minidat":
                    yield alias.name.removeprefix("minidat").lstrip(".")
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
                yield f"{prefix}.{alias.name}".lstrip(".")


def module_and_package(relative: str) -> tuple[str, bool]:
    """Our name of a file: `ops/__init__` is the package `ops`, the root's `__init__` is ``."""
    if relative == "__init__":
        return "", True
    return (relative.removesuffix("/__init__"), True) if relative.endswith("/__init__") else (relative, False)


def imports_of(relative: str, source: str) -> list[str]:
    module, is_package = module_and_package(relative)
    return list(our_imports(source, module, is_package=is_package))


def forbidden_imports(relative: str, source: str) -> list[str]:
    """The imports of a file that go against the arrows of the design."""
    room = relative.split("/")[0].removesuffix("__init__")
    if room in COMPOSERS:
        return []
    allowed = MAY_IMPORT[room] | {room, "errors"}
    return [name for name in imports_of(relative, source) if name.split(".")[0] not in allowed]


@pytest.mark.parametrize("relative", FILES)
def test_imports_point_one_way(relative: str) -> None:
    forbidden = forbidden_imports(relative, FILES[relative].read_text("utf-8"))
    assert not forbidden, f"minidat/{relative}.py imports {', '.join(forbidden)}: against the arrows of DESIGN"


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {module_and_package(relative)[0].split("/")[0] for relative in FILES}
    assert rooms <= set(MAY_IMPORT) | COMPOSERS, "say in MAY_IMPORT what the new room may import"


def test_the_rooms_import_each_other_in_no_circle() -> None:
    assert list(TopologicalSorter(MAY_IMPORT).static_order())


def test_nothing_imports_the_command() -> None:
    for relative, path in FILES.items():
        if relative != "__main__" and not relative.startswith("commands/"):
            rooms = {name.split(".")[0] for name in imports_of(relative, path.read_text("utf-8"))}
            assert "commands" not in rooms, f"minidat/{relative}.py imports the command"


def file_of(dotted: str) -> str | None:
    """The file that the longest beginning of a dotted path names."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        for name in ("/".join(parts[:length]), "/".join([*parts[:length], "__init__"])):
            if name in FILES:
                return name
    return None


def circle(sources: dict[str, str]) -> list[str] | None:
    """Files that import each other in a circle, be it inside of functions; None if there are none."""
    graph = {}
    for relative, source in sources.items():
        targets = {file_of(name) for name in imports_of(relative, source)} - {None, relative}
        graph[relative] = targets
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return None


def test_no_files_import_each_other() -> None:
    found = circle({relative: path.read_text("utf-8") for relative, path in FILES.items()})
    assert found is None, f"import circle: {' -> '.join(found or [])}"


def test_the_circle_test_can_fail() -> None:
    sources = {
        "data/cifar10": "from .datasets import ArrayDataset",
        "data/datasets": "def open_dataset():\n    from .cifar10 import read_cifar10",
    }
    assert set(circle(sources) or []) == set(sources)
    sources["data/datasets"] = "if TYPE_CHECKING:\n    from .cifar10 import read_cifar10"
    assert circle(sources) is None


@pytest.mark.parametrize("relative", FILES)
def test_slow_libraries_are_imported_where_they_are_needed(relative: str) -> None:
    """`import minidat` must stay fast: SciPy costs 0.3 s. The command's files import not even NumPy at their head."""
    tree = ast.parse(FILES[relative].read_text("utf-8"))
    slow = {"scipy", "torch", *(("numpy", "PIL") if relative.startswith("commands/") else ())}
    for statement in tree.body:
        names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
        if isinstance(statement, ast.ImportFrom) and not statement.level:
            names = [statement.module or ""]
        found = [name for name in names if name.split(".")[0] in slow]
        assert not found, f"minidat/{relative}.py imports {', '.join(found)} at its head"


@pytest.mark.parametrize(
    ("relative", "source", "forbidden"),
    [
        ("ops/linear", "from ._shapes import check\nfrom ..errors import ShapeError\nimport numpy as np", []),
        ("ops/linear", "from ..nn.module import Module", ["nn.module.Module"]),
        ("ops/linear", "from ..kernels import attention", ["kernels.attention"]),
        ("ops/linear", "def f():\n    from minidat.models import config", ["models.config"]),
        ("ops/__init__", "from .linear import linear", []),
        ("ops/__init__", "from ..nn import Linear", ["nn.Linear"]),
        ("kernels/attention", "from .. import ops\nfrom ..runtime.threads import parallel", []),
        ("kernels/attention", "from ..nn import Context", ["nn.Context"]),
        ("runtime/threads", "from ..ops import linear", ["ops.linear"]),
        ("nn/layers", "from .. import ops\nfrom .module import Module", []),
        ("nn/layers", "from .. import models", ["models"]),
        ("models/dat", "from ..runtime.threads import parallel", ["runtime.threads.parallel"]),
        ("data/image", "import minidat.nn", ["nn"]),
        ("data/image", "from minidat.models.config import ModelConfig", ["models.config.ModelConfig"]),
        ("data/image", "if TYPE_CHECKING:\n    from ..models.config import ModelConfig", []),
        ("models/dat", "from ..checkpoints import npz", ["checkpoints.npz"]),
        ("segmentation/upernet", "from ..detection import boxes", ["detection.boxes"]),
        ("training/trainer", "from ..data import image\nfrom ..commands import main", ["commands.main"]),
        ("visualization/sheet", "from ..models.dat import DAT\nfrom ..nn import Context", []),
        ("commands/train", "from ..training import trainer\nfrom .. import benchmark", []),
    ],
)
def test_the_arrows_test_can_fail(relative: str, source: str, forbidden: list[str]) -> None:
    assert forbidden_imports(relative, source) == forbidden
