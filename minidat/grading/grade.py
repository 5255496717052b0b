"""From a file to a report. A solution is a program: it runs with a time limit, in a process of its own.

That guards against accidents (an endless loop, an exit, a crash), not against malice: the process has the rights of
whoever started it.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import tokenize
import types
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ExerciseError, printable
from .attempt import Printed, describe_exception
from .checking import Checker, Verdict, check_names
from .exercise import Exercise, Function
from .exercises import NAMES

MARKER = re.compile(r"^# minidat exercise: *(\S*) *$", re.MULTILINE)
FOREIGN = ("minidat", "torch", "jax", "tensorflow", "autograd")  # what a solution may not lean on
TEXT_WIDTH = 100  # characters of a line of an explanation
START_LIMIT = 60.0  # seconds that Python may take to start and to end, on top of the time limit


@dataclass(frozen=True)
class Report:
    """How one file did. checks: whether each passed, by name; message: what is wrong, several lines; "" if nothing.

    printed: what the solution printed in the case that the message is about.
    """

    file: str
    exercise: str
    chapter: str
    checks: dict[str, bool]
    message: str = ""
    printed: str = ""

    @property
    def passed(self) -> bool:
        return not self.message and all(self.checks.values())

    def to_dict(self) -> dict[str, Any]:
        """For collecting results: `file`, `exercise`, `passed`, `checks_passed` of `checks_total`, `message` ..."""
        return {
            "file": self.file,
            "exercise": self.exercise,
            "chapter": self.chapter,
            "passed": self.passed,
            "checks_passed": sum(self.checks.values()),
            "checks_total": len(self.checks),
            "checks": self.checks,
            "message": self.message,
            "printed": self.printed,
        }


def list_exercises() -> list[str]:
    """Names of the exercises, in the order of the chapters."""
    return list(NAMES)


def load_exercise(name: str) -> Exercise:
    return importlib.import_module(f".exercises.{name}", __package__).EXERCISE


def find_exercise(path: str | os.PathLike[str]) -> str:
    """The exercise that a file solves: the one its marker names (`# minidat exercise: linear`), else its own name.

    Raises ExerciseError if there is no such file, or no such exercise.
    """
    shown = printable(str(path))
    try:
        text = Path(path).read_text("utf-8", errors="replace")
    except OSError as error:
        raise ExerciseError(f"{shown}: {error.strerror}; expected a file such as exercises/linear.py") from None
    marker = MARKER.search(text)
    name = marker.group(1) if marker else Path(path).stem
    if name not in NAMES:
        found = f"its marker names the exercise {printable(name)!r}" if marker else "no exercise has its name"
        raise ExerciseError(
            f"{shown}: {found}; expected a line `# minidat exercise: NAME` with one of {', '.join(NAMES)}"
        )
    return name


def grade_file(path: str | os.PathLike[str], *, seed: int = 0, time_limit: float = 20.0) -> Report:
    """Grade one solution, in a process of its own, with at most `time_limit` seconds for it.

    path: a stub of examples/exercises that a student has completed. seed: of the numbers in the cases.
    Raises ExerciseError as `find_exercise` does, and for settings out of range. A solution that fails, in whatever way,
    is a report, not an error.
    """
    if seed < 0:
        raise ExerciseError(f"seed: found {seed}, expected a number of at least 0")
    if not 0 < time_limit <= 86400:
        raise ExerciseError(f"time limit: found {time_limit}, expected seconds above 0, at most a day (86400)")
    name = find_exercise(path)
    with tempfile.TemporaryDirectory(prefix="minidat-grade-") as folder:
        command = [sys.executable, "-P", "-B", "-m", f"{__package__}.child"]
        command += [str(path), name, str(seed), str(time_limit), folder]
        package = str(Path(__file__).parents[2])  # the same minidat for the child, wherever it was imported from
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        environment |= dict.fromkeys(("MINIDAT_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        with open(Path(folder, "stderr"), "wb") as stderr:
            try:
                done = subprocess.run(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                    timeout=time_limit + START_LIMIT,
                )  # fmt: skip
                status = done.returncode
            except subprocess.TimeoutExpired:
                status = None
        return _collect(path, name, Path(folder), status, time_limit)


def _collect(path: str | os.PathLike[str], name: str, folder: Path, status: int | None, time_limit: float) -> Report:
    """The report that the child left in `folder`, or one about how it ended."""
    if (folder / "report").exists():
        return Report(**json.loads((folder / "report").read_text("utf-8")))
    case = (folder / "case").read_text("utf-8") if (folder / "case").exists() else ""
    case = f" It was busy with {case}." if case else ""
    stack = (folder / "stack").read_text("utf-8", errors="replace") if (folder / "stack").exists() else ""
    if stack or status is None:
        line = next((n for file, n in re.findall(r'File "(.*)", line (\d+)', stack) if file == str(path)), None)
        message = f"stopped after {time_limit:g} seconds: is there a loop that never ends?{case}"
        if line is not None:
            message += f" It had come to line {line}:\n    {_line(path, int(line))}"
        return _failed(path, name, message)
    errors = (folder / "stderr").read_text("utf-8", errors="replace").strip().splitlines()
    last = f" Its last words: {printable(errors[-1])}" if errors else ""
    return _failed(path, name, f"Python ended, with status {status}, before the solution was graded.{case}{last}")


def _line(path: str | os.PathLike[str], number: int) -> str:
    lines = Path(path).read_text("utf-8", errors="replace").splitlines()
    return lines[number - 1].strip() if number <= len(lines) else ""


def _failed(path: str | os.PathLike[str], name: str, message: str, printed: str = "") -> Report:
    """A report in which no check has passed."""
    exercise = load_exercise(name)
    checks = {check: False for function in exercise.functions for check in _labels(exercise, function).values()}
    return Report(str(path), name, exercise.chapter, checks, message, printed)


# --- in the child process ---------------------------------------------------------------------------------------------


def grade_here(
    path: str | os.PathLike[str], name: str, *, seed: int = 0, on_case: Callable[[str], None] = lambda text: None
) -> Report:
    """Grade in this process, without a time limit; `on_case` is told each case before it is run."""
    exercise, file, printed = load_exercise(name), str(path), Printed()
    on_case("loading the file")
    try:
        module = _load(file, printed)
    except ExerciseError as error:
        return _failed(path, name, str(error))
    except SyntaxError as error:
        place = f"line {error.lineno}:\n    {(error.text or '').strip()}\n" if error.lineno else ""
        return _failed(path, name, f"{place}{type(error).__name__}: {error.msg}")
    except (Exception, SystemExit) as error:
        return _failed(path, name, describe_exception(error, file).text, printed.text)

    checks: dict[str, bool] = {}
    message = prints = ""
    for function in exercise.functions:
        call = getattr(module, function.name, None)
        if callable(call):
            verdict = Checker(function, call, file, on_case).check(seed)
        else:
            verdict = Verdict(dict.fromkeys(check_names(function), False), _missing(function.name, module))
        labels = _labels(exercise, function)
        checks |= {labels[check]: passed for check, passed in verdict.checks.items()}
        if verdict.explanation and not message:
            message, prints = verdict.explanation, verdict.printed
    return Report(file, name, exercise.chapter, checks, message, prints)


def _load(file: str, printed: Printed) -> types.ModuleType:
    """Run the file. What it imports must be neither this project nor another that has the answer."""
    with tokenize.open(file) as source:
        text = source.read()
    tree = ast.parse(text, file)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for imported in names:
            if imported.split(".")[0] in FOREIGN:
                raise ExerciseError(f"line {node.lineno} imports {imported}: the exercise is to do it with NumPy alone")
    module = types.ModuleType("exercise")
    module.__file__ = file
    sys.path.append(str(Path(file).resolve().parent))  # last: a neighbour called `random.py` must not come first
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            exec(compile(tree, file, "exec"), module.__dict__)
    finally:
        sys.path.pop()
    return module


def _missing(name: str, module: types.ModuleType) -> str:
    own = [n for n, value in vars(module).items() if isinstance(value, types.FunctionType)]
    found = f"found {', '.join(own)}" if own else "found none"
    close = difflib.get_close_matches(name, own, n=1, cutoff=0.5)
    advice = f"; is {close[0]} meant to be it? Its name must stay" if close else ""
    return f"there is no function {name} in the file: {found}{advice}"


def _labels(exercise: Exercise, function: Function) -> dict[str, str]:
    """Names of the checks of a function, for the report: with the function's name if there are several."""
    prefix = f"{function.name}: " if len(exercise.functions) > 1 else ""
    return {check: prefix + check for check in check_names(function)}


# --- text -------------------------------------------------------------------------------------------------------------


def format_report(report: Report) -> str:
    """The report for a reader: each check, then the explanation of the first failure."""
    title = f"{printable(report.file)}: {report.exercise} (chapter {report.chapter})"
    if report.passed:
        return f"{title}: passed, all {len(report.checks)} checks"
    lines = [f"{title}: FAILED, {sum(report.checks.values())} of {len(report.checks)} checks passed"]
    if any(report.checks.values()):
        lines += [f"  {'ok  ' if passed else 'FAIL'}  {name}" for name, passed in report.checks.items()]
    prose = [
        textwrap.fill(line, TEXT_WIDTH) if not line.startswith(" ") else line
        for line in _printable_lines(report.message).split("\n")
    ]
    lines += ["", *prose]
    if report.printed:
        printed = textwrap.indent(_printable_lines(report.printed), "  | ")
        lines += ["", "What your code printed in that case:", "", printed]
    return "\n".join(lines)


def _printable_lines(text: str) -> str:
    """The text may quote a student's file: nothing in it must steer a terminal."""
    return "\n".join(printable(line) for line in text.expandtabs(4).rstrip("\n").split("\n"))
