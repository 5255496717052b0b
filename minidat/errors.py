"""The errors minidat raises on purpose. The command prints their message on one line and exits with status 2."""

from collections.abc import Sequence


class MinidatError(Exception):
    """Something a user can mend. The message names the file, key or argument, what was found and what was expected."""


class ConfigError(MinidatError, ValueError):
    """A model configuration, name or setting that cannot work."""


class ShapeError(MinidatError, ValueError):
    """An array whose shape or dtype does not fit the operation."""


class CheckpointError(MinidatError):
    """A weights file that cannot be read, or does not hold the model it should."""


class ImageError(MinidatError):
    """An image file that cannot be read."""


class DatasetError(MinidatError):
    """A data set that cannot be read, or does not fit the model."""


class TrainingError(MinidatError):
    """A training run that cannot start, go on or be resumed."""


class SessionError(MinidatError):
    """A session that cannot begin, has ended, or has lost a helper process."""


class DownloadError(MinidatError):
    """A download that failed or brought something else than a checkpoint."""


class ExerciseError(MinidatError):
    """A file that is no exercise of the course, or cannot be graded."""


def printable(text: str) -> str:
    """`text`, which may come from a file, with ? for all that would break a line or steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def listed(names: Sequence[str], longest: int = 6) -> str:
    """Names for a message: the first ones, and how many more there are."""
    more = f" and {len(names) - longest} more" if len(names) > longest else ""
    return ", ".join(map(printable, names[:longest])) + more
