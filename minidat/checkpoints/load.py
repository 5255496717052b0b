"""From a weights file to a model of any family, and back."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..catalog import FAMILIES, family_of
from ..data.labels import ade20k_labels, coco_labels, imagenet_labels
from ..detection.config import DetectorConfig
from ..errors import CheckpointError, MinidatError, listed
from ..files.shipped import WEIGHTS, shipped_file, shipped_names
from ..models.config import ModelConfig, as_image_size, check_dtype
from ..models.dat import DAT
from ..models.deformable_attention import DeformableAttention
from ..ops import resize
from .archive import Archive, PathLike, one_line
from .convert import BACKBONE, convert_state_dict, is_dense, without_wrapper
from .npz import Checkpoint, load_npz, save_npz
from .recognize import read_hints, recognize_config
from .recognize_dense import recognize_dense
from .torch_file import model_part, read_torch_file

SMALLEST_LIMIT = 2 << 20  # pixels that an image may have for any model
PIXELS_PER_NUMBER = 4  # and for each number among its weights
OFFSET_PARTS = (".offset_conv.", ".offset_norm.", ".offset_projection.")


def load_model(path: PathLike, *, image_size: int | tuple[int, int] | None = None, dtype: Any = np.float32) -> Any:
    """The model in a weights file: a `.npz` of minidat, or a `.pth` of the authors (told apart by content).

    path: the file, or the name of weights that come with minidat: "dat_mini_cifar10", a classifier of ten kinds of
    animals and vehicles, "dat_mini_bccd", a detector of blood cells, or "dat_mini_camvid", a segmentor of streets. A
    file of such a name comes first.

    The model, a DAT, a RetinaNet, an UperNet, ..., has a `.config`, recognized from names and shapes in the authors'
    files (see `recognize_config`, `recognize_dense`), and `.labels`: those of the file, else ImageNet's, ADE20K's and
    COCO's for the authors' classifiers of 1000 classes, segmentors of 150 and detectors of 80, else None. `image_size`
    is in pixels, one side of a square or (height, width): where bias tables follow the image size, as in the CVPR
    classifiers, they are resized as the authors do (`resize_tables`). dtype: float32 or float64.

    Nothing in the file is executed. Raises CheckpointError for a file that is missing, damaged, or no such model;
    ConfigError for another dtype or an impossible image size.
    """
    dtype = check_dtype(dtype)
    size = None if image_size is None else as_image_size(image_size)
    checkpoint = read_checkpoint(path, image_size=size, dtype=dtype)
    model = build_model(checkpoint, path)
    if size is None or size == checkpoint.config.image_size:
        return model
    state, config = checkpoint.state, checkpoint.config.replace(image_size=size)
    if isinstance(config, ModelConfig):  # the tables of a detector or segmentor follow its backbone's image size
        state = resize_tables(state, checkpoint.config, config)
    return build_model(Checkpoint(state, config, checkpoint.labels), path)


def read_checkpoint(
    path: PathLike, *, name: str | None = None, image_size: tuple[int, int] | None = None, dtype: Any = np.float32
) -> Checkpoint:
    """Weights, config and labels of a file of either format, not yet compared with each other.

    path: also a name, as in `load_model`. name, image_size: see `recognize_config`; they matter for the authors' files.
    Raises CheckpointError.
    """
    path = _file_of(path)
    try:
        with Archive(path) as archive:
            is_torch = any(record.endswith("/data.pkl") for record in archive)
        if not is_torch:
            return load_npz(path, dtype=dtype)
        state, settings, classes = read_torch_file(path, select=lambda content: _parts(content, path))
    except MemoryError:
        raise CheckpointError(f"{path}: there is not enough memory for its weights") from None
    if is_dense(without_wrapper(state)):
        return _dense_checkpoint(state, classes, path, name=name, dtype=dtype)
    try:
        hints = read_hints(state, settings)
        ours = convert_state_dict(state)
        if hints.offsets is not None:  # the authors keep the network of offsets that are switched off
            ours = {name: value for name, value in ours.items() if not _is_unused(name, hints.offsets)}
        config = recognize_config(ours, name=name, image_size=image_size, hints=hints)
    except MinidatError as error:
        raise CheckpointError(f"{path}: {error}") from None
    labels = list(imagenet_labels()) if config.num_classes == 1000 else None
    return Checkpoint({key: _as_float(value, dtype) for key, value in ours.items()}, config, labels)


def _file_of(path: PathLike) -> PathLike:
    """The path, or the file of the shipped weights that it names."""
    if os.path.isfile(path):
        return path
    names = shipped_names(WEIGHTS, ".npz")
    if path in names:
        return shipped_file(WEIGHTS, str(path), ".npz")
    if isinstance(path, str) and path.isidentifier() and not os.path.exists(path):
        raise CheckpointError(f"{path}: no such file, and of the weights that come with minidat only {listed(names)}")
    return path


def _dense_checkpoint(
    state: Mapping[str, np.ndarray], classes: Any, path: PathLike, *, name: str | None, dtype: Any
) -> Checkpoint:
    """As `read_checkpoint`, of a state dict with heads; `classes` are the names in the file, if it has any."""
    try:
        backbone = {
            key.removeprefix(BACKBONE): value
            for key, value in without_wrapper(state).items()
            if key.startswith(BACKBONE)
        }
        ours = convert_state_dict(state)
        config = recognize_dense(ours, name=name, hints=read_hints(backbone))
    except MinidatError as error:
        raise CheckpointError(f"{path}: {error}") from None
    usual = coco_labels() if isinstance(config, DetectorConfig) else ade20k_labels()
    labels = list(usual) if config.num_classes == len(usual) else None
    if isinstance(classes, (list, tuple)) and len(classes) == config.num_classes:
        labels = [one_line(label).strip() for label in classes]
    return Checkpoint({key: _as_float(value, dtype) for key, value in ours.items()}, config, labels)


def convert(
    source: PathLike, destination: PathLike, *, labels: Sequence[str] | None = None, dtype: Any = np.float32
) -> Any:
    """Write the model in `source`, a file of either format, to `destination`, a `.npz`; returns its config.

    labels: replaces those of the source, one for each class; dtype: how weights are stored, float16 for half the size.
    The weights are compared with the config first. Raises CheckpointError and ConfigError as `load_model` and
    `save_npz`.
    """
    model = load_model(source, dtype=np.float64 if np.dtype(dtype) == np.float64 else np.float32)
    save_npz(destination, model.state_dict(), model.config, model.labels if labels is None else labels, dtype=dtype)
    return model.config


def resize_tables(state: Mapping[str, np.ndarray], old: ModelConfig, new: ModelConfig) -> dict[str, np.ndarray]:
    """The weights with their position bias tables resized from the image size of `old` to that of `new`, bicubically.

    A relative table (heads, 2H-1, 2W-1) is resized like a picture, as the authors do; of a fixed one, (heads, H W, Hk
    Wk), first the map of queries, then that of keys. Windows do not follow the image size, so their tables stay. The
    other arrays are those of `state`.
    """
    resized = dict(state)
    for path, module in DAT(new).named_modules():
        if not isinstance(module, DeformableAttention):
            continue
        stage = int(path.split(".")[1])
        old_size, new_size = old.table_map_size(stage), new.table_map_size(stage)
        relative, fixed = f"{path}.relative_position_bias_table", f"{path}.fixed_position_bias"
        if old_size == new_size:
            continue
        if relative in state:
            resized[relative] = _bicubic(state[relative][..., None], (2 * new_size[0] - 1, 2 * new_size[1] - 1))[..., 0]
        if fixed in state:
            heads, (old_grid, new_grid) = len(state[fixed]), map(module.sample_grid, (old_size, new_size))
            queries = _bicubic(state[fixed].reshape(heads, *old_size, -1), new_size)
            keys = _bicubic(queries.reshape(-1, *old_grid, 1), new_grid)
            resized[fixed] = keys.reshape(heads, math.prod(new_size), math.prod(new_grid))
    return resized


def _bicubic(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(B, H, W, C) -> (B, *size, C)"""
    return resize(np.ascontiguousarray(maps), size=size, method="bicubic")[0]


