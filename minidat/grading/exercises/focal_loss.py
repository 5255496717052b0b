"""Chapter 18: the focal loss of a detector, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(numbers: Numbers, *, rows: int, classes: int) -> dict[str, Any]:
    return {
        "logits": numbers.normal(rows, classes),
        "labels": numbers.rng.integers(0, classes + 1, rows),
        "alpha": 0.25,
        "gamma": 2.0 if numbers.simple else 1.5,
    }


def reference(
    logits: np.ndarray, labels: np.ndarray, *, alpha: float, gamma: float
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray]]]:
    return ops.focal_loss(logits, labels=labels, weights=np.ones(len(labels)), alpha=alpha, gamma=gamma)


def answers(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, K), whether the answer is yes."""
    return labels[:, None] == np.arange(logits.shape[1])


def right_probability(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return ops.sigmoid(np.where(answers(logits, labels), logits, -logits))[0]


def loss(
    logits: np.ndarray,
    labels: np.ndarray,
    alpha: float,
    gamma: float,
    *,
    p: np.ndarray | None = None,
    other_alpha: float | None = None,
    factor: Callable[[np.ndarray], np.ndarray] = lambda p: 1 - p,
    rows: int | np.ndarray = 1,
) -> np.ndarray:
    """The focal loss, with what may go wrong as settings: p, the a of the noes, the modulating factor, rows counted."""
    yes = answers(logits, labels)
    p = right_probability(logits, labels) if p is None else p
    a = np.where(yes, alpha, 1 - alpha if other_alpha is None else other_alpha)
    return (-a * factor(p) ** gamma * np.log(p) * rows).sum()


def softmax_probability(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    p = ops.softmax(logits)[0]
    return np.where(answers(logits, labels), p, 1 - p)


def d_logits(
    logits: np.ndarray, labels: np.ndarray, alpha: float, gamma: float, d_output: np.ndarray,
    *, factor: float = 1, entropy: float = 1, signed: bool = True, weighted: bool = True,
) -> np.ndarray:  # fmt: skip
    """The gradient with factors for the two terms of the product rule."""
    yes, p = answers(logits, labels), right_probability(logits, labels)
    slope = entropy * (1 - p) + factor * gamma * p * -np.log(p)  # of the loss, as the wrong answer's logit grows
    a = np.where(yes, alpha, 1 - alpha) if weighted else 1
    return d_output * np.where(yes & signed, -1, 1) * a * (1 - p) ** gamma * slope


def without_d_output(logits: np.ndarray, labels: np.ndarray, alpha: float, gamma: float) -> np.ndarray:
    return d_logits(logits, labels, alpha, gamma, np.ones(()))


SAME_SIGN = (
    "the sign is the same everywhere: where the answer is yes a larger logit raises p, where it is no it lowers p"
)

EXERCISE = Exercise(
    chapter="18-focal-loss",
    functions=(
        Function(
            name="focal_loss",
            hints=Hints(
                where="Every entry of the logits is a yes-or-no question of its own. For which entries is the answer "
                "yes? For each, what is the probability p of the right answer: sigmoid(logit), or 1 - sigmoid(logit)?",
                idea="1 - sigmoid(l) = sigmoid(-l): with z = l where the answer is yes and -l where it is no, p = "
                "sigmoid(z) everywhere. Then p is in two places of the loss, so the product rule gives two terms, and "
                "dp/dz = p (1 - p). The sign of z comes back once more at the end.",
                formula="with a = alpha or 1 - alpha, and s = 1 where the answer is yes, -1 where it is no,\n"
                "    p = sigmoid(s * logits)\n"
                "    output = sum of -a * (1 - p)**gamma * log(p)\n"
                "    d_logits = d_output * s * a * (1 - p)**gamma * (gamma * p * log(p) - (1 - p))",
            ),
            sizes={"rows": (1, 2, 3), "classes": (1, 2, 3)},
            case=case,
            reference=reference,
            gradients=("logits",),
            mistakes=(
                Mistake(
                    "output", "the factor (1 - p)^gamma is missing: this is the plain cross entropy, weighted by alpha",
                    lambda logits, labels, alpha: loss(logits, labels, alpha, 0.0),
                ),
                Mistake(
                    "output", "the factor is p^gamma: it should be (1 - p)^gamma, which is small where the answer is "
                    "right already",
                    lambda logits, labels, alpha, gamma: loss(logits, labels, alpha, gamma, factor=lambda p: p),
                ),
                Mistake(
                    "output", "gamma multiplies where it should be an exponent: (1 - p)^gamma",
                    lambda logits, labels, alpha, gamma: gamma * loss(logits, labels, alpha, 1.0),
                ),
                Mistake(
                    "output", "alpha weighs every entry: where the answer is no, the weight is 1 - alpha",
                    lambda logits, labels, alpha, gamma: loss(logits, labels, alpha, gamma, other_alpha=alpha),
                ),
                Mistake(
                    "output", "alpha and 1 - alpha are exchanged: alpha belongs to the object's class",
                    lambda logits, labels, alpha, gamma: loss(logits, labels, 1 - alpha, gamma),
                ),
                Mistake(
                    "output", "the weights alpha and 1 - alpha are missing",
                    lambda logits, labels, gamma: loss(logits, labels, 1.0, gamma, other_alpha=1.0),
                ),
                Mistake(
                    "output", "only the entry of the object's class counts: the other classes answer no, and count too",
                    lambda logits, labels, alpha, gamma: loss(logits, labels, alpha, gamma, other_alpha=0.0),
                ),
                Mistake(
                    "output", "rows of the background (label K) are left out: there every answer is no, and counts",
                    lambda logits, labels, alpha, gamma, classes: loss(
                        logits, labels, alpha, gamma, rows=(labels < classes)[:, None]),
                ),
                Mistake(
                    "output", "the background (label K) is taken for the last class: it is none, every answer is no",
                    lambda logits, labels, alpha, gamma, classes: loss(
                        logits, np.minimum(labels, classes - 1), alpha, gamma),
                ),
                Mistake(
                    "output", "a softmax over the classes stands where each entry has a sigmoid of its own",
                    lambda logits, labels, alpha, gamma: loss(
                        logits, labels, alpha, gamma, p=softmax_probability(logits, labels)),
                ),
                Mistake(
                    "output", "p is the sigmoid everywhere: where the answer is no, the probability of the right "
                    "answer is 1 - sigmoid(logit)",
                    lambda logits, labels, alpha, gamma: loss(
                        logits, labels, alpha, gamma, p=ops.sigmoid(logits)[0]),
                ),
                Mistake(
                    "d_logits", "the factor (1 - p)^gamma is taken for a constant: p is in it too, and the product "
                    "rule has two terms",
                    lambda logits, labels, alpha, gamma, d_output: d_logits(
                        logits, labels, alpha, gamma, d_output, factor=0),
                ),
                Mistake(
                    "d_logits", "only the factor (1 - p)^gamma is differentiated: p is in the logarithm too, and the "
                    "product rule has two terms",
                    lambda logits, labels, alpha, gamma, d_output: d_logits(
                        logits, labels, alpha, gamma, d_output, entropy=0),
                ),
                Mistake(
                    "d_logits", "a sign of the product rule is wrong: a larger p lowers both the factor and -log p",
                    lambda logits, labels, alpha, gamma, d_output: d_logits(
                        logits, labels, alpha, gamma, d_output, factor=-1),
                ),
                Mistake(
                    "d_logits", SAME_SIGN,
                    lambda logits, labels, alpha, gamma, d_output: d_logits(
                        logits, labels, alpha, gamma, d_output, signed=False),
                ),
                Mistake(
                    "d_logits", SAME_SIGN,
                    lambda logits, labels, alpha, gamma, d_output: d_logits(
                        logits, labels, alpha, gamma, -d_output, signed=False),
                ),
                Mistake(
                    "d_logits", "the weights alpha and 1 - alpha are missing",
                    lambda logits, labels, alpha, gamma, d_output: d_logits(
                        logits, labels, alpha, gamma, d_output, weighted=False),
                ),
                Mistake("d_logits", "the factor d_output is missing: the loss may be scaled later", without_d_output),
            ),
        ),
    ),
)  # fmt: skip
