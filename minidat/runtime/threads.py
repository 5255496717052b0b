"""Share the rows of an array among threads or, in inference, processes: how minidat uses more than one core.

NumPy releases the interpreter lock inside its loops, so two Python threads really work at the same time. OpenBLAS must
not start threads of its own meanwhile, not even for a product on the side: after it they spin for a while, waiting for
more, and take the cores from everybody else. Hence the switch.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np

from ..errors import ConfigError, shown
from .locks import Lock
from .team import current, empty, in_region

# Numbers worked on at once. Fewer would stay in a faster cache, but threads meet at Python's interpreter lock after
# every call of NumPy, and each meeting costs as much as a pass over ten thousand numbers.
CACHE_FLOATS = 262144
SHARES = 2  # into so many parts work is cut at least, if it is worth sharing: the same for one thread and for two
PRODUCT_FLOATS = 131072  # of a product's result at once: one array of this length does
PRODUCT_GRAIN = 4_000_000  # multiply-adds that are worth waking a thread for
FEW_ROWS = 128  # up to so many OpenBLAS is faster, by up to a quarter, if they are columns
MOST_THREADS = 1024
COPY_GRAIN = 65536  # scattered numbers to copy that are worth waking a thread for


@cache
def thread_count() -> int:
    """MINIDAT_NUM_THREADS if set, else the number of cores this process may use.

    Raises ConfigError for a setting that is no whole number from 1 to MOST_THREADS.
    """
    setting = os.environ.get("MINIDAT_NUM_THREADS", "")
    if setting:
        if not re.fullmatch("[0-9]{1,9}", setting) or not 1 <= int(setting) <= MOST_THREADS:
            raise ConfigError(
                f"MINIDAT_NUM_THREADS: found {shown(setting)}, expected a whole number from 1 to {MOST_THREADS}"
            )
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel(work: Callable[[int, int], None], count: int, *, grain: int = 1) -> None:
    """Call work(start, stop) on slices that cover range(count), one slice a thread, each of at least `grain` items.

    Where the slices end depends on the number of threads, so the results must not: see `cut`.
    In a team of processes (see `team`) one slice a member instead: what `work` writes for others must lie in arrays
    from `empty`.
    """
    member = current()
    if member is not None:
        member.region(work, count, grain)
        return
    if in_region():
        work(0, count)
        return
    helpers = _helpers()[: max(1, min(thread_count(), count // grain)) - 1]
    with one_blas_thread():
        # called from inside `work`, or by two threads of the user at once: the helpers are busy, do it alone
        if not helpers or not _in_use.acquire(blocking=False):
            work(0, count)
            return
        bounds = [count * i // (len(helpers) + 1) for i in range(len(helpers) + 2)]
        called: list[_Helper] = []
        try:
            for i, helper in enumerate(helpers, start=1):
                helper.call(partial(work, bounds[i], bounds[i + 1]))
                called.append(helper)
            work(0, bounds[1])
        finally:  # nobody may still work on these arrays, whatever has happened here
            errors = [helper.wait() for helper in called]
            _in_use.release()
    for error in filter(None, errors):
        raise error


def cut(count: int, *, step: int, grain: int) -> list[slice]:
    """Slices of nearly one size and of up to `step` items that cover range(count), whoever will work on them.

    Where there are SHARES times `grain` items or more, they are a multiple of SHARES, so that threads get equally many.
    The cuts depend on the shapes alone: what they decide, such as the order of a sum, is the same for any number of
    threads.
    """
    parts = -(-count // step)
    if count >= SHARES * grain:
        parts = min(count, -(-parts // SHARES) * SHARES)
    return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


def in_parts(work: Callable[[slice], None], count: int, *, step: int, grain: int) -> None:
    """Call work(slice) on the slices of `cut`, in threads of `grain` items or more."""
    parts = cut(count, step=step, grain=grain)

    def run(start: int, stop: int) -> None:
        for part in parts[start:stop]:
            work(part)

    parallel(run, len(parts), grain=max(1, grain * len(parts) // max(1, count)))


def chunked(work: Callable[[slice], None], rows: int, row_length: int, *, grain: int = CACHE_FLOATS) -> None:
    """Call work(slice) on slices of rows small enough for the cache, in threads with `grain` numbers or more."""
    in_parts(work, rows, step=max(1, CACHE_FLOATS // row_length), grain=max(1, grain // row_length))


def product(a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """The matrix product a b (+ bias, one number a column), with the longer side of the result shared among threads.

    a: (M, K), b: (K, N), bias: (N,) or None -> (M, N). OpenBLAS could share the work itself, but its threads spin for a
    while after each product, and would take the cores from the other operators' threads.
    """
    (m, k), n = a.shape, b.shape[1]
    output = empty((m, n), np.result_type(a, b))
    step = max(1, PRODUCT_FLOATS // n)
    grain = 1 + PRODUCT_GRAIN // max(1, k * min(m, n))

    def some_rows(part: slice) -> None:
        np.matmul(a[part], b, out=output[part])
        if bias is not None:
            output[part] += bias  # while the product is in the cache

    def some_columns(part: slice) -> None:
        if m <= FEW_ROWS:
            output[:, part] = np.matmul(b.T[part], a.T).T
        else:
            np.matmul(a, b[:, part], out=output[:, part])
        if bias is not None:
            output[:, part] += bias[part]

    if m >= n:
        in_parts(some_rows, m, step=step, grain=grain)
    else:
        in_parts(some_columns, n, step=n, grain=grain)
    return output


def column_sums(rows: np.ndarray, values: Callable[[slice], np.ndarray] | None = None) -> np.ndarray:
    """The sum over the rows of (N, C), or of what `values` gives for some of them, some rows at a time: (C,)."""
    parts = cut(len(rows), step=max(1, CACHE_FLOATS // rows.shape[1]), grain=max(1, CACHE_FLOATS // rows.shape[1]))
    sums = empty((len(parts), rows.shape[1]), rows.dtype)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            some_rows = rows[parts[i]] if values is None else values(parts[i])
            some_rows.sum(axis=0, out=sums[i])

    parallel(work, len(parts))
    return sums.sum(axis=0)


def contiguous(view: np.ndarray) -> np.ndarray:
    """A copy of a view with its numbers in order, the first long axis shared among threads."""
    output = empty(view.shape, view.dtype)
    axis = next((i for i, n in enumerate(view.shape) if n >= 2 * thread_count()), 0)

    def copy(start: int, stop: int) -> None:
        part = (slice(None),) * axis + (slice(start, stop),)
        output[part] = view[part]

    parallel(copy, view.shape[axis], grain=1 + COPY_GRAIN * view.shape[axis] // max(1, view.size))
    return output


@contextmanager
def alone() -> Iterator[None]:
    """Work inside this block stays in the calling thread: other processes have the other cores."""
    with _in_use, one_blas_thread():
        yield


class _Helper:
    """A thread that waits for work. Its locks serve as signals: one thread acquires what the other releases.

    A pool of the standard library does the same in five times the time, and a forward pass has a hundred calls.
    """

    def __init__(self) -> None:
        self._called, self._finished = threading.Lock(), threading.Lock()
        self._called.acquire()
        self._finished.acquire()
        self._error: BaseException | None = None
        threading.Thread(target=self._serve, daemon=True, name="minidat").start()

    def call(self, task: Callable[[], None]) -> None:
        """Let the thread run `task`."""
        self._task = task
        self._called.release()

    def wait(self) -> BaseException | None:
        """Wait for the task's end, Ctrl-C or not; what it raised, or None."""
        try:
            self._finished.acquire()
        except KeyboardInterrupt:
            self._finished.acquire()
            raise
        return self._error

    def _serve(self) -> None:
        while True:
            self._called.acquire()
            self._error = None
            try:
                self._task()
            except BaseException as error:
                self._error = error
            del self._task  # and the arrays it holds
            self._finished.release()


