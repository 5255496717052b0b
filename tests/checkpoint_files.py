"""Small models and checkpoint files for the tests, made when they are needed."""

from __future__ import annotations

import sys
import tracemalloc
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minidat.checkpoints import to_authors_state_dict
from minidat.errors import MinidatError
from minidat.models import DAT, DeformableConfig, ModelConfig, StageConfig, create_model

GOLDEN = Path(__file__).parent / "golden"


def keys(name: str) -> list[tuple[str, tuple[int, ...], str]]:
    """(name, shape, "param" or "buffer") of every entry of a published state dict, `name` as in tests/golden."""
    rows = [line.split("\t") for line in (GOLDEN / f"{name}.keys.tsv").read_text().splitlines()]
    return [(key, tuple(map(int, shape.split("x"))), kind) for key, shape, _, kind in rows]


def shapes_only(name: str) -> dict[str, np.ndarray]:
    """A published state dict whose arrays have the right shapes and take no memory."""
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape, _ in keys(name)}


def small_config(**changes: Any) -> ModelConfig:
    """A CVPR DAT of 20,000 parameters for 32 x 32 images; its masks and tables tell all but the range factor."""
    stages = (
        StageConfig(8, 1, ("window", "shifted_window"), window=4),
        StageConfig(8, 1, ("window", "shifted_window"), window=4),
        StageConfig(16, 2, ("window", "deformable"), window=4, deformable=DeformableConfig(groups=1, kernel=5)),
        StageConfig(16, 2, ("window", "deformable"), window=2, deformable=DeformableConfig(groups=2, kernel=3)),
    )
    config = ModelConfig("small", (32, 32), 3, stages, resize_size=32, patch_size=2, mlp_ratio=2)
    return config.replace(**changes)


def shapes_of(config: ModelConfig) -> dict[str, np.ndarray]:
    """The state dict of a model: arrays of the right shapes that take no memory."""
    return {name: np.broadcast_to(np.float32(0), p.shape) for name, p in DAT(config).named_parameters()}


def authors_state(config: ModelConfig, our_state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights as the authors' trainer has them: their names, and buffers (whose values do not matter)."""
    state = to_authors_state_dict(our_state)
    for s, stage in enumerate(config.stages):
        height, width = config.map_size(s)
        for b, kind in enumerate(stage.blocks):
            tokens = stage.window**2
            if kind in ("window", "shifted_window"):
                state[f"stages.{s}.attns.{b}.relative_position_index"] = np.zeros((tokens, tokens), np.int64)
            if kind == "shifted_window":
                windows = (height // stage.window) * (width // stage.window)
                state[f"stages.{s}.attns.{b}.attn_mask"] = np.zeros((windows, tokens, tokens), np.float32)
    return state


def save_authors_file(path: Path, model: DAT | None = None, **entries: Any) -> Path:
    """A file as the authors' trainer writes it: the model and, beside it, `entries`."""
    model = model or create_model(small_config())
    state = {name: torch.from_numpy(value) for name, value in authors_state(model.config, model.state_dict()).items()}
    torch.save({"model": state, **entries}, path)
    return path


def rewrite_zip(path: Path, changes: dict[str, bytes | None], *, compression: int = zipfile.ZIP_STORED) -> None:
    """Replace (or with None drop, or add) records of a zip, with valid checksums; names are those after the folder."""
    with zipfile.ZipFile(path) as archive:
        folder = archive.namelist()[0].partition("/")[0] + "/"
        records = {name.removeprefix(folder): archive.read(name) for name in archive.namelist()}
    records.update(changes)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            if content is not None:
                archive.writestr(folder + name, content)


def read_record(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0].partition("/")[0] + "/" + name)


class foreign_module:  # noqa: N801  used like a function
    """Within the context, a module with these classes exists; files written there refer to it, and it is gone after."""

    def __init__(self, name: str, **classes: type) -> None:
        package = name.partition(".")[0]
        self.module = types.ModuleType(name)
        self.modules = {package: types.ModuleType(package), name: self.module}
        for key, kind in classes.items():
            kind.__module__, kind.__qualname__ = name, key
            setattr(self.module, key, kind)

    def __enter__(self) -> types.ModuleType:
        self.before = {name: sys.modules.get(name) for name in self.modules}
        sys.modules.update(self.modules)
        return self.module

    def __exit__(self, *_: object) -> None:
        for name, module in self.before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def save_with_config(path: Path, settings: dict[str, Any], model: DAT | None = None) -> Path:
    """A file of the trainer with `settings` (nested dicts) as a pickled `yacs.config.CfgNode`, without needing yacs."""

    class CfgNode(dict):  # as yacs has it: a dict with attributes of its own
        def __init__(self, content: dict[str, Any]) -> None:
            super().__init__({k: CfgNode(v) if isinstance(v, dict) else v for k, v in content.items()})
            self.__dict__["__immutable__"] = True

    with foreign_module("yacs.config", CfgNode=CfgNode):
        return save_authors_file(path, model, config=CfgNode(settings), max_accuracy=50.0, epoch=4)


def peak_of(action: Callable[[], object]) -> int:
    """Bytes of Python's and NumPy's memory that `action()` takes at most. It may raise a MinidatError."""
    message = ""
    tracemalloc.start()
    try:
        action()
    except MinidatError as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "\n" not in message
    return peak