def _parts(content: Any, path: PathLike) -> tuple[dict[str, np.ndarray], Any, Any]:
    """The weights, and of the rest the settings of the authors' trainer and the names of the classes, which
    mmdetection and mmsegmentation write."""
    settings = content if isinstance(content, dict) else {}
    meta = settings.get("meta")
    return model_part(content, path), settings.get("config"), meta.get("CLASSES") if isinstance(meta, dict) else None


def _is_unused(name: str, offsets: tuple[bool, ...]) -> bool:
    """Whether a parameter belongs to the offset network of a stage without offsets."""
    return any(part in name for part in OFFSET_PARTS) and not offsets[int(name.split(".")[1])]


def _as_float(value: np.ndarray, dtype: Any) -> np.ndarray:
    return value.astype(dtype, copy=False) if value.dtype.kind == "f" else value


def build_model(checkpoint: Checkpoint, path: PathLike) -> Any:
    """The model with these weights, which it takes over without a copy.

    Raises CheckpointError, naming `path`, with all that is missing, unknown or of another shape than the config's.
    """
    state, config = checkpoint.state, checkpoint.config
    wrong = [name for name, value in state.items() if value.dtype.kind != "f"]
    if wrong:
        raise CheckpointError(f"{path}: {wrong[0]} has dtype {state[wrong[0]].dtype}, expected floating-point numbers")
    damaged = [name for name, value in state.items() if not np.isfinite(value).all()]
    if damaged:
        raise CheckpointError(f"{path}: {damaged[0]} holds numbers that are not finite, expected undamaged weights")
    backbone = config if isinstance(config, ModelConfig) else config.backbone
    if sum(len(stage.blocks) for stage in backbone.stages) > len(state):
        raise CheckpointError(f"{path}: {len(state)} arrays are too few for its config: weights are missing")
    numbers = sum(value.size for value in state.values())
    limit = max(SMALLEST_LIMIT, PIXELS_PER_NUMBER * numbers)
    height, width = config.resize_size if isinstance(config.resize_size, tuple) else (config.resize_size,) * 2
    if height * width > limit:
        raise CheckpointError(
            f"{path}: its config asks for images of {height} x {width} pixels, expected at most {limit:,} pixels for a "
            f"model of {numbers:,} numbers"
        )
    try:
        model = FAMILIES[family_of(config)].network(config, labels=checkpoint.labels)
        model.load_state_dict(state, copy=False)
    except MinidatError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (OverflowError, ValueError, MemoryError):  # sizes in the config that no computer holds
        raise CheckpointError(f"{path}: its config describes an impossibly large model") from None
    return model
