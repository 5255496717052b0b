"""How the learning rate goes: up in a line, then down along a cosine."""

from __future__ import annotations

import math

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
    for name, number, fits, expected in (
        ("step", step, step >= 0, "at least 0"),
        ("steps", steps, steps >= 1, "at least 1"),
        ("warmup_steps", warmup_steps, 0 <= warmup_steps <= steps, f"0 to {steps}, the steps of the run"),
        ("base", base, 0 < base < math.inf, "a finite number above 0"),
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
