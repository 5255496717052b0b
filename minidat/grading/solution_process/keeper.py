"""The parent of a solution's process. It has never executed a line of it, and ends all that it started.

On Linux it becomes the parent of every descendant that loses its own ("child subreaper"), so that it finds those too
that have left the process group. Elsewhere it ends the process group alone.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

PATIENCE = 5.0  # seconds for everything to end
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
SHOW_STACK, END = b"?", b"."  # what the judge may say


def keep(run: Callable[[], None], *, life: int, channel: int) -> int:
    """Fork a process that calls `run`, and wait until it ends, or the judge's pipe `life` closes or brings END.

    `channel` is a descriptor for that process alone. SHOW_STACK from the pipe sends it SIGUSR1. Afterwards nothing is
    left of it. Returns its exit status, 128 + n after the signal n; 0 if it had not ended.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        os.close(life)
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(channel)
    status = None
    judge = selectors.DefaultSelector()
    judge.register(life, selectors.EVENT_READ)
    while status is None:
        if judge.select(0.02):
            if os.read(life, 1) != SHOW_STACK:
                break
            os.kill(child, signal.SIGUSR1)
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            status = os.waitstatus_to_exitcode(code)
    if status is None:  # it may not have its own group yet
        _kill(os.kill, child)
    end_all(child)
    return 0 if status is None else status if status >= 0 else 128 - status


def end_all(child: int) -> None:
    """Kill the group of `child` and every descendant of this process, until there is none."""
    _kill(os.killpg, child)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for pid in descendants():
            _kill(os.kill, pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:  # none is left
            return
        time.sleep(0.002)


def descendants() -> list[int]:
    """Children of this process, their children ...; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if sys.platform == "linux" else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:  # it has just ended
                continue
            children.setdefault(parent, []).append(int(name))
    found, new = [], [os.getpid()]
    while new:
        new = [child for pid in new for child in children.get(pid, [])]
        found += new
    return found


def _kill(kill: Callable[[int, int], None], target: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        kill(target, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
