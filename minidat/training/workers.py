"""One training step's gradient, computed by several processes that share the batch (data parallelism).

Each process has the whole model and differentiates the loss of its part of the batch alone, on one core; the parts'
gradients add up to the batch's. Threads inside every operator would wait for each other a hundred times a step, and for
Python's interpreter lock; processes meet once. Weights and gradients lie in memory that all of them see.

Where a model has running statistics (batch normalization), each part moves those of the step before, and the next step
begins with the mean over the parts; a part is normalized by its own statistics.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ..catalog import FAMILIES, family_of
from ..errors import TrainingError
from ..nn import Module, Parameter
from ..runtime.threads import alone
from .tasks import Objective, Part


class GradientWorkers:
    """`workers` processes, this one among them, that compute gradients of the same model.

    The values of `model`'s parameters move into shared memory, where an optimizer updates them in place. A part of a
    batch draws its random numbers (augmentation, stochastic depth) from a generator seeded with (seed, step, 1 + part)
    alone: a step can be repeated exactly. Use as a context manager; the processes end with it, and with this process.
    """

    def __init__(self, model: Any, objective: Objective, *, workers: int, seed: int) -> None:
        self.model, self.objective, self.workers, self.seed = model, objective, workers, seed
        self._statistics: list[np.ndarray] = []  # the buffers' values in shared memory, if there are workers
        # process, pipe to it, its gradients and then its buffers
        self._children: list[tuple[Any, Connection, list[np.ndarray]]] = []

    def __enter__(self) -> GradientWorkers:
        model = self.model
        if self.workers == 1:
            return self
        context = multiprocessing.get_context("spawn")  # a forked child would inherit locks of threads it has not
        state = _arrays(model)
        size = sum(array.size for array in state) * model.dtype.itemsize
        values = self._shared_memory(context, size)
        for array, shared in zip(state, _views(values, model, model.dtype), strict=True):
            shared[...] = array.value
            if isinstance(array, Parameter):
                array.value = shared
            else:
                self._statistics.append(shared)
        for part in range(1, self.workers):
            results = self._shared_memory(context, size)
            ours, theirs = context.Pipe()
            arguments = (theirs, model.config, str(model.dtype), values, results, self.objective, self.seed, part)
            process = context.Process(target=_serve, args=arguments, daemon=True, name=f"minidat worker {part}")
            with _no_interrupts():
                process.start()
            theirs.close()  # ours would keep the pipe open after the child's end
            self._children.append((process, ours, _views(results, model, model.dtype)))
        return self

    def __exit__(self, *exception: object) -> None:
        for process, pipe, _ in self._children:
            pipe.close()  # which ends the child, after the step it is at
            process.join(timeout=10)
            process.kill()
        self._children.clear()

    @staticmethod
    def _shared_memory(context: Any, size: int) -> Any:
        try:
            return context.RawArray("B", size)
        except OSError as error:
            raise TrainingError(
                f"no {size:,} bytes of shared memory: {error.strerror or error}; free disk space, or use one worker"
            ) from None

    def gradients(self, step: int, items: Sequence[Any]) -> Part:
        """Set every parameter's gradient to that of the mean loss of a batch; tell the sums of its losses.

        items: what the objective takes, one an image. Raises TrainingError if a process has died.
        """
        bounds = [len(items) * i // self.workers for i in range(self.workers + 1)]
        for part, (_, pipe, _) in enumerate(self._children, start=1):
            _exchange(part, pipe.send, (step, items[bounds[part] : bounds[part + 1]], len(items)))
        rng = np.random.default_rng((self.seed, step, 1))
        with alone():
            total = self.objective.gradients(self.model, items[: bounds[1]], len(items), rng)
        state = _arrays(self.model)
        for part, (_, pipe, results) in enumerate(self._children, start=1):
            other = _exchange(part, pipe.recv)
            if isinstance(other, Exception):
                raise other
            total = total + other
            for array, result in zip(state, results, strict=True):
                if not isinstance(array, Parameter):
                    array.value = array.value + (result - array.value) / array.value.dtype.type(part + 1)  # the mean
                else:
                    array.grad = result.copy() if array.grad is None else array.grad + result
        for shared, array in zip(self._statistics, state[len(state) - len(self._statistics) :], strict=True):
            shared[...] = array.value
        return total


def _arrays(model: Module) -> list[Any]:
    """All of a model's Parameters, and then its Buffers, in order."""
    return sorted((array for _, array in model.named_state()), key=lambda array: not isinstance(array, Parameter))


def _views(memory: Any, model: Module, dtype: np.dtype) -> list[np.ndarray]:
    """Arrays in `memory`, one after the other, of the shapes of `_arrays`."""
    flat = np.frombuffer(memory, dtype)
    views, start = [], 0
    for array in _arrays(model):
        views.append(flat[start : start + array.size].reshape(array.shape))
        start += array.size
    return views


def _exchange(part: int, call: Callable[..., Any], *message: Any) -> Any:
    try:
        return call(*message)
    except (EOFError, OSError):
        raise TrainingError(
            f"worker {part} has died, perhaps for want of memory: resume the run, with a smaller batch if it dies again"
        ) from None


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """A process started in here never hears of Ctrl-C or SIGTERM: the first process decides."""
    if threading.current_thread() is not threading.main_thread():  # where signals cannot be set
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve(
    pipe: Connection, config: Any, dtype: str, values: Any, results: Any, objective: Objective, seed: int, part: int
) -> None:
    """A child's life: receive a part of a batch, leave its gradient in shared memory, tell its losses."""
    model = FAMILIES[family_of(config)].network(config)
    state = _arrays(model)
    shared, own = (_views(memory, model, np.dtype(dtype)) for memory in (values, results))
    with alone():
        while True:
            try:
                step, items, batch = pipe.recv()
                try:
                    for array, value in zip(state, shared, strict=True):
                        array.value = value  # statistics too: those that all parts have begun this step with
                    answer: Any = objective.gradients(
                        model, items, batch, np.random.default_rng((seed, step, 1 + part))
                    )
                    for array, result in zip(state, own, strict=True):
                        found = array.grad if isinstance(array, Parameter) else array.value
                        result[...] = 0 if found is None else found
                except Exception as error:
                    answer = error
                pipe.send(answer)
            except (EOFError, OSError):  # the first process has ended, or been killed
                return
