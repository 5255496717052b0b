# minidat exercise: focal_loss
"""Exercise: focal loss (chapter 18, docs/pages/tutorial/18-focal-loss.md). Write the forward and the backward.

A detector answers for each of N anchors and each of K classes: is this it? The label says which class is right; the
label K is the background, for which every answer is no. With p the probability of the right answer,

    p      = sigmoid(logit)        where the answer is yes,     1 - sigmoid(logit)   where it is no
    a      = alpha                 where the answer is yes,     1 - alpha            where it is no
    output = sum over all entries of  -a (1 - p)^gamma log(p)

The factor (1 - p)^gamma takes the weight from what is right already: nearly all of the anchors are background.

Check it with: minidat grade examples/exercises/focal_loss.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

from collections.abc import Callable

import numpy as np


def focal_loss(
    logits: np.ndarray, labels: np.ndarray, *, alpha: float, gamma: float
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray]]]:
    """logits (N, K), labels (N,) integers from 0 to K -> output, a single number, and backward.

    backward: d_output, a single number -> (d_logits,) with d_logits (N, K).
    """
    raise NotImplementedError
