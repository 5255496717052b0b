"""The learning rate: against the formula, written another way, against PyTorch's cosine, and in its shape."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidat.errors import ConfigError
from minidat.training import learning_rate


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, Any]:
    steps = draw(st.integers(1, 300))
    base = draw(st.floats(1e-6, 10.0))
    return {
        "steps": steps,
        "warmup_steps": draw(st.integers(0, steps)),
        "base": base,
        "warmup_start": base * draw(st.floats(0, 1)),
        "minimum": base * draw(st.floats(0, 1)),
    }


@given(schedules())
def test_the_warm_up_is_a_line(schedule: dict[str, Any]) -> None:
    warmup = schedule["warmup_steps"]
    line = np.linspace(schedule["warmup_start"], schedule["base"], warmup + 1)[:warmup]
    rates = [learning_rate(step, **schedule) for step in range(warmup)]
    np.testing.assert_allclose(rates, line, rtol=1e-9, atol=1e-15)


@given(schedules())
def test_the_rest_is_half_a_cosine_over_the_whole_run(schedule: dict[str, Any]) -> None:
    """cos^2 of half the angle is the same; the cosine knows nothing of the warm-up."""
    steps, base, minimum = (schedule[name] for name in ("steps", "base", "minimum"))
    for step in range(schedule["warmup_steps"], steps):
        expected = minimum + (base - minimum) * math.cos(math.pi / 2 * step / steps) ** 2
        assert learning_rate(step, **schedule) == pytest.approx(expected, rel=1e-9)
    for step in (steps, steps + 1, 10 * steps):
        assert learning_rate(step, **schedule) == minimum


@given(schedules())
def test_rates_stay_between_their_ends_and_fall_after_the_warm_up(schedule: dict[str, Any]) -> None:
    rates = [learning_rate(step, **schedule) for step in range(schedule["steps"] + 2)]
    low = min(schedule["warmup_start"], schedule["minimum"])
    assert all(low * (1 - 1e-12) <= rate <= schedule["base"] * (1 + 1e-12) for rate in rates)
    falling = rates[schedule["warmup_steps"] :]
    assert all(a >= b * (1 - 1e-12) for a, b in itertools.pairwise(falling))


@given(st.integers(1, 40), st.sampled_from([0.0, 0.02]))
def test_without_a_warm_up_it_is_pytorchs_cosine(steps: int, minimum: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=minimum)
    for step in range(steps + 1):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(step, steps=steps, warmup_steps=0, base=0.5, minimum=minimum) == pytest.approx(
            expected, abs=1e-12
        )
        optimizer.step()
        reference.step()


def test_the_authors_run() -> None:
    """300 epochs of 1251 batches of 1024 images, rates scaled by 1024 / 512: some points worked out by hand."""
    run = {
        "steps": 300 * 1251,
        "warmup_steps": 20 * 1251,
        "base": 1e-3,
        "warmup_start": 1e-6,
        "minimum": 1e-5,
    }
    assert learning_rate(0, **run) == 1e-6
    assert learning_rate(10 * 1251, **run) == pytest.approx((1e-3 + 1e-6) / 2)
    assert learning_rate(20 * 1251, **run) == pytest.approx(1e-5 + 9.9e-4 * 0.98907380036690284)
    assert learning_rate(150 * 1251, **run) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(200 * 1251, **run) == pytest.approx(1e-5 + 9.9e-4 / 4)
    assert learning_rate(300 * 1251, **run) == 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": -1}, "step: found -1, expected at least 0"),
        ({"steps": 0}, "steps: found 0"),
        ({"warmup_steps": -1}, "warmup_steps: found -1, expected 0 to 10"),
        ({"warmup_steps": 11}, "warmup_steps: found 11"),
        ({"base": 0.0}, "base: found 0.0"),
        ({"base": math.nan}, "base: found nan"),
        ({"base": math.inf}, "base: found inf"),
        ({"warmup_start": 2.0}, "warmup_start: found 2.0, expected 0 to 1.0"),
        ({"minimum": -0.1}, "minimum: found -0.1"),
        ({"minimum": 1.1}, "minimum: found 1.1"),
    ],
)
def test_settings_that_make_no_schedule_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"step": 3, "steps": 10, "warmup_steps": 2, "base": 1.0, "warmup_start": 0.1, "minimum": 0.1}
    with pytest.raises(ConfigError, match=message):
        learning_rate(**{**arguments, **changes})