@cache
def _helpers() -> list[_Helper]:
    _keep_freed_memory()
    return [_Helper() for _ in range(thread_count() - 1)]


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of arrays that are freed, up to 64 MiB, for the next ones of their size.

    It would return that of every large array to the system, which fills each new one with zeros, a page at a time: a
    fifth of the time of a forward pass. Once a block of nearly 32 MiB has been freed it no longer does: blocks up to
    that size then come from the heap (M_MMAP_THRESHOLD in mallopt(3) adapts). Such a block is asked for here, and not
    touched. With another C library nothing changes.
    """
    np.empty(2**25 - 2**13, np.uint8)


_in_use = Lock()


_switch = Lock()
_users = 0
_blas_threads_before = 1


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """OpenBLAS works in the calling thread alone while any thread is inside this block."""
    global _users, _blas_threads_before
    get, put = _openblas()
    with _switch:
        if _users == 0:
            _blas_threads_before = get()
            put(1)
        _users += 1
        _own.uses = getattr(_own, "uses", 0) + 1
    try:
        yield
    finally:
        with _switch:
            _users -= 1
            _own.uses -= 1
            if _users == 0:
                put(_blas_threads_before)


_own = threading.local()  # uses: how many of the users are this thread


def _without_other_threads() -> None:
    """In a forked child, which has none of the other threads: neither helpers nor users of OpenBLAS."""
    global _users
    _helpers.cache_clear()
    before, _users = _users, getattr(_own, "uses", 0)
    if before and not _users:
        _openblas()[1](_blas_threads_before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_without_other_threads)


@cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], None]]:
    """(get, set) of the thread count of the OpenBLAS that NumPy's wheels bundle; no-ops for any other BLAS."""
    import ctypes
    from pathlib import Path

    for library in (Path(np.__file__).parent.parent / "numpy.libs").glob("libscipy_openblas*"):
        handle = ctypes.CDLL(str(library))
        for suffix in ("64_", ""):
            if hasattr(handle, f"scipy_openblas_set_num_threads{suffix}"):
                return (
                    getattr(handle, f"scipy_openblas_get_num_threads{suffix}"),
                    getattr(handle, f"scipy_openblas_set_num_threads{suffix}"),
                )
    return (lambda: 1), (lambda count: None)
