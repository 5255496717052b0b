"""binary_cross_entropy against PyTorch and finite differences."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ShapeError
from minidat.ops import binary_cross_entropy

from .checks import check_against_torch, check_finite_differences
from .strategies import arrays, seeds, shapes


def torch_binary_cross_entropy(logits: torch.Tensor, *, targets: np.ndarray) -> torch.Tensor:
    wanted = torch.tensor(targets.astype(np.float64))
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")


@st.composite
def binary_cases(draw: st.DrawFn) -> tuple[list[np.ndarray], dict[str, Any]]:
    logits = draw(shapes().flatmap(arrays))
    rng = np.random.default_rng(draw(seeds()))
    targets = rng.random(logits.shape)
    return [logits], {"targets": targets < 0.5 if draw(st.booleans()) else targets}


@given(binary_cases(), st.sampled_from([1.0, 1e3, 1e30]))
def test_binary_cross_entropy(case: tuple[list[np.ndarray], dict[str, Any]], factor: float) -> None:
    inputs, settings = case
    check_against_torch(binary_cross_entropy, [inputs[0] * factor], settings, torch_binary_cross_entropy)
    if factor == 1:
        check_finite_differences(binary_cross_entropy, inputs, settings)


def test_binary_cross_entropy_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"binary_cross_entropy: shape of targets: found \(2,\), expected \(2, 3\)"):
        binary_cross_entropy(np.zeros((2, 3)), targets=np.zeros(2))
