"""Share the rows of an array among threads: the one place where minidat uses more than one core on its own.

NumPy releases the interpreter lock inside its loops, so two Python threads really work at the same time. Matrix
products called from such threads must not start threads of their own, hence the switch for OpenBLAS.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

CACHE_FLOATS = 32768  # numbers worked on at once: a few arrays of this length fit in a core's second-level cache


@cache
def thread_count() -> int:
    """MINIDAT_NUM_THREADS if set, else the number of cores this process may use."""
    setting = os.environ.get("MINIDAT_NUM_THREADS", "")
    if setting.isdigit() and int(setting) > 0:
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel(work: Callable[[int, int], None], count: int, *, grain: int = 1) -> None:
    """Call work(start, stop) on slices that cover range(count), one slice a thread, each of at least `grain` items."""
    threads = max(1, min(thread_count(), count // grain))
    if threads == 1:
        work(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    with _one_blas_thread():
        others = [_pool().submit(work, bounds[i], bounds[i + 1]) for i in range(1, threads)]
        try:
            work(0, bounds[1])
        finally:
            for other in others:
                other.exception()  # waits: nobody may still work on these rows, nor with one BLAS thread
        for other in others:
            other.result()


def chunked(work: Callable[[slice], None], rows: int, row_length: int) -> None:
    """Call work(slice) on slices of rows small enough for the cache, in parallel where there is enough to do."""
    step = max(1, CACHE_FLOATS // row_length)

    def run(start: int, stop: int) -> None:
        for i in range(start, stop, step):
            work(slice(i, min(i + step, stop)))

    parallel(run, rows, grain=step)


@cache
def _pool() -> Any:
    from concurrent.futures import ThreadPoolExecutor  # imported when first needed: it costs some of a cold start

    if hasattr(os, "register_at_fork"):  # a forked child has none of these threads
        os.register_at_fork(after_in_child=_pool.cache_clear)
    return ThreadPoolExecutor(max(1, thread_count() - 1), thread_name_prefix="minidat")


_lock = threading.Lock()
_nested = 0
_blas_threads_before = 1


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """OpenBLAS works in the calling thread alone inside this block, whichever threads are in it."""
    global _nested, _blas_threads_before
    get, put = _openblas()
    with _lock:
        if _nested == 0:
            _blas_threads_before = get()
            put(1)
        _nested += 1
    try:
        yield
    finally:
        with _lock:
            _nested -= 1
            if _nested == 0:
                put(_blas_threads_before)


@cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], None]]:
    """(get, set) of the thread count of the OpenBLAS that NumPy's wheels bundle; no-ops for any other BLAS."""
    import ctypes
    from pathlib import Path

    import numpy as np

    for library in (Path(np.__file__).parent.parent / "numpy.libs").glob("libscipy_openblas*"):
        handle = ctypes.CDLL(str(library))
        for suffix in ("64_", ""):
            if hasattr(handle, f"scipy_openblas_set_num_threads{suffix}"):
                return (
                    getattr(handle, f"scipy_openblas_get_num_threads{suffix}"),
                    getattr(handle, f"scipy_openblas_set_num_threads{suffix}"),
                )
    return (lambda: 1), (lambda count: None)
