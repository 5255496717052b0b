"""Recordings of the authors' detectors and of the operators of mmdetection (see README.md here)."""

from pathlib import Path

import numpy as np

from ..formula_weights import dense_state_dict

FOLDER = Path(__file__).parent


def load_recording(name: str) -> dict[str, np.ndarray]:
    """The arrays recorded for `name`, such as "mask_rcnn_datpp_tiny" or "ops"."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def formula_state(name: str) -> dict[str, np.ndarray]:
    """The float64 weights the recording `name` was made with, under the authors' names, buffers too."""
    return dense_state_dict(str(FOLDER / f"{name}.keys.tsv"))
