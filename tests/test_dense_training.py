"""Detectors and segmentors through the trainer and the command: they learn, resume to the bit, and are measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidat
from minidat.catalog import config_to_dict
from minidat.checkpoints import load_npz, save_npz
from minidat.commands import main
from minidat.data import DetectionDataset, SegmentationDataset, split_dataset
from minidat.data.box_augmentation import BoxAugmentation
from minidat.data.label_augmentation import LabelAugmentation
from minidat.errors import ConfigError
from minidat.evaluation import evaluate_detector, evaluate_segmentor
from minidat.evaluation.dense import segment_picture
from minidat.nn import Buffer, Context, Parameter
from minidat.segmentation import SemanticFPNConfig, UperNetConfig
from minidat.training import (
    Recipe,
    backbone_weights,
    decay_names,
    default_recipe,
    fitting_weights,
    read_log,
    train,
)
from minidat.training.dense import DetectionObjective, DetectionTask, SegmentationObjective, SegmentationTask
from minidat.training.workers import GradientWorkers

from .generated_data import CLASSES, SURFACES, write_detection_data, write_segmentation_data
from .small_detectors import small_backbone, small_mask_rcnn, small_retinanet

UPERNET = UperNetConfig(
    "tiny_upernet", small_backbone(), num_classes=3, image_size=(64, 64), resize_size=(64, 64), channels=16,
    pool_scales=(1, 2), auxiliary_channels=8,
)  # fmt: skip
BOXES = BoxAugmentation(crop=None, shortest=(56, 64), longest=80)
LABELS = LabelAugmentation(scale=(64, 64), crop=(64, 64), ratio=(0.9, 1.1), distort=False)
DETECTION = default_recipe(small_retinanet(), epochs=2, batch=4, workers=2, augmentation=BOXES)
SEGMENTATION = default_recipe(UPERNET, epochs=2, batch=4, workers=2, learning_rate=1e-3, augmentation=LABELS)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detection_data(tmp_path_factory.mktemp("boxes"))


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segmentation_data(tmp_path_factory.mktemp("surfaces"))


def material(kind: str, boxes: Path, surfaces: Path) -> tuple[Any, Any, Any, Recipe]:
    """config, training, validation, recipe."""
    if kind == "upernet":
        return UPERNET, *(SegmentationDataset(surfaces, split) for split in ("train", "val")), SEGMENTATION
    config = small_retinanet() if kind == "retinanet" else small_mask_rcnn()
    return config, *(DetectionDataset(boxes, split) for split in ("train", "val")), DETECTION


def test_a_part_of_a_dense_data_set_is_set_apart(boxes, surfaces):
    for dataset in (DetectionDataset(boxes, "train"), SegmentationDataset(surfaces, "train")):
        training, validation = split_dataset(dataset, count=3, seed=2)
        assert (len(training), len(validation)) == (5, 3)
        assert sorted(training.pictures + validation.pictures) == sorted(dataset.pictures)
        assert np.array_equal(validation.load(0)[0], dataset.load(dataset.pictures.index(validation.pictures[0]))[0])


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["retinanet", "upernet"])
def test_stopped_and_resumed(tmp_path, boxes, surfaces, kind):
    """Whatever the moment, the same bits: weights, their average, running statistics, and every line of the log."""
    config, training, validation, recipe = material(kind, boxes, surfaces)
    train(config, training, validation, recipe, tmp_path / "whole")
    for stop in (1, 3):

        def stop_there(progress: Any, stop: int = stop) -> None:
            if progress.step == stop:
                raise RuntimeError

        with pytest.raises(RuntimeError):
            train(config, training, validation, recipe, tmp_path / f"{stop}", progress=stop_there)
        train(config, training, validation, recipe, tmp_path / f"{stop}", resume=True)
        for name in ("weights.npz", "checkpoint.npz"):
            assert (tmp_path / f"{stop}" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (stop, name)
        logs = [read_log(tmp_path / run / "log.jsonl") for run in (f"{stop}", "whole")]
        for record in (*logs[0], *logs[1]):
            record.pop("images_per_second", None)
        assert logs[0] == logs[1]
    model = minidat.load_model(tmp_path / "whole" / "weights.npz")
    assert model.config == config
    assert model.labels == list(CLASSES if kind == "retinanet" else SURFACES)
    assert (tmp_path / "whole" / "learning_curve.png").exists()


def test_a_retinanet_learns_through_the_trainer(tmp_path, boxes):
    config = small_retinanet()
    data = DetectionDataset(boxes, "train")
    recipe = replace(
        DETECTION, epochs=120, batch=8, workers=1, learning_rate=3e-3, average_decay=0.5, validation_epochs=120,
        clip_norm=100.0, warmup_epochs=20, milestones=(0.8,),
        augmentation=BoxAugmentation(flip=False, crop=None, shortest=(64,), longest=64),
    )  # fmt: skip
    model = train(config, data, data, recipe, tmp_path)
    records = read_log(tmp_path / "log.jsonl")
    validations = [record for record in records if "validation_AP" in record]
    assert [record["epoch"] for record in validations] == [120]
    assert validations[0]["validation_AP50"] > 0.9
    assert evaluate_detector(model, data)["bbox"].ap50 == validations[0]["validation_AP50"]
    training = [record for record in records if "loss" in record]
    assert training[-1]["loss"] == pytest.approx(training[-1]["loss_class"] + training[-1]["loss_box"])


def test_an_upernet_learns_through_the_trainer(tmp_path, surfaces):
    data = SegmentationDataset(surfaces, "train")
    recipe = replace(
        SEGMENTATION, epochs=50, batch=8, workers=1, learning_rate=3e-2, average_decay=0.5, validation_epochs=50,
        augmentation=replace(LABELS, ratio=(1.0, 1.0), largest_share=1.0),
    )  # fmt: skip
    train(UPERNET, data, data, recipe, tmp_path)
    (validation,) = (record for record in read_log(tmp_path / "log.jsonl") if "validation_mIoU" in record)
    assert validation["validation_mIoU"] > 0.9


def test_a_mask_rcnn_takes_steps_and_is_measured(tmp_path):
    root = write_detection_data(tmp_path / "data", training=4, validation=2, masks=True)
    training, validation = (DetectionDataset(root, split) for split in ("train", "val"))
    recipe = replace(DETECTION, epochs=1, batch=2, workers=1)
    train(small_mask_rcnn(), training, validation, recipe, tmp_path / "run")
    (record,) = (record for record in read_log(tmp_path / "run" / "log.jsonl") if "validation_AP" in record)
    assert "validation_mask_AP" in record


# --- gradients --------------------------------------------------------------------------------------------------------


def test_workers_of_a_detector_average_their_parts(boxes):
    """Each part's loss is divided by its own objects; the batch's gradient is the mean, weighted by pictures."""
    config, training, validation, _ = material("retinanet", boxes, boxes)
    recipe = replace(DETECTION, batch=5, workers=1)
    task = DetectionTask(config, training, validation, recipe)
    items = task.items(np.arange(5), 0)
    model = minidat.create_model(config, seed=1)
    with GradientWorkers(model, task.objective, workers=2, seed=0) as workers:
        told = workers.gradients(3, items)
        found = {name: parameter.grad.copy() for name, parameter in model.named_parameters()}
    total = 0.0
    expected = {name: np.zeros_like(value) for name, value in found.items()}
    for part, chosen in ((1, items[:2]), (2, items[2:])):
        one = minidat.create_model(config, seed=1)
        pictures = [BOXES(image, targets, np.random.default_rng(seed)) for image, targets, seed in chosen]
        images, _ = minidat.data.pad_batch([picture for picture, _ in pictures], multiple=32)
        context = Context(gradients=True, training=True, rng=np.random.default_rng((0, 3, part)))
        losses, backward = one.loss(images, [targets for _, targets in pictures], context)
        backward()
        total += sum(losses.values()) * len(chosen)
        for name, parameter in one.named_parameters():
            expected[name] += parameter.grad * len(chosen) / 5
    assert told.images == 5
    assert told.loss == pytest.approx(total, rel=1e-5)
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_workers_of_a_segmentor_share_the_mean_of_their_statistics(surfaces):
    config, training, validation, _ = material("upernet", surfaces, surfaces)
    task = SegmentationTask(config, training, validation, SEGMENTATION)
    items = task.items(np.arange(4), 0)
    model = minidat.create_model(config, seed=1)
    with GradientWorkers(model, task.objective, workers=2, seed=0) as workers:
        for step in range(2):
            workers.gradients(step, items)
    parts = [minidat.create_model(config, seed=1) for _ in range(2)]
    for step in range(2):
        for part, one in enumerate(parts):
            rng = np.random.default_rng((0, step, 1 + part))
            task.objective.gradients(one, items[2 * part : 2 * part + 2], 4, rng)
        buffers = [dict(one.named_state()) for one in parts]
        for name, array in buffers[0].items():
            if not isinstance(array, Parameter):
                array.value = (array.value + buffers[1][name].value) / 2
                buffers[1][name].value = array.value
    names = [name for name, array in model.named_state() if type(array) is Buffer]
    assert names
    for name in names:
        np.testing.assert_allclose(
            dict(model.named_state())[name].value, dict(parts[0].named_state())[name].value, rtol=1e-4, atol=1e-5
        )


def test_what_is_seen_of_a_picture_depends_on_seed_epoch_and_number_alone(boxes):
    config, training, validation, recipe = material("retinanet", boxes, boxes)
    task = DetectionTask(config, training, validation, recipe)
    seen = []
    for indices, epoch in (([0, 1, 2], 0), ([2], 0), ([2], 1), ([2], 2), ([2], 3)):
        image, targets, seed = task.items(np.array(indices), epoch)[-1]
        seen.append(BOXES(image, targets, np.random.default_rng(seed)))
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert len({seed for _, _, seed in task.items(np.arange(3), 0)}) == 3
    assert any(not np.array_equal(image, seen[1][0]) for image, _ in seen[2:])


def test_norms_and_bias_tables_are_not_decayed():
    for config in (small_retinanet(), UPERNET):
        model = minidat.create_model(config)
        names = {name for name, _ in model.named_parameters()}
        kept = names - decay_names(model)
        expected = {name for name in names if "norm" in name.split(".")[-2] or "table" in name or ".norms." in name}
        assert kept == expected
        assert any("table" in name for name in kept)


# --- what to begin with -----------------------------------------------------------------------------------------------


def test_a_classifier_starts_a_backbone(tmp_path):
    classifier = minidat.create_model(small_backbone().replace(image_size=(32, 32)), seed=3)
    config = small_retinanet()
    start = backbone_weights(classifier, config)
    assert set(start.unused) == {
        f"backbone.{name}" for name in ("norm.weight", "norm.bias", "head.weight", "head.bias")
    }
    assert {name.split(".")[0] for name in start.fresh} == {"backbone", "pyramid", "head"}
    assert {name for name in start.fresh if name.startswith("backbone")} == {
        f"backbone.norms.{i}.{part}" for i in range(4) for part in ("weight", "bias")
    }
    model = minidat.create_model(config)
    state = model.state_dict()
    model.load_state_dict({**state, **start.weights})  # tables resized from 32 to 64 pixels
    name = "stages.0.blocks.0.mlp.0.weight"
    name = name if name in classifier.state_dict() else next(iter(classifier.state_dict()))
    np.testing.assert_array_equal(model.state_dict()[f"backbone.{name}"], classifier.state_dict()[name])
    with pytest.raises(ConfigError, match="has no backbone"):
        backbone_weights(classifier, classifier.config)


def test_other_classes_leave_only_the_heads_fresh():
    source = minidat.create_model(small_retinanet())
    source.labels = ["a", "b"]
    assert not fitting_weights(source, small_retinanet(), ("a", "b")).fresh
    for classes in (("a", "c"), ("a", "b", "c")):
        start = fitting_weights(source, small_retinanet(num_classes=len(classes)), classes)
        assert set(start.fresh) == {"head.classes.output.weight", "head.classes.output.bias"}


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory, boxes, surfaces) -> Path:
    """Runs of the command: `boxes` and `surfaces`."""
    root = tmp_path_factory.mktemp("command")
    classifier = minidat.create_model(small_backbone(), seed=3)
    save_npz(root / "classifier.npz", classifier.state_dict(), classifier.config)
    recipes = {"boxes": {"augmentation": {"shortest": [56, 64]}}, "surfaces": {"augmentation": {"distort": False}}}
    for name, config, data in (("boxes", small_retinanet(), boxes), ("surfaces", UPERNET, surfaces)):
        (root / f"{name}.json").write_text(json.dumps(config_to_dict(config.replace(num_classes=9))))
        (root / f"{name}_recipe.json").write_text(json.dumps(recipes[name]))
        options = "--epochs 1 --batch 4 --workers 1 --validation-split val"
        assert main(command(root, name, data) + options.split()) == 0
    return root


def command(root: Path, name: str, data: Path) -> list[str]:
    return [
        "train", "--data", str(data), "--output", str(root / name), "--model", str(root / f"{name}.json"),
        "--recipe", str(root / f"{name}_recipe.json"), "--backbone", str(root / "classifier.npz"),
    ]  # fmt: skip


def test_the_command_says_what_it_took_of_the_classifier(trained, boxes, capsys):
    arguments = [*command(trained, "boxes", boxes), "--epochs", "1", "--batch", "4", "--validation-split", "val"]
    assert main([*arguments, "--resume"]) == 0  # with the workers of the run
    told = capsys.readouterr().err
    assert "arrays from" in told
    assert "begin at random (backbone.norms.0.weight" in told
    assert "4 of the file are not used (backbone.norm.weight" in told
    description = json.loads((trained / "boxes" / "run.json").read_text())
    assert description["model"]["num_classes"] == 2
    assert description["recipe"]["augmentation"]["shortest"] == [56, 64]
    assert description["recipe"]["schedule"] == "step"


def test_the_command_keeps_pictures_apart_and_skips_bad_ones(trained, tmp_path, capsys):
    data = write_detection_data(tmp_path / "data", training=6)
    (data / "images" / "train" / "2.png").write_bytes(b"nothing")
    arguments = [*command(trained, "boxes", data), "--epochs", "1", "--batch", "2", "--workers", "1"]
    arguments[arguments.index("--output") + 1] = str(tmp_path / "run")
    assert main([*arguments, "--validation", "0.4"]) == 2
    assert "2.png" in capsys.readouterr().err
    arguments[arguments.index("--output") + 1] = str(tmp_path / "another")
    assert main([*arguments, "--validation", "0.4", "--skip-unreadable"]) == 0
    assert "skipped" in capsys.readouterr().err
    description = json.loads((tmp_path / "another" / "run.json").read_text())
    assert (description["training"]["images"], description["validation"]["images"]) == (3, 2)


def test_evaluate_tells_average_precision(trained, boxes, capsys):
    arguments = ["evaluate", "--weights", str(trained / "boxes" / "weights.npz"), "--data", str(boxes)]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    metrics = evaluate_detector(minidat.load_model(trained / "boxes" / "weights.npz"), DetectionDataset(boxes, "val"))[
        "bbox"
    ]
    assert told["bbox"]["AP"] == metrics.ap
    assert told["bbox"]["images"] == 4
    assert [row["label"] for row in told["bbox"]["classes"]] == list(CLASSES)
    assert main(arguments) == 0
    assert "AP50" in capsys.readouterr().out


def test_evaluate_tells_mean_iou(trained, surfaces, capsys):
    arguments = ["evaluate", "--weights", str(trained / "surfaces" / "weights.npz"), "--data", str(surfaces)]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    metrics = evaluate_segmentor(
        minidat.load_model(trained / "surfaces" / "weights.npz"), SegmentationDataset(surfaces, "val")
    )
    assert told["mIoU"] == metrics.mean_iou
    assert [row["label"] for row in told["classes"]] == list(SURFACES)
    assert main([*arguments, "--multi-scale"]) == 0
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("boxes", "--multi-scale", "is no segmentor"),
        ("surfaces", "--confusion x.png", "is no classifier"),
        ("boxes", "--split no", "found the parts"),
        ("surfaces", "--split no", "found the parts"),
    ],
)
def test_bad_evaluations_are_one_line(trained, boxes, surfaces, capsys, name, options, message):
    data = boxes if name == "boxes" else surfaces
    weights = str(trained / name / "weights.npz")
    assert main(["evaluate", "--weights", weights, "--data", str(data), *options.split()]) == 2
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert "\n" not in errors


def test_bad_runs_are_one_line(trained, boxes, surfaces, tmp_path, capsys):
    boxes_run, surfaces_run = (
        command(trained, name, data) for name, data in (("boxes", boxes), ("surfaces", surfaces))
    )
    for arguments, message in (
        ([*surfaces_run, "--batch", "2", "--workers", "2"], "at least 2 images for each"),
        ([*boxes_run, "--data", str(surfaces)], "annotations"),
        ([*surfaces_run, "--data", str(boxes)], "found"),
        ([*boxes_run, "--backbone", str(trained / "boxes" / "weights.npz")], "expected a classifier"),
        ([*boxes_run, "--batch", "80", "--workers", "1"], "batch: found 80"),
        ([*boxes_run, "--validation-split", "no"], "found the parts"),
    ):
        assert main([*arguments, "--validation", "0.3", "--output", str(tmp_path / "run")]) == 2
        errors = capsys.readouterr().err.strip().splitlines()
        assert message in errors[-1], errors
        assert not (tmp_path / "run").exists()


def test_an_image_is_no_picture_for_a_detector(trained):
    model = minidat.load_model(trained / "boxes" / "weights.npz")
    with pytest.raises(ConfigError, match="expected a classifier"):
        minidat.classify(model, np.zeros((64, 64, 3), np.uint8))


# --- several scales ---------------------------------------------------------------------------------------------------


def test_several_scales_and_flips_average_probabilities():
    model = minidat.create_model(UPERNET, seed=2, dtype=np.float64)
    picture = np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8)
    total = np.zeros((50, 61, 3))
    for scale in (0.5, 1.0):
        for flip in (False, True):
            seen = np.ascontiguousarray(picture[:, ::-1] if flip else picture)
            pixels = minidat.data.preprocess_segmentation(seen, scale=(int(64 * scale), int(64 * scale)))
            (logits,) = model.full_logits(pixels[np.newaxis], [(50, 61)])
            odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
            odds /= odds.sum(axis=-1, keepdims=True)
            total += odds[:, ::-1] if flip else odds
    found = segment_picture(model, picture, scales=(0.5, 1.0), flip=True)
    np.testing.assert_array_equal(found, total.argmax(axis=-1))
    mirrored = segment_picture(model, np.ascontiguousarray(picture[:, ::-1]), scales=(0.5, 1.0), flip=True)
    assert (mirrored[:, ::-1] == found).mean() > 0.99


@pytest.mark.parametrize("scales", [(), (0.0,), (float("nan"),), (1000.0,)])
def test_scales_that_cannot_be(surfaces, scales):
    model = minidat.create_model(UPERNET)
    model.labels = list(SURFACES)
    with pytest.raises(ConfigError, match="scales"):
        evaluate_segmentor(model, SegmentationDataset(surfaces, "val"), scales=scales)


def test_data_and_augmentation_must_fit_the_model(tmp_path, boxes, surfaces):
    config, training, validation, recipe = material("retinanet", boxes, surfaces)
    other = SegmentationDataset(surfaces, "train")
    for arguments, message in (
        ((config, other, other, recipe), "expected DetectionDataset"),
        ((config, training, validation, SEGMENTATION), "expected BoxAugmentation"),
        ((config.replace(num_classes=5), training, validation, recipe), "classes"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(*arguments, tmp_path / "run")


def test_objectives_can_be_sent_to_workers():
    import pickle

    for objective in (DetectionObjective(BOXES), SegmentationObjective(LABELS)):
        assert pickle.loads(pickle.dumps(objective)) == objective


def test_subsets_are_whole(boxes):
    data = DetectionDataset(boxes, "train")
    part = data.subset([3, 1])
    assert len(part) == 2
    np.testing.assert_array_equal(part.load(0)[0], data.load(3)[0])
    np.testing.assert_array_equal(part.targets(1).boxes, data.targets(1).boxes)
    assert {found["image_id"] for found in part.annotations["annotations"]} <= set(part.image_ids)


def test_a_semantic_fpn_takes_a_step(tmp_path, surfaces):
    config = SemanticFPNConfig(
        "tiny_fpn", small_backbone(), num_classes=3, image_size=(64, 64), resize_size=(64, 64), channels=8,
        pyramid_channels=8,
    )  # fmt: skip
    training, validation = (SegmentationDataset(surfaces, split) for split in ("train", "val"))
    train(config, training, validation, replace(SEGMENTATION, epochs=1, workers=1), tmp_path)
    assert load_npz(tmp_path / "weights.npz").config == config
