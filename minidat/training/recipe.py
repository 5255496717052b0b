"""How to train, as data: what a JSON file may say, and what the authors did for each kind of model."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

from ..data.augmentation import Augmentation
from ..data.box_augmentation import BoxAugmentation
from ..data.label_augmentation import LabelAugmentation
from ..detection.config import DetectorConfig
from ..errors import ConfigError, shown
from ..models import ModelConfig
from ..segmentation import SegmentorConfig
from .schedule import learning_rate, polynomial_rate, step_rate

SCHEDULES = ("cosine", "polynomial", "step")
MOST = 10**6  # epochs, and images a step
LARGEST_NUMBER = 2.0**63  # in a recipe: more is a mistake, or means harm
JSON_TYPES: dict[str, tuple[type, ...]] = {  # what JSON may hold for a field of a recipe
    "int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "None": (type(None),),
    "tuple[float, float]": (list,), "tuple[int, int]": (list,), "tuple[int, ...]": (list,),
    "tuple[float, ...]": (list,), "Augmentation": (dict,), "BoxAugmentation": (dict,), "LabelAugmentation": (dict,),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are the authors' for classifiers, but for the number of epochs and the batch.

    epochs: passes through the training images; batch: images a step; learning_rate: the highest one; schedule: how it
    goes from there, "cosine" (`learning_rate`), "polynomial" (`polynomial_rate`) or "step" (`step_rate`); milestones:
    of the last one, shares of the run after which the rate is divided by 10; minimum_learning_rate: the last rate of
    the other two; warmup_epochs: in which the rate grows in a line, at most half of the run; weight_decay: of the
    weights in `decay_names`, see `AdamW`; clip_norm: the gradient of all weights together is shortened to at most this
    length (`clip_gradients`); average_decay: of the average of the weights that a run ends with, near 1 for a long
    memory (`ExponentialMovingAverage`); augmentation: of the kind that fits the model; validation_epochs: how many
    epochs lie between two validations, the last epoch always ends with one; seed: of the weights and of all that is
    random; workers: processes that share each batch (another number sums up in another order, and so gives other last
    digits). Raises ConfigError for settings out of range.
    """

    epochs: int = 100
    batch: int = 128
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (8 / 12, 11 / 12)
    minimum_learning_rate: float = 1e-5
    warmup_epochs: float = 5
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    average_decay: float = 0.999
    augmentation: Augmentation | BoxAugmentation | LabelAugmentation = field(default_factory=Augmentation)
    validation_epochs: int = 1
    seed: int = 0
    workers: int = 1

    @staticmethod
    def from_dict(data: dict[str, Any], default: Recipe) -> Recipe:
        """`default` with some fields replaced, as JSON has them (`augmentation` is an object of its own fields).

        Raises ConfigError for unknown fields and for values of another type than the default's.
        """
        changes = _typed(data, default, "recipe")
        if "augmentation" in changes:
            inner = _typed(changes["augmentation"], default.augmentation, "recipe: augmentation")
            changes["augmentation"] = dataclasses.replace(default.augmentation, **inner)
        return dataclasses.replace(default, **changes)

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("epochs", 1 <= self.epochs <= MOST, f"1 to {MOST:,}"),
            ("batch", 1 <= self.batch <= MOST, f"1 to {MOST:,}"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("milestones", all(0 < share <= 1 for share in self.milestones), "shares of the run, above 0 and up to 1"),
            ("minimum_learning_rate", 0 <= self.minimum_learning_rate <= self.learning_rate, "0 to the learning rate"),
            ("warmup_epochs", 0 <= self.warmup_epochs < math.inf, "at least 0"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("clip_norm", self.clip_norm > 0, "a number above 0"),
            ("average_decay", 0 <= self.average_decay < 1, "a number in [0, 1)"),
            ("validation_epochs", self.validation_epochs >= 1, "at least 1"),
            ("seed", 0 <= self.seed < 2**63, "0 to 2^63 - 1"),
            ("workers", 1 <= self.workers <= self.batch, "1 to the number of images in a batch"),
        ):
            if not fits:
                raise ConfigError(f"recipe: {name}: found {shown(getattr(self, name))}, expected {expected}")

    def rate(self, step: int, epoch_steps: int) -> float:
        """The learning rate of step 0, 1, ... of a run whose epochs have `epoch_steps` steps."""
        run: dict[str, Any] = {
            "steps": self.epochs * epoch_steps,
            "warmup_steps": round(min(self.warmup_epochs, self.epochs / 2) * epoch_steps),
            "base": self.learning_rate,
        }
        if self.schedule == "step":
            return step_rate(step, milestones=self.milestones, **run)
        falling = learning_rate if self.schedule == "cosine" else polynomial_rate
        return falling(step, minimum=self.minimum_learning_rate, **run)


def default_recipe(config: Any, **changes: Any) -> Recipe:
    """The authors' recipe for a model with this config, for runs on one computer; `changes`: fields that differ.

    Detectors: 12 epochs in batches of 16, the rate divided by 10 after 8 and 11 of them; pictures are resized as
    `config.resize_size` says. Segmentors: a rate that falls in a line, crops of `config.image_size`. Both are small
    batches, with rates to match.
    """
    if isinstance(config, ModelConfig):
        return Recipe(**changes)
    if isinstance(config, DetectorConfig):
        longest, shortest = config.resize_size
        settings: dict[str, Any] = {
            "epochs": 12, "batch": 16, "learning_rate": 1e-4, "schedule": "step", "minimum_learning_rate": 0.0,
            "warmup_epochs": 0.5, "augmentation": BoxAugmentation(crop=None, shortest=(shortest,), longest=longest),
        }  # fmt: skip
    else:
        assert isinstance(config, SegmentorConfig)
        settings = {
            "epochs": 100, "batch": 16, "learning_rate": 6e-5, "schedule": "polynomial", "minimum_learning_rate": 0.0,
            "warmup_epochs": 1, "weight_decay": 0.01,
            "augmentation": LabelAugmentation(scale=config.resize_size, crop=config.image_size),
        }  # fmt: skip
    return Recipe(**{**settings, **changes})


def _typed(data: Any, default: Any, what: str) -> dict[str, Any]:
    """A copy of `data`, if its names are fields of the dataclass `default` and its values could be theirs."""
    if not isinstance(data, dict):
        raise ConfigError(f"{what}: found {shown(data)}, expected an object with fields")
    fields = {field.name: str(field.type) for field in dataclasses.fields(default)}
    for name, value in data.items():
        if name not in fields:
            raise ConfigError(f"{what}: found the field {shown(name)}, expected some of {', '.join(fields)}")
        if not _could_be(value, fields[name]):
            raise ConfigError(f"{what}: {name}: found {shown(value)}, expected {fields[name]}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def _could_be(value: Any, annotation: str) -> bool:
    """Whether a value that JSON brought fits the annotation of a field."""
    types = annotation.split(" | ")
    if type(value) not in itertools.chain(*(JSON_TYPES[name] for name in types)):
        return False
    if isinstance(value, list):
        items = next(name for name in types if name.startswith("tuple[")).removeprefix("tuple[").removesuffix("]")
        if "..." not in items and len(value) != len(items.split(", ")):
            return False
        return all(_could_be(item, items.split(", ")[0]) for item in value)
    return not isinstance(value, int | float) or abs(value) <= LARGEST_NUMBER
