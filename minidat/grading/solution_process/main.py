"""The process of a solution, from its start: `python -c BOOT SETTINGS`, SETTINGS in JSON. See `..process`."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from typing import Any

from .keeper import keep

MEMORY = 1 << 30  # bytes
OPEN_FILES = 64


def main(settings: dict[str, Any]) -> None:
    """settings: `channel` and `life`, descriptors of the judge's; `folder` and `package` for the guard; `seconds`."""
    os._exit(keep(lambda: serve(**settings), life=settings["life"], channel=settings["channel"]))


def serve(*, channel: int, folder: str, package: str, seconds: float, **_: Any) -> None:
    """Limit this process, then answer messages until there are no more."""
    limit(seconds)
    from . import guard, wire  # these import NumPy, which the keeper has no use for
    from .calls import Solution

    faulthandler.register(signal.SIGUSR1)
    del sys.path[0]  # where this package was found
    sys.path.append(folder)  # last: a neighbor called `random.py` must not come first
    sys.argv = [""]
    solution, encode, decode = Solution(), wire.encode, wire.decode
    guard.install(folder, package)
    with open(channel, "rb", closefd=False) as questions, open(channel, "wb", closefd=False) as answers:
        answers.write(encode({}))  # it has started
        answers.flush()
        for line in questions:
            answers.write(encode(solution.answer(decode(line))))
            answers.flush()
    os._exit(0)  # threads that the solution has started do not keep us


def limit(seconds: float) -> None:
    """Memory, processor time, open files; no process or thread, nothing written to files, no core.

    What the system does not know, or has limited further, stays. The administrator's processes are not counted.
    """
    import resource

    limits = {
        "RLIMIT_AS": MEMORY,
        "RLIMIT_CPU": int(seconds) + 10,  # the judge is faster; for what it may have lost
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_NPROC": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
    }
    for name, value in limits.items():
        try:
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
        except (AttributeError, ValueError, OSError):
            continue
