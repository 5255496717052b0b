"""Reading files that may be anything: nothing here waits for ever, or takes more memory than a text may have."""

from __future__ import annotations

import json
import os
import stat
from typing import Any, BinaryIO

from ..errors import MinidatError

MAX_TEXT_BYTES = 4 << 20


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, open for reading. A FIFO, which would wait for somebody to write to it, is refused at once.

    Raises OSError, or ValueError for a path that no file can have.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  the caller's to close
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "not a regular file")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_text(path: str | os.PathLike[str], *, limit: int = MAX_TEXT_BYTES) -> str:
    """The UTF-8 text in a regular file of at most `limit` bytes. Raises OSError and ValueError."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit:,} bytes")
    return content.decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says. Raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: str | os.PathLike[str], error: type[MinidatError]) -> Any:
    """What the JSON in a file says. Raises `error`, naming the file."""
    try:
        return parse_json(read_text(path))
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror or reason}), expected a file of JSON") from None
    except ValueError as reason:
        raise error(f"{path}: cannot be read (no JSON: {reason})") from None
