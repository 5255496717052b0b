"""Hostile files, settings and circumstances, case by case: one clear line, within limits of memory and time."""

from __future__ import annotations

import gc
import io
import json
import os
import struct
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minidat import classification
from minidat.checkpoints import load_model, load_npz, read_torch_file, save_npz
from minidat.commands import main
from minidat.data.datasets import split_validation
from minidat.data.image import load_image
from minidat.data.image_folder import ImageFolder
from minidat.data.labels import load_labels
from minidat.data.opening import open_dataset
from minidat.errors import CheckpointError, ConfigError, DatasetError, MinidatError, TrainingError
from minidat.evaluation import evaluate
from minidat.files.pickle_machine import PickleError, PickleMachine
from minidat.models import DAT, ModelConfig, create_model
from minidat.runtime import threads
from minidat.training import Recipe
from tests.checkpoint_files import peak_of, rewrite_zip, save_with_config
from tests.hostile import (
    HUGE,
    batch_pickle,
    begin_run,
    deep,
    name,
    only_minidat_errors,
    pickled,
    place,
    pth,
    replaced_entry,
    tar_of,
    text,
    tiny_config,
    tiny_model,
    tiny_npz,
    tiny_recipe,
    tiny_run,
    with_config,
)

MB = 1 << 20


def one_line(error: MinidatError, path: Any) -> str:
    """The message of an error, which names the file."""
    message = str(error)
    assert message.isprintable()
    assert message.startswith(f"{path}")
    return message


# --- 1: budgets of memory and time ------------------------------------------------------------------------------------

BIG = b"a" * 100_000
ONES = b"(" + b"K\x01" * 10_000
COPYING = {
    "encode": text("a" * 100_000)
    + b"q\x00(" + (name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R") * 3000,
    "Size": ONES + b"lq\x00(" + (name("torch", "Size") + b"h\x00\x85R") * 3000,
    "frozenset": b"(" + b"".join(b"M" + struct.pack("<H", i) for i in range(9999)) + b"lq\x00("
    + (name("builtins", "frozenset") + b"h\x00\x85R") * 500,
    "OrderedDict": b"(" + b"".join(b"M" + struct.pack("<H", i) + b"N\x86" for i in range(9999)) + b"lq\x00("
    + (name("collections", "OrderedDict") + b"h\x00\x85R") * 500,
}  # fmt: skip
SLOW = {
    "a long key": ONES + b"tq\x00(" + b"}h\x00Ns" * 30_000,
    "a long text as a key": text("a" * 100_000)
    + b"q\x000" + text("a" * 100_000) + b"q\x010}h\x00Ns" + b"h\x01Ns" * 9_000,
    "keys that collide": b"J\xff\xff\xff\xffq\x00J\xfe\xff\xff\xffq\x01}"
    + b"".join(b"(" + bytes(b for bit in f"{i:014b}" for b in (0x68, int(bit))) + b"tNs" for i in range(1 << 14)),
    "a long number as a key": b"\x8b"
    + struct.pack("<I", 100_000) + b"\x7f" * 100_000 + b"q\x00(" + b"}h\x00Ns" * 9_000,
    "a long name of a storage": text("a" * 100_000) + b"q\x00(" + b"h\x00Q" * 9_000,
}  # fmt: skip


def run(program: bytes) -> Any:
    return PickleMachine(program, {}, lambda identity: f"{identity}").run()


@pytest.mark.parametrize("kind", COPYING)
def test_a_pickle_that_repeats_a_copy(kind: str) -> None:
    program = pickled(COPYING[kind] + b"l")

    def attempt() -> None:
        with pytest.raises(PickleError, match="more memory or time than"):
            run(program)

    assert peak_of(attempt) < 40 * MB


@pytest.mark.parametrize("kind", SLOW)
def test_a_pickle_that_repeats_slow_work(kind: str) -> None:
    with pytest.raises(PickleError, match="more memory or time than"):
        run(pickled(SLOW[kind] + b"0" * 0))


def test_a_tensor_of_many_axes_again_and_again(tmp_path: Path) -> None:
    """Its sizes are counted before they are copied."""
    tensor = name("torch._utils", "_rebuild_tensor") + b"(NK\x00h\x00h\x00tR"
    (tmp_path / "x.pth").write_bytes(pth(pickled(ONES + b"tq\x00(" + tensor * 100 + b"l")))
    with pytest.raises(CheckpointError, match="something else than a storage"):
        read_torch_file(tmp_path / "x.pth")


def test_a_checkpoint_with_its_optimizer_is_far_below_the_budget(tmp_path: Path) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(300)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 1)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        program = archive.read("x/data.pkl")
    storages = read_torch_file(tmp_path / "x.pth")
    assert len(storages["model"]) == 600
    machine = PickleMachine(program, {}, lambda identity: None)
    machine.run()
    assert machine.spent < machine.allowance / 4


