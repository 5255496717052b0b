"""What a solution may not do: an audit hook of Python, which once installed cannot be taken out again.

It stops whatever a line of Python can do by itself. It is no wall against machine code.
"""

from __future__ import annotations

import _posixsubprocess
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

FOREIGN = ("minidat", "torch", "jax", "tensorflow", "autograd")  # what has the answers
ALONE = "the exercise is to do it with NumPy alone"

# The beginnings of the events (docs.python.org/3/library/audit_events.html), and what they are.
REFUSED = {
    "start other programs": (
        "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty.spawn", "subprocess.",
        "cpython.PyInterpreterState_New",
    ),
    "send signals": ("os.kill", "signal.pthread_kill"),
    "change files": (
        "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.removexattr", "os.rename", "os.rmdir",
        "os.setxattr", "os.symlink", "os.truncate", "os.utime", "shutil.", "tempfile.",
    ),
    "use the network": ("socket.", "urllib."),
    "change its limits": ("resource.",),
    "look into the interpreter": ("gc.get_",),
    "call machine code": ("ctypes.call_function", "ctypes.cdata", "ctypes.dlopen", "ctypes.dlsym"),
}  # fmt: skip
UNWATCHED = ((_posixsubprocess, "fork_exec"), (subprocess, "_fork_exec"), (signal, "pidfd_send_signal"))  # no events
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install(folder: str, package: str) -> None:
    """From now on refuse what is in REFUSED, to import FOREIGN, to write files, and to read others than these: Python's
    libraries without FOREIGN, and `folder`, the solution's own. package: where the judge's minidat is.
    """
    places = [*filter(None, sys.path), folder]
    readable = _folders(places)
    foreign = _folders([package, *(os.path.join(place, name) for place in places for name in FOREIGN)])
    reasons = tuple((beginning, what) for what, beginnings in REFUSED.items() for beginning in beginnings)
    # All is bound to names in here: what a solution finds in modules it may replace.
    names, alone, writing, devnull, separator = FOREIGN, ALONE, WRITING, os.devnull, os.sep
    absolute, real, fsdecode = os.path.abspath, os.path.realpath, os.fsdecode
    kind, whole, text = type, int, str
    import_error, permission_error = ImportError, PermissionError

    def within(path: str, folders: tuple[str, ...]) -> bool:
        return True in [path == place or path.startswith(place.rstrip(separator) + separator) for place in folders]

    def check_open(path: Any, mode: Any, flags: Any) -> None:
        if kind(path) is whole or path == devnull:
            return
        path = fsdecode(path)
        if (flags or 0) & writing or (
            kind(mode) is text and ("w" in mode or "a" in mode or "x" in mode or "+" in mode)
        ):
            raise permission_error(f"a solution may not write files: {path}")
        target = real(path)
        if within(target, foreign):
            raise permission_error(f"{path}: {alone}")
        if not (within(target, readable) or within(absolute(path), readable)):
            raise permission_error(f"a solution may not read files of other folders: {path}")

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            check_open(*arguments)
        elif event == "import":
            if arguments[0].split(".")[0] in names:
                raise import_error(f"{arguments[0]}: {alone}")
        else:
            for beginning, what in reasons:
                if event.startswith(beginning):
                    raise permission_error(f"a solution may not {what} ({event})")

    for module, function in UNWATCHED:
        setattr(module, function, None)
    sys.addaudithook(watch)


def _folders(paths: Sequence[str]) -> tuple[str, ...]:
    """Each as it is called and as it is really called."""
    return tuple({os.path.abspath(path) for path in paths} | {os.path.realpath(path) for path in paths})
