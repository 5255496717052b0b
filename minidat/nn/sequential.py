"""A row of modules, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..runtime.parts import by_images
from .module import Backward, Context, Module


def run_in_order(modules: Sequence[Module], x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
    """x: (B, H, W, C) through `modules`, which keep its shape; backward goes through them in reverse.

    Where nothing is kept, the runtime may take some images through all of the modules before the others.
    """
    if not (context.gradients or context.training or context.traces or context.plain):
        return by_images(lambda images: _run(modules, images, context)[0], x), None  # type: ignore[return-value]
    return _run(modules, x, context)


def _run(modules: Sequence[Module], x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
    backwards = []
    for module in modules:
        x, module_backward = module.forward(x, context)
        if context.gradients:
            backwards.append(module_backward)

    def backward(d_x: np.ndarray) -> np.ndarray:
        for module_backward in reversed(backwards):
            d_x = module_backward(d_x)
        return d_x

    return x, backward
