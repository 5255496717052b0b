"""Solutions that cheat, forge, flood, fork or never end: none passes, nothing of them stays, and others are graded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidat
from minidat.commands import main
from minidat.errors import ExerciseError
from minidat.grading import find_exercise, format_report, grade_file

TESTS = Path(__file__).parent
PACKAGE = Path(minidat.__file__).parent
RIGHT = (TESTS / "exercise_solutions" / "linear.py").read_text("utf-8")
WRONG = RIGHT.replace("d_rows.T @ rows", "2 * d_rows.T @ rows")
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")


@pytest.fixture
def file(tmp_path):
    """Writes a solution."""

    def write(text: str, name: str = "linear.py") -> Path:
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write


# --- the answer from somewhere else -----------------------------------------------------------------------------------

ALONE = "the exercise is to do it with NumPy alone"
CHEATS = {
    "__import__": ("linear = __import__('minidat.ops', fromlist=['x']).linear", ALONE),
    "importlib": ("import importlib\nlinear = importlib.import_module('minidat.ops').linear", "minidat"),
    "exec": ("exec('from minidat.ops import linear')", ALONE),
    "eval in the function": (
        'def linear(*a):\n    return eval(\'__import__("minidat", fromlist=["ops"]).ops.linear\')(*a)',
        ALONE,
    ),
    "sys.modules": ("import sys\nlinear = sys.modules['minidat.ops'].linear", "KeyError: 'minidat.ops'"),
    "with the path of the judge": (
        f"import sys, importlib\nsys.path.insert(0, {str(PACKAGE.parent)!r})\n"
        "linear = importlib.import_module('minidat.ops').linear",
        ALONE,
    ),
    "by the loader": (
        "import importlib.util as u\n"
        f"spec = u.spec_from_file_location('fine', {str(PACKAGE / 'ops' / 'linear.py')!r})\n"
        "module = u.module_from_spec(spec)\nspec.loader.exec_module(module)\nlinear = module.linear",
        ALONE,
    ),
    "the source of the reference": (f"exec(open({str(PACKAGE / 'ops' / 'linear.py')!r}).read())", ALONE),
    "another folder": (
        f"exec(open({str(TESTS / 'exercise_solutions' / 'linear.py')!r}).read())",
        "a solution may not read files of other folders",
    ),
    "another program": (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import minidat'])",
        "a solution may not start other programs (subprocess.Popen)",
    ),
    "another program, unwatched": (
        "import _posixsubprocess\n_posixsubprocess.fork_exec([b'/bin/true'], [b'/bin/true'])",
        "TypeError: 'NoneType' object is not callable",
    ),
    "the guard taken apart": (
        "import gc\nwatch = [x for x in gc.get_objects() if getattr(x, '__name__', '') == 'watch']",
        "a solution may not look into the interpreter",
    ),
    "a shell": ("import os\nos.system('python -c \"import minidat\"')", "a solution may not start other programs"),
    "replaced builtins": (
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.any = lambda a: True\n"
        f"exec(open({str(PACKAGE / 'ops' / 'linear.py')!r}).read())",
        "",  # nothing works any more
    ),
    "the judge's memory": (
        "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')",
        "a solution may not read files of other folders",
    ),
}


@pytest.mark.parametrize(("text", "words"), CHEATS.values(), ids=CHEATS)
def test_the_answer_is_not_to_be_had_from_us(text: str, words: str, file) -> None:
    report = grade_file(file(text + "\n"))
    assert not report.passed
    assert not any(report.checks.values())
    assert words in report.message, report.message


def test_nor_from_a_neighbor_that_imports_us(file) -> None:
    file("from minidat.ops import linear\n", "helper.py")
    report = grade_file(file("from helper import linear\n"))
    assert not report.passed
    assert report.message.startswith("line 1, in <module>:\n    from helper import linear\nImportError: minidat.ops: ")


def test_nor_from_a_copy_of_us_beside_the_solution(file, tmp_path) -> None:
    (tmp_path / "minidat" / "ops").mkdir(parents=True)
    (tmp_path / "minidat" / "__init__.py").write_text("", "utf-8")
    (tmp_path / "minidat" / "ops" / "__init__.py").write_text(RIGHT, "utf-8")
    report = grade_file(file("import importlib\nlinear = importlib.import_module('minidat.ops').linear\n"))
    assert not report.passed
    assert ALONE in report.message


REPLACED = {
    "np.subtract": "np.subtract = lambda a, *b, **c: np.float64(0)",
    "np.abs": "np.abs = lambda a, *b, **c: np.zeros(np.shape(a))",
    "np.array_equal": "np.array_equal = lambda *a, **b: True",
    "every function that compares": (
        "for name in ('subtract', 'allclose', 'isclose', 'array_equal', 'abs', 'less_equal'):\n"
        "    setattr(np, name, lambda *a, **b: np.True_)"
    ),
}


@pytest.mark.parametrize("text", REPLACED.values(), ids=REPLACED)
def test_a_replaced_function_of_numpy_changes_no_verdict(text: str, file) -> None:
    report = grade_file(file(f"{WRONG}\n{text}\n"))
    assert not report.checks["d_weight"], report
    assert not report.passed


def test_arguments_that_are_modified_are_seen_from_outside(file) -> None:
    text = RIGHT.replace("        return d_x,", "        d_output += 1\n        return d_x,")
    report = grade_file(file(text + "\nnp.array_equal = lambda *a, **b: True\n"))
    assert not report.checks["arguments unchanged"]
    assert "linear modifies its argument d_output" in report.message


# --- forged, broken and huge answers ----------------------------------------------------------------------------------

PASSED = dict.fromkeys(("output", "d_x", "d_weight", "d_bias", "finite differences", "arguments unchanged"), True)
OLD_REPORT = json.dumps({"file": "linear.py", "exercise": "linear", "chapter": "02-linear", "checks": PASSED})
WRITE_EVERYWHERE = """
import os
for descriptor in range(3, 64):
    try:
        os.write(descriptor, {data})
    except OSError:
        pass
