"""Training: what turns gradients into better weights."""

from .averaging import ExponentialMovingAverage
from .optimizer import AdamW, clip_gradients, decay_names
from .schedule import learning_rate

__all__ = ["AdamW", "ExponentialMovingAverage", "clip_gradients", "decay_names", "learning_rate"]
