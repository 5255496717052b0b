"""Chapter 13: one step of AdamW."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(numbers: Numbers, *, weights: int, step: int) -> dict[str, Any]:
    return {
        "weight": numbers.normal(weights),
        "gradient": numbers.normal(weights),
        "mean": numbers.normal(weights) / 2,
        "square": numbers.positive(weights) / 2,
        "step": step,
        "learning_rate": 0.1,
        "weight_decay": 0.5,
        "beta1": 0.9,
        "beta2": 0.99,
        "eps": 0.01,
    }


def update(
    weight: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    *,
    step: int,
    learning_rate: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    eps: float,
    correct_mean: bool = True,
    correct_square: bool = True,
    decay: str = "decoupled",
    eps_inside: bool = False,
    root: bool = True,
    sign: int = -1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step (arXiv 1711.05101, algorithm 2; as `minidat.training.AdamW`), with the ways to go wrong as settings."""
    if decay == "gradient":
        gradient = gradient + weight_decay * weight
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    corrected_mean = mean / (1 - beta1**step) if correct_mean else mean
    corrected_square = square / (1 - beta2**step) if correct_square else square
    if root:
        size = np.sqrt(corrected_square + eps) if eps_inside else np.sqrt(corrected_square) + eps
    else:
        size = corrected_square + eps
    shrink = {"decoupled": learning_rate * weight_decay, "without rate": weight_decay}.get(decay, 0.0)
    return weight * (1 - shrink) + sign * learning_rate * corrected_mean / size, mean, square


def with_change(**change: Any) -> Callable[..., np.ndarray]:
    """The weight after a step that goes wrong in one way."""

    @wraps(update)
    def new_weight(**arguments: Any) -> np.ndarray:
        return update(**arguments, **change)[0]

    return new_weight


EXERCISE = Exercise(
    chapter="13-training",
    functions=(
        Function(
            name="adamw_step",
            hints=Hints(
                where="Which of the three results does each formula of the task change? The running means are returned "
                "plain; what is corrected is for this step only. Make new arrays: `mean = beta1 * mean` does, `mean *= "
                "beta1` changes the caller's.",
                idea="Update mean and square, correct copies of both, let the weight shrink, then step. The decay does "
                "not pass through the means: that is the W in AdamW.",
                formula="    new_weight = weight - learning_rate * weight_decay * weight\n"
                "                 - learning_rate * (new_mean / (1 - beta1**step))\n"
                "                 / (np.sqrt(new_square / (1 - beta2**step)) + eps)",
            ),
            sizes={"weights": (1, 2, 3), "step": (1, 2, 3)},
            case=case,
            reference=update,
            outputs=("new_weight", "new_mean", "new_square"),
            mistakes=(
                Mistake(
                    "new_weight", "the weight decay goes through the gradient (that is Adam with L2): in AdamW it "
                    "shrinks the weight directly, by learning_rate * weight_decay of itself",
                    with_change(decay="gradient"),
                ),
                Mistake("new_weight", "the weight decay is missing", with_change(decay="none")),
                Mistake(
                    "new_weight", "the weight decay is not multiplied by the learning rate",
                    with_change(decay="without rate"),
                ),
                Mistake(
                    "new_weight", "the bias corrections are missing: divide the mean by 1 - beta1^step, the square by "
                    "1 - beta2^step",
                    with_change(correct_mean=False, correct_square=False),
                ),
                Mistake(
                    "new_weight", "the bias correction of the mean, 1 - beta1^step, is missing",
                    with_change(correct_mean=False),
                ),
                Mistake(
                    "new_weight", "the bias correction of the square, 1 - beta2^step, is missing",
                    with_change(correct_square=False),
                ),
                Mistake(
                    "new_weight", "eps is inside the square root: it is added to the root",
                    with_change(eps_inside=True),
                ),
                Mistake("new_weight", "the square root is missing", with_change(root=False)),
                Mistake("new_weight", "the step goes uphill: it should be subtracted", with_change(sign=1)),
                Mistake(
                    "new_mean", "beta1 and 1 - beta1 are exchanged: most of the old mean stays",
                    lambda gradient, mean, beta1: (1 - beta1) * mean + beta1 * gradient,
                ),
                Mistake(
                    "new_mean", "beta2 stands where beta1 should",
                    lambda gradient, mean, beta2: beta2 * mean + (1 - beta2) * gradient,
                ),
                Mistake(
                    "new_mean", "the mean is returned with its bias correction: that is for this step only, keep the "
                    "plain mean",
                    lambda gradient, mean, beta1, step: (beta1 * mean + (1 - beta1) * gradient) / (1 - beta1**step),
                ),
                Mistake(
                    "new_mean", "the weight decay goes through the gradient (that is Adam with L2): in AdamW it "
                    "shrinks the weight directly",
                    lambda weight, gradient, mean, beta1, weight_decay: beta1 * mean
                    + (1 - beta1) * (gradient + weight_decay * weight),
                ),
                Mistake(
                    "new_square", "the gradient is not squared",
                    lambda gradient, square, beta2: beta2 * square + (1 - beta2) * gradient,
                ),
                Mistake(
                    "new_square", "beta2 and 1 - beta2 are exchanged: most of the old square stays",
                    lambda gradient, square, beta2: (1 - beta2) * square + beta2 * gradient**2,
                ),
                Mistake(
                    "new_square", "beta1 stands where beta2 should",
                    lambda gradient, square, beta1: beta1 * square + (1 - beta1) * gradient**2,
                ),
            ),
        ),
    ),
)  # fmt: skip
