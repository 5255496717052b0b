# minidat exercise: attention
"""Exercise: attention (chapter 4, docs/pages/tutorial/04-attention.md). Write the forward and the backward.

    scores = scale * query key^T                (heads, Q, K)
    p      = softmax(scores), over the keys     (heads, Q, K)
    output = p value                            (heads, Q, d)

for each head on its own.

Hints
1. a @ b multiplies the last two axes and treats those in front as separate problems. x.swapaxes(-1, -2) transposes the
   last two.
2. Backward goes through the three lines from the last to the first. d_value and d_p come from the third, d_scores from
   d_p by the backward of softmax (the exercise before this one), d_query and d_key from d_scores by the first.
3. If c = a b is a product of matrices, then d_a = d_c b^T and d_b = a^T d_c.
4. Where does the scale go? It multiplies the scores, so it comes back once in d_query and once in d_key.

Check it with: minidat grade examples/exercises/attention.py
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
