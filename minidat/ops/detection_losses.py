"""The losses that detectors are trained with. Each is a sum: what to divide by is the detector's choice."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check
from .boxes import box_giou


def focal_loss(
    logits: np.ndarray, *, labels: np.ndarray, weights: np.ndarray, alpha: float = 0.25, gamma: float = 2.0
) -> tuple[np.ndarray, Any]:
    """Binary cross entropy of each class, which counts little where the answer is right already.

    FL = -a (1 - p)^gamma log p, p being the probability of the right answer: sigmoid(logit) for the object's class,
    where a = alpha, and 1 - sigmoid(logit) for the others, where a = 1 - alpha. The output is the sum over all classes
    and rows, each row times its weight. The label K, which is no class, is the background: every answer is no.
    logits: (N, K), labels: (N,) integers in [0, K], weights: (N,) -> output: (), in the dtype of the logits.
    Raises ShapeError for other shapes. Source: arXiv 1708.02002, Eq. 5.
    """
    check(logits.ndim == 2, "focal_loss", "shape of logits", logits.shape, "(N, K)")
    check(labels.shape == logits.shape[:1], "focal_loss", "shape of labels", labels.shape, logits.shape[:1])
    check(weights.shape == labels.shape, "focal_loss", "shape of weights", weights.shape, labels.shape)
    right = labels[:, None] == np.arange(logits.shape[1])  # (N, K): the answer is yes
    sign = np.where(right, -1, 1).astype(logits.dtype)
    z = sign * logits  # q = sigmoid(z) is the probability of the wrong answer, p = 1 - q
    small = np.exp(-np.abs(z))  # cannot overflow
    q = np.where(z >= 0, 1, small) / (1 + small)
    entropy = np.maximum(z, 0) + np.log1p(small)  # -log p
    scale = np.where(right, alpha, 1 - alpha).astype(logits.dtype) * weights[:, None].astype(logits.dtype)
    output = (scale * q**gamma * entropy).sum()

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        # dq/dz = q (1 - q) and d(-log p)/dz = q
        d_z = scale * q**gamma * (gamma * (1 - q) * entropy + q)
        return (float(d_output) * sign * d_z,)

    return output, backward


def l1_loss(x: np.ndarray, *, targets: np.ndarray) -> tuple[np.ndarray, Any]:
    """The sum of the distances: output = sum |x - targets|. The derivative at 0 is taken as 0.

    x: (...), targets: (...), the same shape -> output: (). Raises ShapeError for different shapes.
    Source: torch.nn.functional.l1_loss; RetinaNet's boxes.
    """
    check(x.shape == targets.shape, "l1_loss", "shape of targets", targets.shape, x.shape)
    difference = x - targets.astype(x.dtype)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (float(d_output) * np.sign(difference),)

    return np.abs(difference).sum(), backward


def smooth_l1_loss(x: np.ndarray, *, targets: np.ndarray, beta: float = 1.0) -> tuple[np.ndarray, Any]:
    """As `l1_loss`, but a parabola near 0: the sum of d^2 / (2 beta) where d = |x - targets| < beta, else d - beta / 2.

    x: (...), targets: (...), the same shape -> output: (). Raises ShapeError for different shapes.
    Source: Fast R-CNN (arXiv 1504.08083), Eq. 3; torch.nn.functional.smooth_l1_loss.
    """
    check(x.shape == targets.shape, "smooth_l1_loss", "shape of targets", targets.shape, x.shape)
    difference = x - targets.astype(x.dtype)
    distance = np.abs(difference)
    output = np.where(distance < beta, distance**2 / (2 * beta), distance - beta / 2).sum()

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        return (float(d_output) * (difference / beta).clip(-1, 1),)

    return output, backward


def giou_loss(boxes: np.ndarray, *, targets: np.ndarray) -> tuple[np.ndarray, Any]:
    """The sum of 1 - GIoU of each box with its target.

    boxes: (N, 4), targets: (N, 4) -> output: (). Raises ShapeError for different shapes.
    Source: arXiv 1902.09630, Algorithm 2.
    """
    check(boxes.shape == targets.shape, "giou_loss", "shape of targets", targets.shape, boxes.shape)
    giou, giou_backward = box_giou(boxes, targets.astype(boxes.dtype))

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_boxes, _ = giou_backward(np.full(giou.shape, -float(d_output), giou.dtype))
        return (d_boxes,)

    return (1 - giou).sum(), backward
