"""Every kernel against its operator in the textbook: output and gradients, at all seams, in one thread or several.

In float64 they agree to 1e-12; in float32 the kernel is no further from the float64 truth than twice the textbook in
float32, plus EPSILON (or what COARSER says) of the largest number.
"""

from __future__ import annotations

import mmap
import sys
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from minidat import kernels, ops
from minidat.kernels import KERNELS, takes_keep
from minidat.runtime.team import Arena, Member, TeamError, run_as

from .checks import SMALLEST_SCALE, assert_close, cotangent_like, describe, tiny_chunks
from .strategies import arrays, convolutions, map_shapes, map_sizes, normal, optional_arrays, seeds, shapes
from .test_attention import attention_cases
from .test_batch_normalization import batch_norm_cases, conv_norm_cases
from .test_linear import linear_arrays
from .test_losses import pixel_loss_cases
from .test_neighborhood import cases as neighborhood_cases
from .test_neighborhood import from_one_array
from .test_normalization import layer_norm_arrays
from .test_roi_align import roi_cases
from .test_sampling import product_grid_cases, sampling_cases
from .test_transposed_convolution import transposed_cases
from .test_windows import windowed_maps

EPSILON = 2e-6  # 17 float32 roundings, relative to the largest number or 1; GELU's fraction needs 6e-7
# the derivatives of GELU are summed over all tokens, and so are their errors; neighborhood attention's backward has its
# weights once more from a logarithm, whose rounding grows with the scores
COARSER = {ops.mlp: 2e-5, ops.convolutional_mlp: 2e-5, ops.neighborhood_attention: 2e-5}
RESIZING_METHODS = ("nearest", "bilinear", "bicubic")
Case = tuple[Sequence[np.ndarray | None], dict[str, Any]]


@st.composite
def perceptrons(draw: st.DrawFn) -> Case:
    shape, hidden = draw(shapes(axes=(1, 4))), draw(st.integers(1, 9))
    layers = [(hidden, shape[-1]), (hidden,), (shape[-1], hidden), shape[-1:]]
    return [draw(arrays(shape)), *(draw(arrays(layer)) for layer in layers)], {}


@st.composite
def convolutional_perceptrons(draw: st.DrawFn) -> Case:
    shape, hidden, kernel = draw(map_shapes()), draw(st.integers(1, 9)), draw(st.sampled_from([1, 3, 5]))
    layers = [(hidden, shape[-1]), (hidden,), (hidden, 1, kernel, kernel), (hidden,), (shape[-1], hidden), shape[-1:]]
    return [draw(arrays(shape)), *(draw(arrays(layer)) for layer in layers)], {}


@st.composite
def perceptions(draw: st.DrawFn) -> Case:
    shape, kernel = draw(map_shapes()), draw(st.sampled_from([1, 3, 5]))
    return [draw(arrays(shape)), draw(arrays((shape[-1], 1, kernel, kernel))), draw(arrays(shape[-1:]))], {}


@st.composite
def residuals(draw: st.DrawFn) -> Case:
    shape = draw(shapes(axes=(1, 4)))
    return [draw(arrays(shape)), draw(arrays(shape)), draw(optional_arrays(shape[-1:]))], {}


@st.composite
def resizings(draw: st.DrawFn) -> Case:
    settings = {"size": draw(map_sizes(longest=20)), "align_corners": draw(st.booleans())}
    return [draw(arrays(draw(map_shapes())))], {**settings, "method": draw(st.sampled_from(RESIZING_METHODS))}


@st.composite
def shifts(draw: st.DrawFn) -> Case:
    return [draw(arrays(draw(map_shapes())))], {"shift": draw(st.integers(-5, 5))}


@st.composite
def reversals(draw: st.DrawFn) -> Case:
    x, window = draw(windowed_maps())
    settings = {"window": window, "height": x.shape[1], "width": x.shape[2]}
    return [ops.window_partition(x, window=window)[0]], settings