@pytest.mark.parametrize("compressed", [True, False])
def test_a_batch_of_cifar10_that_repeats_a_copy(tmp_path: Path, compressed: bool) -> None:
    program = pickled(COPYING["encode"] + b"l")
    path = tmp_path / "x.tar.gz"
    path.write_bytes(tar_of({"test_batch": program}, "w:gz" if compressed else "w:"))

    def attempt() -> None:
        with pytest.raises(DatasetError):
            open_dataset(path, "test")

    assert peak_of(attempt) < 40 * MB


def test_an_archive_that_unpacks_to_a_thousand_times_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(tar_of({f"data_batch_{i}": batch_pickle(bytes(60 * MB), [0] * 20480) for i in (1, 2)}))
    assert path.stat().st_size < 200_000

    def attempt() -> None:
        with pytest.raises(DatasetError, match="unpacks to more than"):
            open_dataset(path, "train")

    gc.collect()
    assert peak_of(attempt) < 40 * MB


@pytest.mark.parametrize(
    "changes",
    [
        {"resize_size": 20_000},
        {"resize_size": 10**30},
        {"image_size": [20_000, 20_000], "resize_size": 20_000},
        {"image_size": [10**15, 10**15], "resize_size": 10**15},
        {"table_image_size": [16, 16], "image_size": [3000, 3000], "resize_size": 3000},
    ],
)
def test_a_config_of_images_that_the_weights_do_not_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(with_config({**tiny_config().to_dict(), **changes}))
    with pytest.raises(CheckpointError, match=r"image|resize") as caught:
        load_model(path)
    one_line(caught.value, path)


