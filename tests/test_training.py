"""Whole training runs: that they learn, and that nothing that can happen to a process changes the result."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidat.checkpoints import load_model, load_npz
from minidat.commands import main
from minidat.data.augmentation import Augmentation
from minidat.data.datasets import ArrayDataset
from minidat.errors import ConfigError, MinidatError, TrainingError
from minidat.models import DeformableConfig, ModelConfig, StageConfig, create_model
from minidat.training import Recipe, read_log, train
from minidat.training.classification import ClassificationObjective, ClassificationTask, part_gradients
from minidat.training.workers import GradientWorkers

PLAIN = Augmentation(
    padding=None, flip=False, operations=0, erasing=0.0, mixup_alpha=None, cutmix_alpha=None, label_smoothing=0.0
)
TINY = ModelConfig(
    name="tiny",
    image_size=(16, 16),
    num_classes=3,
    resize_size=16,
    patch_size=2,
    mlp_ratio=2,
    convolutional_patches=True,
    convolutional_mlp=True,
    drop_path=0.1,
    stages=(
        StageConfig(8, 1, ("window",), window=4),
        StageConfig(16, 2, ("deformable",), deformable=DeformableConfig(2, kernel=3)),
        StageConfig(16, 2, ("window",), window=2),
        StageConfig(16, 2, ("deformable",), deformable=DeformableConfig(1, kernel=3)),
    ),
)
RECIPE = Recipe(epochs=4, batch=8, learning_rate=1e-3, warmup_epochs=1, workers=2)


def pictures(count: int, classes: int = 3, side: int = 16, seed: int = 0) -> ArrayDataset:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return ArrayDataset(images, np.arange(count) % classes, [f"class {i}" for i in range(classes)], name="noise")


def test_a_tiny_model_learns_64_images_by_heart(tmp_path):
    data = pictures(64, classes=4)
    recipe = Recipe(epochs=40, batch=16, learning_rate=4e-3, warmup_epochs=2, average_decay=0.9, augmentation=PLAIN)
    model = train(replace(TINY, num_classes=4, drop_path=0.0), data, data, recipe, tmp_path)
    assert ClassificationTask(model.config, data, data, recipe).validate(model)["accuracy"] == 1.0
    last = [record for record in read_log(tmp_path / "log.jsonl") if "validation_accuracy" in record][-1]
    assert last["epoch"] == 40
    assert last["validation_accuracy"] == 1.0
    again = load_model(tmp_path / "weights.npz")
    assert again.labels == list(data.classes)
    np.testing.assert_array_equal(again.state_dict()["head.weight"], model.state_dict()["head.weight"])
    with Image.open(tmp_path / "learning_curve.png") as picture:
        assert picture.format == "PNG"


def test_workers_add_up_to_the_gradient_of_the_whole_batch():
    data = pictures(7)
    config = replace(TINY, drop_path=0.0)
    alone = create_model(config, seed=3)
    whole = part_gradients(alone, PLAIN, data.images, data.labels, 7, np.random.default_rng(0))
    model = create_model(config, seed=3)
    with GradientWorkers(model, ClassificationObjective(PLAIN), workers=3, seed=0) as workers:
        for step in range(2):  # gradients are set, not added to
            shared = workers.gradients(step, list(zip(data.images, data.labels, strict=True)))
    assert shared.correct == whole.correct
    assert shared.loss == pytest.approx(whole.loss, rel=1e-5)
    for (name, one), (_, other) in zip(alone.named_parameters(), model.named_parameters(), strict=True):
        np.testing.assert_allclose(other.grad, one.grad, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_worker_that_dies_is_an_error():
    data = pictures(6)
    with GradientWorkers(create_model(TINY), ClassificationObjective(PLAIN), workers=2, seed=0) as workers:
        workers._children[0][0].kill()
        workers._children[0][0].join()
        with pytest.raises(TrainingError, match="worker 1 has died"):
            workers.gradients(0, list(zip(data.images, data.labels, strict=True)))


def test_begins_with_the_given_weights(tmp_path):
    data = pictures(8)
    start = create_model(TINY, seed=5)
    recipe = replace(RECIPE, epochs=1, learning_rate=1e-9, minimum_learning_rate=0.0, workers=1)
    model = train(TINY, data, data, recipe, tmp_path, initial=start.state_dict())
    np.testing.assert_allclose(model.state_dict()["head.weight"], start.state_dict()["head.weight"], atol=1e-6)
    with pytest.raises(TrainingError, match="initial_weights"):
        train(TINY, data, data, recipe, tmp_path, resume=True)


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
    data = pictures(16)
    recipe = replace(RECIPE, workers=1, epochs=3)
    broken: list[int] = []

    def break_the_weights(progress) -> None:
        if progress.step == 3:
            broken.append(1)
            raise_weights[0].value[...] = np.nan

    raise_weights = []
    original = GradientWorkers.__enter__

    def enter(self):
        raise_weights.append(next(p for name, p in self.model.named_parameters() if name == "head.weight"))
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GradientWorkers, "__enter__", enter)
        with (
            np.errstate(all="ignore"),
            pytest.raises(TrainingError, match=r"step 4: .* nan.*checkpoint\.npz is the last"),
        ):
            train(TINY, data, data, recipe, tmp_path, progress=break_the_weights)
    assert broken
    state = load_npz(tmp_path / "checkpoint.npz").state
    assert state["steps"] == 2
    assert all(np.isfinite(value).all() for value in state.values())
    train(TINY, data, data, recipe, tmp_path, resume=True)


def test_a_learning_rate_that_is_far_too_high_is_told(tmp_path):
    data = pictures(16)
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="diverged"):
        train(TINY, data, data, replace(RECIPE, workers=1, learning_rate=1e30, warmup_epochs=0), tmp_path)


def test_another_run_in_the_folder(tmp_path):
    data = pictures(16)
    recipe = replace(RECIPE, workers=1, epochs=1)
    train(TINY, data, data, recipe, tmp_path)
    weights = (tmp_path / "weights.npz").read_bytes()
    with pytest.raises(TrainingError, match="holds a run already"):
        train(TINY, data, data, recipe, tmp_path)
    for other, message in (
        ({"recipe": replace(recipe, epochs=2)}, r"recipe\.epochs: found 1, expected 2"),
        ({"config": replace(TINY, mlp_ratio=3)}, r"model\.mlp_ratio: found 2, expected 3"),
        ({"training": pictures(16, seed=1)}, r"training\.checksum"),
    ):
        arguments = {"config": TINY, "training": data, "validation": data, "recipe": recipe, **other}
        with pytest.raises(TrainingError, match=message):
            train(**arguments, folder=tmp_path, resume=True)
    train(TINY, data, data, recipe, tmp_path, resume=True)  # nothing is left to do
    assert (tmp_path / "weights.npz").read_bytes() == weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": pictures(16, side=8)}, "found images of"),
        ({"training": pictures(16, classes=2)}, "classes"),
        ({"validation": pictures(0)}, "no images"),
        ({"recipe": replace(RECIPE, batch=17)}, "at most 16"),
    ],
)
def test_data_that_do_not_fit(tmp_path, changes, message):
    arguments = {"config": TINY, "training": pictures(16), "validation": pictures(16), "recipe": RECIPE, **changes}
    with pytest.raises(ConfigError, match=message):
        train(**arguments, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs: found 0"),
        ({"epochs": 1.5}, "epochs: found 1.5, expected int"),
        ({"epochs": True}, "epochs: found True"),
        ({"rate": 1}, "found the field 'rate'"),
        ({"augmentation": {"flips": True}}, "augmentation: found the field 'flips'"),
        ({"augmentation": []}, "augmentation: found"),
        ({"workers": 500}, "workers: found 500"),
        ({"average_decay": 1}, "average_decay"),
        ([], "expected an object"),
    ],
)
def test_recipes_that_cannot_be(fields, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict(fields, Recipe())


def test_a_recipe_from_json():
    recipe = Recipe.from_dict({"epochs": 3, "augmentation": {"crop_area": [0.5, 1.0], "padding": None}}, RECIPE)
    assert recipe == replace(RECIPE, epochs=3, augmentation=Augmentation(crop_area=(0.5, 1.0), padding=None))


def test_a_log_that_was_cut(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "loss": 2.0}]
    assert read_log(tmp_path / "none.jsonl") == []


# --- real processes ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An image folder, a model and a recipe, and `whole`: a run that nobody disturbed."""
    root = tmp_path_factory.mktemp("training")
    data = pictures(48)
    for i, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        place = root / "data" / data.classes[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    (root / "model.json").write_text(json.dumps(TINY.to_dict()))
    (root / "recipe.json").write_text(json.dumps({"warmup_epochs": 1, "augmentation": {"operations": 1}}))
    assert main(command(root, "whole")[3:]) == 0
    return root


def command(root: Path, output: str) -> list[str]:
    places = {"data": "data", "output": output, "model": "model.json", "recipe": "recipe.json"}
    options = [part for name, place in places.items() for part in (f"--{name}", str(root / place))]
    numbers = "--epochs 12 --batch 8 --workers 2 --validation 0.17 --seed 4 --resume"
    return [sys.executable, "-m", "minidat", "train", *options, *numbers.split()]


def same_weights(root: Path, output: str, expected: str = "whole") -> None:
    for name in ("weights.npz", "checkpoint.npz"):
        assert (root / output / name).read_bytes() == (root / expected / name).read_bytes(), name
    kept = [[r for r in read_log(root / run / "log.jsonl") if "validation_loss" in r] for run in (output, expected)]
    assert kept[0] == kept[1]


def test_killed_at_random_moments_and_resumed(folder):
    """kill -9, three times, whatever the process was doing: the files are whole, and
    the weights the same bits."""
    moments = random.Random().sample(range(5, 48), 3)
    print("killed", sorted(moments), "tenths of a second after the start")
    for moment in sorted(moments):
        process = subprocess.Popen(command(folder, "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment / 10)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(folder, "killed"), check=True, capture_output=True)
    same_weights(folder, "killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(folder, number):
    output = f"interrupted_{number.name}"
    process = subprocess.Popen(command(folder, output), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (folder / output / "weights.npz").exists():  # the first epoch is over
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate()
    if process.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert process.returncode == 130
    assert "minidat: interrupted after step" in errors
    assert "Traceback" not in errors
    subprocess.run(command(folder, output), check=True, capture_output=True)
    same_weights(folder, output)


def test_a_full_disk_and_resumed(folder):
    """No file may grow beyond 50 kB: the log and the description can be written, weights cannot."""
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
    run = f"{limit} sys.argv[0] = 'minidat'; runpy.run_module('minidat', run_name='__main__')"
    alone = ["--workers", "1"]  # workers share their memory through a file, which the limit would forbid as well
    arguments = [sys.executable, "-c", run, *command(folder, "full")[3:], *alone]
    process = subprocess.run(arguments, capture_output=True, text=True)
    assert process.returncode == 2
    assert "weights.npz: cannot be written: File too large" in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr
    assert [path.name for path in (folder / "full").iterdir()] == ["run.json"]  # and no half-written weights
    assert main([*command(folder, "full")[3:], *alone]) == 0
    assert main([*command(folder, "whole alone")[3:], *alone]) == 0
    same_weights(folder, "full", "whole alone")


def test_no_memory_to_share(monkeypatch):
    def no_room(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.context.SpawnContext.RawArray", no_room)
    with (
        pytest.raises(TrainingError, match=r"shared memory: No space left"),
        GradientWorkers(create_model(TINY), ClassificationObjective(PLAIN), workers=2, seed=0),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data no", "no: no such file"),
        ("--model no.json", "no.json: cannot be read"),
        ("--model nothing", "nothing"),
        ("--recipe no.json", "no.json: cannot be read"),
        ("--validation 1", "validation: found"),
        ("--epochs 0", "epochs: found 0"),
        ("--output {root}/model.json", "model.json"),
        ("--weights no.npz --model dat_tiny", "found both"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, options, message):
    arguments = [*command(folder, "bad")[3:], *options.format(root=folder).split()]
    assert main(arguments) == 2
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert "\n" not in errors


def test_skips_unreadable_pictures_if_asked(folder, capsys):
    bad = folder / "data" / "class 0" / "bad.png"
    bad.write_bytes(b"nothing")
    try:
        arguments = [*command(folder, "skipping")[3:], "--epochs", "1", "--workers", "1"]
        assert main(arguments) == 2
        assert "bad.png" in capsys.readouterr().err
        assert main([*arguments, "--skip-unreadable"]) == 0
        assert f"minidat: skipped: {bad}: " in capsys.readouterr().err
    finally:
        bad.unlink()


def test_goes_on_from_weights_of_other_classes(folder, tmp_path, capsys):
    """Fine-tuning: the classifier of a folder with other class names is drawn anew, all else is taken over."""
    (tmp_path / "data").mkdir()
    for old, new in (("class 0", "a"), ("class 1", "b")):
        (folder / "data" / old).rename(tmp_path / "data" / new)
    try:
        arguments = command(folder, "tuned")[3:]
        place = arguments.index("--model")
        arguments[place : place + 2] = ["--weights", str(folder / "whole" / "weights.npz")]
        arguments[arguments.index("--data") + 1] = str(tmp_path / "data")
        assert main([*arguments, "--epochs", "1", "--workers", "1", "--learning-rate", "1e-5"]) == 0
    finally:
        for old, new in (("class 0", "a"), ("class 1", "b")):
            (tmp_path / "data" / new).rename(folder / "data" / old)
    tuned, whole = (load_npz(folder / run / "weights.npz") for run in ("tuned", "whole"))
    assert tuned.labels == ["a", "b"]
    assert tuned.state["head.weight"].shape == (2, 16)
    np.testing.assert_allclose(tuned.state["norm.weight"], whole.state["norm.weight"], atol=1e-3)
    assert "done" in capsys.readouterr().out


def test_progress_and_curve_of_a_run(tmp_path):
    seen: list[float] = []
    data = pictures(16)
    train(TINY, data, data, replace(RECIPE, workers=1, epochs=2), tmp_path, progress=lambda p: seen.append(p.epoch))
    assert seen == [0.5, 1.0, 1.5, 2.0]
    with pytest.raises(MinidatError, match="cannot be made"):
        train(TINY, data, data, RECIPE, tmp_path / "run.json" / "x")
