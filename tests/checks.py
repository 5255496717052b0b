"""The two checks that every operator must pass: against PyTorch, and against finite differences of itself.

Some operators must pass a third, of algebra: `check_adjoint`. All use a random cotangent: with ones in its place, that
is, with the gradient of `output.sum()`, a softmax or a layer norm has the gradient zero whatever its backward does.
Errors are relative to the largest number of the array expected.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from minidat.runtime import threads

Arrays = Sequence[np.ndarray | None]

# No array counts as smaller than this: one that ought to vanish (the gradient of a softmax over one score, say), or a
# sum whose terms happen to cancel, still has the rounding noise of its terms, whose size is about 1 in these tests.
SMALLEST_SCALE = {np.float64: 1e-3, np.float32: 1.0}
COTANGENT_SEED = 220100520  # not a seed that Hypothesis finds or shrinks to: the cotangent resembles no argument


def check_against_torch(
    op: Callable[..., Any],
    arrays: Arrays,
    settings: Mapping[str, Any],
    torch_function: Callable[..., torch.Tensor],
    *,
    relative: float = 1e-9,
    float32_relative: float = 1e-5,
) -> None:
    """Compare op(*arrays, **settings) and its gradients with PyTorch's, by autograd.

    torch_function(*tensors, **settings) is the same in PyTorch; arrays: float64, None
    where an optional argument is absent. PyTorch works in float64, for the operator's
    float32 run too, on the same rounded numbers. Also asserted: no argument and no
    cotangent is modified; the gradients are one for each argument, of its shape and
    dtype; a second call of backward, and one with a cotangent of another memory layout,
    give the same. Raises AssertionError naming the operator, shapes, settings, what was
    expected and found.
    """
    for dtype, tolerance in ((np.float64, relative), (np.float32, float32_relative)):
        inputs = [a if a is None or a.dtype == dtype else a.astype(dtype) for a in arrays]
        where = describe(op, inputs, settings)
        smallest = SMALLEST_SCALE[dtype]
        output, gradients = _run(op, inputs, settings, where, tolerance, smallest)
        cotangent = cotangent_like(output)
        expected, expected_gradients = _run_torch(torch_function, inputs, settings, cotangent)
        assert_close(output, expected, tolerance, f"{where}: output", smallest)
        for i, (got, wanted) in enumerate(zip(gradients, expected_gradients, strict=True)):
            if got is not None:
                assert_close(got, wanted, tolerance, f"{where}: gradient of argument {i}", smallest)


def check_finite_differences(
    op: Callable[..., Any],
    arrays: Arrays,
    settings: Mapping[str, Any],
    *,
    step: float = 1e-5,
    relative: float = 1e-6,
    directions: int = 3,
) -> None:
    """Compare backward with (f(x + step v) - f(x - step v)) / (2 step).

    f is the output times a random cotangent. Each array argument (float64) is moved on
    its own, along `directions` random directions v. The error is relative to the norm
    of the gradient, which is the size that g.v has on average. Keep `arrays` away from
    kinks by a few steps. Raises AssertionError naming the operator, shapes, settings,
    what was expected and found.
    """
    where = describe(op, arrays, settings)
    output, backward = op(*arrays, **settings)
    cotangent = cotangent_like(output)
    gradients = backward(cotangent)
    # each output number is rounded, and the difference of two of them is divided by the step
    noise = 10 * np.finfo(np.float64).eps * float(np.linalg.norm(cotangent * output)) / step
    rng = np.random.default_rng(COTANGENT_SEED + 1)
    for i, array in enumerate(arrays):
        if array is None:
            continue
        for _ in range(directions):
            v = rng.standard_normal(array.shape)
            sides = [op(*_replaced(arrays, i, array + sign * step * v), **settings)[0] for sign in (1, -1)]
            expected = float(np.sum(cotangent * (sides[0] - sides[1]))) / (2 * step)
            got = float(np.sum(gradients[i] * v))
            allowed = relative * max(float(np.linalg.norm(gradients[i])), abs(expected)) + noise
            if not abs(got - expected) <= allowed:
                raise AssertionError(
                    f"{where}: argument {i}: backward times a direction is {got!r}, "
                    f"finite differences give {expected!r}: they differ by "
                    f"{abs(got - expected):.3g}, allowed are {allowed:.3g}"
                )


def check_adjoint(
    op: Callable[..., Any], arrays: Arrays, settings: Mapping[str, Any], *, argument: int = 0, relative: float = 1e-10
) -> None:
    """For an operator f linear in one argument: <f(v), w> = <v, backward(w)> for random w, v being arrays[argument].

    Also that backward is linear: backward(2 w - 3 u) = 2 backward(w) - 3 backward(u). float64.
    """
    where = describe(op, arrays, settings)
    output, backward = op(*arrays, **settings)
    w = cotangent_like(output)
    u = np.random.default_rng(COTANGENT_SEED + 2).standard_normal(output.shape)
    v, of_w, of_u = arrays[argument], backward(w)[argument], backward(u)[argument]
    assert v is not None
    scale = float(np.linalg.norm(v) * np.linalg.norm(of_w)) + SMALLEST_SCALE[np.float64]
    left, right = float(np.sum(output * w)), float(np.sum(v * of_w))
    assert abs(left - right) <= relative * scale, f"{where}: <f(v), w> is {left!r}, <v, backward(w)> is {right!r}"
    assert_close(backward(2 * w - 3 * u)[argument], 2 * of_w - 3 * of_u, relative, f"{where}: backward is not linear")


@contextmanager
def tiny_chunks(floats: int = 8, thread_count: int = 2) -> Iterator[None]:
    """Kernels work on `floats` numbers at a time, in up to three threads: small arrays get the seams of large ones."""
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith(("minidat.kernels.", "minidat.runtime.")):
                for constant in [c for c in vars(module) if c.endswith(("_FLOATS", "GRAIN", "_TOKENS"))]:
                    small = floats if constant.endswith("_FLOATS") else 1
                    stack.enter_context(mock.patch.object(module, constant, small))
        stack.enter_context(mock.patch.object(threads, "thread_count", return_value=thread_count))
        stack.enter_context(mock.patch.object(threads, "_helpers", return_value=_HELPERS[: thread_count - 1]))
        yield


_HELPERS = [threads._Helper() for _ in range(2)]  # however many cores the machine has


def describe(op: Callable[..., Any], arrays: Arrays, settings: Mapping[str, Any]) -> str:
    """One line: the operator's name, the shapes, dtypes and strides of its arguments, its settings."""
    arguments = ["None" if a is None else f"{a.dtype}{a.shape} strides {a.strides}" for a in arrays]
    return f"{getattr(op, '__name__', repr(op))}({', '.join(arguments)}; {dict(settings)})"


