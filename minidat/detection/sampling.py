"""Which boxes a head is trained on: all would be far too many, and nearly all of them background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """count: boxes an image; positive_fraction: at most this share of them holds an object."""

    count: int
    positive_fraction: float


def sample(assigned: np.ndarray, sampling: Sampling, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw positives up to their share, then negatives to fill up: two sorted arrays of indices.

    assigned: (n,) the object each box is to find, -1 for background, -2 for neither. Where there are few positives,
    more negatives come; where there are few of both, the sample is smaller.
    Source: Faster R-CNN (arXiv 1506.01497), section 3.1.3.
    """
    positives = _draw(np.flatnonzero(assigned >= 0), int(sampling.count * sampling.positive_fraction), rng)
    negatives = _draw(np.flatnonzero(assigned == -1), sampling.count - len(positives), rng)
    return positives, negatives


def _draw(candidates: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most that many of the candidates, in order."""
    return candidates if len(candidates) <= most else np.sort(rng.choice(candidates, most, replace=False))
