"""Which boxes a head is trained on: all would be far too many, and nearly all of them background."""

from __future__ import annotations

import numpy as np

from ..nn import Context
from .assignment import BACKGROUND


def sample(
    assigned: np.ndarray, count: int, positive_fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw positives up to their share of `count`, then negatives to fill up: two sorted arrays of indices.

    assigned: (n,) the object each box is to find, or BACKGROUND or IGNORED. Where there are few positives, more
    negatives come; where there are few of both, the sample is smaller.
    Source: Faster R-CNN (arXiv 1506.01497), section 3.1.3.
    """
    positives = _draw(np.flatnonzero(assigned >= 0), int(count * positive_fraction), rng)
    negatives = _draw(np.flatnonzero(assigned == BACKGROUND), count - len(positives), rng)
    return positives, negatives


def _draw(candidates: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most that many of the candidates, in order."""
    return candidates if len(candidates) <= most else np.sort(rng.choice(candidates, most, replace=False))


def generator(context: Context) -> np.random.Generator:
    """The context's random generator; without one, always the same sample is drawn."""
    return np.random.default_rng(0) if context.rng is None else context.rng
