# minidat exercise: attention
"""Exercise: attention (chapter 4, docs/pages/tutorial/04-attention.md). Write the forward and the backward.

    scores = scale * query key^T                (heads, Q, K)
    p      = softmax(scores), over the keys     (heads, Q, K)
    output = p value                            (heads, Q, d)

for each head on its own.

Check it with: minidat grade examples/exercises/attention.py
Stuck? Add --hint 1 (where to look), --hint 2 (the idea) or --hint 3 (the formula).
"""

from collections.abc import Callable

import numpy as np

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]


def attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, *, scale: float
) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    """query (heads, Q, d), key (heads, K, d), value (heads, K, d) -> output (heads, Q, d), backward.

    backward: d_output (heads, Q, d) -> d_query, d_key, d_value, each of its argument's shape.
    """
    raise NotImplementedError
