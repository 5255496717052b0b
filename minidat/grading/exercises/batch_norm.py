"""Chapter 21: batch normalization in training, and what it remembers for inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers

SIZES = {"batch": (1, 2, 3), "height": (1, 2, 3), "width": (1, 2), "channels": (1, 2, 3)}


def norm_case(numbers: Numbers, *, batch: int, height: int, width: int, channels: int) -> dict[str, Any] | None:
    if batch * height * width < 2:
        return None
    return {
        "x": numbers.normal(batch, height, width, channels),
        "weight": numbers.normal(channels),
        "bias": numbers.normal(channels),
        "eps": 0.1 if numbers.simple else 1e-5,
    }


def statistics_case(numbers: Numbers, *, batch: int, height: int, width: int, channels: int) -> dict[str, Any] | None:
    if batch * height * width < 2:
        return None
    return {
        "x": numbers.normal(batch, height, width, channels),
        "mean": numbers.normal(channels),
        "variance": numbers.positive(channels),
        "momentum": 0.1,
    }


def normalize(
    x: np.ndarray, eps: float, *, axis: Any = (0, 1, 2), ddof: int = 0, outside: bool = False, root: bool = True
) -> np.ndarray:
    variance = x.var(axis=axis, ddof=ddof, keepdims=True)
    size = np.sqrt(variance) + eps if outside else np.sqrt(variance + eps) if root else variance + eps
    return (x - x.mean(axis=axis, keepdims=True)) / size


def wrong(**change: Any) -> Callable[..., np.ndarray]:
    """The output of a norm that goes wrong in one way."""

    def result(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
        return normalize(x, eps, **change) * weight + bias

    return result


def d_x(
    x: np.ndarray, g: np.ndarray, eps: float, *, mean: float = 1, projection: float = 1, divide: bool = True
) -> np.ndarray:
    """d_x of g = d_output * weight, with factors for its two subtracted terms."""
    normalized, axes = normalize(x, eps), (0, 1, 2)
    centered = g - mean * g.mean(axes) - projection * normalized * (g * normalized).mean(axes)
    return centered / np.sqrt(x.var(axes) + eps) if divide else centered


def d_x_of_images(x: np.ndarray, g: np.ndarray, eps: float) -> np.ndarray:
    """With the means of d_x over the pixels of each image alone."""
    normalized, axes = normalize(x, eps), (1, 2)
    mean, projection = (a.mean(axes, keepdims=True) for a in (g, g * normalized))
    return (g - mean - normalized * projection) / np.sqrt(x.var((0, 1, 2)) + eps)


def update(x: np.ndarray, mean: np.ndarray, variance: np.ndarray, *, momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """As `minidat.nn.BatchNorm` in training."""
    batch_mean, batch_variance = ops.batch_statistics(x)
    count = x.size // x.shape[-1]
    unbiased = batch_variance * count / (count - 1)
    return (1 - momentum) * mean + momentum * batch_mean, (1 - momentum) * variance + momentum * unbiased


def blend(old: np.ndarray, new: np.ndarray, momentum: float) -> np.ndarray:
    return (1 - momentum) * old + momentum * new


PIXELS = (0, 1, 2)
EXERCISE = Exercise(
    chapter="21-upernet",
    functions=(
        Function(
            name="batch_norm",
            hints=Hints(
                where="Which numbers have a mean and a variance in common: those of a pixel, of an image, of a "
                "channel? Over the same numbers every sum of the backward goes. One x acts on them in three ways.",
                idea="It is layer norm turned around: the same three terms, directly, through the mean and through the "
                "variance, but with means over batch, height and width for each channel. axis=(0, 1, 2) leaves an "
                "array (C,), which broadcasts as it is.",
                formula="with all means and sums over batch, height and width,\n"
                "    g = d_output * weight\n"
                "    d_x = (g - mean(g) - normalized * mean(g * normalized)) / std\n"
                "    d_weight = sum of d_output * normalized,   d_bias = sum of d_output",
            ),
            sizes=SIZES,
            case=norm_case,
            reference=ops.batch_norm,
            gradients=("x", "weight", "bias"),
            mistakes=(
                Mistake(
                    "output", "mean and variance are those of each pixel, over the channels (that is layer norm): here "
                    "each channel has them, over batch, height and width",
                    wrong(axis=-1),
                ),
                Mistake(
                    "output", "mean and variance are those of each image (that is instance norm): all images of the "
                    "batch count together",
                    wrong(axis=(1, 2)),
                ),
                Mistake(
                    "output", "mean and variance are those of all channels together: each channel has its own",
                    wrong(axis=None),
                ),
                Mistake(
                    "output", "mean and variance go over the batch alone: the pixels of a channel count together",
                    wrong(axis=0),
                ),
                Mistake(
                    "output", "the variance is divided by n - 1: to normalize with, it is divided by n",
                    wrong(ddof=1),
                ),
                Mistake(
                    "output", "eps is added to the standard deviation: it is added to the variance, under the root",
                    wrong(outside=True),
                ),
                Mistake("output", "the square root is missing: it is divided by std, not by the variance",
                        wrong(root=False)),
                Mistake(
                    "output", "weight and bias are missing",
                    lambda x, eps: normalize(x, eps),
                ),
                Mistake(
                    "d_x", "mean and variance are taken for constants, as in inference: in training both move with x, "
                    "and two terms are subtracted",
                    lambda x, weight, d_output, eps: d_x(x, d_output * weight, eps, mean=0, projection=0),
                ),
                Mistake(
                    "d_x", "the term mean(g) is missing: each x also moves the mean, which is subtracted everywhere",
                    lambda x, weight, d_output, eps: d_x(x, d_output * weight, eps, mean=0),
                ),
                Mistake(
                    "d_x", "the term normalized * mean(g * normalized) is missing: each x also changes the variance",
                    lambda x, weight, d_output, eps: d_x(x, d_output * weight, eps, projection=0),
                ),
                Mistake(
                    "d_x", "the weight is missing: the gradient of `normalized` is g = d_output * weight",
                    lambda x, d_output, eps: d_x(x, d_output, eps),
                ),
                Mistake(
                    "d_x", "the division by the standard deviation is missing",
                    lambda x, weight, d_output, eps: d_x(x, d_output * weight, eps, divide=False),
                ),
                Mistake(
                    "d_x", "sums stand where means should: both terms must be divided by batch * height * width",
                    lambda x, weight, d_output, eps, batch, height, width: d_x(
                        x, d_output * weight, eps, mean=batch * height * width, projection=batch * height * width),
                ),
                Mistake(
                    "d_x", "the means of the backward go over each image alone: they go over the whole batch, as those "
                    "of the forward",
                    lambda x, weight, d_output, eps: d_x_of_images(x, d_output * weight, eps),
                ),
                Mistake(
                    "d_weight", "d_weight is made of x: the weight multiplies the normalized numbers",
                    lambda x, d_output: (d_output * x).sum(PIXELS),
                ),
                Mistake(
                    "d_weight", "d_weight is a mean: it is the sum over batch, height and width",
                    lambda x, d_output, eps: (d_output * normalize(x, eps)).mean(PIXELS),
                ),
                Mistake(
                    "d_bias", "d_bias is a mean: it is the sum over batch, height and width",
                    lambda d_output: d_output.mean(PIXELS),
                ),
            ),
        ),
        Function(
            name="update_statistics",
            hints=Hints(
                where="What is kept of the old mean, and how much of the batch's is added? How many numbers has the "
                "batch in a channel?",
                idea="Both statistics move a little, by momentum, toward the batch's. For the variance that is the "
                "unbiased one, divided by n - 1 with n = B H W, since it should be right for pictures to come.",
                formula="    new_mean = (1 - momentum) * mean + momentum * x.mean(axis=(0, 1, 2))\n"
                "    new_variance = (1 - momentum) * variance + momentum * x.var(axis=(0, 1, 2), ddof=1)",
            ),
            sizes=SIZES,
            case=statistics_case,
            reference=update,
            outputs=("new_mean", "new_variance"),
            mistakes=(
                Mistake(
                    "new_mean", "momentum and 1 - momentum are exchanged: most of the old mean stays",
                    lambda x, mean, momentum: blend(mean, x.mean(PIXELS), 1 - momentum),
                ),
                Mistake(
                    "new_mean", "this is the batch's mean alone: the old one moves toward it by momentum",
                    lambda x: x.mean(PIXELS),
                ),
                Mistake(
                    "new_variance", "the variance is divided by n: what is remembered is the unbiased one, divided by "
                    "n - 1",
                    lambda x, variance, momentum: blend(variance, x.var(PIXELS), momentum),
                ),
                Mistake(
                    "new_variance", "momentum and 1 - momentum are exchanged: most of the old variance stays",
                    lambda x, variance, momentum: blend(variance, x.var(PIXELS, ddof=1), 1 - momentum),
                ),
                Mistake(
                    "new_variance", "momentum and 1 - momentum are exchanged, and the variance is divided by n: what "
                    "is remembered is the unbiased one, divided by n - 1",
                    lambda x, variance, momentum: blend(variance, x.var(PIXELS), 1 - momentum),
                ),
                Mistake(
                    "new_variance", "this is the batch's variance alone: the old one moves toward it by momentum",
                    lambda x: x.var(PIXELS, ddof=1),
                ),
                Mistake(
                    "new_variance", "the standard deviation stands where the variance should",
                    lambda x, variance, momentum: blend(variance, x.std(PIXELS, ddof=1), momentum),
                ),
            ),
        ),
    ),
)  # fmt: skip
