"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import MinidatError


@contextmanager
def writing(path: str | os.PathLike[str], error: type[MinidatError] = MinidatError) -> Iterator[IO[bytes]]:
    """A binary file to write, that is called `path` if all goes well and vanishes otherwise: an old one stays then.

    Raises `error`, naming the file, if it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # the same folder: renaming must not copy
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as reason:
        raise error(f"{path}: cannot be written: {reason.strerror or reason}") from None
    finally:
        temporary.unlink(missing_ok=True)
