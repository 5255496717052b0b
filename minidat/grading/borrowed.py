"""The shipped model with a solution's operators in it: the network runs here, the operators in the solution's process.

Nothing but arrays goes there and comes back, as with every exercise. What comes back goes on through the network, so
that the logits are made of the solution's numbers, after it was compared with what ours gives for the same arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .. import ops
from ..checkpoints import load_model
from ..data import example_image, preprocess
from ..models import DAT
from ..nn import Context, Parameter
from .attempt import Ask, attempt
from .cases import Case
from .diagnosis import equal
from .exercise import Function, Outcome

WEIGHTS = "dat_mini_cifar10"
PHOTOGRAPHS = ("horse", "cat", "dog")  # one of them, by the seed
LOGIT_TOLERANCE = 1e-4


class Call(Protocol):
    """Call the solution's function of that name: arrays by position, settings by keyword -> its output."""

    def __call__(self, name: str, *arrays: np.ndarray, **settings: Any) -> np.ndarray: ...


class WrongCallError(Exception):
    """An operator of the solution did otherwise than ours in the network. name: its; the text says how."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


@dataclass
class Borrowed(Context):
    """A context in which operators of a solution work: those in ADAPTERS; the others are the textbook's."""

    call: Call | None = None

    def apply(self, op: Callable[..., Any], *arguments: Any, **settings: Any) -> tuple[Any, Any]:
        if op not in ADAPTERS:
            return super().apply(op, *arguments, **settings)
        values = [a.value if isinstance(a, Parameter) else a for a in arguments]
        return ADAPTERS[op](self.call, *values, **settings), None


def classify_with(ask: Ask, functions: Mapping[str, Function], seed: int) -> Outcome:
    """Classify a photograph by a network whose operators answer `ask`; they must be `functions`, by name.

    Raises SolutionError as `ask` does, and CheckpointError if the weights that come with minidat are not there.
    """
    name = PHOTOGRAPHS[seed % len(PHOTOGRAPHS)]
    model = load_model(WEIGHTS, dtype=np.float64)
    pixels = preprocess(example_image(name), model.config)[None].astype(np.float64)
    expected = model(pixels)[0]
    try:
        logits = model.forward(pixels, Borrowed(plain=True, call=checked_call(ask, functions)))[0][0]
    except WrongCallError as error:
        return Outcome(f"Each function is right by itself, but not in the network: {error}", function=error.name)
    distance = float(np.abs(logits - expected).max())
    if not distance <= LOGIT_TOLERANCE:
        return Outcome(
            f"The photograph of a {name} has other logits than by minidat's own operators: they differ by up to "
            f"{distance:.2g}, expected at most {LOGIT_TOLERANCE:g}."
        )
    return Outcome(remark=f"Your operators classify the photograph of a {name}: {answers(model, logits)}")


def answers(model: DAT, logits: np.ndarray) -> str:
    """The three best: `horse 91.3 %, cat 1.1 %, deer 1.0 %`."""
    probabilities, _ = ops.softmax(logits)
    labels = model.labels or [f"class {n}" for n in range(len(logits))]
    return ", ".join(f"{labels[n]} {100 * probabilities[n]:.1f} %" for n in np.argsort(-probabilities)[:3])


def checked_call(ask: Ask, functions: Mapping[str, Function]) -> Call:
    """Calls of a solution, each compared with the reference. They raise WrongCallError for the first that differs."""
    counts = dict.fromkeys(functions, 0)

    def call(name: str, *arrays: np.ndarray, **settings: Any) -> np.ndarray:
        function = functions[name]
        counts[name] += 1
        names = inspect.signature(function.reference).parameters
        case = Case({}, {**dict(zip(names, arrays, strict=False)), **settings})
        given = ", ".join(f"{name} {array.shape}" for name, array in case.arrays.items())
        where = f"call {counts[name]} of {name}, with {given}"
        result = attempt(ask, function, case)
        if result.problem is not None:
            raise WrongCallError(name, f"{where}:\n{result.problem.text}")
        (output,) = function.outputs
        got, expected = result.values[output], np.asarray(function.reference(*arrays, **settings))
        if got.shape != expected.shape:
            raise WrongCallError(name, f"{where}, has the shape {got.shape}, expected {expected.shape}.")
        if not equal(got, expected):
            distance = np.abs(got - expected).max()
            raise WrongCallError(name, f"{where}, differs from the right result by up to {distance:.3g}.")
        return got.astype(np.float64)

    return call


