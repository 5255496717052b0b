"""Training: what turns gradients into better weights, for classifiers, detectors and segmentors."""

from .averaging import ExponentialMovingAverage
from .display import show_progress
from .optimizer import AdamW, clip_gradients, decay_names
from .recipe import Recipe, default_recipe
from .run_folder import read_log, recorded_workers
from .schedule import learning_rate, polynomial_rate, step_rate
from .starting import Start, backbone_weights, fitting_weights
from .trainer import Progress, train

__all__ = [
    "AdamW",
    "ExponentialMovingAverage",
    "Progress",
    "Recipe",
    "Start",
    "backbone_weights",
    "clip_gradients",
    "decay_names",
    "default_recipe",
    "fitting_weights",
    "learning_rate",
    "polynomial_rate",
    "read_log",
    "recorded_workers",
    "show_progress",
    "step_rate",
    "train",
]
