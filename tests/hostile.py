"""Input that means harm, as Hypothesis strategies, and what must hold of it: an error is a MinidatError in one line.

`mutated(value)` is a JSON value with a few of its parts replaced by something hostile: sizes that no computer holds,
numbers that are none, texts that steer a terminal, other types, deep nesting. The properties (`check_...`) give such
configs, recipes, run folders, checkpoints and data sets to what reads them. tests/test_hostile.py tries each a few
times, `python -m tests.fuzz` for as long as it is told to, with little memory.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import pickle
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from minidat.catalog import FAMILIES, config_from_dict, config_to_dict, family_of, get_config
from minidat.checkpoints import load_model, load_npz, save_npz
from minidat.data.datasets import ArrayDataset
from minidat.data.image import preprocess
from minidat.data.opening import open_dataset
from minidat.errors import MinidatError
from minidat.models import DAT, DeformableConfig, ModelConfig, StageConfig, create_model
from minidat.training import Recipe, read_log, train

HUGE = (10**6, 10**9, 10**10, 10**12, 10**15, 2**31, 2**62, 2**63, 10**18, 10**30, 10**400)
ODD_NUMBERS = (-1, -5, -10, 0, 1, 2, 3, 255, 257, 0.5, -0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"))
TEXTS = ("", "a", "\x1b[31mred", "two\nlines", "x" * 1000, "\ud800", "dat_tiny", "none", "relative")
DENSE = ("retinanet", "mask_rcnn", "cascade_mask_rcnn", "upernet", "semantic_fpn")
FEW_NUMBERS = 300_000  # a model that is small enough to be made and run


def deep(levels: int) -> list[Any]:
    """A list in a list in a list ..."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def hostile() -> st.SearchStrategy[Any]:
    """One JSON value that does not belong anywhere."""
    plain = st.one_of(
        st.sampled_from(HUGE),
        st.sampled_from(HUGE).map(lambda number: -number),
        st.sampled_from(ODD_NUMBERS),
        st.integers(-3, 70),
        st.sampled_from(TEXTS),
        st.none(),
        st.booleans(),
    )
    return st.one_of(
        plain,
        st.lists(plain, max_size=4),
        plain.map(lambda value: [value] * 4),
        plain.map(lambda value: [value] * 2),
        st.dictionaries(st.sampled_from(TEXTS), plain, max_size=2),
        st.sampled_from([3, 60, 400]).map(deep),
    )


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all parts of a JSON value."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A copy of a JSON value in which one to three parts are replaced, left out or added."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from([path for path in places(value) if path] or [("extra",)]))
        target = value
        for key in path:
            target = target[key]
        action = draw(st.sampled_from(("replace", "replace", "replace", "drop", "add")))
        if not isinstance(target, dict | list):
            continue
        if action == "drop" and len(target) > 1:
            del target[last]
        elif action == "add" and isinstance(target, dict):
            target[draw(st.sampled_from(TEXTS))] = draw(hostile())
        else:
            target[last] = draw(hostile())
    return value


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which some are changed, cut off, doubled or left out."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        length = draw(st.integers(1, 16))
        action = draw(st.sampled_from(("flip", "random", "cut", "drop", "double", "ones")))
        if action == "flip":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif action == "random":
            data[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif action == "ones":
            data[place : place + length] = b"\xff" * length
        elif action == "cut":
            del data[place:]
        elif action == "drop":
            del data[place : place + length]
        else:
            data[place:place] = data[place : place + length]
    return bytes(data)


def only_minidat_errors(action: Callable[[], Any]) -> str | None:
    """The message of the MinidatError that `action` raises, None if it raises nothing; anything else is a failure."""
    try:
        action()
    except MinidatError as error:
        message = str(error)
        assert message == "".join(c if c.isprintable() else "?" for c in message), "more than a line, or control codes"
        assert message
        return message
    return None


# --- what there is to spoil -------------------------------------------------------------------------------------------


def tiny_config(**changes: Any) -> ModelConfig:
    """A model of all kinds of attention, of some 20,000 numbers, for images of 16 x 16."""
    kinds = (("window", "shifted_window"), ("neighborhood",), ("deformable",), ("deformable",))
    stages = tuple(
        StageConfig(
            8 * (1 + i // 2),
            2,
            kinds[i],
            window=2,
            neighborhood=3,
            deformable=DeformableConfig(2, 3) if i > 1 else None,
        )
        for i in range(4)
    )
    return ModelConfig("tiny", (16, 16), 3, stages, resize_size=18, patch_size=2, mlp_ratio=1).replace(**changes)


@cache
def tiny_model() -> DAT:
    return create_model(tiny_config(), seed=1)


def tiny_recipe() -> dict[str, Any]:
    return {
        "epochs": 1,
        "batch": 2,
        "learning_rate": 0.001,
        "minimum_learning_rate": 1e-5,
        "warmup_epochs": 0.5,
        "weight_decay": 0.05,
        "clip_norm": 5.0,
        "average_decay": 0.9,
        "seed": 0,
        "workers": 1,
        "augmentation": {
            "padding": 2,
            "padding_mode": "zero",
            "crop_area": None,
            "flip": True,
            "operations": 1,
            "magnitude": 9.0,
            "erasing": 0.25,
            "mixup_alpha": 0.8,
            "cutmix_alpha": 1.0,
            "mixing": 1.0,
            "label_smoothing": 0.1,
        },
    }


def recipes() -> st.SearchStrategy[dict[str, Any]]:
    crops = {**tiny_recipe(), "augmentation": {"padding": None, "crop_area": [0.3, 1.0]}}
    return st.one_of(mutated(tiny_recipe()), mutated(crops))


def configs() -> st.SearchStrategy[dict[str, Any]]:
    table = json.loads(json.dumps(tiny_config(table_image_size=(16, 16), layer_scale=1e-5).to_dict()))
    dense = [config_to_dict(get_config(f"{family}_dat_tiny")) for family in DENSE]
    return st.one_of(
        mutated(json.loads(json.dumps(tiny_config().to_dict()))),
        mutated(table),
        st.sampled_from(json.loads(json.dumps(dense))).flatmap(mutated),
    )


def tiny_pictures() -> ArrayDataset:
    rng = np.random.default_rng(0)
    return ArrayDataset(rng.integers(0, 256, (9, 16, 16, 3), np.uint8), np.arange(9) % 3, ("ant", "bee", "cow"))


class StoppedError(Exception):
    """The first step of a run has been done: enough."""


def begin_run(folder: Path, *, resume: bool) -> None:
    """Train in the folder, up to the end of the first step."""

    def stop(progress: Any) -> None:
        raise StoppedError

    with contextlib.suppress(StoppedError):
        recipe = Recipe.from_dict(tiny_recipe(), Recipe())
        train(tiny_config(), tiny_pictures(), tiny_pictures(), recipe, folder, resume=resume, progress=stop)


@cache
def tiny_run() -> dict[str, bytes]:
    """The files of a run that is complete, by name."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.from_dict(tiny_recipe(), Recipe())
        train(tiny_config(), tiny_pictures(), tiny_pictures(), recipe, f"{folder}/run")
        return {path.name: path.read_bytes() for path in Path(folder, "run").iterdir() if path.is_file()}


@st.composite
def run_folders(draw: st.DrawFn) -> dict[str, bytes | str]:
    """The files of a run in which one is spoilt: a file's content, or "fifo", "folder", "link to itself"."""
    files: dict[str, Any] = dict(tiny_run())
    name = draw(st.sampled_from(("run.json", "log.jsonl", "checkpoint.npz", "weights.npz")))
    kind = draw(st.sampled_from(("values", "values", "values", "bytes", "nested", "other")))
    if kind == "other":
        files[name] = draw(st.sampled_from(("fifo", "folder", "link to itself", "missing")))
    elif kind == "nested":
        files[name] = draw(st.sampled_from((b"[", b'{"a":'))) * draw(st.sampled_from((900, 100_000)))
    elif kind == "bytes":
        files[name] = draw(damaged(files[name]))
    elif name == "run.json":
        files[name] = json.dumps(draw(mutated(json.loads(files[name])))).encode()
    elif name == "log.jsonl":
        records = [json.loads(line) for line in files[name].splitlines()]
        files[name] = b"".join(json.dumps(record).encode() + b"\n" for record in draw(mutated(records)))
    else:
        key = draw(st.sampled_from(("steps.npy", "updates.npy", "config.npy", "labels.npy")))
        if key in ("steps.npy", "updates.npy"):
            number = draw(st.sampled_from((-(2**63), -10, -5, -1, 0, 1, 3, 5, 100, 10**9, 10**15, 2**63 - 1)))
            value = np.array(number, np.int64)
        else:
            value = np.frombuffer(json.dumps(draw(configs())).encode(), np.uint8)
        files[name] = replaced_entry(files[name], key, value)
    return files


def replaced_entry(content: bytes, name: str, value: np.ndarray) -> bytes:
    """A .npz with another array under one of its names, if it has that."""
    result, entry = io.BytesIO(), io.BytesIO()
    np.save(entry, value)
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        for info in old.infolist():
            new.writestr(info, entry.getvalue() if info.filename == name else old.read(info))
    return result.getvalue()


def place(path: Path, content: bytes | str) -> None:
    """Put a file's content there, or one of the other things that `run_folders` has."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "fifo":
        os.mkfifo(path)
    elif content == "folder":
        path.mkdir()
    elif content == "link to itself":
        path.symlink_to(path)


@cache
def tiny_npz() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_npz(f"{folder}/x.npz", tiny_model().state_dict(), tiny_config(), ["ant", "bee", "cow"])
        return Path(folder, "x.npz").read_bytes()


def with_config(config: Any) -> bytes:
    """The tiny model's file, with that in the place of its config."""
    return replaced_entry(tiny_npz(), "config.npy", np.frombuffer(json.dumps(config).encode(), np.uint8))


# --- pickles: written by hand, since Python's own module would not write such ones ------------------------------------


def pickled(body: bytes) -> bytes:
    """A pickle of protocol 2: the program between its first and its last instruction."""
    return b"\x80\x02" + body + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def name(module: str, function: str) -> bytes:
    return f"c{module}\n{function}\n".encode()


def pth(program: bytes, folder: str = "x") -> bytes:
    """A .pth without tensors: the pickle, and nothing else."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", program)
        archive.writestr(f"{folder}/version", b"3\n")
    return file.getvalue()


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    """A pickle of plain values, damaged, or one that repeats a part of it many times."""
    value = draw(
        st.recursive(st.integers() | st.text(max_size=9) | st.none(), lambda inner: st.lists(inner), max_leaves=9)
    )
    protocol = draw(st.integers(2, 4))
    program = pickle.dumps({"model": value, "config": [value, value]}, protocol)
    if draw(st.booleans()):
        return draw(damaged(program))
    big = draw(st.integers(1, 20_000))
    stored = draw(
        st.sampled_from(
            (
                text("a" * big) + b"q\x00",
                b"(" + b"K\x01" * big + b"tq\x00",
                b"(" + b"K\x01" * big + b"lq\x00",
                b"(" + b")" * big + b"dq\x00",
                b"\x8b" + struct.pack("<I", big) + b"\x7f" * big + b"q\x00",
            )
        )
    )
    calls = (
        name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R",
        name("torch", "Size") + b"h\x00\x85R",
        name("collections", "OrderedDict") + b"h\x00\x85R",
        name("builtins", "frozenset") + b"h\x00\x85R",
        name("anything", "else") + b"h\x00\x85R",
        b"}h\x00Ns",
        b"h\x00Q",
        b"}h\x00h\x00s",
        b"\x8f(h\x00\x90",
    )
    return pickled(stored + b"(" + draw(st.sampled_from(calls)) * draw(st.integers(1, 2000)) + b"l")


# --- the properties ---------------------------------------------------------------------------------------------------


def check_config(data: Any) -> None:
    def use() -> None:
        config = config_from_dict(json.loads(json.dumps(data)))
        model = FAMILIES[family_of(config)].network(config)
        if model.parameter_count() <= FEW_NUMBERS and isinstance(config, ModelConfig):
            create_model(config)(np.zeros((1, 16, 16, 3), np.float32))

    only_minidat_errors(use)


def check_recipe(data: Any) -> None:
    def use() -> None:
        recipe = Recipe.from_dict(json.loads(json.dumps(data)), Recipe())
        pictures = tiny_pictures()
        if recipe.augmentation.operations < 10:
            recipe.augmentation(pictures.images, pictures.labels, np.random.default_rng(0), classes=3)
        float(recipe.epochs * recipe.learning_rate * recipe.batch)

    only_minidat_errors(use)


def check_run_folder(files: dict[str, bytes | str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        run.mkdir()
        for name, content in files.items():
            place(run / name, content)
        only_minidat_errors(lambda: begin_run(run, resume=True))
        only_minidat_errors(lambda: read_log(run / "log.jsonl"))


def check_weights(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"x{suffix}")
        path.write_bytes(content)
        only_minidat_errors(lambda: load_npz(path))

        def use() -> None:
            model = load_model(path)
            preprocess(np.zeros((20, 30, 3), np.uint8), model.config)

        only_minidat_errors(use)


def check_npz_config(config: Any) -> None:
    check_weights(with_config(config), ".npz")


def check_data(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"x{suffix}")
        path.write_bytes(content)

        def use() -> None:
            open_dataset(path, default_split="test").load_all((8, 8))

        only_minidat_errors(use)


# --- data sets --------------------------------------------------------------------------------------------------------


def batch_pickle(pixels: bytes, labels: list[int]) -> bytes:
    """A batch as CIFAR-10 has it: an array's reconstruction, and a list."""
    made = (
        name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85" + text("b") + b"\x87R"
    )
    shape = b"J" + struct.pack("<i", len(labels)) + b"M\x00\x0c\x86"
    minus_one = b"J\xff\xff\xff\xff"
    dtype = name("numpy", "dtype") + text("u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text("|") + b"NNN" + 2 * minus_one + b"K\x00tb"
    array = made + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<I", len(pixels)) + pixels + b"tb"
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    return pickled(b"}(" + text("data") + array + text("labels") + b"(" + numbers + b"lu")


def tar_of(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return result.getvalue()


@cache
def tiny_cifar10() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, 3 * 3072, np.uint8).tobytes()
    return tar_of({"test_batch": batch_pickle(pixels, [3, 1, 9])}, "w:")


@cache
def tiny_zip() -> bytes:
    """An image folder in a zip, of one picture of each kind."""
    result = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as archive:
        for label in ("ant", "bee"):
            for kind in ("png", "jpeg", "bmp", "gif", "tiff", "webp"):
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, kind)
                archive.writestr(f"{label}/x.{kind}", file.getvalue())
    return result.getvalue()


PROPERTIES: dict[str, tuple[Callable[[], st.SearchStrategy[Any]], Callable[[Any], None]]] = {
    "configs": (configs, check_config),
    "recipes": (recipes, check_recipe),
    "run folders": (run_folders, check_run_folder),
    "configs in weights files": (configs, check_npz_config),
    "damaged weights files": (lambda: damaged(tiny_npz()), lambda content: check_weights(content, ".npz")),
    "pickles": (programs, lambda program: check_weights(pth(program), ".pth")),
    "batches of CIFAR-10": (lambda: damaged(tiny_cifar10()), lambda content: check_data(content, ".tar")),
    "image folders": (lambda: damaged(tiny_zip()), lambda content: check_data(content, ".zip")),
}