@st.composite
def suppressions(draw: st.DrawFn) -> Case:
    """Boxes that overlap much, some with equal scores, some without area, in a few classes."""
    rng = np.random.default_rng(draw(seeds()))
    count = draw(st.integers(0, 200))
    corners = rng.integers(0, 8, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 6, (count, 2))], axis=1).astype(np.float64)
    boxes += rng.choice([0, 1e-3], (count, 1)) * rng.standard_normal((count, 4))
    threshold = draw(st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
    return [boxes, rng.integers(0, 40, count) / 40, rng.integers(0, 3, count)], {"threshold": threshold}


CASES: dict[Callable[..., Any], st.SearchStrategy[Case]] = {
    ops.attention: attention_cases(),
    ops.batch_norm: st.booleans().flatmap(batch_norm_cases),
    ops.conv2d: st.sampled_from(["general", "depthwise", "pointwise", "3x3", "patches", "few pixels"]).flatmap(
        convolutions
    ),
    ops.conv_norm_relu: conv_norm_cases(),
    ops.convolutional_mlp: convolutional_perceptrons(),
    ops.cyclic_shift: shifts(),
    ops.gelu: shapes(axes=(1, 4)).flatmap(arrays).map(lambda x: ([3 * x], {})),
    ops.grid_sample: st.booleans().flatmap(
        lambda aligned: sampling_cases(aligned).map(lambda inputs: (inputs, {"align_corners": aligned}))
    ),
    ops.layer_norm: layer_norm_arrays().map(lambda inputs: (inputs, {"eps": 0.1})),
    ops.linear: linear_arrays().map(lambda inputs: (inputs, {})),
    ops.local_perception: perceptions(),
    ops.mlp: perceptrons(),
    ops.neighborhood_attention: neighborhood_cases(longer=6),
    ops.pixel_cross_entropy: pixel_loss_cases(),
    ops.resize: resizings(),
    ops.roi_align: roi_cases(),
    ops.sample_product_grid: product_grid_cases().map(lambda inputs: (inputs, {})),
    ops.transposed_conv2d: transposed_cases(),
    ops.window_partition: windowed_maps().map(lambda case: ([case[0]], {"window": case[1]})),
    ops.window_reverse: reversals(),
}


# Operators that choose something, have no gradient, and leave no room for an error.
CHOICES: dict[Callable[..., Any], st.SearchStrategy[Case]] = {
    ops.class_nms: suppressions(),
    ops.nms: suppressions().map(lambda case: (case[0][:2], case[1])),
}


def results(
    op: Callable[..., Any], inputs: Sequence[np.ndarray | None], settings: dict[str, Any]
) -> list[np.ndarray | None]:
    """Output and all gradients of a random cotangent."""
    output, backward = op(*inputs, **settings)
    return [output, *backward(cotangent_like(output))]


def check_kernel(
    kernel: Callable[..., Any],
    op: Callable[..., Any],
    inputs: Sequence[np.ndarray | None],
    settings: dict[str, Any],
    expected: Callable[[np.dtype], list[np.ndarray | None]],
) -> None:
    """Compare a kernel with what is expected of its operator in float64 and float32, on the same numbers."""
    truth = expected(np.dtype(np.float64))
    for dtype in (np.dtype(np.float64), np.dtype(np.float32)):
        typed = [None if a is None else a.astype(dtype, copy=False) for a in inputs]
        where = describe(kernel, typed, settings)
        before = [None if a is None else a.copy() for a in typed]
        found, plain = results(kernel, typed, settings), expected(dtype)
        for i, (got, textbook, true) in enumerate(zip(found, plain, truth, strict=True)):
            what = f"{where}: " + ("output" if i == 0 else f"gradient of argument {i - 1}")
            check_result(op, got, textbook, true, what)
        if takes_keep(kernel):
            output, backward = kernel(*typed, **settings, keep=False)
            assert backward is None, where
            check_result(op, output, plain[0], truth[0], f"{where}: output with keep=False")
        for array, copy in zip(typed, before, strict=True):
            assert array is None or np.array_equal(array, copy), f"{where}: an argument was modified"


def check_result(
    op: Callable[..., Any],
    got: np.ndarray | None,
    textbook: np.ndarray | None,
    truth: np.ndarray | None,
    what: str,
) -> None:
    """Compare one result of a kernel with the textbook's in the same dtype and in float64 (the truth)."""
    assert (got is None) == (truth is None), what
    if got is None or textbook is None or truth is None:
        return
    assert (got.shape, got.dtype) == (truth.shape, textbook.dtype), what
    if got.dtype == np.float64:
        assert_close(got, truth, 1e-12, what, smallest=1e-1)
        return
    scale = max(float(np.abs(truth).max(initial=0)), SMALLEST_SCALE[np.float32])
    error, textbook_error = (float(np.abs(a - truth).max(initial=0)) for a in (got, textbook))
    allowed = 2 * textbook_error + COARSER.get(op, EPSILON) * scale
    assert error <= allowed, f"{what}: off by {error}, the textbook by {textbook_error}"


def of_textbook(
    op: Callable[..., Any], inputs: Sequence[np.ndarray | None], settings: dict[str, Any]
) -> Callable[[np.dtype], list[np.ndarray | None]]:
    """What the operator gives: in float64 of numbers rounded to float32, as the kernel in float32 sees them."""
    known = {
        dtype: results(op, [None if a is None else a.astype(dtype, copy=False) for a in inputs], settings)
        for dtype in (np.dtype(np.float64), np.dtype(np.float32))
    }
    return known.__getitem__


def rounded(inputs: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """The same arrays, in float64, of numbers that float32 holds exactly."""
    return [None if a is None else a.astype(np.float32).astype(np.float64) for a in inputs]


def test_every_kernel_has_its_cases() -> None:
    assert set(CASES) | set(CHOICES) == set(KERNELS)


def test_all_names_every_kernel() -> None:
    assert set(kernels.__all__) == {kernel.__name__ for kernel in KERNELS.values()} | {"KERNELS", "takes_keep"}


@pytest.mark.parametrize("op", CASES, ids=lambda op: op.__name__)
def test_kernel_equals_textbook(op: Callable[..., Any]) -> None:
    @given(CASES[op], st.sampled_from([1, 2, 3]), st.sampled_from([4, 8, 64]))
    def check(case: Case, thread_count: int, floats: int) -> None:
        inputs, settings = case
        for array in inputs:
            if array is not None:
                array[...] = array.astype(np.float32)  # in place: the memory layout stays
        expected = of_textbook(op, inputs, settings)
        check_kernel(KERNELS[op], op, inputs, settings, expected)
        with tiny_chunks(floats, thread_count):
            check_kernel(KERNELS[op], op, inputs, settings, expected)

    check()


@pytest.mark.parametrize("op", CASES, ids=lambda op: op.__name__)
def test_the_number_of_threads_does_not_matter_to_a_single_bit(op: Callable[..., Any]) -> None:
    @given(CASES[op])
    def check(case: Case) -> None:
        inputs, settings = case
        inputs = [None if a is None else a.astype(np.float32) for a in inputs]
        found = []
        for thread_count in (1, 2, 3):
            with tiny_chunks(8, thread_count):
                found.append(results(KERNELS[op], inputs, settings))
        for other in found[1:]:
            for i, (a, b) in enumerate(zip(found[0], other, strict=True)):
                assert (a is None and b is None) or np.array_equal(a, b), (op.__name__, i)

    check()


@pytest.mark.parametrize("op", CHOICES, ids=lambda op: op.__name__)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_kernel_chooses_as_the_textbook(op: Callable[..., Any], dtype: type) -> None:
    @given(CHOICES[op], st.sampled_from([1, 3, 64]))
    def check(case: Case, block: int) -> None:
        (boxes, scores, *classes), settings = case
        inputs = [boxes.astype(dtype), scores.astype(dtype), *classes]  # type: ignore[union-attr]
        expected = op(*inputs, **settings)
        with mock.patch.object(sys.modules[KERNELS[ops.nms].__module__], "BLOCK", block):
            found = KERNELS[op](*inputs, **settings)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)

    check()


def in_team(size: int, forward: Callable[[], Any]) -> list[np.ndarray]:
    """What each member of a team gets, one program run by all: threads here, on memory that processes could share."""
    memory = mmap.mmap(-1, 2**24)
    arrivals, found, fingerprints = memoryview(memory)[:4096].cast("q"), {}, {}
    errors: list[Exception] = []

    def check() -> None:
        if errors:
            raise TeamError

    def run(rank: int) -> None:
        member = Member(rank, size, Arena(memory, 4096, 2**24), arrivals, 1, check)
        try:
            found[rank] = np.array(run_as(member, forward))
            fingerprints[rank] = member.finish()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert len(set(fingerprints.values())) == 1, "the members have made different arrays"
    return [found[rank] for rank in range(size)]


@pytest.mark.parametrize("op", CASES, ids=lambda op: op.__name__)
def test_members_of_a_team_get_the_same_to_a_single_bit(op: Callable[..., Any]) -> None:
    @settings(max_examples=10)
    @given(CASES[op], st.sampled_from([2, 3]))
    def check(case: Case, size: int) -> None:
        inputs, settings = case
        hints = {"keep": False} if takes_keep(KERNELS[op]) else {}
        with tiny_chunks(8, 1):
            expected = KERNELS[op](*inputs, **settings, **hints)[0]
            for found in in_team(size, lambda: KERNELS[op](*inputs, **settings, **hints)[0]):
                assert np.array_equal(found, expected)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # they wait for each other by looking
    try:
        check()
    finally:
        sys.setswitchinterval(interval)


def test_a_planted_error_is_found() -> None:
    def wrong(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, Any]:
        output, backward = KERNELS[ops.linear](x, weight, bias)
        return output, lambda d: (backward(d)[0], backward(d)[1] * (1 + 1e-11), backward(d)[2])

    inputs = rounded([normal((3, 4), 0), normal((5, 4), 1), normal((5,), 2)])
    expected = of_textbook(ops.linear, inputs, {})
    check_kernel(KERNELS[ops.linear], ops.linear, inputs, {}, expected)
    with pytest.raises(AssertionError, match="gradient of argument 1"):
        check_kernel(wrong, ops.linear, inputs, {}, expected)


def test_gelu_in_float32_is_exact_to_6e_7_everywhere() -> None:
    x = np.linspace(-8, 8, 400_001).astype(np.float32)
    output, backward = KERNELS[ops.gelu](x)
    exact = x.astype(np.float64)
    density = np.exp(-exact * exact / 2) / np.sqrt(2 * np.pi)
    assert np.abs(output - exact * ndtr(exact)).max() < 6e-7  # PyTorch's own: 1.1e-6
    assert np.abs(backward(np.ones_like(x))[0] - ndtr(exact) - exact * density).max() < 6e-7


def test_product_grid_of_many_keys() -> None:
    """A table so tall that the keys are taken a few at a time."""
    rows = np.random.default_rng(0).uniform(-2, 202, (2, 1, 25, 3)).round(1) + 0.05
    columns = np.random.default_rng(1).uniform(-2, 7, (2, 1, 25, 60)).round(1) + 0.05
    inputs = rounded([normal((2, 201, 5), 2), rows, columns])
    op = ops.sample_product_grid
    check_kernel(KERNELS[op], op, inputs, {}, of_textbook(op, inputs, {}))


def test_memory_of_neighborhood_attention_is_proportional_to_pixels_and_window() -> None:
    """Keys and values of all windows together would be 49 times the map; the scores alone are 3 times the map here."""
    neighborhood_attention = KERNELS[ops.neighborhood_attention]
    query, key, value = (a.astype(np.float32) for a in from_one_array((1, 56, 56, 2, 32), 0))
    bias = np.zeros((2, 13, 13), np.float32)
    neighborhood_attention(query, key, value, bias, kernel=7, scale=1.0)  # what is computed only once
    tracemalloc.start()
    try:
        output, backward = neighborhood_attention(query, key, value, bias, kernel=7, scale=1.0)
        kept, forward_peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        backward(output)
        _, backward_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    map_bytes, scores_bytes = output.nbytes, 56 * 56 * 2 * 49 * 4
    assert kept < map_bytes + scores_bytes
    assert forward_peak < 10 * map_bytes
    assert backward_peak < 20 * map_bytes