def cotangent_like(output: Any) -> np.ndarray:
    """Standard normal numbers of the output's shape and dtype, always the same ones."""
    shape, dtype = np.shape(output), np.asarray(output).dtype
    return np.asarray(np.random.default_rng(COTANGENT_SEED).standard_normal(shape), dtype)


def assert_close(
    got: Any, expected: Any, relative: float, what: str, smallest: float = SMALLEST_SCALE[np.float64]
) -> None:
    """Every number of `got` within `relative` times the largest magnitude in `expected` (or `smallest`); same shape."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: got shape {got.shape}, expected {expected.shape}"
    if got.size == 0:
        return
    errors = np.abs(got.astype(np.float64) - expected)
    scale = max(float(np.abs(expected).max()), smallest)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(errors), np.inf, errors)), errors.shape)
    if not errors[worst] <= relative * scale:
        place = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: at {place} got {float(got[worst])!r}, expected {float(expected[worst])!r}; "
            f"relative error {errors[worst] / scale:.3g}, allowed {relative:.3g}"
        )


def _run(
    op: Callable[..., Any],
    inputs: Arrays,
    settings: Mapping[str, Any],
    where: str,
    tolerance: float,
    smallest: float,
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """The operator's output and gradients, after every check that needs no second opinion."""
    before = [None if a is None else a.copy() for a in inputs]
    dtype = next(a.dtype for a in inputs if a is not None)
    output, backward = op(*inputs, **settings)
    assert output.dtype == dtype, f"{where}: the output is {output.dtype}, expected {dtype}"
    kept_output = np.array(output)
    cotangent = cotangent_like(output)
    gradients = backward(cotangent)

    assert np.array_equal(cotangent, cotangent_like(output)), f"{where}: backward modified its cotangent"
    assert isinstance(gradients, tuple), f"{where}: backward gave {type(gradients).__name__}, expected a tuple"
    assert len(gradients) == len(inputs), f"{where}: {len(gradients)} gradients, expected {len(inputs)}"
    for i, (gradient, array) in enumerate(zip(gradients, inputs, strict=True)):
        assert (gradient is None) == (array is None), f"{where}: gradient {i} is {gradient!r}, its argument {array!r}"
        if gradient is not None and array is not None:
            found, wanted = (gradient.shape, gradient.dtype), (array.shape, array.dtype)
            assert found == wanted, f"{where}: gradient {i} has shape and dtype {found}, expected {wanted}"

    kept = [None if g is None else g.copy() for g in gradients]
    for gradient, first in zip(backward(cotangent), kept, strict=True):
        same = first is None or np.array_equal(gradient, first, equal_nan=True)
        assert same, f"{where}: backward gives something else when it is called again"
    other_layout = np.asfortranarray(cotangent[..., ::-1])[..., ::-1] if cotangent.ndim else cotangent
    for i, (gradient, first) in enumerate(zip(backward(other_layout), kept, strict=True)):
        if first is not None:
            assert_close(gradient, first, tolerance, f"{where}: gradient {i}, non-contiguous cotangent", smallest)

    for i, (array, copy) in enumerate(zip(inputs, before, strict=True)):
        same = array is None or copy is None or np.array_equal(array, copy, equal_nan=True)
        assert same, f"{where}: argument {i} was modified"
    assert np.array_equal(output, kept_output, equal_nan=True), f"{where}: backward modified the output"
    return kept_output, kept


def _run_torch(
    torch_function: Callable[..., torch.Tensor], inputs: Arrays, settings: Mapping[str, Any], cotangent: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """PyTorch's output and gradients in float64. An argument that does not matter has the gradient zero.

    Its own tensors are contiguous: some of its convolutions refuse others.
    """
    tensors = [
        None if a is None else torch.tensor(np.array(a, np.float64, order="C"), requires_grad=True) for a in inputs
    ]
    output = torch_function(*tensors, **settings)
    output.backward(torch.tensor(cotangent.astype(np.float64)))
    gradients = [
        None if t is None else (torch.zeros_like(t) if t.grad is None else t.grad).detach().numpy() for t in tensors
    ]
    return output.detach().numpy(), gradients


def _replaced(arrays: Arrays, index: int, array: np.ndarray) -> list[np.ndarray | None]:
    return [array if i == index else other for i, other in enumerate(arrays)]
