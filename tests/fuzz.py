"""Try hostile input for a while, with little memory: `python -m tests.fuzz --seconds 60 --megabytes 512`.

Takes turns among the properties of tests/hostile.py. Only a MinidatError is an answer; anything else, a lack of memory
and an input that takes long among them, ends it with the smallest input that does so.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread has a buffer of its own
os.environ.setdefault("MINIDAT_NUM_THREADS", "2")

EXAMPLES_A_TURN = 40
SECONDS_AN_INPUT = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--megabytes", type=int, default=512, help="memory that the process may take")
    arguments = parser.parse_args()

    from hypothesis import HealthCheck, Phase, given, settings

    from tests.hostile import PROPERTIES

    limit = arguments.megabytes << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    warnings.simplefilter("ignore", RuntimeWarning)
    signal.signal(signal.SIGALRM, _too_long)
    end, tried = time.monotonic() + arguments.seconds, dict.fromkeys(PROPERTIES, 0)
    turn = settings(
        max_examples=EXAMPLES_A_TURN,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
    )
    while time.monotonic() < end:
        for name, (strategy, check) in PROPERTIES.items():
            turn(given(strategy())(_attempt(check, name, tried)))()
            if time.monotonic() >= end:
                break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(", ".join(f"{count} {name}" for name, count in tried.items()) + f": only MinidatErrors; peak {peak} MB")
    return 0


def _attempt(check: Callable[[Any], None], name: str, tried: dict[str, int]) -> Callable[[Any], None]:
    """`check`, counted and with a limit of time."""

    def attempt(value: Any) -> None:
        tried[name] += 1
        signal.alarm(SECONDS_AN_INPUT)
        try:
            check(value)
        finally:
            signal.alarm(0)

    return attempt


def _too_long(number: int, frame: Any) -> None:
    raise AssertionError(f"an input took more than {SECONDS_AN_INPUT} seconds")


if __name__ == "__main__":
    sys.exit(main())
