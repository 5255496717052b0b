"""From a file to a report.

A solution is a program, and may be a hostile one. It runs in a process of its own (`process`), which computes and does
not judge: numbers go in, numbers come back, and they are compared with the right ones here, where no line of a solution
has ever run.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import stat
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExerciseError, listed, printable
from .attempt import Ask, Loaded, SolutionError, load
from .checking import Checker, Verdict, check_names
from .exercise import STAGES, Exercise, Finale, Function
from .exercises import NAMES
from .process import SolutionProcess

MARKER = re.compile(r"^# minidat exercise:(.*)$", re.MULTILINE)
TEXT_WIDTH = 100  # characters of a line of an explanation
LARGEST_FILE = 1 << 20  # bytes


@dataclass(frozen=True)
class Report:
    """How one file did. checks: whether each passed, by name; message: what is wrong, several lines; "" if nothing.

    function: the one that failed first, "" if none did; printed: by the solution, in the case of the message. remark:
    what came out, where an exercise has a result to show.
    """

    file: str
    exercise: str
    chapter: str
    checks: dict[str, bool]
    message: str = ""
    printed: str = ""
    function: str = ""
    remark: str = ""

    @property
    def passed(self) -> bool:
        return not self.message and all(self.checks.values())

    def to_dict(self, *, hint: int | None = None) -> dict[str, Any]:
        """For collecting results: `file`, `exercise`, `passed`, `checks_passed` of `checks_total`, `message` ...

        With a `hint`, a stage as in `Report.hint`, there is also what that says.
        """
        return {
            "file": self.file,
            "exercise": self.exercise,
            "chapter": self.chapter,
            "passed": self.passed,
            "checks_passed": sum(self.checks.values()),
            "checks_total": len(self.checks),
            "checks": self.checks,
            "function": self.function,
            "remark": self.remark,
            "message": self.message,
            "printed": self.printed,
            **({} if hint is None else {"hint": self.hint(hint)}),
        }

    def hint(self, stage: int) -> str:
        """Help with what failed: 1 where to look, 2 the idea, 3 the formula; "" if nothing failed.

        Raises ExerciseError for another stage.
        """
        if stage not in range(1, STAGES + 1):
            raise ExerciseError(f"hint: found {stage}, expected 1 (where to look), 2 (the idea) or 3 (the formula)")
        if self.passed:
            return ""
        functions = {function.name: function for function in load_exercise(self.exercise).functions}
        return functions[self.function].hints.stage(stage)


@dataclass(frozen=True)
class Submission:
    """A solution as it was when its file was read. file: as it was called; exercise: the one that it solves."""

    file: str
    exercise: str
    source: bytes

    @property
    def path(self) -> Path:
        """Absolute: the solution's process has another working directory."""
        return Path(os.path.abspath(self.file))

    def line(self, number: int) -> str:
        """The line of that number, for a message."""
        lines = self.source.decode("utf-8", errors="replace").splitlines()
        return lines[number - 1].strip()[:TEXT_WIDTH] if 0 < number <= len(lines) else ""


def list_exercises() -> list[str]:
    """Names of the exercises, in the order of the chapters."""
    return list(NAMES)


def load_exercise(name: str) -> Exercise:
    return importlib.import_module(f".exercises.{name}", __package__).EXERCISE


def find_exercise(path: str | os.PathLike[str]) -> str:
    """The exercise that a file solves: the one its marker names (`# minidat exercise: linear`), else its own name.

    Raises ExerciseError if there is no such file, or no such exercise.
    """
    return read_submission(path).exercise


def read_submission(path: str | os.PathLike[str]) -> Submission:
    """The file, read once: whatever happens to it later, this is what is graded.

    Raises ExerciseError if there is no such file, or no such exercise.
    """
    shown = printable(str(path))
    source = _read(path, shown)
    marker = MARKER.search(source.decode("utf-8", errors="replace"))
    name = marker.group(1).strip() if marker else Path(path).stem
    if name not in NAMES:
        found = f"its marker names the exercise {printable(name)!r}" if marker else "no exercise has its name"
        raise ExerciseError(
            f"{shown}: {found}; expected a line `# minidat exercise: NAME` with one of {', '.join(NAMES)}"
        )
    return Submission(str(path), name, source)