"""
FORGERIES = {
    "a report in the folder": (
        f"import os, sys\nopen(os.path.join(sys.argv[-1], 'report'), 'w').write({OLD_REPORT!r})\nos._exit(0)"
    ),
    "a fifo for a report": (
        "import os, sys\nos.mkfifo(os.path.join(sys.argv[-1], 'report'))\nos._exit(0)\n"
    ),  # a solution may make one in its own folder, which nobody opens
    "a broken report": "import os, sys\nopen(os.path.join(sys.argv[-1], 'report'), 'w').write('{')\nos._exit(0)",
    "a verdict": WRITE_EVERYWHERE.format(data=repr(OLD_REPORT.encode() + b"\n")),
    "an answer without numbers": WRITE_EVERYWHERE.format(
        data=repr(json.dumps({"problem": None, "values": {}, "given": {}, "printed": ""}).encode() + b"\n")
    ),
    "noise": WRITE_EVERYWHERE.format(data=repr(bytes(range(256)) + b"\n")),
    "depth": WRITE_EVERYWHERE.format(data="b'[' * 100_000 + b'\\n'"),
    "a long number": WRITE_EVERYWHERE.format(data="b'9' * 100_000 + b'\\n'"),
    "no end": WRITE_EVERYWHERE.format(data="b'x' * (1 << 24)"),
    "closed": "import os\nos.closerange(3, 64)",
    "shut down": "import os\nos.closerange(0, 64)\nwhile True: pass",
    "exit": "import os\nos._exit(0)",
    "an exception of ours": "raise KeyboardInterrupt",
    "an exception that cannot be told": (
        "class E(Exception):\n    def __str__(self):\n        raise SystemExit\n    __repr__ = __str__\nraise E"
    ),
    "the judge killed": "import os\nos.kill(os.getppid(), 9)\nos._exit(0)",
    "the judge killed by machine code": "import ctypes, os\nctypes.CDLL(None).kill(os.getppid(), 9)\nos._exit(0)",
    "json replaced": "import json\njson.dumps = lambda *a, **b: '{}'",
    "crash": "import signal, os\nsignal.raise_signal(signal.SIGSEGV)",
}


@pytest.mark.parametrize("text", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_or_broken_answer_fails_and_the_next_file_is_graded(text: str, file, capsys) -> None:
    bad, good = file(WRONG + text + "\n"), file(RIGHT, "linear (2).py")
    good.write_text("# minidat exercise: linear\n" + RIGHT, "utf-8")
    assert main(["grade", str(bad), str(good), "--json", "--limit", "5"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert not first["passed"]
    assert first["message"]
    assert first["checks"].keys() == PASSED.keys()
    assert second["passed"], second


ARRAYS = st.one_of(
    st.builds(
        lambda shape, number, dtype: np.full(shape, number).astype(dtype),
        st.lists(st.integers(0, 3), max_size=4),
        st.sampled_from([0.0, 1.0, -2.5, 1e308, float("nan"), float("inf")]),
        st.sampled_from(["f8", "f4", "f2", "?", "i8", "u8"]),
    ),
    st.none(),
    st.integers(),
)
RESULT_NAMES = st.sampled_from(["output", "d_x", "d_weight", "d_bias", "other"])
REPLIES = st.fixed_dictionaries(
    {},
    optional={
        "problem": st.none() | st.text(max_size=20) | st.integers(),
        "unwritten": st.booleans() | st.integers(),
        "printed": st.text(max_size=5) | st.none(),
        "values": st.dictionaries(RESULT_NAMES, ARRAYS) | ARRAYS,
        "given": st.dictionaries(st.sampled_from(["x", "weight", "bias", "d_output"]), ARRAYS),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(REPLIES, min_size=1, max_size=4), st.integers(0, 3), st.booleans())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_judge_survives_every_reply(replies, honest_before, add) -> None:
    """Fields of honest answers are replaced, from some case on, or something is added to them (`add`)."""
    from minidat.grading.grade import Submission, judge
    from minidat.grading.solution_process.calls import Solution

    solution, count = Solution(), 0

    def ask(message):
        nonlocal count
        arrays = {name: array.copy() for name, array in message.get("arrays", {}).items()}
        reply = solution.answer({**message, **({"arrays": arrays} if arrays else {})})
        count += 1
        if message["ask"] == "load" or count <= honest_before + 1:
            return reply
        forged = replies[count % len(replies)]
        if add:
            forged = {name: {**reply[name], **v} if isinstance(v, dict) else v for name, v in forged.items()}
        return {**reply, **forged}

    submission = Submission("linear.py", "linear", WRONG.encode())
    report = judge(submission, ask)
    assert not report.passed
    assert report.checks.keys() == PASSED.keys()
    assert format_report(report)


def test_a_solution_that_draws_lots_is_a_report(file) -> None:
    """Its counter-example may be right when it is tried again."""
    text = RIGHT.replace("output = x @ weight.T + bias", "output = x @ weight.T + bias * np.random.choice([1, 2])")
    for seed in range(5):
        report = grade_file(file(text), seed=seed)
        assert not report.passed
        assert "The output is wrong" in report.message


# --- limits -----------------------------------------------------------------------------------------------------------

LIMITS = {
    "memory": ("def linear(*a):\n    return np.ones(1 << 40)", "line 3, in linear:\n    return np.ones(1 << 40)\n"),
    "memory, little by little": (
        "kept = []\nwhile True:\n    kept.append(np.empty(1 << 24))",
        "line 4, in <module>:\n    kept.append(np.empty(1 << 24))\n",
    ),
    "a large result": (
        "def linear(x, *a):\n    return np.ones((1000, 1000)), lambda d: d",
        "linear returned an array of shape (1000, 1000) for output: far too large",
    ),
    "many axes": (
        "def linear(x, *a):\n    return np.ones((1,) * 20), lambda d: d",
        "linear returned an array of shape (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1) for output",
    ),
    "files": ("open('file', 'w').write('x')", "PermissionError: a solution may not write files: file"),
    "files by NumPy": ("np.save('file', np.ones(3))", "PermissionError: a solution may not write files"),
    "files of others": ("import os\nos.remove('linear.py')", "PermissionError: a solution may not change files"),
    "open files": (
        "import os\nkept = []\nwhile True:\n    kept.append(os.dup(0))",
        "Too many open files",
    ),
    "other limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "PermissionError: a solution may not change its limits",
    ),
    "the network": ("import socket\nsocket.socket()", "PermissionError: a solution may not use the network"),
    "processes": ("import os\nos.fork()", "PermissionError: a solution may not start other programs (os.fork)"),
    "deafness": (
        "import signal\nfor n in (signal.SIGUSR1, signal.SIGTERM):\n    signal.signal(n, signal.SIG_IGN)\n"
        "while True: pass",
        "stopped after 3 seconds",
    ),
    "threads that stay": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\ndef linear(*a): return 0",
        "",  # the administrator's threads are not counted
    ),
    "exceptions all the way": (
        "def linear(*a):\n    while True:\n        try: linear(*a)\n        except BaseException: pass", "stopped",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), LIMITS.values(), ids=LIMITS)
def test_a_solution_has_limits_and_is_told(text: str, words: str, file, tmp_path) -> None:
    start = time.monotonic()
    report = grade_file(file("import numpy as np\n" + text + "\n"), time_limit=3)
    assert not report.passed
    assert words in report.message, report.message
    assert report.message
    assert [path.name for path in tmp_path.iterdir()] == ["linear.py"]
    assert time.monotonic() - start < 60


def test_the_line_of_an_endless_loop_is_told_whatever_the_file_is_called(tmp_path) -> None:
    path = tmp_path / "übung (2) \u4e00" / "linear.py"
    path.parent.mkdir()
    path.write_text("def linear(*a):\n    while True: pass\n", "utf-8")
    message = grade_file(path, time_limit=1).message
    assert message.endswith("It had come to line 2:\n    while True: pass")


def test_output_has_a_limit_by_whatever_way_it_is_written(file, capfd) -> None:
    flood = "import os\nprint('x' * 10_000_000)\nfor _ in range(200):\n    os.write(2, b'x' * 100_000)\n"
    report = grade_file(file(flood + WRONG))
    assert not report.passed
    assert "d_weight, the gradient of weight, is wrong" in report.message
    assert capfd.readouterr() == ("", "")


def test_secrets_of_the_environment_stay_outside(file, monkeypatch) -> None:
    monkeypatch.setenv("MINIDAT_TEST_SECRET", "secret")
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent))
    text = "import os\nassert 'MINIDAT_TEST_SECRET' not in os.environ and 'PYTHONPATH' not in os.environ\n"
    assert grade_file(file(text + RIGHT)).passed


@pytest.mark.parametrize("module", ["math", "scipy", "scipy.special", "dataclasses", "random", "collections.abc"])
def test_what_a_solution_may_use(module: str, file) -> None:
    extra = "scipy.special.erf(np.ones(2))\nscipy.special.softmax(np.ones(2))\n" if module == "scipy.special" else ""
    report = grade_file(file(f"import {module}\n{RIGHT}\n{extra}"))
    assert report.passed, report


# --- nothing is left --------------------------------------------------------------------------------------------------


def processes_with(marker: str) -> list[int]:
    """Those whose command line or environment has the marker, and that are not zombies."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marker.encode() in text and state != "Z":
                found.append(int(folder.name))
    return found


