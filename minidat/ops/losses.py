"""The loss a classifier is trained with, of whole images and of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check


def cross_entropy(logits: np.ndarray, *, targets: np.ndarray, label_smoothing: float = 0.0) -> tuple[np.ndarray, Any]:
    """The mean over the batch of -sum_k q_k log softmax(logits)_k, q being the smoothed targets.

    q = (1 - s) targets + s / K with s = label_smoothing, in [0, 1]; a label stands for the probability 1 of its class.
    The logarithm is taken of shifted logits, so that no finite logit overflows.
    logits: (B, K), targets: (B,) integers in [0, K) or (B, K) probabilities -> output: (), in the dtype of the logits.
    Raises ShapeError for targets of another shape or a label out of range.
    Source: torch.nn.functional.cross_entropy; label smoothing: arXiv 1512.00567, section 7.
    """
    fits = logits.ndim == 2 and len(logits) > 0
    check(fits, "cross_entropy", "shape of logits", logits.shape, "(B, K), B > 0")
    batch, classes = logits.shape
    probabilities = _probabilities(targets, batch, classes, logits.dtype)
    # q: (B, K)
    probabilities = probabilities * (1 - label_smoothing) + label_smoothing / classes
    log_softmax = logits - logits.max(axis=1, keepdims=True)
    log_softmax -= np.log(np.exp(log_softmax).sum(axis=1, keepdims=True))
    output = -(probabilities * log_softmax).sum() / batch

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        # d_logits = (softmax sum(q) - q) / B; the sum is 1 unless targets are weighted
        total = probabilities.sum(axis=1, keepdims=True)
        d_logits = np.exp(log_softmax) * total - probabilities
        return (d_logits * (float(d_output) / batch),)

    return output, backward


def pixel_cross_entropy(
    logits: np.ndarray, *, labels: np.ndarray, ignored: int | None = 255, class_weights: tuple[float, ...] = ()
) -> tuple[np.ndarray, Any]:
    """The mean over all pixels of -w_label log softmax(logits)_label, which is 0 where the label is `ignored`.

    class_weights: w, K numbers that make rare classes count more, or () for 1 everywhere.

    Ignored pixels count in the mean, as in mmsegmentation (avg_non_ignore=False): a map half ignored has half the loss.
    logits: (B, H, W, K), labels: (B, H, W) integers in [0, K) or `ignored` -> output: (), in the dtype of the logits.
    Raises ShapeError for labels of another shape or out of range, or weights that are not K. Source: arXiv 1411.4038,
    section 4; weights: torch.nn.functional.cross_entropy.
    """
    check_pixel_labels(logits, labels, ignored, class_weights)
    counted, classes = labels != ignored, logits.shape[-1]
    targets = np.where(counted, labels, 0)[..., None].astype(np.intp)  # (B, H, W, 1)
    of_classes = np.array(class_weights or [1] * classes, logits.dtype)
    weights = of_classes[targets] * counted[..., None]  # (B, H, W, 1)
    log_softmax = logits - logits.max(axis=-1, keepdims=True)
    log_softmax -= np.log(np.exp(log_softmax).sum(axis=-1, keepdims=True))
    picked = np.take_along_axis(log_softmax, targets, axis=-1)
    output = -(weights * picked).sum() / labels.size

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_logits = np.exp(log_softmax)  # w (softmax - one-hot) at the pixels that count
        one_less = np.take_along_axis(d_logits, targets, axis=-1) - 1
        np.put_along_axis(d_logits, targets, one_less, axis=-1)
        return (d_logits * (weights * d_logits.dtype.type(float(d_output) / labels.size)),)

    return output, backward


def check_pixel_labels(
    logits: np.ndarray, labels: np.ndarray, ignored: int | None, class_weights: tuple[float, ...]
) -> None:
    op = "pixel_cross_entropy"
    check(logits.ndim == 4 and logits.size > 0, op, "logits", logits.shape, "(B, H, W, K), none 0")
    check(labels.shape == logits.shape[:3], op, "labels", labels.shape, logits.shape[:3])
    classes = logits.shape[-1]
    check(len(class_weights) in (0, classes), op, "number of class_weights", len(class_weights), f"0 or {classes}")
    wrong = labels[(labels != ignored) & ((labels < 0) | (labels >= classes))]
    check(wrong.size == 0, op, "labels", wrong[:1], f"0 to {classes - 1}, or {ignored}")


def _probabilities(targets: np.ndarray, batch: int, classes: int, dtype: np.dtype) -> np.ndarray:
    """Labels as rows of zeros and a one; probabilities as they are."""
    if targets.dtype.kind not in "iu":
        check(targets.shape == (batch, classes), "cross_entropy", "shape of targets", targets.shape, (batch, classes))
        return targets.astype(dtype, copy=False)
    check(targets.shape == (batch,), "cross_entropy", "shape of labels", targets.shape, (batch,))
    in_range = targets.min() >= 0 and targets.max() < classes
    check(bool(in_range), "cross_entropy", "labels", f"{targets.min()} to {targets.max()}", f"0 to {classes - 1}")
    one_hot = np.zeros((batch, classes), dtype)
    one_hot[np.arange(batch), targets] = 1
    return one_hot
