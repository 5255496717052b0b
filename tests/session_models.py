"""Models for `test_session` that do all that a model should not. In a module of their own, which helpers can import."""

import os
import signal
import sys
import threading
import time

import numpy as np

from minidat.runtime.team import current, empty
from minidat.runtime.threads import parallel

GRAIN = 1  # every region is shared, however small


class UnpicklableError(Exception):
    def __init__(self):
        super().__init__("with a lock")
        self.lock = threading.Lock()


class Probe:
    """Multiplies by a weight, in a region; everything else serves one test."""

    def __init__(self, weight=None):
        self.weight = np.full(1000, 2.0) if weight is None else weight

    def __call__(self, x):
        output = empty(x.shape, x.dtype)

        def work(start, stop):
            output[start:stop] = self.weight[: len(x)][start:stop] * x[start:stop]

        parallel(work, len(x), grain=GRAIN)
        return output

    def nested(self, x):
        return {"maps": [self(x), (x, x[::-1])], "name": "nested", "none": None, "empty": np.empty((0, 3))}

    def workers(self):
        """The process that has worked on each of twelve items, when enough of them can share the work."""
        found = empty((12,), np.int64)

        def work(start, stop):
            found[start:stop] = os.getpid()

        parallel(work, 12, grain=GRAIN)
        return found

    def writes(self):
        self.weight[0] = 1

    def fails(self, text):
        raise ValueError(text)

    def one_fails(self):
        def work(start, stop):
            if start > 0:
                raise ZeroDivisionError("in the last slice")
            time.sleep(0.01)

        parallel(work, 2, grain=GRAIN)

    def fails_unpicklably(self):
        raise UnpicklableError

    def returns_a_lock(self):
        return threading.Lock()

    def one_makes_more_arrays(self):
        more = [empty((1000,), float) for _ in range(_rank())]
        parallel(lambda start, stop: None, 2, grain=GRAIN)
        return len(more)

    def one_meets_more_often(self):
        for _ in range(1 + _rank()):
            parallel(lambda start, stop: None, 2, grain=GRAIN)

    def one_exits(self):
        if _rank() == 1:
            sys.exit(3)
        parallel(lambda start, stop: None, 2, grain=GRAIN)

    def one_is_killed(self):
        if _rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        parallel(lambda start, stop: None, 2, grain=GRAIN)

    def one_stops(self):
        if _rank() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        parallel(lambda start, stop: None, 2, grain=GRAIN)

    def one_takes_its_time(self, seconds):
        """The others wait at a counter meanwhile."""
        if _rank() == 0:
            time.sleep(seconds)
        parallel(lambda start, stop: None, 2, grain=GRAIN)


def _rank():
    member = current()
    return 0 if member is None else member.rank


class Unloadable:
    """Is pickled, but cannot be unpickled."""

    def __getstate__(self):
        return {"a": 1}

    def __setstate__(self, state):
        raise RuntimeError("no such thing")
