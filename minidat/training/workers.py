"""One training step's gradient, computed by several processes that share the batch (data parallelism).

Each process has the whole model and differentiates the loss of its part of the batch alone, on one core; the parts'
gradients add up to the batch's. Threads inside every operator would wait for each other a hundred times a step, and for
Python's interpreter lock; processes meet once. Weights and gradients lie in memory that all of them see.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .. import ops
from ..data.augmentation import Augmentation
from ..errors import TrainingError
from ..models import DAT, ModelConfig
from ..nn import Context, Module
from ..runtime.threads import alone


@dataclass(frozen=True)
class Part:
    """What one part of a batch gave: the sum of its images' losses, and how many were taken for what they are.

    Of a mixture of two images that is the one with the larger share.
    """

    loss: float
    correct: int


class GradientWorkers:
    """`workers` processes, this one among them, that compute gradients of the same model.

    The values of `model`'s parameters move into shared memory, where an optimizer updates them in place. A part of a
    batch draws its random numbers (augmentation, stochastic depth) from a generator seeded with (seed, step, 1 + part)
    alone: a step can be repeated exactly. Use as a context manager; the processes end with it, and with this process.
    """

    def __init__(self, model: DAT, augmentation: Augmentation, *, workers: int, seed: int) -> None:
        self.model, self.augmentation, self.workers, self.seed = model, augmentation, workers, seed
        self._children: list[tuple[Any, Connection, list[np.ndarray]]] = []  # process, pipe to it, its gradients

    def __enter__(self) -> GradientWorkers:
        model = self.model
        if self.workers == 1:
            return self
        context = multiprocessing.get_context("spawn")  # a forked child would inherit locks of threads it has not
        size = model.parameter_count() * model.dtype.itemsize
        values = self._shared_memory(context, size)
        for (_, parameter), shared in zip(model.named_parameters(), _views(values, model, model.dtype), strict=True):
            shared[...] = parameter.value
            parameter.value = shared
        for part in range(1, self.workers):
            gradients = self._shared_memory(context, size)
            ours, theirs = context.Pipe()
            arguments = (theirs, model.config, str(model.dtype), values, gradients, self.augmentation, self.seed, part)
            process = context.Process(target=_serve, args=arguments, daemon=True, name=f"minidat worker {part}")
            with _no_interrupts():
                process.start()
            theirs.close()  # ours would keep the pipe open after the child's end
            self._children.append((process, ours, list(_views(gradients, model, model.dtype))))
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

    def gradients(self, step: int, images: np.ndarray, labels: np.ndarray) -> Part:
        """Set every parameter's gradient to that of the mean loss of a batch, augmented; tell loss and hits.

        images: (B, H, W, 3) uint8, labels: (B,) integers. Raises TrainingError if a process has died.
        """
        bounds = [len(images) * i // self.workers for i in range(self.workers + 1)]
        for part, (_, pipe, _) in enumerate(self._children, start=1):
            chosen = slice(bounds[part], bounds[part + 1])
            _exchange(part, pipe.send, (step, images[chosen], labels[chosen], len(images)))
        rng = np.random.default_rng((self.seed, step, 1))
        with alone():
            own = slice(bounds[1])
            total = part_gradients(self.model, self.augmentation, images[own], labels[own], len(images), rng)
        for part, (_, pipe, gradients) in enumerate(self._children, start=1):
            other = _exchange(part, pipe.recv)
            if isinstance(other, Exception):
                raise other
            total = Part(total.loss + other.loss, total.correct + other.correct)
            for (_, parameter), gradient in zip(self.model.named_parameters(), gradients, strict=True):
                parameter.grad = gradient.copy() if parameter.grad is None else parameter.grad + gradient
        return total


def part_gradients(
    model: DAT,
    augmentation: Augmentation,
    images: np.ndarray,
    labels: np.ndarray,
    batch: int,
    rng: np.random.Generator,
) -> Part:
    """Forward, loss and backward of a part of a batch of `batch` images: gradients of (sum of its losses) / batch.

    images: (b, H, W, 3) uint8, labels: (b,) integers; gradients are set, not added to those there were.
    """
    inputs, targets = augmentation(images, labels, rng, classes=model.config.num_classes)
    model.zero_grad()
    logits, backward = model.forward(inputs, Context(gradients=True, training=True, rng=rng))
    loss, loss_backward = ops.cross_entropy(logits, targets=targets)
    (d_logits,) = loss_backward(logits.dtype.type(len(images) / batch))
    backward(d_logits)
    correct = logits.argmax(axis=1) == targets.argmax(axis=1)
    return Part(float(loss) * len(images), int(correct.sum()))


def _views(memory: Any, model: Module, dtype: np.dtype) -> list[np.ndarray]:
    """Arrays in `memory`, one after the other, of the shapes of the model's parameters."""
    flat = np.frombuffer(memory, dtype)
    bounds = np.cumsum([0, *(parameter.size for _, parameter in model.named_parameters())])
    return [
        flat[start : start + parameter.size].reshape(parameter.shape)
        for start, (_, parameter) in zip(bounds[:-1], model.named_parameters(), strict=True)
    ]


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
    pipe: Connection,
    config: ModelConfig,
    dtype: str,
    values: Any,
    gradients: Any,
    augmentation: Augmentation,
    seed: int,
    part: int,
) -> None:
    """A child's life: receive a part of a batch, leave its gradient in shared memory, tell loss and hits."""
    model = DAT(config)
    for (_, parameter), value in zip(model.named_parameters(), _views(values, model, np.dtype(dtype)), strict=True):
        parameter.value = value
    shared = _views(gradients, model, np.dtype(dtype))
    with alone():
        while True:
            try:
                step, images, labels, batch = pipe.recv()
                try:
                    rng = np.random.default_rng((seed, step, 1 + part))
                    answer: Any = part_gradients(model, augmentation, images, labels, batch, rng)
                    for (_, parameter), gradient in zip(model.named_parameters(), shared, strict=True):
                        gradient[...] = 0 if parameter.grad is None else parameter.grad
                except Exception as error:
                    answer = error
                pipe.send(answer)
            except (EOFError, OSError):  # the first process has ended, or been killed
                return
