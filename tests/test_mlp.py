"""The perceptrons and the residual sum against PyTorch and finite differences."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from minidat.errors import ShapeError
from minidat.ops import convolutional_mlp, local_perception, mlp, residual

from .checks import check_against_torch, check_finite_differences
from .test_kernels import Case, convolutional_perceptrons, perceptions, perceptrons, residuals


def torch_local_perception(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    maps = x.permute(0, 3, 1, 2)
    return (maps + F.conv2d(maps, weight, bias, padding="same", groups=len(weight))).permute(0, 2, 3, 1)


def torch_mlp(x: torch.Tensor, *layers: torch.Tensor) -> torch.Tensor:
    h = F.linear(x, *layers[:2])
    if len(layers) == 6:
        h = torch_local_perception(h, *layers[2:4])
    return F.linear(F.gelu(h), *layers[-2:])


@given(perceptrons())
def test_mlp(case: Case) -> None:
    check_against_torch(mlp, case[0], {}, torch_mlp)
    check_finite_differences(mlp, case[0], {}, directions=1)


@given(convolutional_perceptrons())
def test_convolutional_mlp(case: Case) -> None:
    check_against_torch(convolutional_mlp, case[0], {}, torch_mlp, float32_relative=3e-5)
    check_finite_differences(convolutional_mlp, case[0], {}, directions=1)


@given(perceptions())
def test_local_perception(case: Case) -> None:
    check_against_torch(local_perception, case[0], {}, torch_local_perception)
    check_finite_differences(local_perception, case[0], {}, directions=1)


@given(residuals())
def test_residual(case: Case) -> None:
    def torch_residual(x: torch.Tensor, branch: torch.Tensor, factors: torch.Tensor | None, **_: Any) -> torch.Tensor:
        return x + (branch if factors is None else branch * factors)

    check_against_torch(residual, case[0], {}, torch_residual)
    check_finite_differences(residual, case[0], {})


def test_what_does_not_fit_is_named() -> None:
    x = np.zeros((1, 4, 4, 2))
    with pytest.raises(ShapeError, match=r"local_perception: kernel: found 2, expected an odd number"):
        local_perception(x, np.zeros((2, 1, 2, 2)), np.zeros(2))
    with pytest.raises(ShapeError, match=r"residual: branch: found \(1, 4, 4, 3\), expected \(1, 4, 4, 2\)"):
        residual(x, np.zeros((1, 4, 4, 3)), None)
    with pytest.raises(ShapeError, match="linear: last axis of x"):
        mlp(x, np.zeros((5, 3)), np.zeros(5), np.zeros((2, 5)), np.zeros(2))
