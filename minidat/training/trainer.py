"""A training run: epochs, validation, a log, and checkpoints from which it goes on as if nothing had happened.

A run lives in a folder (see `run_folder`). Step n takes its images from a permutation seeded with (seed, epoch), its
random numbers from generators seeded with (seed, n, part) or (seed, epoch, image). Arithmetic is cut into the same
pieces for any number of threads. So a run that is killed and resumed, on a computer with another number of cores, does
the same arithmetic as one that is not: the same bits.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from ..catalog import config_to_dict, create_model, family_of
from ..checkpoints import load_npz, save_npz
from ..data.augmentation import Augmentation
from ..data.box_augmentation import BoxAugmentation
from ..data.datasets import ArrayDataset
from ..data.detection_dataset import DetectionDataset
from ..data.label_augmentation import LabelAugmentation
from ..data.segmentation_dataset import SegmentationDataset
from ..detection import DetectorConfig
from ..errors import CheckpointError, ConfigError, TrainingError
from ..models import ModelConfig
from ..runtime.threads import one_blas_thread
from ..segmentation import SegmentorConfig
from .averaging import ExponentialMovingAverage
from .classification import ClassificationTask, checksum
from .dense import DetectionTask, SegmentationTask
from .optimizer import AdamW, clip_gradients, decay_names
from .recipe import Recipe
from .run_folder import RunFolder, read_log
from .tasks import Part, Task
from .workers import GradientWorkers

LOG_STEPS = 50  # steps that one line of the log sums up
CHECKPOINT_SECONDS = 120  # what a killed run may have to do again
WEIGHTS = "weights."  # prefix of the weights in checkpoint.npz, beside those of the optimizer and of the average
RECENT = "recent"  # what the next line of the log will sum up

# Each kind of model, with its task, its data and its augmentation.
TASKS: tuple[tuple[Any, Any, Any, Any], ...] = (
    (ModelConfig, ClassificationTask, ArrayDataset, Augmentation),
    (DetectorConfig, DetectionTask, DetectionDataset, BoxAugmentation),
    (SegmentorConfig, SegmentationTask, SegmentationDataset, LabelAugmentation),
)


@dataclass(frozen=True)
class Progress:
    """What `train` tells after each step.

    step: how many have been done; steps: of so many; epoch: the same in epochs; epochs: of so many; ends_epoch: whether
    this one is now complete; loss: the mean over the last LOG_STEPS steps or fewer; accuracy: the share of hits there,
    on augmented images, None unless classifying; images_per_second: since this process took up the run; figure: what
    validation is about, "accuracy", "AP" or "mIoU"; validation: its last value, None before the first.
    """

    step: int
    steps: int
    epoch: float
    epochs: int
    ends_epoch: bool
    loss: float
    accuracy: float | None
    images_per_second: float
    figure: str
    validation: float | None


def train(
    config: Any,
    training: Any,
    validation: Any,
    recipe: Recipe,
    folder: str | PathLike[str],
    *,
    initial: Mapping[str, np.ndarray] | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Any:
    """Train a model; returns it with the averaged weights, which `folder`/weights.npz holds too.

    config: a classifier's, a detector's or a segmentor's; training, validation: an ArrayDataset each (of
    `config.image_size`), a DetectionDataset or a SegmentationDataset, with the same classes; recipe: with the
    augmentation that fits (see `default_recipe`). folder: is made, and keeps the run. initial: weights to begin with,
    by name, such as another model's `state_dict()` or `backbone_weights`; what is not among them is drawn at random
    (all, without it). resume: go on with the run in the folder, if there is one; it must have the same config, recipe,
    data and initial weights. progress: called after each step. Ctrl-C ends the current step and saves.

    Processes are started for `recipe.workers` above 1: a program that calls this needs `if __name__ == "__main__":`.
    Raises TrainingError if the folder holds a run and `resume` is not set, or another run, if another process trains in
    it, and if the loss stops being a finite number (the last good checkpoint remains); ConfigError for data that do not
    fit; KeyboardInterrupt after Ctrl-C or SIGTERM; MinidatError if a file cannot be written, such as on a full disk
    (the old one remains).
    """
    task = make_task(config, training, validation, recipe)
    run = _Run(task, recipe, RunFolder(folder), initial or {})
    with run.folder.locked(), one_blas_thread():  # also outside of our operators: their number must not show in results
        first_step = run.start(resume)
        workers = GradientWorkers(run.model, task.objective, workers=recipe.workers, seed=recipe.seed)
        with workers, _interrupts() as interrupted:
            run.train(workers, first_step, interrupted, progress)
    run.average.copy_to(run.model)
    return run.model


def make_task(config: Any, training: Any, validation: Any, recipe: Recipe) -> Task:
    """What there is to learn from these data. Raises ConfigError for data or a recipe that do not fit the model."""
    family_of(config)
    task, data, augmentation = next(row[1:] for row in TASKS if isinstance(config, row[0]))
    for dataset in (training, validation):
        if not isinstance(dataset, data):
            raise ConfigError(
                f"{config.name}: found data of the kind {type(dataset).__name__}, expected {data.__name__}, which "
                f"this model learns from"
            )
        if len(dataset.classes) != config.num_classes or dataset.classes != training.classes:
            raise ConfigError(
                f"{dataset.name}: found {len(dataset.classes)} classes, expected the model's {config.num_classes}, "
                "the same for training and validation"
            )
        if len(dataset) == 0:
            raise ConfigError(f"{dataset.name}: found no images, expected some")
    if not isinstance(recipe.augmentation, augmentation):
        raise ConfigError(
            f"recipe: augmentation: found {type(recipe.augmentation).__name__}, expected {augmentation.__name__} for "
            f"{config.name}"
        )
    made: Task = task(config, training, validation, recipe)
    if recipe.batch > len(made):
        raise ConfigError(f"recipe: batch: found {recipe.batch}, expected at most {len(made)}, the training images")
    return made


class _Run:
    """The state of a run."""

    def __init__(self, task: Task, recipe: Recipe, folder: RunFolder, initial: Mapping[str, np.ndarray]) -> None:
        self.task, self.recipe, self.folder, self.initial = task, recipe, folder, initial
        self.model = create_model(task.config, seed=recipe.seed)
        self.model.load_state_dict({**self.model.state_dict(), **initial})
        self.model.labels = list(task.classes)
        parameters = dict(self.model.named_parameters())
        self.optimizer = AdamW(parameters, decay=decay_names(self.model), weight_decay=recipe.weight_decay)
        self.average = ExponentialMovingAverage(dict(self.model.named_state()), decay=recipe.average_decay)
        self.epoch_steps = len(task) // recipe.batch  # images beyond the last whole batch wait for another epoch
        self.steps = recipe.epochs * self.epoch_steps
        self.recent: list[tuple[Part, float]] = []  # the last steps' losses and gradient norms
        self.validation: float | None = None

    def start(self, resume: bool) -> int:
        """Begin the run, or load what the folder holds. Returns the number of steps that have been done."""
        if not self.folder.begin(self._description(), resume=resume):
            return 0
        steps = self._load() if self.folder.checkpoint.exists() else 0
        records = self.folder.cut_log(steps)
        found = [record[f"validation_{self.task.figure}"] for record in records if self._is_validation(record)]
        self.validation = found[-1] if found else None
        if steps == self.steps:  # all is done, but for files that may have been lost since
            self._save_weights()
            self._draw()
        return steps

    def train(
        self,
        workers: GradientWorkers,
        first_step: int,
        interrupted: Callable[[], bool],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Steps first_step + 1 ... self.steps."""
        started = saved = logged = time.perf_counter()
        for step in range(first_step, self.steps):
            self.recent = [*self.recent[-LOG_STEPS + 1 :], self._step(workers, step)]
            done, now = step + 1, time.perf_counter()
            if done % LOG_STEPS == 0 or done == self.steps:
                speed = min(done - first_step, LOG_STEPS) * self.recipe.batch / (now - logged)
                self._log_training(done, speed)
                logged = now
            if done % self.epoch_steps == 0:
                self._end_epoch(done)
            if interrupted() or now - saved > CHECKPOINT_SECONDS or done % self.epoch_steps == 0:
                self._save()
                saved = time.perf_counter()
            if progress is not None:
                speed = (done - first_step) * self.recipe.batch / (time.perf_counter() - started)
                progress(self._progress(done, speed))
            if interrupted() and done < self.steps:
                raise KeyboardInterrupt(
                    f"interrupted after step {done} of {self.steps}, which {self.folder.checkpoint} holds"
                )

    def _step(self, workers: GradientWorkers, step: int) -> tuple[Part, float]:
        """One step of the optimizer; what the batch gave, and the norm of its gradient before clipping."""
        part = workers.gradients(step, self._items(step))
        norm = clip_gradients((parameter for _, parameter in self.model.named_parameters()), self.recipe.clip_norm)
        if not (math.isfinite(part.loss) and math.isfinite(norm)):
            checkpoint = self.folder.checkpoint
            kept = f"{checkpoint} is the last good state" if checkpoint.exists() else "nothing was saved yet"
            raise TrainingError(
                f"step {step + 1}: the loss is {part.loss / part.images:.4g}, the gradient's norm {norm:.4g}, "
                f"expected finite numbers: the run has diverged; {kept}; begin another run with a lower learning rate"
            )
        self.optimizer.step(self.recipe.rate(step, self.epoch_steps))
        self.average.update()
        return part, norm

    def _items(self, step: int) -> list[Any]:
        """The images of a step."""
        epoch, place = divmod(step, self.epoch_steps)
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.task))
        return self.task.items(order[place * self.recipe.batch : (place + 1) * self.recipe.batch], epoch)

    def _end_epoch(self, step: int) -> None:
        epoch = step // self.epoch_steps
        if epoch % self.recipe.validation_epochs and step < self.steps:
            return
        with self.average.swap():
            figures = self.task.validate(self.model)
        self.validation = figures[self.task.figure]
        self._save_weights()
        self.folder.append(
            {"step": step, "epoch": epoch, **{f"validation_{name}": value for name, value in figures.items()}}
        )
        self._draw()

    # --- what is told

    def _means(self) -> tuple[float, dict[str, float], float | None]:
        """The loss, its terms and the share of hits over the recent steps."""
        images = sum(part.images for part, _ in self.recent)
        parts = [part for part, _ in self.recent]
        terms = {name: sum(part.losses[name] for part in parts) / images for name in parts[0].losses}
        hits = [part.correct for part in parts if part.correct is not None]
        return sum(part.loss for part in parts) / images, terms, sum(hits) / images if hits else None

    def _log_training(self, step: int, speed: float) -> None:
        loss, terms, accuracy = self._means()
        record: dict[str, Any] = {"step": step, "epoch": round(step / self.epoch_steps, 4), "loss": loss}
        if len(terms) > 1:
            record |= {f"loss_{name}": value for name, value in terms.items()}
        if accuracy is not None:
            record["accuracy"] = accuracy
        self.folder.append(
            {
                **record,
                "learning_rate": self.recipe.rate(step - 1, self.epoch_steps),
                "gradient_norm": sum(norm for _, norm in self.recent) / len(self.recent),
                "images_per_second": round(speed, 1),
            }
        )

    def _progress(self, step: int, speed: float) -> Progress:
        loss, _, accuracy = self._means()
        return Progress(
            step=step,
            steps=self.steps,
            epoch=step / self.epoch_steps,
            epochs=self.recipe.epochs,
            ends_epoch=step % self.epoch_steps == 0,
            loss=loss,
            accuracy=accuracy,
            images_per_second=speed,
            figure=self.task.figure,
            validation=self.validation,
        )

    def _is_validation(self, record: dict[str, Any]) -> bool:
        return isinstance(record.get(f"validation_{self.task.figure}"), int | float)

    def _draw(self) -> None:
        from ..evaluation import save_picture
        from ..visualization import draw_learning_curve

        if records := read_log(self.folder.log):
            save_picture(draw_learning_curve(records), self.folder.curve)

    # --- what is kept

    def _description(self) -> dict[str, Any]:
        described: dict[str, Any] = {
            "model": config_to_dict(self.task.config),
            "recipe": dataclasses.asdict(self.recipe),
            "classes": list(self.task.classes),
            **self.task.fingerprint(),
        }
        if self.initial:
            described["initial_weights"] = checksum(*(self.initial[name] for name in sorted(self.initial)))
        return json.loads(json.dumps(described))  # with lists for tuples, as it will be read

    def _save_weights(self) -> None:
        with self.average.swap():
            save_npz(self.folder.weights, self.model.state_dict(), self.task.config, self.model.labels)

    def _save(self) -> None:
        weights = {WEIGHTS + name: value for name, value in self.model.state_dict().items()}
        state = weights | self.optimizer.state_dict() | self.average.state_dict()
        if broken := [name for name, value in state.items() if not np.isfinite(value).all()]:
            raise TrainingError(f"{broken[0]} has values that are not finite: the run has diverged; it is not saved")
        state[RECENT] = _packed(self.recent)
        save_npz(self.folder.checkpoint, state, self.task.config, self.model.labels)

    def _load(self) -> int:
        found = load_npz(self.folder.checkpoint)
        parts: list[dict[str, np.ndarray]] = [{}, {}, {}]
        optimizer = self.optimizer.state_dict()
        recent = found.state.pop(RECENT, None)
        for name, value in found.state.items():
            if name.startswith(WEIGHTS):
                parts[0][name.removeprefix(WEIGHTS)] = value
            else:
                parts[1 if name in optimizer else 2][name] = value
        try:
            self.model.load_state_dict(parts[0])
            self.optimizer.load_state_dict(parts[1])
            self.average.load_state_dict(parts[2])
            self.recent = _unpacked(recent)
            steps = self.optimizer.steps
            if not 0 <= steps <= self.steps:
                raise CheckpointError(f"steps: found {steps}, expected 0 to {self.steps}")
            if self.average.updates != steps:
                raise CheckpointError(f"updates: found {self.average.updates}, expected {steps}, as many as steps")
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder.checkpoint}: {error}") from None
        return steps


def _packed(recent: list[tuple[Part, float]]) -> np.ndarray:
    """The recent steps as the bytes of a JSON text, (n,) uint8: numbers keep all their digits in it."""
    rows = [[part.images, part.losses, part.correct, norm] for part, norm in recent]
    return np.frombuffer(json.dumps(rows).encode(), np.uint8)


def _unpacked(content: np.ndarray | None) -> list[tuple[Part, float]]:
    """The inverse of `_packed`. Raises CheckpointError for anything else."""
    try:
        if content is None or content.dtype != np.uint8:
            raise ValueError
        rows = json.loads(content.tobytes())
        recent = [(Part(images, losses, correct), norm) for images, losses, correct, norm in rows]
        for part, norm in recent:
            if not math.isfinite(part.images + part.loss + (part.correct or 0) + norm) or part.images < 1:
                raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        raise CheckpointError(f"{RECENT}: found no list of steps, expected that of a training run") from None
    return recent


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
