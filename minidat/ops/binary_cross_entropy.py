"""The loss of a yes or no at every entry: the pixels of a mask, an anchor that holds an object."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check


def binary_cross_entropy(logits: np.ndarray, *, targets: np.ndarray) -> tuple[np.ndarray, Any]:
    """The sum of -(t log p + (1 - t) log(1 - p)) over all entries, where p = sigmoid(logit).

    Computed as max(l, 0) - l t + log(1 + e^-|l|), which no finite logit overflows.
    logits: (...), targets: the same shape (...), numbers in [0, 1] or booleans -> output: (), in the dtype of the
    logits. Raises ShapeError for targets of another shape.
    Source: torch.nn.functional.binary_cross_entropy_with_logits; the loss of Mask R-CNN's masks (section 3).
    """
    check(targets.shape == logits.shape, "binary_cross_entropy", "shape of targets", targets.shape, logits.shape)
    targets = targets.astype(logits.dtype)
    small = np.exp(-np.abs(logits))  # e^-|l|
    output = (np.maximum(logits, 0) - logits * targets + np.log1p(small)).sum()

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        probabilities = np.where(logits >= 0, 1, small) / (1 + small)  # the sigmoid
        return ((probabilities - targets) * float(d_output),)

    return output, backward
