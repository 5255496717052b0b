"""The sum that closes a branch, with its factors, in one pass shared among threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops._shapes import check
from ..runtime.threads import chunked, empty

GRAIN = 262144  # numbers to add that are worth waking a thread for


def residual(x: np.ndarray, branch: np.ndarray, factors: np.ndarray | None) -> tuple[np.ndarray, Any]:
    """`ops.residual`."""
    check(branch.shape == x.shape, "residual", "branch", branch.shape, x.shape)
    channels = x.shape[-1]
    rows, branch_rows = x.reshape(-1, channels), branch.reshape(-1, channels)
    output = empty(rows.shape, x.dtype)

    def work(part: slice) -> None:
        term = branch_rows[part] if factors is None else np.multiply(branch_rows[part], factors, out=output[part])
        np.add(rows[part], term, out=output[part])

    chunked(work, *rows.shape, grain=GRAIN)
    if factors is None:
        return output.reshape(x.shape), lambda d_output: (d_output, d_output, None)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        d_factors = np.einsum("nc,nc->c", d_output.reshape(-1, channels), branch_rows)
        return d_output, d_output * factors, d_factors

    return output.reshape(x.shape), backward
