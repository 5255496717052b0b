"""Taking a large map a few tokens at a time, where nothing has to be kept for a backward pass.

What does not look at its neighbours (a window, a token of an MLP) is worked on in small parts, each by one thread from
its first operator to its last: the numbers in between never leave the core's cache, and threads meet once, not at every
operator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..ops._threads import in_parts

PART_FLOATS = 786432  # of the widest array in between
FEWEST_TOKENS = 192  # below, a matrix product is faster when threads share its columns


def infer_in_parts(function: Callable[[slice], np.ndarray], x: np.ndarray, width: int) -> np.ndarray:
    """Put together what function(part) returns for slices `part` of the first axis of x: an array of the shape of x.

    x: (N, ..., dim); `width`: numbers a token has in between, at the widest.
    """
    tokens_each = x[0].size // x.shape[-1]
    fewest = -(-FEWEST_TOKENS // tokens_each)
    output = np.empty(x.shape, x.dtype)

    def work(part: slice) -> None:
        output[part] = function(part)

    in_parts(work, len(x), step=max(2 * fewest, PART_FLOATS // (tokens_each * width)), grain=fewest)
    return output
