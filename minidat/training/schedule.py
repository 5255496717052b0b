"""How the learning rate goes: up in a line, then down along a cosine, along a line, or in steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import ConfigError


def learning_rate(
    step: int, *, steps: int, warmup_steps: int, base: float, warmup_start: float = 0.0, minimum: float = 0.0
) -> float:
    """The rate of step 0, 1, ... of a run of `steps`.

        step < warmup_steps:  warmup_start + (base - warmup_start) step / warmup_steps
        step < steps:         minimum + (base - minimum) (1 + cos(pi step / steps)) / 2
        later:                minimum

    The cosine counts from step 0, not from the end of the warm-up: there the rate drops from nearly `base` to a point
    well below it if the warm-up is long (20 epochs of 300: to 0.989 base). The authors' loop sets the rate *after* each
    step, so that their step n has the rate of n - 1 here.
    Raises ConfigError for a negative step, steps < 1, warmup_steps outside [0, steps], a base that is not a finite
    number above 0, and for a warmup_start or a minimum outside [0, base].
    Source: SGDR, arXiv 1608.03983, Eq. 5, without restarts; timm's CosineLRScheduler with t_in_epochs=False,
    t_initial=steps, warmup_t=warmup_steps, warmup_lr_init=warmup_start and lr_min=minimum, which the authors use.
    """
    _check_run(step, steps, warmup_steps, base)
    for name, number, fits, expected in (
        ("warmup_start", warmup_start, 0 <= warmup_start <= base, f"0 to {base}, the base rate"),
        ("minimum", minimum, 0 <= minimum <= base, f"0 to {base}, the base rate"),
    ):
        if not fits:
            raise ConfigError(f"learning_rate: {name}: found {number}, expected {expected}")
    if step < warmup_steps:
        return warmup_start + (base - warmup_start) * step / warmup_steps
    if step < steps:
        return minimum + (base - minimum) * (1 + math.cos(math.pi * step / steps)) / 2
    return minimum


def polynomial_rate(step: int, *, steps: int, warmup_steps: int, base: float, minimum: float = 0.0) -> float:
    """The rate of step 0, 1, ... of a run of `steps` that falls with what is left of it: a polynomial of power 1.

        (minimum + (base - minimum) (1 - step / steps)) w(step)

    w(step) = r + (1 - r) step / warmup_steps before step `warmup_steps`, with r = 1e-6, and 1 from there on; so the
    warm-up leads to the falling line, not to `base`. From step `steps` on the rate is `minimum`.
    Raises ConfigError for settings out of range. Source: mmcv's PolyLrUpdaterHook with a linear warm-up.
    """
    _check_run(step, steps, warmup_steps, base)
    left = max(0.0, 1 - step / steps)
    return (minimum + (base - minimum) * left) * _warmup(step, warmup_steps, 1e-6)


def step_rate(step: int, *, steps: int, warmup_steps: int, base: float, milestones: Sequence[float]) -> float:
    """The rate of step 0, 1, ... of a run of `steps`: base / 10^n w(step), n being the milestones that are past.

    milestones: shares of the run, such as 8 / 12 and 11 / 12; one of m is past from step round(m steps) on; w as in
    `polynomial_rate`, with r = 0.001. Raises ConfigError for settings out of range. Source: mmcv's StepLrUpdaterHook.
    """
    _check_run(step, steps, warmup_steps, base)
    passed = sum(step >= round(milestone * steps) for milestone in milestones)
    return base * 0.1**passed * _warmup(step, warmup_steps, 1e-3)


def _warmup(step: int, warmup_steps: int, ratio: float) -> float:
    return ratio + (1 - ratio) * step / warmup_steps if step < warmup_steps else 1.0


def _check_run(step: int, steps: int, warmup_steps: int, base: float) -> None:
    for name, number, fits, expected in (
        ("step", step, step >= 0, "at least 0"),
        ("steps", steps, steps >= 1, "at least 1"),
        ("warmup_steps", warmup_steps, 0 <= warmup_steps <= steps, f"0 to {steps}, the steps of the run"),
        ("base", base, 0 < base < math.inf, "a finite number above 0"),
    ):
        if not fits:
            raise ConfigError(f"learning_rate: {name}: found {number}, expected {expected}")
