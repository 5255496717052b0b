"""Share the rows of an array among threads or, in inference, processes: how minidat uses more than one core.

NumPy releases the interpreter lock inside its loops, so two Python threads really work at the same time. OpenBLAS must
not start threads of its own meanwhile, not even for a product on the side: after it they spin for a while, waiting for
more, and take the cores from everybody else. Hence the switch.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from typing import Any

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
# Seconds after which a thread that waits for Python's interpreter lock asks for it. With Python's 5 ms it idles as
# long: it wakes when the other thread is in NumPy for some microseconds, too late to find the lock still free.
SWITCH_INTERVAL = 5e-5
LOOKS = 1_000_000  # a quarter of a millisecond
KEEP_MEMORY = (-3, 2**25), (-1, 2**30)  # of mallopt(3): M_MMAP_THRESHOLD, of which that is the most, M_TRIM_THRESHOLD


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
    return len(_cores()) or os.cpu_count() or 1


def _cores() -> set[int]:
    """The cores this process may use, where the system tells."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


@cache
def _c_library() -> Any:
    """glibc, for what Python has no name for; else None. Its functions keep Python's interpreter lock."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    library = ctypes.PyDLL(None)
    return library if hasattr(library, "mallopt") else None


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
        interval = sys.getswitchinterval()
        try:
            sys.setswitchinterval(SWITCH_INTERVAL)
            _keep_off(helpers)
            try:
                for i, helper in enumerate(helpers, start=1):
                    helper.call(partial(work, bounds[i], bounds[i + 1]))
                    called.append(helper)
                work(0, bounds[1])
            finally:  # nobody may still work on these arrays, whatever has happened here
                errors = [helper.wait() for helper in called]
        finally:
            sys.setswitchinterval(interval)
            _in_use.release()
    for error in filter(None, errors):
        raise error


def _keep_off(helpers: list[_Helper]) -> None:
    """Keep the helpers off the core that this thread is on, if there is one for each.

    Linux does not look for an idle core where cores have been busy: it would wake a thread on the core of the one that
    wakes it, to take turns with it.
    """
    library, cores = _c_library(), _cores()
    if library is not None and len(helpers) < len(cores):
        others = cores - {library.sched_getcpu()}
        for helper in helpers:
            helper.keep_to(others)


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
        self._calls = self._answers = 0
        self._nearly_finished = np.zeros(1, bool)
        self._looks = np.broadcast_to(self._nearly_finished, (LOOKS,))
        self._cores = _cores()
        thread = threading.Thread(target=self._serve, daemon=True, name="minidat")
        thread.start()
        self._thread = thread.native_id or -1

    def keep_to(self, cores: set[int]) -> None:
        """Let the thread work on these cores, if the system allows it."""
        if cores != self._cores:
            with suppress(OSError):
                os.sched_setaffinity(self._thread, cores)
            self._cores = cores

    def call(self, task: Callable[[], None]) -> None:
        """Let the thread run `task`."""
        self._task = task
        self._calls += 1
        self._nearly_finished[0] = False
        self._called.release()

    def wait(self) -> BaseException | None:
        """Wait for the task's end, Ctrl-C or not; what it raised, or that Ctrl-C, or None."""
        try:
            self._look_on()
            self._finished.acquire()
        except KeyboardInterrupt as interruption:
            while self._answers < self._calls:
                time.sleep(1e-3)
            self._finished.acquire(blocking=False)  # unless it was, before the interruption
            return interruption
        return self._error

    def _look_on(self) -> None:
        """Look whether the task is nearly finished, LOOKS times at most: to sleep and be woken takes 50 microseconds.

        `any` of an array that is but one number, again and again: NumPy stops at the first that is true, and looks
        without Python's interpreter lock.
        """
        np.logical_or.reduce(self._looks)

    def _serve(self) -> None:
        while True:
            self._called.acquire()
            self._error = None
            try:
                self._task()
            except BaseException as error:
                self._error = error
            del self._task  # and the arrays it holds
            self._nearly_finished[0] = True
            self._finished.release()
            self._answers += 1


@cache
def _helpers() -> list[_Helper]:
    keep_freed_memory()
    return [_Helper() for _ in range(thread_count() - 1)]


def keep_freed_memory() -> None:
    """Let glibc keep the memory of arrays that are freed, up to 1 GiB, for the next ones.

    It would return that of large arrays to the system, which fills each new page with zeros: a fifth of the time of a
    forward pass, a quarter of a training step's. With another C library nothing changes.
    """
    library = _c_library()
    if library is not None:
        for parameter, value in KEEP_MEMORY:
            library.mallopt(parameter, value)


_in_use = Lock()


_switch = Lock()
_users = 0  # threads inside a block of `one_blas_thread`
_blas_threads_before = 1


class _OneBlasThread:
    """What `one_blas_thread` returns: a block that a thread may enter again while it is inside, at next to no cost."""

    def __enter__(self) -> None:
        global _users, _blas_threads_before
        _own.uses = getattr(_own, "uses", 0) + 1
        if _own.uses > 1:
            return
        get, put = _openblas()
        with _switch:
            if _users == 0:
                _blas_threads_before = get()
                put(1)
            _users += 1

    def __exit__(self, *error: object) -> None:
        global _users
        _own.uses -= 1
        if _own.uses > 0:
            return
        with _switch:
            _users -= 1
            if _users == 0:
                _openblas()[1](_blas_threads_before)


_block = _OneBlasThread()


def one_blas_thread() -> AbstractContextManager[None]:
    """OpenBLAS works in the calling thread alone while any thread is inside this block."""
    return _block


_own = threading.local()  # uses: how many of these blocks this thread is in


def _without_other_threads() -> None:
    """In a forked child, which has none of the other threads: neither helpers nor users of OpenBLAS."""
    global _users
    _helpers.cache_clear()
    before, _users = _users, min(1, getattr(_own, "uses", 0))
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
