"""Parameter, Module and Context: the little machinery that turns pure operators into a model.

An operator is a pure function that returns its output and its own backward (see `minidat.ops`). A module owns
parameters and sub-modules and strings operators together. `Context.apply` is the only place where gradients reach a
parameter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import CheckpointError, ShapeError
from ..kernels import KERNELS, takes_keep
from ..runtime.threads import one_blas_thread

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
Backward = Callable[..., Any]


class Buffer:
    """An array that belongs to a model's state without being learned: the running statistics of batch normalization.

    A model is built without numbers: `value` stays None until `Module.initialize` draws it or `Module.load_state_dict`
    sets it, so a 350 MB checkpoint is loaded without first drawing 350 MB of random numbers.
    """

    def __init__(self, shape: tuple[int, ...], initializer: Initializer) -> None:
        self.shape = shape
        self.initializer = initializer
        self.value: np.ndarray = None  # type: ignore[assignment]  # set before a forward pass

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "grad": None}  # what is pickled: a gradient belongs to a step, not to the model

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


class Parameter(Buffer):
    """A learnable array: its `value`, and the `grad` that backward passes add up in it."""

    def __init__(self, shape: tuple[int, ...], initializer: Initializer) -> None:
        super().__init__(shape, initializer)
        self.grad: np.ndarray | None = None

    def accumulate(self, gradient: np.ndarray) -> None:
        """Add `gradient`, of the value's shape, to `grad`."""
        if self.grad is None:
            self.grad = gradient
        else:
            self.grad = self.grad + gradient


@dataclass
class AttentionRecord:
    """What one deformable attention module did on one batch, kept for pictures. Coordinates are (y, x) in [-1, 1]."""

    positions: np.ndarray  # (B, groups, Hk, Wk, 2) sampling points
    reference: np.ndarray  # (Hk, Wk, 2) the points before the offsets
    attention: np.ndarray  # (B, heads, keys, queries) probabilities, queries in row-major order of the map
    map_size: tuple[int, int]  # (H, W) of the queries


@dataclass
class LocalAttentionRecord:
    """What one window or neighborhood attention module did on one batch: each query sees K tokens, its window."""

    tokens: np.ndarray  # (queries, K, 2) row and column of each; those of a padded map may lie beyond its border
    attention: np.ndarray  # (B, heads, K, queries) probabilities, queries in row-major order of the map
    map_size: tuple[int, int]  # (H, W) of the queries


@dataclass
class Context:
    """Everything a forward pass needs to know besides its input: the one thing that is passed along.

    gradients: keep what backward needs, and return a backward (otherwise forward returns None in its place).
    training:  dropout and stochastic depth are active; they draw from `rng`.
    trace:     if a dict is given, deformable attention leaves an `AttentionRecord` in it under its module's path.
    local_trace: the same for window and neighborhood attention, which leave a `LocalAttentionRecord`.
    profile:   if a dict is given, the seconds spent in each operator are added up in it (`minidat bench`).
    plain:     the operators of the textbook do the work, not their kernels; also with MINIDAT_KERNELS=plain in the
               environment.
    """

    gradients: bool = False
    training: bool = False
    rng: np.random.Generator | None = None
    trace: dict[str, AttentionRecord] | None = None
    local_trace: dict[str, LocalAttentionRecord] | None = None
    profile: dict[str, float] | None = None
    plain: bool = field(default_factory=lambda: os.environ.get("MINIDAT_KERNELS") == "plain")

    @property
    def traces(self) -> bool:
        """Whether records for pictures are wanted."""
        return self.trace is not None or self.local_trace is not None

    def apply(self, op: Callable[..., Any], *arguments: Any, **settings: Any) -> tuple[Any, Backward]:
        """Call `op`, or its kernel, on arrays and Parameters (None where an optional argument is absent).

        Returns the output and a backward for the *array* arguments alone: one gradient if there is one such argument,
        else a tuple in their order. The gradients of Parameters are accumulated on the way. Without `gradients` the
        operator's closure is dropped here, and with it all it kept: the backward is None.
        """
        values = [a.value if isinstance(a, Parameter) else a for a in arguments]
        started = time.perf_counter()
        chosen = self.choose(op)
        hints = {"keep": self.gradients} if takes_keep(chosen) else {}
        with self._cores():
            output, op_backward = chosen(*values, **settings, **hints)
        self._record(op.__name__, started)
        if not self.gradients:
            return output, None  # type: ignore[return-value]

        # for backward, instead of the arguments: the op's closure decides what is kept
        parameters = [a if isinstance(a, Parameter) else None for a in arguments]
        is_array = [isinstance(a, np.ndarray) for a in arguments]

        def backward(d_output: np.ndarray) -> Any:
            started = time.perf_counter()
            with self._cores():
                gradients = op_backward(d_output)
            self._record(op.__name__ + " backward", started)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if parameter is not None:
                    parameter.accumulate(gradient)
            d_arrays = tuple(g for g, keep in zip(gradients, is_array, strict=True) if keep)
            return d_arrays[0] if len(d_arrays) == 1 else d_arrays

        return output, backward

    def choose(self, op: Callable[..., Any]) -> Callable[..., Any]:
        """`op`, or its kernel: for the operators without a backward, which a module calls itself."""
        return op if self.plain else KERNELS.get(op, op)

    def _cores(self) -> AbstractContextManager[None]:
        """The cores belong to our threads, also while an operator without a kernel works, unless all of them do."""
        return nullcontext() if self.plain else one_blas_thread()

    def _record(self, name: str, started: float) -> None:
        if self.profile is not None:
            self.profile[name] = self.profile.get(name, 0.0) + time.perf_counter() - started