@pytest.mark.parametrize("settings", [{"DATA": {"IMG_SIZE": 30_000}}, {"MODEL": {"DAT": {"img_size": 5000}}}])
def test_settings_of_images_that_the_weights_do_not_back(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = create_model(tiny_config(table_image_size=(16, 16)))
    settings.setdefault("MODEL", {}).setdefault("DAT", {})["nat_ksizes"] = [3, 3, 3, 3]
    path = save_with_config(tmp_path / "x.pth", settings, model)
    with pytest.raises(CheckpointError, match=r"image_size|pixels") as caught:
        load_model(path)
    one_line(caught.value, path)


def test_a_data_set_of_large_pictures_is_never_held_whole(tmp_path: Path) -> None:
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        for i in range(12):
            Image.new("RGB", (1200, 1000), (i, 2 * i, 99)).save(tmp_path / label / f"{i}.png")
    folder = ImageFolder(tmp_path)
    assert peak_of(lambda: folder.load_all((24, 20))) < 30 * MB  # all of them are 86 MB
    model = tiny_model()
    model.labels = ["ant", "bee", "cow"]
    assert peak_of(lambda: evaluate(model, folder, batch=24)) < 30 * MB
    images, _ = folder.load_all((24, 20))
    one = ImageFolder(tmp_path).load(3)
    np.testing.assert_array_equal(
        images[3], np.asarray(Image.fromarray(one).resize((20, 24), Image.Resampling.BICUBIC))
    )


# --- 4: what was a traceback ------------------------------------------------------------------------------------------


def changed(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of nested dicts and lists with another value at a dotted path."""
    data = json.loads(json.dumps(data))
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    target: Any = data
    for key in keys:
        target = target[key]
    target[last] = value
    return data


FIELDS = (
    "image_size", "image_size.0", "num_classes", "resize_size", "patch_size", "mlp_ratio", "layer_scale", "drop_path",
    "table_image_size", "stages.0.dim", "stages.0.heads", "stages.0.window", "stages.1.neighborhood", "stages.2.blocks",
    "stages.2.deformable.groups", "stages.2.deformable.kernel", "stages.2.deformable.stride",
    "stages.2.deformable.range_factor", "stages.2.deformable.position_encoding",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_sizes_that_no_model_has(field: str, tmp_path: Path) -> None:
    """As a model's own file, and in a weights file; a model that is made nevertheless is a small one."""
    for value in (*HUGE, [0, 0], [HUGE[-1]] * 4, float("nan"), float("inf"), "\x1b[31m", deep(400), None):
        config = changed(tiny_config().to_dict(), field, value)

        def make(config: dict[str, Any] = config) -> None:
            made = ModelConfig.from_dict(config)
            assert DAT(made).parameter_count() < 100_000_000

        only_minidat_errors(make)
        path = tmp_path / "x.npz"
        path.write_bytes(with_config(config))
        only_minidat_errors(lambda path=path: load_model(path))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", [10**10, 10**10]),
        ("stages.0.window", 10**9),
        ("stages.0.dim", 10**30),
        ("stages.2.deformable.stride", 10**30),
        ("stages.2.deformable.stride", 10**18),
        ("table_image_size", [0, 0]),
        ("stages.2.deformable.range_factor", 10**400),
        ("resize_size", 10**30),
        ("stages.0.blocks", ["window"] * 2000),
    ],
)
def test_the_config_that_cannot_be_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field.split(".")[-1]) as caught:
        ModelConfig.from_dict(changed(tiny_config().to_dict(), field, value))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "setting", [{"offset_range_factor": [10**400] * 4}, {"strides": [2**62] * 4}, {"strides": [0, -1, 2, 10**400]}]
)
def test_the_trainers_settings_out_of_all_range(tmp_path: Path, setting: dict[str, Any]) -> None:
    path = save_with_config(tmp_path / "x.pth", {"MODEL": {"DAT": setting}}, tiny_model())
    only_minidat_errors(lambda: load_model(path))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, 10**400) for field in ("epochs", "batch", "learning_rate", "warmup_epochs", "clip_norm", "workers")),
        ("seed", "one"),
        ("epochs", deep(400)),
        ("weight_decay", float("nan")),
        ("augmentation.padding", 10**12),
        ("augmentation.padding", 10**400),
        ("augmentation.crop_area", ["a", "b"]),
        ("augmentation.crop_area", [0.1]),
        ("augmentation.crop_area", [10**400, 1]),
        ("augmentation.operations", 10**9),
        ("augmentation.magnitude", 10**400),
        ("augmentation.mixup_alpha", 10**400),
        ("augmentation.erasing", float("nan")),
        ("\x1b[31m\n", 1),
    ],
)
def test_recipes_out_of_all_range(field: str, value: Any) -> None:
    data = tiny_recipe()
    if field == "augmentation.crop_area":
        data["augmentation"]["padding"] = None
    with pytest.raises(ConfigError) as caught:
        Recipe.from_dict(changed(data, field, value), Recipe())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("fraction", [float("nan"), float("inf"), -float("inf"), -1.0, 1e300])
def test_a_share_for_validation_that_is_none(fraction: float) -> None:
    with pytest.raises(ConfigError, match="validation"):
        split_validation(np.arange(9) % 3, fraction=fraction)


def resumed(folder: Path, changes: dict[str, bytes | str]) -> str:
    """The message with which a run that has these files cannot be resumed."""
    folder.mkdir()
    for file_name, content in {**tiny_run(), **changes}.items():
        place(folder / file_name, content)
    with pytest.raises(MinidatError) as caught:
        begin_run(folder, resume=True)
    return one_line(caught.value, folder)


@pytest.mark.parametrize("file_name", ["run.json", "log.jsonl"])
def test_a_run_with_a_file_nested_deeply(tmp_path: Path, file_name: str) -> None:
    folder = tmp_path / "run"
    if file_name == "run.json":
        assert "run.json" in resumed(folder, {file_name: b"[" * 100_000})
        return
    folder.mkdir()
    for other, content in {**tiny_run(), file_name: b"[" * 100_000}.items():
        place(folder / other, content)
    begin_run(folder, resume=True)  # as a line that a killed run has left half written


@pytest.mark.parametrize(
    ("entry", "value"), [("steps", -5), ("steps", 10**15), ("updates", -10), ("updates", 2**63 - 1)]
)
def test_a_checkpoint_of_steps_that_cannot_be(tmp_path: Path, entry: str, value: int) -> None:
    content = replaced_entry(tiny_run()["checkpoint.npz"], f"{entry}.npy", np.array(value, np.int64))
    message = resumed(tmp_path / "run", {"checkpoint.npz": content})
    assert "checkpoint.npz" in message
    assert f"found {value}" in message


