"""The threading helper: every item once, errors passed on, OpenBLAS left as it was found."""

import platform
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidat.nn import Context
from minidat.runtime import threads as _threads

BEFORE = sys.getswitchinterval(), _threads._cores()


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    """So many threads, whatever the machine has."""
    helpers = [_threads._Helper() for _ in range(request.param - 1)]
    monkeypatch.setattr(_threads, "thread_count", lambda: request.param)
    monkeypatch.setattr(_threads, "_helpers", lambda: helpers)
    return request.param


@pytest.mark.parametrize(("count", "grain"), [(0, 1), (1, 1), (2, 1), (7, 1), (7, 3), (100, 30), (5, 100)])
def test_every_item_is_worked_on_once(threads, count, grain):
    seen = np.zeros(count, int)
    slices = []

    def work(start, stop):
        slices.append((start, stop))
        seen[start:stop] += 1

    _threads.parallel(work, count, grain=grain)
    assert (seen == 1).all()
    assert len(slices) <= threads
    assert all(stop - start >= grain for start, stop in slices) or len(slices) == 1


@pytest.mark.parametrize("step", [1, 3, 50])
def test_parts_are_small_and_of_nearly_one_size(threads, step):
    parts = []
    _threads.in_parts(parts.append, 20, step=step, grain=1)
    assert sorted(i for part in parts for i in range(part.start, part.stop)) == list(range(20))
    assert all(part.stop - part.start <= step for part in parts)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_any_thread_reaches_the_caller_after_all_have_stopped(threads, failing):
    def work(start, stop):
        if (start > 0) == bool(failing and threads > 1):
            raise ZeroDivisionError(f"from {start}")

    with pytest.raises(ZeroDivisionError):
        _threads.parallel(work, 10)
    done = []
    _threads.parallel(lambda start, stop: done.append(stop - start), 10)  # and nothing is left locked
    assert sum(done) == 10


def test_a_call_from_inside_works_alone(threads):
    inner = []

    def work(start, stop):
        _threads.parallel(lambda a, b: inner.append((threading.get_ident(), b - a)), 4)

    _threads.parallel(work, 6)
    assert [size for _, size in inner] == [4] * len(inner)


def test_openblas_has_its_threads_back():
    get, _ = _threads._openblas()
    before = get()
    inside = []
    _threads.parallel(lambda start, stop: inside.append(get()), 4)
    assert set(inside) == {1}
    assert get() == before


@pytest.mark.parametrize("failing", [False, True])
def test_the_interpreter_is_as_before(threads, failing):
    """A region changes the interval of the interpreter lock while it lasts, and never the caller's cores."""
    inside = []

    def work(start, stop):
        inside.append((sys.getswitchinterval(), threading.get_ident(), _threads._cores()))
        if failing:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) if failing else nullcontext():
        _threads.parallel(work, 10)
    assert (sys.getswitchinterval(), _threads._cores()) == BEFORE
    if threads > 1:
        assert [interval for interval, _, _ in inside] == pytest.approx([_threads.SWITCH_INTERVAL] * len(inside))
        assert [cores for _, thread, cores in inside if thread == threading.get_ident()] == [BEFORE[1]]


def test_helpers_stay_off_the_core_of_who_calls_them(threads, monkeypatch):
    if not 1 < threads <= len(BEFORE[1]) or _threads._c_library() is None:
        return
    helpers_cores = []

    def work(start, stop):
        if start > 0:
            helpers_cores.append(_threads._cores())

    for core in BEFORE[1]:
        monkeypatch.setattr(_threads, "_c_library", lambda core=core: SimpleNamespace(sched_getcpu=lambda: core))
        helpers_cores.clear()
        _threads.parallel(work, 10)
        assert helpers_cores == [BEFORE[1] - {core}] * (threads - 1)


