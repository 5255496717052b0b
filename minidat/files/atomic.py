"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import MinidatError

LONGEST_NAME = 255  # bytes, on all usual file systems


@contextmanager
def writing(path: str | os.PathLike[str], error: type[MinidatError] = MinidatError) -> Iterator[IO[bytes]]:
    """A binary file to write, that is called `path` if all goes well and vanishes otherwise: an old one stays then.

    A new version keeps the mode of the old one. If `path` is a symbolic link, the file that it leads to is replaced,
    and the link stays. When the block is over, the file is on the disk under its name, whatever happens to the machine.
    Raises `error`, naming the file, if it cannot be written, or is something else than a regular file.
    """
    path = Path(path)
    try:
        target = Path(os.path.realpath(path))
        temporary = beside(target, f".{os.getpid()}")
        mode = _mode(target)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                if mode is not None:
                    os.chmod(temporary, mode)
                os.fsync(file.fileno())
            os.replace(temporary, target)
            sync_folder(target.parent)
        finally:
            with contextlib.suppress(OSError):  # what went wrong first is what the user should know
                temporary.unlink(missing_ok=True)
    except OSError as reason:
        raise error(f"{path}: cannot be written: {reason.strerror or reason}") from None


def beside(path: Path, suffix: str) -> Path:
    """A hidden name in the folder of `path`, where renaming does not copy; the same for the same path and suffix."""
    name = f".{path.name}{suffix}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{zlib.crc32(os.fsencode(path.name)):08x}{suffix}"
    return path.with_name(name)


def remove_leftovers(folder: Path, names: Sequence[str]) -> None:
    """Delete what killed processes have left half written of the files `names`, which nobody may be writing now."""
    with contextlib.suppress(OSError):  # what cannot be deleted does no harm
        for path in list(folder.iterdir()):
            if any(re.fullmatch(rf"\.{re.escape(name)}\.\d+", path.name) for name in names):
                path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the disk note which files a folder holds now; not on systems that cannot open folders."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mode(path: Path) -> int | None:
    """The permissions of a file that is there; None without one."""
    try:
        found = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found) and not stat.S_ISDIR(found):  # a folder is refused by the system, in its own words
        raise OSError(0, "not a regular file")
    return stat.S_IMODE(found)
