"""The examples that are more than a call of the command: on generated pictures, for a few steps."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import minidat
from minidat.catalog import config_from_dict
from minidat.data import DetectionDataset
from minidat.errors import ConfigError, DatasetError
from minidat.files.reading import read_json
from minidat.training import Recipe, default_recipe

from .generated_data import write_detection_data

EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS = sorted((EXAMPLES / "recipes").glob("*_model.json"))


@pytest.fixture
def overfit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """examples/overfit_coco.py, for 3 pictures of 64 pixels and 2 epochs."""
    spec = spec_from_file_location("overfit_coco", EXAMPLES / "overfit_coco.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    read_recipe = module.read_recipe

    def read_smaller_recipe(num_classes: int) -> tuple[minidat.detection.MaskRCNNConfig, Recipe]:
        config, recipe = read_recipe(num_classes)
        augmentation = replace(recipe.augmentation, shortest=(64,), longest=64)
        recipe = replace(recipe, epochs=2, batch=1, validation_epochs=2, augmentation=augmentation)
        return config.replace(image_size=(64, 64)), recipe

    monkeypatch.setattr(module, "read_recipe", read_smaller_recipe)
    monkeypatch.setattr(module, "PICTURES", 3)
    return module


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_every_recipe_fits_its_model(model: Path) -> None:
    config = config_from_dict(read_json(model, ConfigError))
    fields = read_json(model.with_name(model.name.replace("_model", "_recipe")), ConfigError)
    recipe = Recipe.from_dict(fields, default_recipe(config))
    assert all(getattr(recipe, name) == value for name, value in fields.items() if isinstance(value, int | float))


def test_the_first_pictures_with_few_objects_are_chosen(tmp_path: Path, overfit: ModuleType) -> None:
    root = write_detection_data(tmp_path / "masks", training=6, masks=True)
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    places = [found["image_id"] for found in content["annotations"]]
    empty, *single = (places.index(number) for number in (10, 12, 13))  # all others have two objects
    removed = {empty, empty + 1, *single}
    content["annotations"] = [found for i, found in enumerate(content["annotations"]) if i not in removed]
    file.write_text(json.dumps(content))

    dataset = DetectionDataset(root, "train")
    assert overfit.choose_pictures(dataset, 3).image_ids == (11, 12, 13)
    overfit.MOST_OBJECTS = 1
    assert overfit.choose_pictures(dataset, 2).image_ids == (12, 13)
    with pytest.raises(DatasetError, match="found 2 pictures with 1 to 1 objects, expected 3"):
        overfit.choose_pictures(dataset, 3)
    with pytest.raises(DatasetError, match="without a mask"):
        overfit.choose_pictures(DetectionDataset(write_detection_data(tmp_path / "boxes"), "train"), 3)


def test_people_are_not_shown(tmp_path: Path, overfit: ModuleType) -> None:
    dataset = DetectionDataset(write_detection_data(tmp_path, masks=True), "train")
    assert overfit.without_people(dataset) == list(range(8))
    dataset.classes = ("square", "person")
    shown = overfit.without_people(dataset)
    assert shown == [i for i in range(8) if 1 not in dataset.targets(i).labels]
    assert 0 < len(shown) < 8


def test_annotations_are_drawn_as_what_is_found(tmp_path: Path, overfit: ModuleType) -> None:
    dataset = DetectionDataset(write_detection_data(tmp_path, masks=True), "train")
    targets = dataset.targets(0)
    objects = overfit.annotated(dataset, 0)
    assert [found.index for found in objects] == targets.labels.tolist()
    for found, box in zip(objects, targets.boxes.astype(int), strict=True):
        assert found.box == tuple(box)
        assert found.label == dataset.classes[found.index]
        assert found.mask.shape == dataset.size(0)
        rows, columns = (np.flatnonzero(found.mask.any(axis=axis)) for axis in (1, 0))
        assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == tuple(box)  # its annotation is its box


def test_overfit_coco(
    tmp_path: Path, overfit: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, output = write_detection_data(tmp_path / "data", masks=True), tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["overfit_coco.py", str(data), str(output)])
    assert overfit.main() == 0
    printed = capsys.readouterr().out
    assert re.search(r"box AP50 .*%, mask AP50 .*% on the 3 pictures\n", printed)
    assert {"weights.npz", "log.jsonl", "learning_curve.png", "overfit.jpg"} <= {file.name for file in output.iterdir()}
    sheet = minidat.load_image(output / "overfit.jpg")
    height, width = overfit.TILE
    assert sheet.shape == (2 * height + overfit.GAP, 2 * (2 * width + 2 * overfit.GAP) - overfit.GAP, 3)
    halves = sheet[:height, : width - overfit.GAP], sheet[:height, width : 2 * width - overfit.GAP]
    assert all(half.std() > 20 for half in halves)  # pictures on both sides
    assert np.abs(halves[0].astype(int) - halves[1]).max() > 40  # six steps find other things than the annotated

    assert overfit.main() == 2  # there is a run in the folder
    assert capsys.readouterr().err.startswith("overfit_coco: error: ")
    sys.argv.append("--resume")
    assert overfit.main() == 0