@pytest.mark.parametrize("setting", ["²", "9" * 20, "0", "-1", "1.5", "many", "1025"])
def test_a_number_of_threads_that_is_none(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIDAT_NUM_THREADS", setting)
    with pytest.raises(ConfigError, match=r"MINIDAT_NUM_THREADS: found .*, expected a whole number from 1 to 1024"):
        threads.thread_count.__wrapped__()


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.new("RGB", (40, 30), "green").save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        (">&-", "minidat: error: the standard output is closed"),
        (">/dev/full", "minidat: error: the standard output cannot be written: No space left on device"),
        (">&- 2>&-", ""),
    ],
)
def test_nowhere_to_write_to(redirection: str, message: str, photo: str) -> None:
    command = f'"{sys.executable}" -m minidat classify "{photo}" {redirection}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (message and message + "\n")


# --- 5: nothing waits for ever ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["classify", "photo.png", "--weights", "fifo"],
        ["classify", "fifo"],
        ["convert", "fifo", "out.npz"],
        ["convert", "weights.npz", "out.npz", "--labels", "fifo"],
        ["train", "--data", "photo.png", "--output", "run", "--recipe", "fifo"],
        ["train", "--data", "photo.png", "--output", "run", "--model", "fifo.json"],
        ["train", "--data", "fifo", "--output", "run"],
        ["evaluate", "--data", "fifo", "--weights", "weights.npz"],
    ],
)
def test_a_fifo_that_nobody_writes_to(arguments: list[str], photo: str) -> None:
    folder = Path(photo).parent
    (folder / "weights.npz").write_bytes(tiny_npz())
    os.mkfifo(folder / "fifo")
    os.mkfifo(folder / "fifo.json")
    done = subprocess.run(
        [sys.executable, "-m", "minidat", *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("minidat: error: fifo")
    assert "not a regular file" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("file_name", ["run.json", "log.jsonl", "checkpoint.npz"])
def test_a_run_with_a_fifo_in_it(tmp_path: Path, file_name: str) -> None:
    assert "not a regular file" in resumed(tmp_path / "run", {file_name: "fifo"})


def test_a_child_forked_while_another_thread_works() -> None:
    """It has none of the locks that the other thread holds, and as many threads of OpenBLAS as before."""
    started, finish = threading.Event(), threading.Event()

    def work(start: int, stop: int) -> None:
        started.set()
        finish.wait(30)

    other = threading.Thread(target=lambda: threads.parallel(work, 4))
    before = threads._openblas()[0]()
    other.start()
    assert started.wait(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that other threads run is what this is about
        child = os.fork()
    if child == 0:
        seen: list[int] = []
        threads.parallel(lambda start, stop: seen.append(stop - start), 8)
        with threads.alone():
            pass
        os._exit(0 if sum(seen) == 8 and threads._openblas()[0]() == before else 1)
    finish.set()
    other.join()
    for _ in range(600):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        threading.Event().wait(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert status == 0


def test_a_child_keeps_the_lock_that_it_holds_itself() -> None:
    with threads.alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            os._exit(0 if threads._in_use.locked() else 1)
        assert os.waitpid(child, 0)[1] == 0


# --- 6: one clear line, and only that ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["classify", "evaluate"])
def test_logits_that_are_no_numbers(command: str, photo: str) -> None:
    folder = Path(photo).parent
    state = {key: np.full_like(value, 1e30) for key, value in tiny_model().state_dict().items()}
    save_npz(folder / "weights.npz", state, tiny_config(), ["ant", "bee", "cow"])
    (folder / "data" / "ant").mkdir(parents=True)
    Image.new("RGB", (40, 30), "green").save(folder / "data" / "ant" / "x.png")
    rest = [photo] if command == "classify" else ["--data", str(folder / "data")]
    done = subprocess.run(
        [sys.executable, "-m", "minidat", command, *rest, "--weights", str(folder / "weights.npz")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("minidat: error: ")
    assert "not finite" in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_control_characters_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[31m\nb"
    Image.new("RGB", (40, 30), "green").save(tmp_path / f"{evil}.png")
    (tmp_path / "data" / "ant").mkdir(parents=True)
    Image.new("RGB", (40, 30), "green").save(tmp_path / "data" / "ant" / f"{evil}.png")
    labels = [evil, "ant", "cow"]
    path = tmp_path / f"{evil}.npz"
    save_npz(path, tiny_model().state_dict(), tiny_config(name=evil), labels)
    unnamed = tmp_path / f"{evil}2.npz"
    save_npz(unnamed, tiny_model().state_dict(), tiny_config(name=evil))
    image, data = str(tmp_path / f"{evil}.png"), str(tmp_path / "data")
    for arguments in (
        ["convert", str(path), str(tmp_path / f"{evil}3.npz")],
        ["classify", image, "--weights", str(path)],
        ["classify", image, "--weights", str(unnamed)],
        ["evaluate", "--data", data, "--weights", str(path)],
        ["visualize", image, "--weights", str(path), "--output", str(tmp_path / f"{evil}4.png")],
        ["classify", str(tmp_path / f"{evil}none"), "--weights", str(path)],
        ["convert", str(path), str(tmp_path / f"{evil}none" / "x.npz")],
        ["train", "--data", str(tmp_path / f"{evil}none"), "--output", str(tmp_path / "run")],
        ["info", evil],
    ):
        main(arguments)
        output = capsys.readouterr()
        assert "\x1b" not in output.out + output.err, arguments
        assert "\nb" not in output.out + output.err, arguments


def test_a_message_is_one_printable_line_whatever_is_in_it() -> None:
    assert str(TrainingError("two\nlines \x1b[31m and \ud800")) == "two?lines ?[31m and ?"


def test_a_lack_of_memory_names_the_file(photo: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def too_large(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "array", too_large)
    with pytest.raises(MinidatError, match=r"photo\.png: .*not enough memory"):
        load_image(photo)
    monkeypatch.undo()
    (Path(photo).parent / "x.npz").write_bytes(tiny_npz())
    monkeypatch.setattr(np, "empty", too_large)
    with pytest.raises(CheckpointError, match=r"x\.npz: there is not enough memory"):
        load_model(Path(photo).parent / "x.npz")
    monkeypatch.undo()
    monkeypatch.setattr(classification, "classify", too_large)
    assert main(["classify", photo]) == 2
    error = capsys.readouterr().err
    assert "photo.png" in error
    assert "not enough memory" in error


@pytest.mark.parametrize("length", [249, 250, 255])
def test_long_names(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("n" * (length - 4) + ".npz")
    save_npz(path, tiny_model().state_dict(), tiny_config())
    assert load_model(path).config == tiny_config()
    assert os.listdir(tmp_path) == [path.name]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 252 + ".npz")
    with pytest.raises(CheckpointError, match=r"\.npz: cannot be written: File name too long$"):
        save_npz(path, {}, tiny_config())


def test_a_clean_up_that_fails_does_not_hide_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **settings: Any) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", lambda *arguments: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        save_npz(tmp_path / "x.npz", {}, tiny_config())


# --- 9: zip entries of other names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["labels.npx", "labels", "labels.npy/", "lab\x1bels.txt"])
def test_an_entry_of_an_unknown_name_is_refused(tmp_path: Path, other: str) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(tiny_npz())) as old, zipfile.ZipFile(content, "w") as new:
        for info in old.infolist():
            new.writestr(other if info.filename == "labels.npy" else info.filename, old.read(info))
    path = tmp_path / "x.npz"
    path.write_bytes(content.getvalue())
    with pytest.raises(CheckpointError, match="unknown entry") as caught:
        load_npz(path)
    one_line(caught.value, path)


def test_any_flipped_byte_in_the_names_of_a_zip_is_noticed(tmp_path: Path) -> None:
    content, path = tiny_npz(), tmp_path / "x.npz"
    start = -1
    while (start := content.find(b"labels.npy", start + 1)) >= 0:
        for i in range(len(b"labels.npy")):
            for both in (False, True):
                damaged = bytearray(content)
                places = [start + i]
                if both:
                    places = [j + i for j in range(len(content)) if content.startswith(b"labels.npy", j)]
                for j in places:
                    damaged[j] ^= 4
                path.write_bytes(bytes(damaged))
                with pytest.raises(CheckpointError):
                    load_model(path)


def test_an_unknown_record_of_a_torch_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(2)}, path)
    rewrite_zip(path, {"byteorder": None, "byteordes": b"big"})
    with pytest.raises(CheckpointError, match="unknown entry"):
        read_torch_file(path)


def test_labels_are_read_from_regular_files_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(MinidatError, match="not a regular file"):
        load_labels(tmp_path / "fifo")
