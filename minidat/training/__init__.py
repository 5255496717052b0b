"""Training: what turns gradients into better weights."""

from .averaging import ExponentialMovingAverage
from .display import show_progress
from .optimizer import AdamW, clip_gradients, decay_names
from .schedule import learning_rate
from .trainer import Progress, Recipe, read_log, train

__all__ = [
    "AdamW",
    "ExponentialMovingAverage",
    "Progress",
    "Recipe",
    "clip_gradients",
    "decay_names",
    "learning_rate",
    "read_log",
    "show_progress",
    "train",
]
