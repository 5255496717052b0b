"""AdamW, which of a model's weights it decays, and the clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from ..detection import Detector
from ..errors import CheckpointError, ConfigError
from ..models.deformable_attention import DeformableAttention
from ..models.window_attention import WindowAttention
from ..nn import BatchNorm, LayerNorm, Module, Parameter
from ..runtime.threads import chunked
from ..segmentation import Segmentor

# What the authors' code calls `relative_position_bias_table` (windows) and `rpe_table` (deformable attention), with
# all that `rpe_table` stands for in the ablations. It exempts names that contain these words, and so misses the table
# of neighborhood attention, `rpb`.
EXEMPT = ("relative_position_bias_table", "fixed_position_bias", "position_conv.", "position_mlp.")
FIRST_MOMENT, SECOND_MOMENT, STEPS = "first_moment.", "second_moment.", "steps"


def decay_names(model: Module) -> set[str]:
    """Names of the parameters that the authors decay: the weights that multiply activations, and little else.

    These are the parameters of two or more axes, other than the position encodings of window and deformable attention;
    the bias table of neighborhood attention is decayed. In detectors and segmentors they are all but these encodings
    and what belongs to a norm. Source: the authors' `optimizer.py`, and their configs for dense prediction.
    """
    exempt = tuple(
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, (WindowAttention, DeformableAttention))
        for name in EXEMPT
    )
    norms = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, (LayerNorm, BatchNorm)))
    dense = isinstance(model, (Detector, Segmentor))
    return {
        name
        for name, parameter in model.named_parameters()
        if not name.startswith(exempt) and (not name.startswith(norms) if dense else len(parameter.shape) >= 2)
    }


class AdamW:
    """Adam with weight decay that does not pass through the moments (arXiv 1711.05101, algorithm 2), as in PyTorch.

    With the gradient g of a weight w, at step t = 1, 2, ...

        w -= rate weight_decay w                                    (weights in `decay` only)
        m  = beta1 m + (1 - beta1) g
        v  = beta2 v + (1 - beta2) g^2
        w -= rate m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    parameters: what to train, by name (`dict(model.named_parameters())`, or part of it to leave the rest as it is);
    decay: names of those to decay (`decay_names(model)`). Both moments start at zero, and have the dtype of the weight.
    Raises ConfigError for settings out of range and for a name in `decay` that is not in `parameters`.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        *,
        decay: Collection[str],
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not parameters:
            raise ConfigError("AdamW: parameters: found none, expected at least one to train")
        if unknown := sorted(set(decay) - set(parameters)):
            raise ConfigError(f"AdamW: decay: {', '.join(unknown)} not among the parameters; expected only their names")
        if not (weight_decay >= 0 and math.isfinite(weight_decay)):
            raise ConfigError(f"AdamW: weight_decay: found {weight_decay}, expected a number of at least 0")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"AdamW: betas: found {betas}, expected two numbers in [0, 1)")
        if not (eps >= 0 and math.isfinite(eps)):
            raise ConfigError(f"AdamW: eps: found {eps}, expected a number of at least 0")
        self.parameters = dict(parameters)
        self.decay = frozenset(decay)
        self.weight_decay, self.betas, self.eps = weight_decay, betas, eps
        self.steps = 0
        self._moments = {name: (_zeros_like(p), _zeros_like(p)) for name, p in self.parameters.items()}

    def step(self, learning_rate: float) -> None:
        """Move every weight by its gradient, in place; all gradients must be there, and stay as they are.

        Raises ConfigError for a rate that is not a number of at least 0 and for a parameter without a gradient; nothing
        has changed then.
        """
        if not (learning_rate >= 0 and math.isfinite(learning_rate)):
            raise ConfigError(f"AdamW: learning_rate: found {learning_rate}, expected a number of at least 0")
        if missing := [name for name, parameter in self.parameters.items() if parameter.grad is None]:
            raise ConfigError(
                f"AdamW: {', '.join(missing)} without a gradient: run a backward pass first, or leave out of the "
                "parameters what is not to be trained"
            )
        self.steps += 1
        for name, parameter in self.parameters.items():
            # a value may be shared with a file that is mapped read-only: such a one is replaced by a copy
            parameter.value = np.require(parameter.value, requirements=("C", "W"))
            shrink = 1 - learning_rate * self.weight_decay if name in self.decay else 1.0
            self._update(parameter, *self._moments[name], shrink, learning_rate)

    def _update(
        self, parameter: Parameter, mean: np.ndarray, square: np.ndarray, shrink: float, learning_rate: float
    ) -> None:
        """One step of one weight; `mean` and `square` are its moments, flat."""
        value = parameter.value.reshape(-1)
        gradient = np.ascontiguousarray(parameter.grad).reshape(-1)
        beta1, beta2 = self.betas
        step_size = learning_rate / (1 - beta1**self.steps)
        root_correction = math.sqrt(1 - beta2**self.steps)

        def work(part: slice) -> None:
            w, g, m, v = value[part], gradient[part], mean[part], square[part]
            scratch = g * (1 - beta1)
            m *= beta1
            m += scratch
            np.multiply(g, g, out=scratch)
            scratch *= 1 - beta2
            v *= beta2
            v += scratch
            np.sqrt(v, out=scratch)
            scratch /= root_correction
            scratch += self.eps
            np.divide(m, scratch, out=scratch)
            scratch *= step_size
            if shrink != 1:
                w *= shrink
            w -= scratch

        chunked(work, value.size, 1)

    def state_dict(self) -> dict[str, np.ndarray]:
        """`steps`, and for each parameter `first_moment.<name>` and `second_moment.<name>`, of its shape.

        The arrays are the optimizer's own, which the next step changes: save or copy them before it.
        """
        state = {STEPS: np.array(self.steps, np.int64)}
        for name, parameter in self.parameters.items():
            for prefix, moment in zip((FIRST_MOMENT, SECOND_MOMENT), self._moments[name], strict=True):
                state[prefix + name] = moment.reshape(parameter.shape)
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy what `state_dict` gave. Settings are not part of it: give the constructor the same ones.

        Raises CheckpointError listing every missing name, unknown name, wrong shape and wrong dtype; nothing has
        changed then.
        """
        own = self.state_dict()
        check_state(state, own, "the optimizer's state")
        self.steps = int(state[STEPS])
        for name, array in own.items():
            if name != STEPS:
                array[...] = state[name]


def clip_gradients(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients by the same factor, so that their norm is at most `max_norm`; returns the norm before.

    The norm is that of all gradients as one vector; the factor is max_norm / (norm + 1e-6), or 1 if that is larger.
    A norm that is not finite is returned and the gradients stay as they are: the caller must stop. Parameters without a
    gradient do not count. Raises ConfigError unless `max_norm` is above 0.
    Source: torch.nn.utils.clip_grad_norm_.
    """
    if not max_norm > 0:
        raise ConfigError(f"clip_gradients: max_norm: found {max_norm}, expected a number above 0")
    gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    with np.errstate(over="ignore", invalid="ignore"):
        flat = (np.ascontiguousarray(gradient).reshape(-1) for _, gradient in gradients)
        norm = math.sqrt(sum(float(np.dot(g, g)) for g in flat))
    factor = max_norm / (norm + 1e-6)
    if factor < 1 and math.isfinite(norm):
        for parameter, gradient in gradients:
            parameter.grad = np.multiply(gradient, factor)  # out of place: the array may be another's gradient too
    return norm


def check_state(state: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], what: str) -> None:
    """Raise CheckpointError, naming all that differs, unless `state` has the names, shapes and dtypes of `expected`."""
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    for name in expected.keys() & state.keys():
        found, wanted = np.asarray(state[name]), expected[name]
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            problems.append(f"{name} is {found.dtype}{found.shape}, expected {wanted.dtype}{wanted.shape}")
    if problems:
        raise CheckpointError(f"{what} does not fit the model: {'; '.join(sorted(problems))}")


def _zeros_like(parameter: Parameter) -> np.ndarray:
    """Zeros for a moment: flat, in the dtype of the value."""
    return np.zeros(parameter.size, parameter.value.dtype)