def _read(path: str | os.PathLike[str], shown: str) -> bytes:
    """The bytes of a regular file of at most LARGEST_FILE bytes. Anything else, a pipe too, is an ExerciseError."""
    expected = "expected a file such as exercises/linear.py"
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer would wait
        with open(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ExerciseError(
                    f"{shown}: {'Is a directory' if stat.S_ISDIR(mode) else 'no regular file'}; {expected}"
                )
            source = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ExerciseError(f"{shown}: {getattr(error, 'strerror', None) or error}; {expected}") from None
    if len(source) > LARGEST_FILE:
        raise ExerciseError(f"{shown}: found more than {LARGEST_FILE} bytes, expected a solution, which is shorter")
    return source


def grade_file(path: str | os.PathLike[str], *, seed: int = 0, time_limit: float = 20.0) -> Report:
    """Grade one solution, in a process of its own, with at most `time_limit` seconds for it.

    path: a stub of examples/exercises that a student has completed. seed: of the numbers in the cases.
    Raises ExerciseError as `find_exercise` does, and for settings out of range. A solution that fails, in whatever way,
    is a report, not an error.
    """
    return grade(read_submission(path), seed=seed, time_limit=time_limit)


def grade(submission: Submission, *, seed: int = 0, time_limit: float = 20.0) -> Report:
    """As `grade_file`, for a file that has been read. Raises ExerciseError for settings out of range alone."""
    if seed < 0:
        raise ExerciseError(f"seed: found {seed}, expected a number of at least 0")
    if not 0 < time_limit <= 86400:
        raise ExerciseError(f"time limit: found {time_limit}, expected seconds above 0, at most a day (86400)")
    try:
        with SolutionProcess(submission.path, time_limit) as process:
            return judge(submission, process.ask, seed=seed)
    except SolutionError as error:  # it could not even start
        return _failed(submission, str(error))


def judge(submission: Submission, ask: Ask, *, seed: int = 0) -> Report:
    """Put all questions of the exercise to whoever answers `ask`, and judge the answers.

    The checks are the exercise's, each of them, whatever the answers contain.
    """
    exercise = load_exercise(submission.exercise)
    names = [function.name for function in exercise.functions]
    busy = ["the file"]
    verdicts: list[Verdict] = []
    try:
        loaded = load(ask, str(submission.path), submission.source, names)
        if loaded.problem is not None:
            return _failed(submission, loaded.problem, loaded.printed)
        with np.errstate(all="ignore"):  # the numbers may be anything
            for function in exercise.functions:
                if function.name in loaded.found:
                    verdicts.append(Checker(function, ask, busy.append).check(seed))
                else:
                    missing = _missing(function.name, loaded)
                    verdicts.append(Verdict(dict.fromkeys(check_names(function), False), missing))
    except SolutionError as error:
        message = f"{error} It was busy with {busy[-1]}."
        if error.line is not None:
            message += f" It had come to line {error.line}:\n    {submission.line(error.line)}"
        return _failed(submission, message, function=names[len(verdicts)])
    checks: dict[str, bool] = {}
    for function, verdict in zip(exercise.functions, verdicts, strict=True):
        labels = _labels(exercise, function)
        checks |= {labels[check]: verdict.checks[check] for check in labels}
    if exercise.finale is not None:
        checks[exercise.finale.name] = False
    for name, verdict in zip(names, verdicts, strict=True):
        if verdict.explanation:
            return _report(submission, checks, verdict.explanation, verdict.printed, name)
    if exercise.finale is not None:
        return _finale(submission, exercise.finale, checks, ask, seed)
    return _report(submission, checks)


def _finale(submission: Submission, finale: Finale, checks: dict[str, bool], ask: Ask, seed: int) -> Report:
    try:
        with np.errstate(all="ignore"):
            outcome = finale.run(ask, seed)
    except SolutionError as error:
        return _report(submission, checks, f"{error} It was busy with {finale.name}.", "", _first(submission))
    if outcome.problem:
        return _report(submission, checks, outcome.problem, "", outcome.function or _first(submission))
    return _report(submission, checks | {finale.name: True}, remark=outcome.remark)


def _report(submission: Submission, checks: dict[str, bool], *failure: str, remark: str = "") -> Report:
    """failure: the report's `message`, `printed` and `function`."""
    chapter = load_exercise(submission.exercise).chapter
    message, printed, function = failure or ("", "", "")
    return Report(submission.file, submission.exercise, chapter, checks, message, printed, function, remark)


def _first(submission: Submission) -> str:
    """The name of the exercise's first function."""
    return load_exercise(submission.exercise).functions[0].name


def _failed(submission: Submission, message: str, printed: str = "", function: str = "") -> Report:
    """A report in which no check has passed. function: the one to blame, otherwise the first."""
    exercise = load_exercise(submission.exercise)
    checks = {check: False for function in exercise.functions for check in _labels(exercise, function).values()}
    if exercise.finale is not None:
        checks[exercise.finale.name] = False
    return _report(submission, checks, message, printed, function or _first(submission))


def _missing(name: str, loaded: Loaded) -> str:
    found = f"found {listed(loaded.own)}" if loaded.own else "found none"
    close = difflib.get_close_matches(name, loaded.own, n=1, cutoff=0.5)
    advice = f"; is {close[0]} meant to be it? Its name must stay" if close else ""
    return f"there is no function {name} in the file: {found}{advice}"


def _labels(exercise: Exercise, function: Function) -> dict[str, str]:
    """Names of the checks of a function, for the report: with the function's name if there are several."""
    prefix = f"{function.name}: " if len(exercise.functions) > 1 else ""
    return {check: prefix + check for check in check_names(function)}


# --- text -------------------------------------------------------------------------------------------------------------


def format_report(report: Report, *, hint: int | None = None) -> str:
    """The report for a reader: each check, then the explanation of the first failure, then a hint if one is asked for.

    hint: the stage, as in `Report.hint`, which says what it raises.
    """
    title = f"{printable(report.file)}: {report.exercise} (chapter {report.chapter})"
    if report.passed:
        return f"{title}: passed, all {len(report.checks)} checks" + (f"\n{report.remark}" if report.remark else "")
    lines = [f"{title}: FAILED, {sum(report.checks.values())} of {len(report.checks)} checks passed"]
    if any(report.checks.values()):
        lines += [f"  {'ok  ' if passed else 'FAIL'}  {name}" for name, passed in report.checks.items()]
    lines += ["", *_wrapped(report.message)]
    if report.printed:
        printed = textwrap.indent(_printable_lines(report.printed), "  | ")
        lines += ["", "What your code printed in that case:", "", printed]
    if hint is not None:
        lines += ["", *_wrapped(report.hint(hint))]
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    """Paragraphs in lines of TEXT_WIDTH; what is indented stays as it is."""
    lines = _printable_lines(text).split("\n")
    return [line if line.startswith(" ") else textwrap.fill(line, TEXT_WIDTH) for line in lines]


def _printable_lines(text: str) -> str:
    """The text may quote a student's file: nothing in it must steer a terminal."""
    return "\n".join(printable(line) for line in text.expandtabs(4).rstrip("\n").split("\n"))