class Module:
    """Owns Parameters, Buffers and sub-modules, found by attribute in the order they were assigned; lists of them too.

    A subclass defines `forward(x, context) -> (output, backward)`, where `backward(d_output)` returns the gradient of
    x.
    """

    path: str = ""  # dotted path from the model, set by the model when it is built

    def forward(self, x: Any, context: Context) -> tuple[Any, Backward]:
        raise NotImplementedError

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Inference: no gradients, nothing kept."""
        return self.forward(x, Context())[0]

    def children(self) -> Iterator[tuple[str, Buffer | Module]]:
        """(name, Parameter, Buffer or Module) for each attribute that is one, in order; list items are `name.0`, ..."""
        for name, value in vars(self).items():
            if isinstance(value, (Buffer, Module)):
                yield name, value
            elif isinstance(value, list):
                yield from ((f"{name}.{i}", item) for i, item in enumerate(value) if isinstance(item, (Buffer, Module)))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(dotted path, module) of this module, path `prefix`, and all below it."""
        yield prefix, self
        for name, child in self.children():
            if isinstance(child, Module):
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_state(self) -> Iterator[tuple[str, Buffer]]:
        """(dotted name, Parameter or Buffer), in order: `stages.2.blocks.1.attention.offset_conv.weight`."""
        for path, module in self.named_modules():
            for name, child in module.children():
                if isinstance(child, Buffer):
                    yield (f"{path}.{name}" if path else name), child

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, Parameter), in order: what is learned, without the Buffers."""
        yield from ((name, array) for name, array in self.named_state() if isinstance(array, Parameter))

    def parameter_count(self) -> int:
        return sum(parameter.size for _, parameter in self.named_parameters())

    def initialize(self, rng: np.random.Generator, dtype: Any = np.float32) -> None:
        """Draw every value from its initializer, in order."""
        for _, array in self.named_state():
            array.value = array.initializer(rng, array.shape).astype(dtype, copy=False)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for _, parameter in self.named_parameters():
            parameter.grad = None

    def astype(self, dtype: Any) -> Module:
        """Convert every value to `dtype`, in place; returns the module. Gradients are forgotten."""
        for _, array in self.named_state():
            array.value = array.value.astype(dtype, copy=False)
        self.zero_grad()
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """name -> value of every Parameter and Buffer (the arrays themselves, not copies)."""
        return {name: array.value for name, array in self.named_state()}

    def load_state_dict(self, state: Mapping[str, np.ndarray], *, copy: bool = True) -> None:
        """Set every Parameter and Buffer, in the dtype the model has; a model without values takes that of `state`.

        With `copy=False` an array that already has the right dtype becomes the value itself. Raises CheckpointError
        listing *every* missing name, unknown name, wrong shape and wrong dtype; nothing is changed then.
        """
        arrays = dict(self.named_state())
        problems = [f"missing {name}" for name in arrays if name not in state]
        problems += [f"unexpected {name}" for name in state if name not in arrays]
        problems += [
            f"{name} has shape {np.shape(state[name])}, expected {array.shape}"
            for name, array in arrays.items()
            if name in state and np.shape(state[name]) != array.shape
        ]
        problems += [
            f"{name} has dtype {np.asarray(value).dtype}, expected numbers"
            for name, value in state.items()
            if name in arrays and np.asarray(value).dtype.kind not in "fiu"
        ]
        if problems:
            raise CheckpointError(f"the weights do not fit the model: {'; '.join(problems)}")
        for name, array in arrays.items():
            value = np.asarray(state[name])
            dtype = value.dtype if array.value is None else array.value.dtype
            array.value = np.array(value, dtype=dtype, order="C", copy=True if copy else None)
        self.zero_grad()


def check_images(images: np.ndarray) -> None:
    """Raise ShapeError unless `images` is a (B, H, W, 3) array of floats."""
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape or images.dtype.kind != "f":
        raise ShapeError(
            f"images: found shape {images.shape} of {images.dtype}, expected (batch, height, width, 3) normalized "
            "floats (see minidat.preprocess)"
        )