# --- from the model's calls to those of the exercises ---------------------------------------------------------------


def linear(call: Call, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    bias = np.zeros(len(weight)) if bias is None else bias
    return call("linear", x.reshape(1, -1, x.shape[-1]), weight, bias).reshape(*x.shape[:-1], len(weight))


def layer_norm(call: Call, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float = 1e-5) -> np.ndarray:
    return call("layer_norm", x.reshape(-1, x.shape[-1]), weight, bias, eps=eps).reshape(x.shape)


def attention(
    call: Call, query: np.ndarray, key: np.ndarray, value: np.ndarray, bias: np.ndarray | None, *, scale: float
) -> np.ndarray:
    """Images, windows and heads become one axis; the bias has the keys last there."""
    (queries, width), keys = query.shape[-2:], key.shape[-2]
    bias = np.broadcast_to(0.0 if bias is None else bias, (*query.shape[:-2], keys, queries))
    parts = (query.reshape(-1, queries, width), key.reshape(-1, keys, width), value.reshape(-1, keys, width))
    every_bias = np.ascontiguousarray(bias.reshape(-1, keys, queries).swapaxes(1, 2))
    return call("attention", *parts, every_bias, scale=scale).reshape(query.shape)


def window_partition(call: Call, x: np.ndarray, *, window: int) -> np.ndarray:
    return call("window_partition", x, window=window)


def window_reverse(call: Call, windows: np.ndarray, *, window: int, height: int, width: int) -> np.ndarray:
    return call("window_reverse", windows, window=window, height=height, width=width)


def grid_sample(call: Call, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Each group of channels of each image is read at its own points."""
    batch, groups, rows, columns, _ = positions.shape
    output = np.empty((batch, rows, columns, groups, x.shape[-1] // groups))
    for b, g in np.ndindex(batch, groups):
        channels = np.ascontiguousarray(np.split(x[b], groups, axis=-1)[g])
        output[b, :, :, g] = call("bilinear", channels, positions[b, g].reshape(-1, 2)).reshape(rows, columns, -1)
    return output.reshape(batch, rows, columns, -1)


def sampling_points(call: Call, offsets: np.ndarray, *, rule: str, range_factor: float) -> np.ndarray:
    """Each group of each image has its points; the rule is that of DAT."""
    output = np.empty_like(offsets)
    for b, g in np.ndindex(offsets.shape[:2]):
        output[b, g] = call("sampling_points", offsets[b, g], range_factor=range_factor)
    return output


def sample_product_grid(call: Call, table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Each head has a table; the heads of a group share its rows and columns."""
    heads, (batch, groups, keys, _) = len(table), rows.shape
    output = np.empty((batch, heads, keys, rows.shape[-1], columns.shape[-1]))
    for b, head in np.ndindex(batch, heads):
        group = head * groups // heads
        output[b, head] = call("sample_product_grid", table[head], rows[b, group], columns[b, group])
    return output


def convolutional_mlp(
    call: Call,
    x: np.ndarray,
    weight1: np.ndarray,
    bias1: np.ndarray,
    kernel: np.ndarray,
    kernel_bias: np.ndarray,
    weight2: np.ndarray,
    bias2: np.ndarray,
) -> np.ndarray:
    """Its two linear layers are the solution's."""
    local, _ = ops.local_perception(linear(call, x, weight1, bias1), kernel, kernel_bias)
    return linear(call, ops.gelu(local)[0], weight2, bias2)


ADAPTERS: dict[Callable[..., Any], Callable[..., np.ndarray]] = {
    ops.linear: linear,
    ops.layer_norm: layer_norm,
    ops.attention: attention,
    ops.window_partition: window_partition,
    ops.window_reverse: window_reverse,
    ops.grid_sample: grid_sample,
    ops.sampling_points: sampling_points,
    ops.sample_product_grid: sample_product_grid,
    ops.convolutional_mlp: convolutional_mlp,
}
