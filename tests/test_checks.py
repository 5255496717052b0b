"""The checks are checked: each kind of mistake, planted into a correct operator, is caught and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from .checks import assert_close, check_against_torch, check_finite_differences
from .strategies import normal, with_layout

SETTINGS = {"factor": 3.0}


def product(a: np.ndarray, b: np.ndarray, c: np.ndarray | None, *, factor: float) -> tuple[np.ndarray, Any]:
    """output = factor tanh(a b) + c, for square matrices, so that a transposed gradient has the right shape."""
    hidden = np.tanh(a @ b)
    output = factor * hidden if c is None else factor * hidden + c

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        d_product = factor * d_output * (1 - hidden**2)
        return d_product @ b.T, a.T @ d_product, None if c is None else d_output.copy()

    return output, backward


def torch_product(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None, *, factor: float) -> torch.Tensor:
    hidden = factor * torch.tanh(a @ b)
    return hidden if c is None else hidden + c


def square_arrays() -> list[np.ndarray]:
    return [normal((4, 4), seed) for seed in (1, 2, 3)]


def planted(change: Callable[..., tuple]) -> Callable[..., Any]:
    """`product` with its gradients passed through `change`."""

    def broken(*arrays: Any, factor: float) -> tuple[np.ndarray, Any]:
        output, backward = product(*arrays, factor=factor)
        return output, lambda d_output: change(*backward(d_output))

    return broken


def run_torch_check(op: Callable[..., Any]) -> None:
    check_against_torch(op, square_arrays(), SETTINGS, torch_product)


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided", "reversed"])
def test_a_correct_operator_passes(layout: str) -> None:
    arrays = [with_layout(a, layout) for a in square_arrays()]
    check_against_torch(product, arrays, SETTINGS, torch_product)
    check_finite_differences(product, arrays, SETTINGS)
    check_against_torch(product, [*arrays[:2], None], SETTINGS, torch_product)
    check_finite_differences(product, [*arrays[:2], None], SETTINGS)


WRONG_GRADIENTS = {
    "0.05 % too large": lambda a, b, c: (a, b * 1.0005, c),
    "0.05 % of the largest number off in one place": lambda a, b, c: (
        a,
        b + 5e-4 * np.abs(b).max() * np.eye(4, 4, 3),
        c,
    ),
    "transposed": lambda a, b, c: (a.T, b, c),
    "swapped": lambda a, b, c: (b, a, c),
    "zero": lambda a, b, c: (a, b, np.zeros_like(c)),
    "of the wrong sign": lambda a, b, c: (-a, b, c),
    "not a number": lambda a, b, c: (np.full_like(a, np.nan), b, c),
}


@pytest.mark.parametrize("change", WRONG_GRADIENTS.values(), ids=WRONG_GRADIENTS.keys())
def test_a_wrong_gradient_is_caught_by_both_checks(change: Callable[..., tuple]) -> None:
    with pytest.raises(AssertionError, match=r"gradient (of argument )?\d.*: at \(\d, \d\) got .*, expected"):
        run_torch_check(planted(change))
    with pytest.raises(AssertionError, match=r"argument \d: backward times a direction is"):
        check_finite_differences(planted(change), square_arrays(), SETTINGS)


WRONG_FORMS = {
    "not a tuple": (lambda a, b, c: [a, b, c], "expected a tuple"),
    "too few": (lambda a, b, c: (a, b), "2 gradients, expected 3"),
    "of another shape": (lambda a, b, c: (a, b, c[:1]), "gradient 2 has shape and dtype"),
    "upcast": (lambda a, b, c: (a, b.astype(np.float64), c), "gradient 1 has shape and dtype"),
    "missing": (lambda a, b, c: (a, None, c), "gradient 1 is None"),
}


@pytest.mark.parametrize(("change", "message"), WRONG_FORMS.values(), ids=WRONG_FORMS.keys())
def test_gradients_of_the_wrong_form_are_caught(change: Callable[..., Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        run_torch_check(planted(change))


def test_a_gradient_for_an_absent_argument_is_caught() -> None:
    broken = planted(lambda a, b, c: (a, b, a))
    with pytest.raises(AssertionError, match="gradient 2 is"):
        check_against_torch(broken, [*square_arrays()[:2], None], SETTINGS, torch_product)


def test_a_wrong_output_is_caught() -> None:
    def broken(*arrays: Any, factor: float) -> tuple[np.ndarray, Any]:
        output, backward = product(*arrays, factor=factor)
        return output * 1.0005, backward

    with pytest.raises(AssertionError, match=r"broken\(float64.*'factor': 3.0.*output: at"):
        run_torch_check(broken)
    with pytest.raises(AssertionError, match="finite differences"):
        check_finite_differences(broken, square_arrays(), SETTINGS)


def test_an_upcast_output_is_caught() -> None:
    def broken(*arrays: Any, factor: float) -> tuple[np.ndarray, Any]:
        output, backward = product(*arrays, factor=factor)
        return output.astype(np.float64), backward

    with pytest.raises(AssertionError, match="the output is float64, expected float32"):
        run_torch_check(broken)


def test_a_float32_run_of_poor_precision_is_caught() -> None:
    def broken(*arrays: Any, factor: float) -> tuple[np.ndarray, Any]:
        output, backward = product(*arrays, factor=factor)
        return (output.astype(np.float16) if output.dtype == np.float32 else output).astype(output.dtype), backward

    with pytest.raises(AssertionError, match=r"broken\(float32.*output: at"):
        run_torch_check(broken)


def test_a_modified_argument_is_caught() -> None:
    def broken(a: np.ndarray, b: np.ndarray, c: np.ndarray, *, factor: float) -> tuple[np.ndarray, Any]:
        result = product(a, b, c, factor=factor)
        a += 1
        return result

    with pytest.raises(AssertionError, match="argument 0 was modified"):
        run_torch_check(broken)


def test_a_modified_cotangent_is_caught() -> None:
    def broken(*arrays: Any, factor: float) -> tuple[np.ndarray, Any]:
        output, backward = product(*arrays, factor=factor)

        def modifying(d_output: np.ndarray) -> tuple:
            gradients = backward(d_output)
            d_output *= 2
            return gradients

        return output, modifying

    with pytest.raises(AssertionError, match="modified its cotangent"):
        run_torch_check(broken)


def test_a_closure_that_is_used_up_is_caught() -> None:
    def broken(*arrays: Any, factor: float) -> tuple[np.ndarray, Any]:
        output, backward = product(*arrays, factor=factor)
        calls: list[int] = []

        def once(d_output: np.ndarray) -> tuple:
            calls.append(1)
            return tuple(g * len(calls) for g in backward(d_output))

        return output, once

    with pytest.raises(AssertionError, match="when it is called again"):
        run_torch_check(broken)


def test_a_backward_that_takes_the_cotangent_for_contiguous_is_caught() -> None:
    def broken(*arrays: Any, factor: float) -> tuple[np.ndarray, Any]:
        output, backward = product(*arrays, factor=factor)
        return output, lambda d_output: backward(np.ravel(d_output, order="K").reshape(d_output.shape))

    with pytest.raises(AssertionError, match="gradient 0, non-contiguous cotangent"):
        run_torch_check(broken)


def test_softmax_with_a_zero_backward_is_caught() -> None:
    """The trap of a cotangent of ones: under it the gradient of a softmax is zero, right or wrong."""

    def broken(x: np.ndarray) -> tuple[np.ndarray, Any]:
        powers = np.exp(x)
        return powers / powers.sum(axis=-1, keepdims=True), lambda d_output: (np.zeros_like(x),)

    x = normal((3, 4), 0)
    with pytest.raises(AssertionError, match="gradient of argument 0"):
        check_against_torch(broken, [x], {}, lambda x: torch.softmax(x, dim=-1))
    with pytest.raises(AssertionError, match="finite differences"):
        check_finite_differences(broken, [x], {})


def test_assert_close_sees_shape_and_not_a_number() -> None:
    with pytest.raises(AssertionError, match=r"got shape \(1,\), expected \(2,\)"):
        assert_close(np.zeros(1), np.zeros(2), 1.0, "x")
    with pytest.raises(AssertionError, match=r"at \(1,\) got nan"):
        assert_close(np.array([0.0, np.nan]), np.zeros(2), 1.0, "x")
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)), 0.0, "x")


@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed"])
def test_layouts_are_not_contiguous_and_keep_the_numbers(layout: str) -> None:
    array = normal((2, 3, 4), 5)
    view = with_layout(array, layout)
    assert np.array_equal(view, array)
    assert not view.flags.c_contiguous
