"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import MinidatError

LONGEST_NAME = 255  # bytes, on all usual file systems


@contextmanager
def writing(path: str | os.PathLike[str], error: type[MinidatError] = MinidatError) -> Iterator[IO[bytes]]:
    """A binary file to write, that is called `path` if all goes well and vanishes otherwise: an old one stays then.

    Raises `error`, naming the file, if it cannot be written.
    """
    path = Path(path)
    temporary = beside(path, f".{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as reason:
        raise error(f"{path}: cannot be written: {reason.strerror or reason}") from None
    finally:
        with contextlib.suppress(OSError):  # what went wrong first is what the user should know
            temporary.unlink(missing_ok=True)


def beside(path: Path, suffix: str) -> Path:
    """A hidden name in the folder of `path`, where renaming does not copy; the same for the same path and suffix."""
    name = f".{path.name}{suffix}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{zlib.crc32(os.fsencode(path.name)):08x}{suffix}"
    return path.with_name(name)
