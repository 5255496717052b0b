"""Steps on lists of maps that heads are made of. Each returns its result and a backward from list to list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import ops
from ..nn import Backward, Context, Module

Maps = list[np.ndarray]


def apply_each(modules: Sequence[Module], maps: Sequence[np.ndarray], context: Context) -> tuple[Maps, Backward]:
    """Every map through the module of its own."""
    outputs, backwards = [], []
    for module, x in zip(modules, maps, strict=True):
        output, module_backward = module.forward(x, context)
        outputs.append(output)
        backwards.append(module_backward)

    def backward(d_outputs: Maps) -> Maps:
        return [module_backward(d) for module_backward, d in zip(backwards, d_outputs, strict=True)]

    return outputs, backward


def resize_each(maps: Sequence[np.ndarray], size: tuple[int, int], context: Context) -> tuple[Maps, Backward]:
    """Every map (B, H, W, C) to one size, bilinear."""
    outputs, backwards = [], []
    for x in maps:
        output, resize_backward = context.apply(ops.resize, x, size=size)
        outputs.append(output)
        backwards.append(resize_backward)

    def backward(d_outputs: Maps) -> Maps:
        return [resize_backward(d) for resize_backward, d in zip(backwards, d_outputs, strict=True)]

    return outputs, backward


def concatenate(maps: Sequence[np.ndarray]) -> tuple[np.ndarray, Backward]:
    """Maps (B, H, W, C_i) of one size side by side -> (B, H, W, sum of C_i)."""
    bounds = np.cumsum([x.shape[-1] for x in maps])[:-1]

    def backward(d_output: np.ndarray) -> Maps:
        return np.split(d_output, bounds, axis=-1)

    return np.concatenate(maps, axis=-1), backward
