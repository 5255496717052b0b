"""What a detector is trained with: the objects of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class BoxTargets:
    """The objects of one image.

    boxes: (n, 4), (x1, y1, x2, y2) in pixels; labels: (n,) class numbers; masks: None, or one a box, each a list of
    polygons, a run-length encoding (see `minidat.data.masks`) or an (H, W) array of bool.
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: list[Any] | None = None