@pytest.mark.parametrize("acquired", [False, True])
def test_an_interruption_while_waiting_leaves_all_in_order(threads, acquired, monkeypatch):
    """Ctrl-C before or after a helper's end has been noticed: all have ended, and the next region is as usual."""
    if threads == 1:
        return
    helper, ended = _threads._helpers()[0], []

    class Interrupted:
        def __init__(self, lock):
            self.lock, self.times = lock, 0

        def acquire(self, blocking=True):
            self.times += 1
            if self.times > 1:
                return self.lock.acquire(blocking)
            if acquired:
                self.lock.acquire()
            raise KeyboardInterrupt

        def release(self):
            self.lock.release()

    def work(start, stop):
        time.sleep(0.01 * start)  # the helpers last longer
        ended.append(start)

    monkeypatch.setattr(helper, "_finished", Interrupted(helper._finished))
    with pytest.raises(KeyboardInterrupt):
        _threads.parallel(work, threads)
    assert sorted(ended) == list(range(threads))
    for _ in range(3):
        ended.clear()
        _threads.parallel(work, threads)
        assert sorted(ended) == list(range(threads))
    assert not _threads._in_use.locked()


def test_operators_without_a_kernel_leave_the_cores_alone_too():
    """Threads of OpenBLAS that have multiplied go on looking for work, on the cores of ours. Plainly they may."""
    get, put = _threads._openblas()
    before, seen = get(), []

    def op(x):
        seen.append(get())
        return x, lambda d_output: (seen.append(get()) or d_output,)

    try:
        put(2)
        usual = get()
        for plain in (False, True):
            _, backward = Context(gradients=True, plain=plain).apply(op, np.zeros(3))
            backward(np.zeros(3))
        assert get() == usual
    finally:
        put(before)
    assert seen == [1, 1, usual, usual]


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70), st.booleans(), st.integers(0, 2**32 - 1))
def test_product_is_the_matrix_product(m, k, n, with_bias, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((n, k)).T
    bias = rng.standard_normal(n) if with_bias else None
    expected = np.einsum("mk,kn->mn", a, b) + (0 if bias is None else bias)
    np.testing.assert_allclose(_threads.product(a, b, bias), expected, rtol=1e-12, atol=1e-12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_threads, "PRODUCT_GRAIN", 0)
        patch.setattr(_threads, "PRODUCT_FLOATS", 16)
        np.testing.assert_allclose(_threads.product(a, b, bias), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 5, 3), (7, 2, 4), (2, 3, 300), (0, 4, 2), (1, 1, 1)])
def test_contiguous_is_an_ordered_copy(threads, shape, monkeypatch):
    monkeypatch.setattr(_threads, "COPY_GRAIN", 4)
    view = np.arange(np.prod(shape)).reshape(shape[::-1]).T
    copy = _threads.contiguous(view)
    assert copy.flags.c_contiguous
    assert not np.shares_memory(copy, view)
    np.testing.assert_array_equal(copy, view)


def test_thread_count_follows_the_environment(monkeypatch):
    for setting, expected in (("3", 3), ("0012", 12), ("1024", 1024)):
        monkeypatch.setenv("MINIDAT_NUM_THREADS", setting)
        assert _threads.thread_count.__wrapped__() == expected
    monkeypatch.setenv("MINIDAT_NUM_THREADS", "")
    assert _threads.thread_count.__wrapped__() >= 1
    monkeypatch.delenv("MINIDAT_NUM_THREADS")
    assert _threads.thread_count.__wrapped__() >= 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide for themselves")
def test_memory_of_freed_arrays_is_not_asked_for_again() -> None:
    """Four times forty arrays of 700 pages: the system has to fill the pages of the first forty alone."""
    program = """
import resource
import numpy as np
from minidat.runtime.threads import parallel

parallel(lambda start, stop: None, 2)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    for array in [np.empty(700 * 4096, np.uint8) for _ in range(40)]:
        array[::4096] = 1
    del array
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 40 * 700
