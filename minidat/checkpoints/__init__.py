"""Weights files: reading what the authors publish, and reading and writing our own.

archive         a zip file, opened with every promise in it checked (both formats are zip files)
torch_file      the tensors of a PyTorch `.pth`, whose pickle is interpreted without executing it
convert         the authors' names of the weights <-> ours: one table
recognize       which model a state dict is for, read off its names and shapes
recognize_dense the same of detectors and segmentors
npz             our own format: weights, config and labels
load            all of it together: `load_model`, `convert`
published       where the authors publish their weights, and how to fetch them
"""

from ..files.pickle_machine import Placeholder
from .convert import convert_state_dict, to_authors_state_dict
from .load import convert, load_model, read_checkpoint, resize_tables
from .npz import Checkpoint, load_npz, save_npz
from .recognize import Hints, read_hints, recognize_config
from .recognize_dense import recognize_dense
from .torch_file import read_torch_file

__all__ = [
    "Checkpoint",
    "Hints",
    "Placeholder",
    "convert",
    "convert_state_dict",
    "load_model",
    "load_npz",
    "read_checkpoint",
    "read_hints",
    "read_torch_file",
    "recognize_config",
    "recognize_dense",
    "resize_tables",
    "save_npz",
    "to_authors_state_dict",
]
