"""The exponential moving average of the weights, which usually classifies better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from ..errors import ConfigError
from ..nn import Module
from ..nn.module import Buffer
from ..runtime.threads import chunked
from .optimizer import check_state

AVERAGE, UPDATES = "average.", "updates"


class ExponentialMovingAverage:
    """A second set of weights that follows the first: average += (1 - d) (value - average).

    d = min(decay, (1 + n) / (10 + n)) after n updates: early on, when the weights still move fast, the average forgets
    fast too. It starts as a copy of the weights. parameters: `dict(model.named_state())`, running statistics included.
    Source: Polyak and Juditsky, 1992; the warm-up of d is that of tf.train.ExponentialMovingAverage.
    Raises ConfigError for a decay outside [0, 1).
    """

    def __init__(self, parameters: Mapping[str, Buffer], *, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"ExponentialMovingAverage: decay: found {decay}, expected a number in [0, 1)")
        self.parameters = dict(parameters)
        self.decay = decay
        self.updates = 0
        self._averages = {name: np.array(p.value, order="C") for name, p in self.parameters.items()}

    def update(self) -> None:
        """Take in the present weights, once a step of the optimizer."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, parameter in self.parameters.items():
            value, average = np.ascontiguousarray(parameter.value).reshape(-1), self._averages[name].reshape(-1)
            _approach(average, value, 1 - decay)

    @contextmanager
    def swap(self) -> Iterator[None]:
        """The parameters have the averages as their values inside this block: `with average.swap(): evaluate(model)`.

        Arrays change places, nothing is copied. Train and update only outside.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def copy_to(self, model: Module) -> None:
        """Give `model`, of the same parameters, the averages as its weights for good. Gradients are forgotten.

        Raises CheckpointError for a model with other parameters.
        """
        model.load_state_dict(self._averages)

    def state_dict(self) -> dict[str, np.ndarray]:
        """`updates`, and `average.<name>` for each parameter.

        The arrays are our own, which the next update changes: save or copy them before it.
        """
        averages = {AVERAGE + name: average for name, average in self._averages.items()}
        return {UPDATES: np.array(self.updates, np.int64), **averages}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy what `state_dict` gave; the decay is not part of it.

        Raises CheckpointError listing every missing name, unknown name, wrong shape and wrong dtype; nothing has
        changed then.
        """
        check_state(state, self.state_dict(), "the state of the average")
        self.updates = int(state[UPDATES])
        for name, average in self._averages.items():
            average[...] = state[AVERAGE + name]

    def _exchange(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.value, self._averages[name] = self._averages[name], parameter.value


def _approach(average: np.ndarray, value: np.ndarray, weight: float) -> None:
    """average += weight (value - average), in place, both flat."""

    def work(part: slice) -> None:
        difference = value[part] - average[part]
        difference *= weight
        average[part] += difference

    chunked(work, value.size, 1)
