"""The folder of a training run: what it holds, who may write to it, and what a killed process has left in it.

run.json            model, recipe and a fingerprint of the data: what the result depends on
log.jsonl           one JSON object a line: the training loss every so many steps, the validation of epochs
checkpoint.npz      all that the next step needs: weights, their average, the optimizer's moments
weights.npz         the averaged weights after the last epoch that was validated, as `load_model` reads them
learning_curve.png  the log as a picture
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import TrainingError, shown
from ..files.atomic import remove_leftovers, writing
from ..files.reading import parse_json, read_json, read_text

MAX_LOG_BYTES = 256 << 20

DESCRIPTION, LOG, CHECKPOINT, WEIGHTS, CURVE = (
    "run.json", "log.jsonl", "checkpoint.npz", "weights.npz", "learning_curve.png"
)  # fmt: skip


class RunFolder:
    """Paths of a run's files, and what is written to them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.description, self.log, self.checkpoint, self.weights, self.curve = (
            self.path / name for name in (DESCRIPTION, LOG, CHECKPOINT, WEIGHTS, CURVE)
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if there is none, and let nobody else train in it during this block; tidy it up first.

        The lock is the system's, on the folder itself: it ends with this process, however that ends, and leaves no
        trace. Raises TrainingError if the folder cannot be made or another process trains in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be made: {error.strerror or error}") from None
        descriptor = _lock(self.path)
        try:
            remove_leftovers(self.path, (DESCRIPTION, LOG, CHECKPOINT, WEIGHTS, CURVE))
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)  # which ends the lock

    def begin(self, description: dict[str, Any], *, resume: bool) -> bool:
        """Write `run.json`, or compare with the one that is there; whether there was a run to go on with.

        Raises TrainingError if there is a run and `resume` is not set; if it is another one; and if files of a run are
        there without its description, which would be lost.
        """
        if not self.description.exists():
            orphans = [path.name for path in (self.checkpoint, self.weights, self.log) if path.exists()]
            if orphans:
                raise TrainingError(
                    f"{self.path}: holds {' and '.join(orphans)}, but no {DESCRIPTION} that says of which run: put it "
                    "back, delete them, or choose another folder"
                )
            with writing(self.description, TrainingError) as file:
                file.write((json.dumps(description, indent=2) + "\n").encode())
            return False
        if not resume:
            raise TrainingError(f"{self.path}: holds a run already: resume it, or choose another folder")
        if differences := _differences(self.read_description(), description):
            raise TrainingError(
                f"{self.description}: describes another run: {'; '.join(differences)}; choose another folder"
            )
        return True

    def read_description(self) -> Any:
        """What `run.json` says. Raises TrainingError."""
        return read_json(self.description, TrainingError)

    def append(self, record: dict[str, Any]) -> None:
        """Add a line to the log."""
        try:
            with open(self.log, "a") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())  # the checkpoint that follows must not be younger than the log
        except OSError as error:
            raise TrainingError(f"{self.log}: cannot be written: {error.strerror or error}") from None

    def cut_log(self, steps: int) -> list[dict[str, Any]]:
        """Leave only the records of the first steps in the log, and return them."""
        records = [record for record in read_log(self.log) if record["step"] <= steps]
        with writing(self.log, TrainingError) as file:
            file.write("".join(json.dumps(record) + "\n" for record in records).encode())
        return records


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a run's log, up to a line that a killed run has left half written. No file: no records."""
    records: list[dict[str, Any]] = []
    try:
        lines = read_text(path, limit=MAX_LOG_BYTES).splitlines()
    except FileNotFoundError:
        return records
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    for line in lines:
        try:
            record = parse_json(line)
        except ValueError:
            break
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            break
        records.append(record)
    return records


def recorded_workers(folder: str | os.PathLike[str]) -> int | None:
    """How many workers the run in a folder has, None if there is no run or it does not say: resuming needs as many."""
    run = RunFolder(folder)
    if not run.description.exists():
        return None
    description = run.read_description()
    recipe = description.get("recipe") if isinstance(description, dict) else None
    workers = recipe.get("workers") if isinstance(recipe, dict) else None
    return workers if type(workers) is int and workers >= 1 else None


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock until it is closed; None where the system or the file system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise TrainingError(
                f"{folder}: another process trains in this folder: wait for it, stop it, or choose another folder"
            ) from None
        return None
    return descriptor


def _differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """What differs between two JSON values, as texts."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = dict.fromkeys([*expected, *found])
        return [text for name in names for text in _differences(found.get(name), expected.get(name), f"{path}.{name}")]
    return [] if found == expected else [f"{path[1:]}: found {shown(found)}, expected {shown(expected)}"]
