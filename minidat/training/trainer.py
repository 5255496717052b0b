"""A training run: epochs, validation, a log, and checkpoints from which it goes on as if nothing had happened.

A run lives in a folder:

    run.json            model, recipe and a fingerprint of the data: what the result depends on
    log.jsonl           one JSON object a line: the training loss every LOG_STEPS steps, the validation every epoch
    checkpoint.npz      all that the next step needs: weights, their average, the optimizer's moments
    weights.npz         the averaged weights after the last complete epoch, as `load_model` reads them
    learning_curve.png  the log as a picture

Step n takes its images from a permutation seeded with (seed, epoch), its random numbers from generators seeded with
(seed, n, part). So a run that is killed and resumed does the same arithmetic as one that is not: the same bits.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import ops
from ..checkpoints import load_npz, save_npz
from ..data.augmentation import Augmentation
from ..data.datasets import ArrayDataset
from ..data.image import preprocess_batch
from ..errors import CheckpointError, ConfigError, TrainingError, shown
from ..files.atomic import writing
from ..files.reading import parse_json, read_json, read_text
from ..models import DAT, ModelConfig, create_model
from .averaging import ExponentialMovingAverage
from .optimizer import AdamW, clip_gradients, decay_names
from .schedule import learning_rate
from .workers import GradientWorkers, Part

LOG_STEPS = 50  # steps that one line of the log sums up
CHECKPOINT_SECONDS = 120  # what a killed run may have to do again
VALIDATION_BATCH = 250
JSON_TYPES: dict[str, tuple[type, ...]] = {  # what JSON may hold for a field of a recipe
    "int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "None": (type(None),),
    "tuple[float, float]": (list,), "Augmentation": (dict,),
}  # fmt: skip
MOST = 10**6  # epochs, and images a step
LARGEST_NUMBER = 2.0**63  # in a recipe: more is a mistake, or means harm
MAX_LOG_BYTES = 256 << 20
WEIGHTS = "weights."  # prefix of the weights in checkpoint.npz, beside those of the optimizer and of the average


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are the authors', but for the number of epochs and the batch (1024 images on 8 GPUs).

    epochs; batch: images a step; learning_rate: the highest one, which the authors choose as 5e-4 batch / 512;
    minimum_learning_rate: the last one; warmup_epochs: see `learning_rate`; weight_decay: see `AdamW`; clip_norm: see
    `clip_gradients`; average_decay: see `ExponentialMovingAverage`; augmentation: see `Augmentation`; seed: of the
    weights and of all that is random; workers: processes that share each batch (another number sums up in another
    order, and so gives other last digits). Raises ConfigError for settings out of range.
    """

    epochs: int = 100
    batch: int = 128
    learning_rate: float = 1e-3
    minimum_learning_rate: float = 1e-5
    warmup_epochs: float = 5
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    average_decay: float = 0.999
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    workers: int = 1

    @staticmethod
    def from_dict(data: dict[str, Any], default: Recipe) -> Recipe:
        """`default` with some fields replaced, as JSON has them (`augmentation` is an object of its own fields).

        Raises ConfigError for unknown fields and for values of another type than the default's.
        """
        changes = _typed(data, default, "recipe")
        if "augmentation" in changes:
            changes["augmentation"] = dataclasses.replace(
                default.augmentation, **_typed(changes["augmentation"], Augmentation(), "recipe: augmentation")
            )
        return dataclasses.replace(default, **changes)

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("epochs", 1 <= self.epochs <= MOST, f"1 to {MOST:,}"),
            ("batch", 1 <= self.batch <= MOST, f"1 to {MOST:,}"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("minimum_learning_rate", 0 <= self.minimum_learning_rate <= self.learning_rate, "0 to the learning rate"),
            ("warmup_epochs", 0 <= self.warmup_epochs <= self.epochs, "0 to the number of epochs"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("clip_norm", self.clip_norm > 0, "a number above 0"),
            ("average_decay", 0 <= self.average_decay < 1, "a number in [0, 1)"),
            ("seed", 0 <= self.seed < 2**63, "0 to 2^63 - 1"),
            ("workers", 1 <= self.workers <= self.batch, "1 to the number of images in a batch"),
        ):
            if not fits:
                raise ConfigError(f"recipe: {name}: found {shown(getattr(self, name))}, expected {expected}")


@dataclass(frozen=True)
class Progress:
    """What `train` tells after each step.

    step: how many of the `steps` have been done; epoch: in the same way, of `epochs`; ends_epoch: whether this one is
    now complete; loss, accuracy (share of hits): means over the last LOG_STEPS steps or fewer, on augmented images;
    images_per_second: since this process took up the run; validation_accuracy: the last one, None before it.
    """

    step: int
    steps: int
    epoch: float
    epochs: int
    ends_epoch: bool
    loss: float
    accuracy: float
    images_per_second: float
    validation_accuracy: float | None


def train(
    config: ModelConfig,
    training: ArrayDataset,
    validation: ArrayDataset,
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    initial: Mapping[str, np.ndarray] | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> DAT:
    """Train a model; returns it with the averaged weights, which `folder`/weights.npz holds too.

    training, validation: images of `config.image_size` and their labels, with the same classes. folder: is made, and
    keeps the run (see the top of this file). initial: weights to begin with, by parameter, such as another model's
    `state_dict()`; what is not among them is drawn at random (all, without it). resume: go on with the run in the
    folder, if there is one; it must have the same config, recipe, data and initial weights. progress: called after each
    step. Ctrl-C ends the current step and saves.

    Processes are started for `recipe.workers` above 1: a program that calls this needs `if __name__ == "__main__":`.
    Raises TrainingError if the folder holds a run and `resume` is not set, or another run, and if the loss stops being
    a finite number (the last good checkpoint remains); ConfigError for data that do not fit; KeyboardInterrupt after
    Ctrl-C or SIGTERM; MinidatError if a file cannot be written, such as on a full disk (the old one remains).
    """
    _check_data(config, training, validation, recipe)
    run = _Run(config, training, validation, recipe, Path(folder), initial or {})
    first_step = run.start(resume)
    with (
        GradientWorkers(run.model, recipe.augmentation, workers=recipe.workers, seed=recipe.seed) as workers,
        _interrupts() as interrupted,
    ):
        run.train(workers, first_step, interrupted, progress)
    run.average.copy_to(run.model)
    return run.model


class _Run:
    """The state of a run and its files."""

    def __init__(
        self,
        config: ModelConfig,
        training: ArrayDataset,
        validation: ArrayDataset,
        recipe: Recipe,
        folder: Path,
        initial: Mapping[str, np.ndarray],
    ) -> None:
        self.config, self.recipe, self.folder = config, recipe, folder
        self.training, self.validation = training, validation
        self.initial = initial
        self.model = create_model(config, seed=recipe.seed)
        self.model.load_state_dict({**self.model.state_dict(), **initial})
        self.model.labels = list(training.classes)
        parameters = dict(self.model.named_parameters())
        self.optimizer = AdamW(parameters, decay=decay_names(self.model), weight_decay=recipe.weight_decay)
        self.average = ExponentialMovingAverage(parameters, decay=recipe.average_decay)
        self.epoch_steps = len(training) // recipe.batch  # images beyond the last whole batch wait for another epoch
        self.steps = recipe.epochs * self.epoch_steps
        self.validation_accuracy: float | None = None

    def start(self, resume: bool) -> int:
        """Make the folder, or load what it holds. Returns the number of steps that have been done."""
        description, known = self._description(), self.folder / "run.json"
        if not known.exists():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TrainingError(f"{self.folder}: cannot be made: {error.strerror or error}") from None
            _write(known, json.dumps(description, indent=2) + "\n")
            return 0
        if not resume:
            raise TrainingError(f"{self.folder}: holds a run already: resume it, or choose another folder")
        found = read_json(known, TrainingError)
        if differences := _differences(found, description):
            raise TrainingError(f"{known}: describes another run: {'; '.join(differences)}; choose another folder")
        steps = self._load() if self.checkpoint.exists() else 0
        _write(self.log, "".join(json.dumps(record) + "\n" for record in read_log(self.log) if record["step"] <= steps))
        return steps

    def train(
        self,
        workers: GradientWorkers,
        first_step: int,
        interrupted: Callable[[], bool],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Steps first_step + 1 ... self.steps."""
        recent: list[Part] = []
        norms: list[float] = []
        started = saved = logged = time.perf_counter()
        for step in range(first_step, self.steps):
            part, norm = self._step(workers, step)
            recent, norms = [*recent[-LOG_STEPS + 1 :], part], [*norms[-LOG_STEPS + 1 :], norm]
            done, now = step + 1, time.perf_counter()
            images = len(recent) * self.recipe.batch
            loss, accuracy = sum(part.loss for part in recent) / images, sum(part.correct for part in recent) / images
            if done % LOG_STEPS == 0 or done == self.steps:
                self._log(
                    step=done,
                    epoch=round(done / self.epoch_steps, 4),
                    loss=loss,
                    accuracy=accuracy,
                    learning_rate=self._learning_rate(step),
                    gradient_norm=sum(norms) / len(norms),
                    images_per_second=round(min(done - first_step, LOG_STEPS) * self.recipe.batch / (now - logged), 1),
                )
                logged = now
            if done % self.epoch_steps == 0:
                self._end_epoch(done)
            if interrupted() or now - saved > CHECKPOINT_SECONDS or done % self.epoch_steps == 0:
                self._save()
                saved = time.perf_counter()
            if progress is not None:
                speed = (done - first_step) * self.recipe.batch / (time.perf_counter() - started)
                progress(
                    Progress(
                        step=done,
                        steps=self.steps,
                        epoch=done / self.epoch_steps,
                        epochs=self.recipe.epochs,
                        ends_epoch=done % self.epoch_steps == 0,
                        loss=loss,
                        accuracy=accuracy,
                        images_per_second=speed,
                        validation_accuracy=self.validation_accuracy,
                    )
                )
            if interrupted() and done < self.steps:
                raise KeyboardInterrupt(f"interrupted after step {done} of {self.steps}, which {self.checkpoint} holds")

    def _step(self, workers: GradientWorkers, step: int) -> tuple[Part, float]:
        """One step of the optimizer; what the batch gave, and the norm of its gradient before clipping."""
        indices = self._batch(step)
        part = workers.gradients(step, self.training.images[indices], self.training.labels[indices])
        norm = clip_gradients((parameter for _, parameter in self.model.named_parameters()), self.recipe.clip_norm)
        if not (math.isfinite(part.loss) and math.isfinite(norm)):
            kept = f"{self.checkpoint} is the last good state" if self.checkpoint.exists() else "nothing was saved yet"
            raise TrainingError(
                f"step {step + 1}: the loss is {part.loss / len(indices):.4g}, the gradient's norm {norm:.4g}, "
                f"expected finite numbers: the run has diverged; {kept}; begin another run with a lower learning rate"
            )
        self.optimizer.step(self._learning_rate(step))
        self.average.update()
        return part, norm

    def _batch(self, step: int) -> np.ndarray:
        """Indices of the images of a step."""
        epoch, place = divmod(step, self.epoch_steps)
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.training))
        return order[place * self.recipe.batch : (place + 1) * self.recipe.batch]

    def _learning_rate(self, step: int) -> float:
        return learning_rate(
            step,
            steps=self.steps,
            warmup_steps=round(self.recipe.warmup_epochs * self.epoch_steps),
            base=self.recipe.learning_rate,
            minimum=self.recipe.minimum_learning_rate,
        )

    def _end_epoch(self, step: int) -> None:
        with self.average.swap():
            loss, accuracy = validate(self.model, self.validation)
            save_npz(self.folder / "weights.npz", self.model.state_dict(), self.config, self.model.labels)
        self.validation_accuracy = accuracy
        self._log(step=step, epoch=step // self.epoch_steps, validation_loss=loss, validation_accuracy=accuracy)
        self._draw()

    def _draw(self) -> None:
        from ..evaluation import save_picture
        from ..visualization import draw_learning_curve

        save_picture(draw_learning_curve(read_log(self.log)), self.folder / "learning_curve.png")

    # --- files

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.npz"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    def _description(self) -> dict[str, Any]:
        recipe = dataclasses.asdict(self.recipe)
        data = {
            name: _fingerprint(part) for name, part in (("training", self.training), ("validation", self.validation))
        }
        described: dict[str, Any] = {
            "model": self.config.to_dict(),
            "recipe": recipe,
            "classes": list(self.training.classes),
            **data,
        }
        if self.initial:
            described["initial_weights"] = _checksum(*(self.initial[name] for name in sorted(self.initial)))
        return json.loads(json.dumps(described))  # with lists for tuples, as it will be read

    def _state(self) -> dict[str, np.ndarray]:
        weights = {WEIGHTS + name: value for name, value in self.model.state_dict().items()}
        return weights | self.optimizer.state_dict() | self.average.state_dict()

    def _save(self) -> None:
        state = self._state()
        if broken := [name for name, value in state.items() if not np.isfinite(value).all()]:
            raise TrainingError(f"{broken[0]} has values that are not finite: the run has diverged; it is not saved")
        save_npz(self.checkpoint, state, self.config, self.model.labels)

    def _load(self) -> int:
        found = load_npz(self.checkpoint)
        parts: list[dict[str, np.ndarray]] = [{}, {}, {}]
        optimizer = self.optimizer.state_dict()
        for name, value in found.state.items():
            if name.startswith(WEIGHTS):
                parts[0][name.removeprefix(WEIGHTS)] = value
            else:
                parts[1 if name in optimizer else 2][name] = value
        try:
            self.model.load_state_dict(parts[0])
            self.optimizer.load_state_dict(parts[1])
            self.average.load_state_dict(parts[2])
        except CheckpointError as error:
            raise CheckpointError(f"{self.checkpoint}: {error}") from None
        for name, count in (("steps", self.optimizer.steps), ("updates", self.average.updates)):
            if not 0 <= count <= self.steps:
                raise CheckpointError(f"{self.checkpoint}: {name}: found {count}, expected 0 to {self.steps}")
        return self.optimizer.steps

    def _log(self, **record: Any) -> None:
        try:
            with open(self.log, "a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise TrainingError(f"{self.log}: cannot be written: {error.strerror or error}") from None


def validate(model: DAT, dataset: ArrayDataset) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (share of hits) of a model on images whose classes are its own, in its order."""
    loss, correct = 0.0, 0
    for start in range(0, len(dataset), VALIDATION_BATCH):
        part = slice(start, start + VALIDATION_BATCH)
        labels = dataset.labels[part]
        logits = model(preprocess_batch(dataset.images[part], model.config))
        loss += float(ops.cross_entropy(logits, targets=labels)[0]) * len(labels)
        correct += int((logits.argmax(axis=1) == labels).sum())
    return loss / len(dataset), correct / len(dataset)


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
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            break
        records.append(record)
    return records


def _typed(data: Any, default: Any, what: str) -> dict[str, Any]:
    """A copy of `data`, if its names are fields of the dataclass `default` and its values could be theirs."""
    if not isinstance(data, dict):
        raise ConfigError(f"{what}: found {shown(data)}, expected an object with fields")
    fields = {field.name: str(field.type) for field in dataclasses.fields(default)}
    for name, value in data.items():
        if name not in fields:
            raise ConfigError(f"{what}: found the field {shown(name)}, expected some of {', '.join(fields)}")
        accepted = [JSON_TYPES[part] for part in fields[name].split(" | ")]
        numbers = value if isinstance(value, list) else [value] if isinstance(value, int | float) else []
        if type(value) not in itertools.chain(*accepted) or not all(map(_is_number, numbers)):
            raise ConfigError(f"{what}: {name}: found {shown(value)}, expected {fields[name]}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    return isinstance(value, int | float) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def _check_data(config: ModelConfig, training: ArrayDataset, validation: ArrayDataset, recipe: Recipe) -> None:
    for dataset in (training, validation):
        if dataset.images.shape[1:3] != config.image_size:
            raise ConfigError(
                f"{dataset.name}: found images of {dataset.images.shape[1:3]} pixels, expected {config.image_size}, "
                "the model's own (height, width)"
            )
        if len(dataset.classes) != config.num_classes or dataset.classes != training.classes:
            raise ConfigError(
                f"{dataset.name}: found {len(dataset.classes)} classes, expected the model's {config.num_classes}, "
                "the same for training and validation"
            )
        if len(dataset) == 0:
            raise ConfigError(f"{dataset.name}: found no images, expected some")
    if recipe.batch > len(training):
        raise ConfigError(f"recipe: batch: found {recipe.batch}, expected at most {len(training)}, the training images")


def _fingerprint(dataset: ArrayDataset) -> dict[str, int]:
    return {"images": len(dataset), "checksum": _checksum(dataset.images, dataset.labels)}


def _checksum(*arrays: np.ndarray) -> int:
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(array.tobytes(), checksum)
    return checksum


def _differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """What differs between two JSON values, as texts."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = dict.fromkeys([*expected, *found])
        return [text for name in names for text in _differences(found.get(name), expected.get(name), f"{path}.{name}")]
    return [] if found == expected else [f"{path[1:]}: found {shown(found)}, expected {shown(expected)}"]


def _write(path: Path, text: str) -> None:
    with writing(path, TrainingError) as file:
        file.write(text.encode())


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM only raise a flag inside this block, which the yielded function tells; a second one stops."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():  # where signals cannot be set
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
