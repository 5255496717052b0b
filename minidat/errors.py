"""The errors minidat raises on purpose. The command prints their message on one line and exits with status 2."""


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


class DownloadError(MinidatError):
    """A download that failed or brought something else than a checkpoint."""
