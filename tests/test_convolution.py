"""conv2d against PyTorch and finite differences: every kind that the models use, and any other."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from minidat.errors import ShapeError
from minidat.ops import conv2d

from .checks import check_adjoint, check_against_torch, check_finite_differences
from .strategies import convolutions, normal


def torch_conv2d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, **settings: Any) -> torch.Tensor:
    maps = x.permute(0, 3, 1, 2).contiguous()
    return torch.nn.functional.conv2d(maps, weight, bias, **settings).permute(0, 2, 3, 1)


@pytest.mark.parametrize("kind", ["general", "depthwise", "pointwise", "patches", "few pixels"])
def test_conv2d(kind: str) -> None:
    @given(convolutions(kind))
    def check(case: tuple[list[np.ndarray | None], dict[str, Any]]) -> None:
        inputs, settings = case
        check_against_torch(conv2d, inputs, settings, torch_conv2d)
        check_finite_differences(conv2d, inputs, settings, directions=1)
        check_adjoint(conv2d, [*inputs[:2], None], settings)

    check()


# batch, height, width, channels, outputs, kernel, stride, padding, groups
CASES_OF_THE_MODELS = {
    "patch embedding": (1, 12, 8, 3, 8, 4, 4, 0, 1),
    "overlapping patch embedding": (2, 9, 12, 3, 8, 3, 2, 1, 1),
    "down-sampling": (2, 6, 4, 8, 16, 2, 2, 0, 1),
    "offset network of stage 3": (2, 7, 9, 8, 8, 5, 1, 2, 8),
    "offset network of DAT++ stage 1": (1, 24, 17, 8, 8, 9, 8, 4, 8),
    "offset network, kernel = stride": (1, 9, 8, 4, 4, 4, 4, 0, 4),
    "local perception": (2, 14, 15, 6, 6, 3, 1, 1, 6),
    "local perception of a map large enough for two threads": (2, 40, 41, 6, 6, 3, 1, 1, 6),
}


@pytest.mark.parametrize("case", CASES_OF_THE_MODELS.values(), ids=CASES_OF_THE_MODELS.keys())
def test_convolutions_of_the_models(case: tuple[int, ...]) -> None:
    batch, height, width, channels, outputs, kernel, stride, padding, groups = case
    inputs = [
        normal((batch, height, width, channels), 0),
        normal((outputs, channels // groups, kernel, kernel), 1),
        normal((outputs,), 2),
    ]
    settings = {"stride": stride, "padding": padding, "groups": groups}
    check_against_torch(conv2d, inputs, settings, torch_conv2d)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "settings", "message"),
    [
        ((1, 4, 4, 3), (2, 4, 1, 1), {}, "channels of x: found 3, expected 4"),
        ((1, 4, 4, 4), (3, 2, 1, 1), {"groups": 2}, "output channels: found 3, expected a multiple"),
        ((1, 2, 4, 1), (1, 1, 3, 3), {}, r"padded map: found \(2, 4\), expected at least \(3, 3\)"),
        ((4, 4, 1), (1, 1, 3, 3), {}, "x: found"),
        ((1, 4, 4, 1), (1, 1, 3, 3), {"stride": 0}, "stride"),
        ((1, 4, 4, 1), (1, 1, 3, 3), {"padding": -1}, "padding"),
    ],
)
def test_conv2d_names_what_does_not_fit(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=f"conv2d: .*{message}"):
        conv2d(np.zeros(x_shape), np.zeros(weight_shape), None, **settings)
