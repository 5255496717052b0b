"""One program run by several processes at once, on arrays in memory that all of them see.

Python's threads stand in each other's way: two of them that call short NumPy functions meet at the interpreter lock at
every call. Processes have a lock each. So in inference, where an operator may take a fraction of a millisecond, the
members of a team all run the same forward pass (SPMD: single program, multiple data). Outside of the regions of
`threads.parallel` each member computes everything for itself; in a region each works on its own slice, and writes it
to arrays that came from `empty`. These lie at the same place for every member, since all make and drop the same arrays
in the same order.

`minidat.runtime.session` starts the processes and tells them what to run.
"""

from __future__ import annotations

import math
import mmap
import threading
import time
import weakref
from bisect import bisect
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

ALIGNMENT = 64
LOOKS, FEWEST_LOOKS = 20000, 500  # at the others' counters before the first nap: some milliseconds at most
NAP = 5e-5  # seconds
LOOKS_A_CHECK = 64  # one after so many naps, some milliseconds
GRAIN_DIVISOR = 16  # a meeting costs some microseconds, waking a thread as much as this many times more


class TeamError(Exception):
    """The team's pass has been given up."""


class _Place(weakref.ref[np.ndarray]):
    """Where an array lies, for as long as it lives."""

    start: int
    end: int


class Arena:
    """Hands out arrays in `memory` from `start` to `end`, whose places can be used again when they have died."""

    def __init__(self, memory: mmap.mmap, start: int, end: int) -> None:
        self.memory = memory
        self._gaps = [(start, end)]  # in order
        self._places: dict[int, _Place] = {}  # of the arrays that live: a weak reference must live to tell of a death
        self._dead: deque[_Place] = deque()
        self.trail = 0  # a number made from all places so far

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of arbitrary numbers, in the lowest gap that takes it. Raises MemoryError if none does."""
        size = -(-math.prod(shape) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        for gap, (start, end) in enumerate(self._gaps):  # noqa: B007
            if end - start >= size:
                break
        else:
            raise MemoryError(f"no {size} bytes of shared memory are left")
        self._gaps[gap] = (start + size, end)
        self.trail = (31 * self.trail + start // ALIGNMENT) % 2**61
        array = np.ndarray(shape, dtype, self.memory, start)
        # no Python when the array dies, be it in the middle of anything
        place = _Place(array, self._dead.append)
        place.start, place.end = start, start + size
        self._places[id(place)] = place
        return array

    def reclaim(self) -> None:
        """Let the places of arrays that have died be used again."""
        while self._dead:
            place = self._dead.popleft()
            del self._places[id(place)]
            self._close_up(place.start, place.end)

    def _close_up(self, start: int, end: int) -> None:
        """Add a gap, and join it with its neighbors."""
        i = bisect(self._gaps, (start, end))
        if i < len(self._gaps) and self._gaps[i][0] == end:
            end = self._gaps.pop(i)[1]
        if i > 0 and self._gaps[i - 1][1] == start:
            i -= 1
            start = self._gaps.pop(i)[0]
        self._gaps.insert(i, (start, end))


class Member:
    """One process of a team of `size`, in one pass, the `number`-th, with an arena that nothing lies in.

    It meets the others at the counters `arrivals`, 8 numbers apart, which count on from pass to pass. `check` is called
    now and then while it waits, and may raise TeamError.
    """

    def __init__(
        self, rank: int, size: int, arena: Arena, arrivals: memoryview, number: int, check: Callable[[], None]
    ) -> None:
        self.rank, self.size, self.arena = rank, size, arena
        self._arrivals, self._check = arrivals, check
        self._meetings = number << 32
        self._patience = LOOKS
        self._fresh: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array that is written to in the next region, by all members, and only read after it."""
        array = self.arena.empty(shape, dtype)
        self._fresh.append(array)
        return array

    def meet(self) -> None:
        """Wait until all members have come here."""
        self._meetings += 1
        self._arrivals[8 * self.rank] = self._meetings
        for other in range(self.size):
            looks = 0
            while self._arrivals[8 * other] < self._meetings:
                looks += 1
                if looks > self._patience:
                    if looks % LOOKS_A_CHECK == 0:
                        self._check()
                    time.sleep(NAP)
            # who comes late may be waiting for this very core: where there are too few, looking on only makes it worse
            if looks > self._patience:
                self._patience = max(FEWEST_LOOKS, self._patience // 4)
            elif looks > 0:
                self._patience = min(LOOKS, 1 + self._patience + self._patience // 4)
        self.arena.reclaim()  # not earlier: somebody else could still read what has died here

    def finish(self) -> int:
        """Meet for the last time; a number made from all meetings and arrays, the same for all members.

        A member that has another program, and other meetings, waits no longer for this one.
        """
        self.meet()
        fingerprint = (31 * self.arena.trail + self._meetings) % 2**61
        self._arrivals[8 * self.rank] = (1 + (self._meetings >> 32)) << 32
        return fingerprint

    def workers(self, count: int, grain: int) -> int:
        """How many members share the work on `count` items, of which `grain` are worth waking a thread for."""
        return max(1, min(self.size, count, count * GRAIN_DIVISOR // grain))

    def region(self, work: Callable[[int, int], None], count: int, grain: int) -> None:
        """Call work(start, stop) with this member's slice of range(count), and wait for the others."""
        workers = self.workers(count, grain)
        if self.rank < workers:
            try:
                _local.member, _local.in_region = None, True  # what `work` calls is for this member alone
                work(count * self.rank // workers, count * (self.rank + 1) // workers)
            finally:
                _local.member, _local.in_region = self, False
        self.meet()
        for array in self._fresh:  # a later `array += ...` outside of a region would be done once by each member
            array.flags.writeable = False
        self._fresh.clear()


_local = threading.local()


def current() -> Member | None:
    """This thread's membership in a team, or None; None too inside a region."""
    return getattr(_local, "member", None)


def in_region() -> bool:
    """Whether this thread works on its share of a region."""
    return getattr(_local, "in_region", False)


def run_as(member: Member, function: Callable[[], Any]) -> Any:
    """What function() returns, with `member` as the current one."""
    _local.member = member
    try:
        return function()
    finally:
        _local.member, _local.in_region = None, False


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to be filled in a region of `parallel`, which nobody writes to afterwards: all members see it.

    Not for a function with a cache, from which one member may have its result while another still computes it.
    """
    member = current()
    return np.empty(shape, dtype) if member is None else member.empty(shape, dtype)
