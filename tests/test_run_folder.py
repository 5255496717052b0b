"""What can happen to a run's folder: two trainers at once, kills at every point, lost files, links, other cores."""

from __future__ import annotations

import builtins
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidat.commands import main
from minidat.errors import ConfigError, MinidatError, TrainingError
from minidat.files.atomic import remove_leftovers, writing
from minidat.training import Recipe, read_log, train
from minidat.training.run_folder import RunFolder, recorded_workers

from .test_training import PLAIN, RECIPE, TINY, pictures

SHORT = replace(RECIPE, epochs=2, workers=1, augmentation=PLAIN)
ROOT = Path(__file__).parent.parent


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_new_version_keeps_the_mode_of_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with writing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with writing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["file"]


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MinidatError, match="pipe: cannot be written: not a regular file"), writing(tmp_path / "pipe"):
        pass
    with pytest.raises(MinidatError, match="cannot be written"), writing(tmp_path):
        pass


def test_the_folder_is_on_the_disk_after_a_rename(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def record_rename(*names: Any) -> None:
        events.append("rename")
        rename(*names)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_rename)
    with writing(tmp_path / "file") as file:
        file.write(b"x")
    assert events == ["file", "rename", "folder"]


def test_leftovers_are_those_of_the_names_alone(tmp_path):
    for name in (".run.json.123", ".run.json.x", ".other.json.123", "run.json", ".run.json"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path, ["run.json", "log.jsonl"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".other.json.123",
        ".run.json",
        ".run.json.x",
        "run.json",
    ]


# --- the folder -------------------------------------------------------------------------------------------------------


def test_two_trainers_in_one_folder_are_refused(tmp_path):
    data = pictures(16)
    told = []

    def train_again(progress: Any) -> None:
        if progress.step == 1:
            with pytest.raises(TrainingError, match="another process trains in this folder") as error:
                train(TINY, data, data, SHORT, tmp_path, resume=True)
            told.append(str(error.value))

    train(TINY, data, data, SHORT, tmp_path, progress=train_again)
    assert len(told) == 1
    train(TINY, data, data, SHORT, tmp_path, resume=True)  # the lock went with the run


def test_what_a_kill_has_left_is_cleaned_up(tmp_path):
    data = pictures(16)
    train(TINY, data, data, replace(SHORT, epochs=1), tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / ".checkpoint.npz.4711").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    train(TINY, data, data, replace(SHORT, epochs=1), tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "notes.txt"])


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_without_its_description_is_not_overwritten(tmp_path, resume):
    data = pictures(16)
    train(TINY, data, data, SHORT, tmp_path)
    (tmp_path / "run.json").unlink()
    before = (tmp_path / "checkpoint.npz").read_bytes()
    with pytest.raises(TrainingError, match=r"holds checkpoint\.npz and weights\.npz and log\.jsonl, but no run\.json"):
        train(TINY, data, data, SHORT, tmp_path, resume=resume)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before
    assert not (tmp_path / "run.json").exists()


