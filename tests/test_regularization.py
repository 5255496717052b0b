"""dropout, channel_dropout and drop_path: against PyTorch given the same mask, and by their statistics."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ConfigError
from minidat.ops import channel_dropout, drop_path, dropout

from .checks import check_adjoint, check_against_torch, check_finite_differences
from .strategies import arrays, seeds, shapes

RATES = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1 - 1e-9])
ALL = pytest.mark.parametrize("op", [dropout, channel_dropout, drop_path])


def with_seed(op: Callable[..., Any], x: np.ndarray, *, rate: float, seed: int) -> Any:
    """`op` with a generator that draws the same in each call."""
    return op(x, rate=rate, rng=np.random.default_rng(seed))


@ALL
def test_output_and_gradient_belong_to_one_mask(op: Callable[..., Any]) -> None:
    @given(shapes(axes=(2, 4)).flatmap(arrays), RATES, seeds())
    def check(x: np.ndarray, rate: float, seed: int) -> None:
        def torch_op(x: torch.Tensor, *, rate: float, seed: int) -> torch.Tensor:
            mask, _ = with_seed(op, np.ones(x.shape), rate=rate, seed=seed)
            return x * torch.tensor(mask)

        settings = {"rate": rate, "seed": seed}
        check_against_torch(partial(with_seed, op), [x], settings, torch_op)
        check_finite_differences(partial(with_seed, op), [x], settings)
        check_adjoint(partial(with_seed, op), [x], settings)

    check()


@ALL
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_as_many_are_dropped_as_the_rate_says_and_the_mean_is_kept(
    op: Callable[..., Any], rate: float, dtype: type
) -> None:
    count = 40_000
    output, _ = op(np.ones((count, 1), dtype), rate=rate, rng=np.random.default_rng(0))
    assert set(np.unique(output)) == {dtype(0), dtype(1) * (1 / (1 - rate))}
    deviation = np.sqrt(rate * (1 - rate) / count)
    assert abs((output == 0).mean() - rate) < 4 * deviation
    assert abs(output.mean() - 1) < 4 * deviation / (1 - rate)


def test_whole_samples_whole_channels_and_single_numbers_are_dropped() -> None:
    x = np.ones((200, 3, 4, 5))
    whole = drop_path(x, rate=0.5, rng=np.random.default_rng(1))[0].reshape(200, -1)
    assert (whole == whole[:, :1]).all()
    assert 0 < np.count_nonzero(whole[:, 0]) < 200
    channels = channel_dropout(x, rate=0.5, rng=np.random.default_rng(1))[0]
    assert (channels == channels[:, :1, :1]).all()
    assert 0 < np.count_nonzero(channels[:, 0, 0]) < 1000
    assert (channels[:, 0, 0] != channels[:, 0, 0, :1]).any()
    single = dropout(x, rate=0.5, rng=np.random.default_rng(1))[0].reshape(200, -1)
    assert (single != single[:, :1]).any(axis=1).all()


@ALL
def test_rate_zero_draws_nothing_and_changes_nothing(op: Callable[..., Any]) -> None:
    rng = np.random.default_rng(2)
    state = rng.bit_generator.state
    x = np.array([[1.0, np.nan], [np.inf, -2.0]])
    assert np.array_equal(op(x, rate=0.0, rng=rng)[0], x, equal_nan=True)
    assert rng.bit_generator.state == state


@ALL
def test_two_calls_draw_two_masks(op: Callable[..., Any]) -> None:
    rng = np.random.default_rng(3)
    x = np.ones((100, 2))
    assert not np.array_equal(op(x, rate=0.5, rng=rng)[0], op(x, rate=0.5, rng=rng)[0])


@ALL
@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan")])
def test_a_rate_outside_its_range_is_named(op: Callable[..., Any], rate: float) -> None:
    with pytest.raises(ConfigError, match=rf"{op.__name__}: rate: found {rate}, expected a number in \[0, 1\)"):
        op(np.zeros((2, 2)), rate=rate, rng=np.random.default_rng(0))
