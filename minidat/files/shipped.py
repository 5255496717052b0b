"""The files that come with minidat, by name: the same ones in a copy of the repository and in an installed package."""

from __future__ import annotations

from pathlib import Path

from ..errors import MinidatError

PACKAGE = Path(__file__).parents[1]
WEIGHTS, IMAGES = "weights", "examples/images"  # in the repository; pyproject.toml copies both into the package


def shipped_names(folder: str, suffix: str) -> list[str]:
    """The names, without `suffix`, of the files in WEIGHTS or IMAGES that end in it, sorted."""
    return sorted(file.name.removesuffix(suffix) for file in _folder(folder).glob(f"*{suffix}"))


def shipped_file(folder: str, name: str, suffix: str) -> Path:
    """Where the file `name` + `suffix` of WEIGHTS or IMAGES is: shipped_file(WEIGHTS, "dat_mini_bccd", ".npz").

    Raises MinidatError, with the names there are, for any other.
    """
    names = shipped_names(folder, suffix)
    if name not in names:
        raise MinidatError(
            f"{name}: no {suffix} file of this name comes with minidat, expected one of {', '.join(names) or 'none'}"
        )
    return _folder(folder) / f"{name}{suffix}"


def _folder(name: str) -> Path:
    installed = PACKAGE / name
    return installed if installed.is_dir() else PACKAGE.parent / name
