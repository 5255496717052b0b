"""What each operator of a model takes: in the textbook, as a kernel, in PyTorch, and its matrix products alone."""

from __future__ import annotations

import importlib
import importlib.util
import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .kernels import KERNELS, takes_keep
from .nn import Context, Module

PROJECT = Path(__file__).resolve().parent.parent
RUNS, SLOW = 3, 0.2  # so many runs, but one if it takes so many seconds
Clock = Callable[[], float]


@dataclass(frozen=True)
class Call:
    """One call of an operator in a forward pass."""

    op: Callable[..., Any]
    arguments: tuple[Any, ...]  # arrays, Parameters' values, None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class OperatorTimes:
    """One row of the table: milliseconds that all calls of an operator take together."""

    operator: str
    calls: int
    textbook: float
    kernel: float | None  # None: there is none
    pytorch: float | None  # None: PyTorch, or the project's tests, are not here, or there is no peer
    floor: float  # matrix products


def recorded_calls(model: Module, images: np.ndarray) -> list[Call]:
    """The operators that model.forward(images) calls, in order."""
    calls: list[Call] = []
    _watch(model, images, calls.append)
    return calls


def counted_products(model: Module, images: np.ndarray) -> Counter[tuple[int, ...]]:
    """How often each shape of `matrix_products` occurs in model.forward(images)."""
    counts: Counter[tuple[int, ...]] = Counter()
    _watch(model, images, lambda call: counts.update(matrix_products(call)))
    return counts


def _watch(model: Module, images: np.ndarray, note: Callable[[Call], None]) -> None:
    """Tell `note` each call of an operator in model.forward(images)."""

    class Watching(Context):
        def apply(self, op: Any, *arguments: Any, **settings: Any) -> Any:
            note(Call(op, tuple(getattr(a, "value", a) for a in arguments), settings))
            return super().apply(op, *arguments, **settings)

    model.forward(images, Watching(trace={}))  # with a trace, the whole batch is passed on at once


def operator_times(model: Module, images: np.ndarray, *, clock: Clock = time.perf_counter) -> list[OperatorTimes]:
    """A row for each operator of model.forward(images), the one with the slowest kernel first.

    clock: what tells the seconds; where one thread does all the work, time.thread_time counts only those it worked in.
    """
    by_operator = defaultdict(list)
    for call in recorded_calls(model, images):
        by_operator[call.op].append(call)
    rows = [_row(op, calls, clock) for op, calls in by_operator.items()]
    return sorted(rows, key=lambda row: -(row.textbook if row.kernel is None else row.kernel))


def _row(op: Callable[..., Any], calls: list[Call], clock: Clock) -> OperatorTimes:
    kernel, peer = KERNELS.get(op), _peer(op.__name__)
    hints = {"keep": False} if kernel is not None and takes_keep(kernel) else {}

    def total(function: Callable[..., Any], **hints: Any) -> float:
        actions = (partial(function, *call.arguments, **call.settings, **hints) for call in calls)
        return sum(milliseconds(action, clock) for action in actions)

    return OperatorTimes(
        operator=op.__name__,
        calls=len(calls),
        textbook=total(op),
        kernel=None if kernel is None else total(kernel, **hints),
        pytorch=None if peer is None else sum(_pytorch_milliseconds(peer, call, clock) for call in calls),
        floor=floor_milliseconds(Counter(shape for call in calls for shape in matrix_products(call)), clock),
    )


def _peer(name: str) -> Callable[..., Any] | None:
    if importlib.util.find_spec("torch") is None or not (PROJECT / "tests" / "reference").is_dir():
        return None
    return importlib.import_module("tests.reference.operators").PEERS.get(name)


def _pytorch_milliseconds(peer: Callable[..., Any], call: Call, clock: Clock) -> float:
    import torch  # type: ignore[import-not-found, unused-ignore]

    tensors = [torch.from_numpy(np.array(a)) if isinstance(a, np.ndarray) else a for a in call.arguments]
    with torch.inference_mode():
        return milliseconds(partial(peer, *tensors, **call.settings), clock)


def milliseconds(action: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """The median of some runs after one to warm up; the first counts if it is slow."""
    first = _seconds(action, clock)
    return 1e3 * (first if first > SLOW else statistics.median(_seconds(action, clock) for _ in range(RUNS)))


def _seconds(action: Callable[[], Any], clock: Clock) -> float:
    started = clock()
    action()
    return clock() - started


# --- the floor --------------------------------------------------------------------------------------------------------


def floor_milliseconds(counts: Counter[tuple[int, ...]], clock: Clock = time.perf_counter) -> float:
    """What so many matrix products of each shape take when nothing else is done.

    They are those of linear layers, dense convolutions, attention and relative position biases; attention over
    neighborhoods is left out.
    """
    total = 0.0
    for (count, m, k, n), times in counts.items():
        a, b = np.ones((count, m, k), np.float32), np.ones((count, k, n), np.float32)
        total += times * milliseconds(partial(np.matmul, a, b, out=np.empty((count, m, n), np.float32)), clock)
    return total


def matrix_products(call: Call) -> Iterator[tuple[int, int, int, int]]:
    """(count, M, K, N) of each matrix product of a call."""
    name, arguments, settings = call.op.__name__, call.arguments, call.settings
    if name == "linear":
        x, weight = arguments[:2]
        yield 1, x.size // x.shape[-1], x.shape[-1], len(weight)
    elif name in ("mlp", "convolutional_mlp"):
        tokens, (hidden, dim) = arguments[0].size // arguments[0].shape[-1], arguments[1].shape
        yield 1, hidden, dim, tokens
        yield 1, dim, hidden, tokens
    elif name in ("conv2d", "conv_norm_relu") and settings.get("groups", 1) == 1:
        x, weight = arguments[:2]
        stride, padding, kernel = settings.get("stride", 1), settings.get("padding", 0), weight.shape[-1]
        pixels = [(n + 2 * padding - kernel) // stride + 1 for n in x.shape[1:3]]
        yield 1, len(x) * pixels[0] * pixels[1], weight[0].size, len(weight)
    elif name == "attention":
        (*leading, queries, width), keys = arguments[0].shape, arguments[1].shape[-2]
        yield math.prod(leading), queries, width, keys
        yield math.prod(leading), queries, keys, arguments[2].shape[-1]
    elif name == "sample_product_grid":
        table, rows, columns = (array.shape for array in arguments)
        heads = table[0] // rows[1]  # of a group
        yield rows[0] * rows[1], heads * table[1], table[2], rows[2] * columns[3]
        yield rows[0] * table[0] * rows[2], rows[3], table[1], columns[3]