def test_a_finished_run_that_has_lost_its_weights_is_not_done(tmp_path):
    data = pictures(16)
    train(TINY, data, data, SHORT, tmp_path)
    weights = (tmp_path / "weights.npz").read_bytes()
    (tmp_path / "weights.npz").unlink()
    (tmp_path / "learning_curve.png").unlink()
    train(TINY, data, data, SHORT, tmp_path, resume=True)
    assert (tmp_path / "weights.npz").read_bytes() == weights
    assert (tmp_path / "learning_curve.png").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("[" * 100_000, "nested too deeply"), ("", "cannot be read"), ("[]", "describes another run")],
)
def test_descriptions_that_cannot_be(tmp_path, content, message):
    data = pictures(16)
    train(TINY, data, data, SHORT, tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(TrainingError, match=message):
        train(TINY, data, data, SHORT, tmp_path, resume=True)


@pytest.mark.parametrize("name", ["steps", "updates", "recent"])
@pytest.mark.parametrize("value", [np.int64(-5), np.int64(10**15), np.frombuffer(b"[[", np.uint8), np.zeros(3)])
def test_checkpoints_that_cannot_be(tmp_path, name, value):
    from minidat.checkpoints import load_npz, save_npz

    data = pictures(16)
    train(TINY, data, data, SHORT, tmp_path)
    found = load_npz(tmp_path / "checkpoint.npz")
    found.state[name] = np.asarray(value)
    save_npz(tmp_path / "checkpoint.npz", found.state, found.config, found.labels)
    with pytest.raises(MinidatError, match=r"checkpoint\.npz: "):
        train(TINY, data, data, SHORT, tmp_path, resume=True)


def test_a_log_nested_too_deeply_ends_there(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n' + "[" * 100_000 + '\n{"step": 2}\n')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}]


def test_a_single_epoch_has_a_shorter_warmup(tmp_path):
    recipe = Recipe(epochs=1)  # 5 epochs of warm-up by default
    rates = [recipe.rate(step, 10) for step in range(10)]
    assert rates[5] > 0.9 * max(rates[5:]) > rates[9]
    np.testing.assert_allclose(rates[:5], [recipe.learning_rate * step / 5 for step in range(5)])
    data = pictures(16)
    train(TINY, data, data, replace(recipe, batch=8), tmp_path)


def test_the_loss_logged_after_a_resume_is_that_of_the_whole_run(tmp_path, monkeypatch):
    data = pictures(24)
    monkeypatch.setattr("minidat.training.trainer.LOG_STEPS", 5)  # not a divisor of an epoch's 3 steps
    recipe = replace(SHORT, epochs=4)
    train(TINY, data, data, recipe, tmp_path / "whole")

    def stop(progress: Any) -> None:
        if progress.step == 8:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train(TINY, data, data, recipe, tmp_path / "resumed", progress=stop)
    told = []
    train(TINY, data, data, recipe, tmp_path / "resumed", resume=True, progress=told.append)
    assert told[0].step == 7
    assert told[0].validation is not None
    whole, resumed = (read_log(tmp_path / run / "log.jsonl") for run in ("whole", "resumed"))
    for record in (*whole, *resumed):
        record.pop("images_per_second", None)
    assert resumed == whole


# --- crash points -----------------------------------------------------------------------------------------------------


class Killer:
    """Counts writes, fsyncs, renames and unlinks, and ends the process (as kill -9 does) at one of them."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind, self.left = kind, number
        self.counts = dict.fromkeys(("write", "fsync", "replace", "unlink"), 0)

    def __call__(self, kind: str) -> None:
        self.counts[kind] += 1
        if kind == self.kind:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def install(self, folder: Path) -> None:
        fsync, rename, unlink, open_ = os.fsync, os.replace, os.unlink, builtins.open
        killer = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                half = len(memoryview(data)) // 2
                super().write(memoryview(data)[:half])
                killer("write")
                return half + super().write(memoryview(data)[half:])

        def open_ours(name: Any, mode: str = "r", *rest: Any, **settings: Any) -> Any:
            if mode in ("wb", "a") and str(name).startswith(str(folder)):
                buffered = io.BufferedWriter(File(name, mode.removesuffix("b")), 1 << 16)
                return buffered if mode == "wb" else io.TextIOWrapper(buffered)
            return open_(name, mode, *rest, **settings)

        def before(kind: str, function: Any) -> Any:
            def call(*arguments: Any, **settings: Any) -> Any:
                self(kind)
                return function(*arguments, **settings)

            return call

        builtins.open = open_ours
        os.fsync, os.replace, os.unlink = before("fsync", fsync), before("replace", rename), before("unlink", unlink)


def run_in_child(killer: Killer, folder: Path, data: Any) -> tuple[int, dict[str, int]]:
    """Train in a forked process with the killer at work; its exit status and what it has counted."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            killer.install(folder)
            train(TINY, data, data, SHORT, folder, resume=True)
            os.write(writer, json.dumps(killer.counts).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, json.loads(text or "{}")


def test_killed_at_every_write_fsync_rename_and_unlink(tmp_path):
    """The run that goes on ends with the same bytes, wherever the first one was killed; of many writes, some."""
    data = pictures(16)
    status, counts = run_in_child(Killer("none", 0), tmp_path / "whole", data)
    assert status == 0
    assert counts["replace"] >= 6  # run.json, and in two epochs weights, the curve and the checkpoint
    assert counts["unlink"] >= counts["replace"]
    expected = {
        name: (tmp_path / "whole" / name).read_bytes() for name in ("weights.npz", "checkpoint.npz", "run.json")
    }
    log = without_times(tmp_path / "whole")
    for kind, count in counts.items():
        step = max(1, count // 8)
        for number in range(1, count + 1, step):
            folder = tmp_path / f"{kind}_{number}"
            status, _ = run_in_child(Killer(kind, number), folder, data)
            assert os.WIFSIGNALED(status), (kind, number)
            train(TINY, data, data, SHORT, folder, resume=True)
            for name, content in expected.items():
                assert (folder / name).read_bytes() == content, (kind, number, name)
            assert without_times(folder) == log, (kind, number)
            assert not [path for path in folder.iterdir() if path.name.startswith(".")], (kind, number)
            shutil.rmtree(folder)


def without_times(folder: Path) -> list[dict[str, Any]]:
    records = read_log(folder / "log.jsonl")
    for record in records:
        record.pop("images_per_second", None)
    return records


# --- cores ------------------------------------------------------------------------------------------------------------

TRAIN = """
import sys
from dataclasses import replace
from minidat.models import StageConfig
from minidat.training import train
from tests.test_run_folder import SHORT, wide_model
from tests.test_training import pictures

def stop(progress):
    if progress.step == int(sys.argv[3]):
        raise KeyboardInterrupt

if __name__ == "__main__":
    data = pictures(24, side=32)
    recipe = replace(SHORT, epochs=2, workers=int(sys.argv[2]))
    try:
        train(wide_model(), data, data, recipe, sys.argv[1], resume=True, progress=stop)
    except KeyboardInterrupt:
        pass
"""


def wide_model() -> Any:
    """With maps and weights large enough to be shared among threads."""
    stages = tuple(replace(stage, dim=8 * stage.dim) for stage in TINY.stages)
    return replace(TINY, image_size=(32, 32), resize_size=32, stages=stages)


def train_with(threads: int, folder: Path, workers: int, stop: int = 0) -> None:
    environment = {**os.environ, "MINIDAT_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", TRAIN, str(folder), str(workers), str(stop)]
    if workers > 1:  # a spawned worker needs a file to import
        script = folder.parent / "run.py"
        script.write_text(TRAIN)
        command = [sys.executable, str(script), str(folder), str(workers), str(stop)]
        environment["PYTHONPATH"] = str(ROOT)
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bits_do_not_depend_on_the_cores(tmp_path, workers):
    """Threads of minidat and of the BLAS: 1, 2, 3, and a run that begins with 3 and goes on with 2."""
    for threads in (1, 2, 3):
        train_with(threads, tmp_path / str(threads), workers)
    train_with(3, tmp_path / "moved", workers, stop=4)
    train_with(2, tmp_path / "moved", workers)
    expected = [(tmp_path / "1" / name).read_bytes() for name in ("weights.npz", "checkpoint.npz")]
    for run in ("2", "3", "moved"):
        assert [(tmp_path / run / name).read_bytes() for name in ("weights.npz", "checkpoint.npz")] == expected, run
        assert without_times(tmp_path / run) == without_times(tmp_path / "1"), run


def test_the_blas_keeps_to_one_thread(tmp_path):
    """Sums that OpenBLAS shares among its threads have another order for each number of them."""
    from minidat.runtime.threads import _openblas

    data = pictures(16)
    counts = []
    before = _openblas()[0]()
    train(TINY, data, data, SHORT, tmp_path, progress=lambda progress: counts.append(_openblas()[0]()))
    assert counts == [1] * 4
    assert _openblas()[0]() == before


def test_other_workers_are_refused_unless_nothing_is_said(tmp_path, monkeypatch, capsys):
    """The number belongs to the recipe; the command goes on with that of the run, however many cores there are."""
    data = pictures(16)
    train(TINY, data, data, SHORT, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"recipe\.workers: found 1, expected 2"):
        train(TINY, data, data, replace(SHORT, workers=2), tmp_path / "run", resume=True)
    assert recorded_workers(tmp_path / "run") == 1
    assert recorded_workers(tmp_path) is None


def test_recipes_in_json_that_cannot_be():
    for fields in (
        {"learning_rate": 10**400},
        {"epochs": 10**400},
        {"augmentation": {"crop_area": ["a", "b"]}},
        {"augmentation": {"crop_area": [0.5]}},
        {"milestones": [10**400]},
        {"milestones": [0.5, 2]},
        {"schedule": "line"},
    ):
        with pytest.raises(ConfigError, match="recipe"):
            Recipe.from_dict(fields, Recipe())


@pytest.mark.parametrize("share", ["nan", "inf", "-inf", "0", "1", "1e400"])
def test_shares_for_validation_that_cannot_be(tmp_path, capsys, share):
    from PIL import Image

    for i, image in enumerate(pictures(6).images):
        place = tmp_path / "data" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    arguments = ["train", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "run"), f"--validation={share}"]
    assert main(arguments) == 2
    assert "validation: found" in capsys.readouterr().err


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be made"), RunFolder(tmp_path / "file" / "x").locked():
        pass