def gone(marker: str, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while processes_with(marker):
        if time.monotonic() > deadline:
            for pid in processes_with(marker):
                os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.02)
    return True


FORKS = """
import os, time
try:
    for _ in range(5):
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
except PermissionError:
    pass
"""


@NEEDS_PROC
def test_forks_of_a_solution_do_not_stay(file, tmp_path) -> None:
    grade_file(file(FORKS + RIGHT), time_limit=2)
    assert gone(str(tmp_path))


FAMILY = """
import os, sys, time
from minidat.grading.solution_process.keeper import keep

def family():  # five that leave the group, with a child each, which loses its parent; one that does not; a stopped one
    for i in range(7):
        if os.fork() == 0:
            if i < 5:
                os.setsid()
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(1000)
                os._exit(0)
            if i == 5:
                os.kill(os.getpid(), 19)
            time.sleep(1000)
    print("started", flush=True)
    {end}

sys.exit(keep(family, life=0, channel=os.dup(1)))
"""


@NEEDS_PROC
@pytest.mark.parametrize(
    ("end", "status"), [("time.sleep(1000)", 0), ("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("1 / 0", 1)]
)
def test_the_keeper_ends_all_that_was_started(end: str, status: int, tmp_path) -> None:
    """Also what has left the group and lost its parent, and whether the solution ends first or the judge."""
    command = [sys.executable, "-c", FAMILY.format(end=end), str(tmp_path)]
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert keeper.stdout.readline() == b"started\n"
    if "sleep" in end:
        assert len(processes_with(str(tmp_path))) >= 8
        keeper.stdin.close()
    assert keeper.wait(20) == status
    keeper.stdin.close()
    keeper.stdout.close()
    assert gone(str(tmp_path), 0)


@NEEDS_PROC
def test_nothing_stays_when_the_judge_is_killed(file, tmp_path) -> None:
    path = file("while True: pass\n")
    judge = subprocess.Popen([sys.executable, "-m", "minidat", "grade", str(path)], cwd=PACKAGE.parent)
    deadline = time.monotonic() + 60
    while len(processes_with(str(tmp_path))) < 3 and time.monotonic() < deadline:  # judge, keeper, solution
        time.sleep(0.02)
    time.sleep(1)  # until it loops
    judge.kill()
    judge.wait()
    assert gone(str(tmp_path))


# --- what is no solution ----------------------------------------------------------------------------------------------


def test_a_pipe_is_one_line_at_once(tmp_path, capsys) -> None:
    os.mkfifo(tmp_path / "linear.py")
    os.symlink("linear.py", tmp_path / "softmax.py")
    for name in ("linear.py", "softmax.py"):
        assert main(["grade", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.endswith(
            f"{name}: no regular file; expected a file such as exercises/linear.py\n"
        )


def test_devices_and_files_without_end_are_one_line(tmp_path) -> None:
    os.symlink("/dev/zero", tmp_path / "linear.py")
    with pytest.raises(ExerciseError, match=r"linear.py: no regular file"):
        grade_file(tmp_path / "linear.py")
    with open(tmp_path / "softmax.py", "wb") as large:
        large.truncate(1 << 32)
    with pytest.raises(ExerciseError, match=r"softmax.py: found more than 1048576 bytes, expected a solution"):
        grade_file(tmp_path / "softmax.py")
    with pytest.raises(ExerciseError, match="null"):
        grade_file("linear\0.py")


def test_a_marker_is_read_in_no_time(file) -> None:
    start = time.monotonic()
    with pytest.raises(ExerciseError, match="its marker names the exercise 'a b'"):
        find_exercise(file("# minidat exercise:" + " " * 500_000 + "a b\n"))
    assert time.monotonic() - start < 10
