"""The average of the weights: against its formula, and the ways to use it."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import CheckpointError, ConfigError
from minidat.nn import Context, Linear
from minidat.training import ExponentialMovingAverage

from .checks import assert_close, tiny_chunks
from .strategies import LAYOUTS, dtypes, normal, seeds, with_layout


def model(seed: int = 0, dtype: type = np.float64) -> Linear:
    layer = Linear(7, 5)
    layer.initialize(np.random.default_rng(seed), dtype)
    return layer


def averages(average: ExponentialMovingAverage) -> dict[str, np.ndarray]:
    return {
        name.removeprefix("average."): np.array(array)
        for name, array in average.state_dict().items()
        if name != "updates"
    }


@given(st.sampled_from([0.0, 0.15, 0.5, 0.9999]), st.integers(0, 30), st.sampled_from(LAYOUTS), dtypes(), seeds())
def test_the_average_is_the_weighted_sum_of_all_values(
    decay: float, updates: int, layout: str, dtype: type, seed: int
) -> None:
    """sum_n w_n value_n with w_n = (1 - d_n) d_{n+1} ... d_N and w_0 = d_1 ... d_N, d_n = min(decay, n / (9 + n))."""
    layer = model(seed, dtype)
    average = ExponentialMovingAverage(dict(layer.named_parameters()), decay=decay)
    history = [np.array(layer.weight.value, np.float64)]
    for n in range(updates):
        layer.weight.value = with_layout(normal(layer.weight.shape, seed + n).astype(dtype), layout)
        history.append(np.array(layer.weight.value, np.float64))
        with tiny_chunks():
            average.update()
    decays = [min(decay, n / (9 + n)) for n in range(1, updates + 1)]
    weights = [1.0, *(1 - d for d in decays)]
    expected = sum(w * np.prod(decays[n:]) * value for n, (w, value) in enumerate(zip(weights, history, strict=True)))
    found = averages(average)["weight"]
    assert found.dtype == dtype
    assert_close(found, expected, 1e-12 if dtype == np.float64 else 1e-5, "average")


def test_after_the_warm_up_it_is_pytorchs() -> None:
    """torch.optim.swa_utils, whose decay is constant: ours is after (1 + n) / (10 + n) has reached it."""
    layer = model()
    average = ExponentialMovingAverage(dict(layer.named_parameters()), decay=0.6)
    rng = np.random.default_rng(1)
    for _ in range(13):  # (1 + 13) / (10 + 13) is 0.609
        average.update()
    reference = torch.nn.Linear(7, 5, dtype=torch.float64)
    with torch.no_grad():
        reference.weight.copy_(torch.tensor(averages(average)["weight"]))
    swa = torch.optim.swa_utils.AveragedModel(
        reference, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.6), use_buffers=False
    )
    swa.update_parameters(reference)  # the first call only copies
    for _ in range(5):
        layer.weight.value = rng.standard_normal((5, 7))
        with torch.no_grad():
            reference.weight.copy_(torch.tensor(layer.weight.value))
        average.update()
        swa.update_parameters(reference)
    assert_close(averages(average)["weight"], swa.module.weight.detach().numpy(), 1e-12, "average")


def test_it_starts_as_a_copy_that_in_place_changes_do_not_reach() -> None:
    layer = model()
    average = ExponentialMovingAverage(dict(layer.named_parameters()))
    before = layer.weight.value.copy()
    layer.weight.value += 1
    assert np.array_equal(averages(average)["weight"], before)


def test_swap_lends_the_averages_to_the_model_and_takes_them_back() -> None:
    layer = model()
    average = ExponentialMovingAverage(dict(layer.named_parameters()), decay=0.5)
    layer.weight.value = np.ones((5, 7))
    average.update()
    x = np.random.default_rng(2).standard_normal((3, 7))
    outside = layer(x)
    expected = x @ averages(average)["weight"].T + averages(average)["bias"]
    weight = layer.weight.value
    with average.swap():
        np.testing.assert_allclose(layer.forward(x, Context())[0], expected, rtol=1e-12)
        assert not np.allclose(expected, outside)
    assert layer.weight.value is weight
    assert np.array_equal(layer(x), outside)
    with pytest.raises(KeyboardInterrupt), average.swap():
        raise KeyboardInterrupt
    assert layer.weight.value is weight


def test_copy_to_another_model_of_the_same_kind() -> None:
    average = ExponentialMovingAverage(dict(model(1).named_parameters()))
    other = model(2, np.float32)
    average.copy_to(other)
    assert np.array_equal(other.weight.value, model(1).weight.value.astype(np.float32))
    other.weight.value += 1
    assert np.array_equal(averages(average)["weight"], model(1).weight.value)
    with pytest.raises(CheckpointError, match="weight"):
        average.copy_to(Linear(8, 5))


@given(st.integers(0, 12), seeds())
def test_a_state_read_back_goes_on_to_the_last_bit(updates: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = model(seed, np.float32), model(seed, np.float32)
    first, second = (ExponentialMovingAverage(dict(layer.named_parameters()), decay=0.7) for layer in layers)
    for _ in range(updates):
        layers[0].weight.value = rng.standard_normal((5, 7), np.float32)
        first.update()
    file = io.BytesIO()
    np.savez(file, **first.state_dict())
    file.seek(0)
    with np.load(file, allow_pickle=False) as saved:
        second.load_state_dict(dict(saved))
    for _ in range(3):
        layers[0].weight.value = layers[1].weight.value = rng.standard_normal((5, 7), np.float32)
        first.update()
        second.update()
    assert first.state_dict()["updates"] == second.state_dict()["updates"] == updates + 3
    assert all(np.array_equal(array, averages(second)[name]) for name, array in averages(first).items())


def test_a_state_that_does_not_fit_is_refused_whole() -> None:
    average = ExponentialMovingAverage(dict(model().named_parameters()))
    good = average.state_dict()
    with pytest.raises(CheckpointError, match=r"missing updates; unexpected steps"):
        average.load_state_dict({**{n: a for n, a in good.items() if n != "updates"}, "steps": np.array(3)})
    with pytest.raises(CheckpointError, match=r"average.bias is float64\(4,\), expected float64\(5,\)"):
        average.load_state_dict({**good, "average.bias": np.zeros(4), "average.weight": np.zeros((5, 7))})
    assert np.array_equal(averages(average)["weight"], model().weight.value)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match="decay: found"):
        ExponentialMovingAverage({}, decay=decay)
