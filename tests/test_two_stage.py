"""Mask R-CNN and its cascade: which boxes they are trained on, masks there and back, their interface, and that they
learn."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidat
from minidat.catalog import config_from_dict, config_to_dict
from minidat.data.masks import encode_rle
from minidat.detection.assignment import BACKGROUND, IGNORED
from minidat.detection.mask_head import as_bitmap, crop_mask, paste_masks
from minidat.detection.region_stage import sample_regions
from minidat.detection.regions import region_levels
from minidat.detection.sampling import sample
from minidat.errors import CheckpointError, ConfigError, DatasetError
from minidat.evaluation.average_precision import evaluate_detections
from minidat.nn import Context
from minidat.ops import box_iou
from minidat.training.optimizer import AdamW, decay_names

from .checks import assert_close
from .small_detectors import generated_pictures, small_cascade, small_mask_rcnn
from .strategies import normal, seeds

CONFIGS = {"mask_rcnn": small_mask_rcnn, "cascade": small_cascade}


# --- sampling ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(1, 20), st.sampled_from([0.25, 0.5]), seeds())
def test_a_sample_holds_positives_up_to_their_share_and_negatives(
    boxes: int, count: int, share: float, seed: int
) -> None:
    assigned = np.random.default_rng(seed).choice([0, 3, BACKGROUND, IGNORED], boxes)
    positives, negatives = sample(assigned, count, share, np.random.default_rng(seed))
    assert (assigned[positives] >= 0).all()
    assert (assigned[negatives] == BACKGROUND).all()
    assert len(positives) == min((assigned >= 0).sum(), int(count * share))
    assert len(negatives) == min((assigned == BACKGROUND).sum(), count - len(positives))
    for chosen in (positives, negatives):
        assert (np.diff(chosen) > 0).all()
    again = sample(assigned, count, share, np.random.default_rng(seed))
    assert np.array_equal(again[0], positives)
    assert np.array_equal(again[1], negatives)


def test_every_candidate_may_be_drawn() -> None:
    rng = np.random.default_rng(0)
    seen = {int(i) for _ in range(100) for part in sample(np.array([0, -1] * 10), 4, 0.5, rng) for i in part}
    assert seen == set(range(20))


@pytest.mark.parametrize("name", CONFIGS)
def test_regions_are_assigned_and_objects_come_first(name: str) -> None:
    config = CONFIGS[name](region_sample=40)
    rng = np.random.default_rng(0)
    target = generated_pictures(1)[1][0]
    corners = rng.uniform(0, 40, (200, 2))
    around = target.boxes[rng.integers(0, 2, 100)] + rng.normal(0, 3, (100, 4))
    proposals = np.concatenate([corners, corners + rng.uniform(4, 24, (200, 2))], axis=1)
    proposals = np.concatenate([proposals, around])
    nothing = minidat.BoxTargets(np.zeros((0, 4)), np.zeros(0, int), [])
    for settings in config.stages:
        sampled = sample_regions([proposals, proposals], [target, nothing], settings, config, Context(rng=rng))
        assert len(sampled.boxes) == 80
        assert (sampled.images == np.repeat([0, 1], 40)).all()
        assert (sampled.labels[40:] == 2).all()
        assert len(sampled.positives) == 10  # a quarter
        overlaps, _ = box_iou(sampled.boxes[:, None], target.boxes)
        best = overlaps.max(axis=1)
        assert (best[sampled.positives] >= settings.iou).all()
        background = np.setdiff1d(np.arange(40), sampled.positives)
        assert (best[background] < settings.iou).all()
        assert np.array_equal(sampled.objects, overlaps.argmax(axis=1)[sampled.positives])
        assert np.array_equal(sampled.labels[sampled.positives], target.labels[sampled.objects])
        assert np.array_equal(sampled.goals, target.boxes[sampled.objects])
        own = (sampled.boxes[:, None] == target.boxes).all(axis=2).any(axis=1)
        assert np.array_equal(own, sampled.is_object)


def test_in_mask_rcnn_every_object_gets_its_best_region() -> None:
    """Even one that overlaps another object better; in a cascade it goes to that."""
    target = minidat.BoxTargets(np.array([[0.0, 0, 10, 10], [0, 0, 10, 9]]), np.array([0, 1]), [])
    proposal = np.array([[0.0, 0, 10, 9.6]])
    for name, expected in (("mask_rcnn", 1), ("cascade", 0)):
        config = CONFIGS[name]()
        sampled = sample_regions([proposal], [target], config.stages[0], config, Context())
        assert sampled.is_object.tolist() == [True, True, False]
        assert sampled.objects.tolist() == [0, 1, expected]


def test_levels_of_regions() -> None:
    sides = np.array([0, 10, 56, 111, 112, 223, 224, 447, 448, 3000])
    boxes = np.stack([sides * 0, sides * 0, sides * 2, sides / 2], axis=1)
    assert region_levels(boxes).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]


# --- masks ------------------------------------------------------------------------------------------------------------


def test_masks_of_every_form_become_arrays() -> None:
    polygon = [[2.0, 1.0, 9.0, 1.0, 9.0, 6.0, 2.0, 6.0]]
    expected = np.zeros((8, 12), bool)
    expected[1:6, 2:9] = True
    assert np.array_equal(as_bitmap(polygon, 8, 12), expected)
    assert np.array_equal(as_bitmap(encode_rle(expected[:7, :10]), 8, 12), expected)
    assert np.array_equal(as_bitmap(expected[:7, :10], 8, 12), expected)
    with pytest.raises(DatasetError):
        as_bitmap("a mask", 8, 12)


@given(seeds())
def test_a_mask_survives_cropping_and_pasting(seed: int) -> None:
    """A disk, cropped to 28 x 28 in its own box, and pasted back, differs at its border alone."""
    rng = np.random.default_rng(seed)
    center, radius = rng.uniform(40, 60, 2), rng.uniform(15, 30)
    y, x = np.mgrid[:100, :120] + 0.5
    distance = np.hypot(y - center[1], x - center[0])
    mask = distance <= radius
    box = np.concatenate([center - radius, center + radius])[None]
    cropped = crop_mask(mask, box, 28, Context())
    assert cropped.shape == (1, 28, 28)
    (pasted,) = paste_masks(cropped.astype(float), box, (100, 120))
    assert (np.abs(distance - radius)[pasted != mask] < 2 * radius / 28 + 1).all()


def test_a_crop_shows_the_part_of_the_mask_inside_the_box() -> None:
    mask = np.zeros((20, 40), bool)
    mask[:, :20] = True
    boxes = np.array([[6.0, 2, 34, 16], [0, 0, 10, 10], [30, 0, 40, 10], [-100, -100, 20, 20]])
    cropped = crop_mask(mask, boxes, 28, Context())
    assert np.array_equal(cropped[0], np.broadcast_to(np.arange(28) < 14, (28, 28)))
    assert cropped[1].all()
    assert not cropped[2].any()
    assert cropped[3].all()  # the box is clipped to the image


# --- the models -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    """With class logits and deltas that are not nearly zero."""
    model = minidat.create_model(CONFIGS[request.param](), dtype=np.float64)
    for name, parameter in model.named_parameters():
        if name.endswith(("classifier.weight", "regressor.weight")):
            parameter.value = parameter.value * 30
    return model


def test_forward_gives_the_proposals_logits_and_deltas(model: Any) -> None:
    images = normal((2, 64, 96, 3), 0)
    (logits, deltas), backward = model.forward(images, Context(gradients=True))
    assert [x.shape for x in logits] == [(2, 64 // s, 96 // s, 3, 1) for s in (4, 8, 16, 32)]
    assert [x.shape for x in deltas] == [(2, 64 // s, 96 // s, 3, 4) for s in (4, 8, 16, 32)]
    d_images = backward([np.ones_like(x) for x in logits], [np.ones_like(x) for x in deltas])
    assert d_images.shape == images.shape
    assert d_images.any()
    assert model.forward(images, Context())[1] is None


def test_images_of_a_batch_do_not_see_each_other(model: Any) -> None:
    images, sizes = normal((2, 64, 96, 3), 0), [(64, 96), (50, 70)]
    together = model.detect(images, sizes, score_threshold=0.4)
    for i, found in enumerate(together):
        (alone,) = model.detect(images[i : i + 1], sizes[i : i + 1], score_threshold=0.4)
        assert len(alone) > 3
        assert_close(found.boxes, alone.boxes, 1e-9, "boxes")
        assert_close(found.scores, alone.scores, 1e-9, "scores")
        assert np.array_equal(found.labels, alone.labels)
        assert np.array_equal(found.masks, alone.masks)
        assert found.masks.shape == (len(found), 64, 96)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [sizes[i][1], sizes[i][0]] * 2).all()


def test_settings_of_detect(model: Any) -> None:
    images = normal((1, 64, 96, 3), 0)
    (found,) = model.detect(images)
    assert (found.scores > 0.05).all()
    assert (np.diff(found.scores) <= 0).all()
    (few,) = model.detect(images, limit=3)
    assert np.array_equal(few.boxes, found.boxes[:3])
    (apart,) = model.detect(images, iou_threshold=0.1)
    overlaps, _ = box_iou(apart.boxes[:, None], apart.boxes)
    same = (apart.labels[:, None] == apart.labels) & ~np.eye(len(apart), dtype=bool)
    assert overlaps[same].max(initial=0) <= 0.1
    factors = np.array([2.0, 1.5, 2.0, 1.5])
    (scaled,) = model.detect(images, scale_factors=[factors], picture_sizes=[(43, 48)])
    assert_close(scaled.boxes, found.boxes / factors, 1e-9, "boxes")
    assert scaled.masks.shape == (len(found), 43, 48)
    (none,) = model.detect(images, score_threshold=1.0)
    assert len(none) == 0
    assert none.masks.shape == (0, 64, 96)


def test_float32_and_plain_mode_agree(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = generated_pictures(2)
    settings = {"gradients": True, "training": True}
    expected, backward = model.loss(images.astype(float), targets, Context(**settings, rng=np.random.default_rng(0)))
    gradient = backward()
    plain, backward = model.loss(
        images.astype(float), targets, Context(**settings, rng=np.random.default_rng(0), plain=True)
    )
    assert plain == pytest.approx(expected, rel=1e-9)
    assert_close(backward(), gradient, 1e-9, "gradient of the images")
    model.astype(np.float32)
    found, backward = model.loss(images, targets, Context(**settings, rng=np.random.default_rng(0)))
    assert backward().dtype == np.float32
    assert found == pytest.approx(expected, rel=1e-2)
    (detections,) = model.detect(images[:1])
    assert detections.boxes.dtype == detections.scores.dtype == np.float32


def test_people_get_masks_of_their_picture(model: Any) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    found = minidat.detect(model, picture, threshold=0.2)
    assert found
    for detection in found:
        assert detection.mask.shape == (50, 80)
        assert detection.label in ("class 0", "class 1")
        assert 0 <= detection.box[0] <= detection.box[2] <= 80 + 1e-3


def test_broken_weights_are_named(model: Any) -> None:
    model.proposals.classifier.bias.value[:] = np.nan
    with pytest.raises(CheckpointError, match="the scores are not finite"):
        model.detect(np.zeros((1, 64, 64, 3)))


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(name: str) -> None:
    config = CONFIGS[name]()
    assert config_from_dict(config_to_dict(config)) == config
    with pytest.raises(ConfigError, match="box_features: found 0, expected 1 to 65536"):
        CONFIGS[name](box_features=0)
    with pytest.raises(ConfigError, match="anchor_ratios"):
        CONFIGS[name](anchor_ratios=(1.0, 0.0))
    with pytest.raises(ConfigError, match="pyramid_levels: found 3, expected 4 to 16"):
        CONFIGS[name](pyramid_levels=3)


# --- learning ---------------------------------------------------------------------------------------------------------


def average_precisions(model: Any, images: np.ndarray, targets: list[minidat.BoxTargets]) -> tuple[float, float]:
    """COCO's AP50 of boxes and of masks."""
    ground_truth: dict[str, Any] = {
        "images": [{"id": i, "height": 64, "width": 64} for i in range(len(images))],
        "categories": [{"id": 0, "name": "square"}, {"id": 1, "name": "disk"}],
        "annotations": [],
    }
    results = []
    for i, (found, target) in enumerate(zip(model.detect(images), targets, strict=True)):
        assert target.masks is not None
        for box, label, mask in zip(target.boxes.tolist(), target.labels.tolist(), target.masks, strict=True):
            annotation = {"id": len(ground_truth["annotations"]) + 1, "image_id": i, "category_id": label}
            x1, y1, x2, y2 = box
            annotation |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": encode_rle(mask)}
            ground_truth["annotations"].append({**annotation, "area": float(mask.sum()), "iscrowd": 0})
        for (x1, y1, x2, y2), score, label, mask in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), found.masks, strict=True
        ):
            result = {"image_id": i, "category_id": label, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            results.append({**result, "segmentation": encode_rle(mask)})
    boxes = evaluate_detections(ground_truth, results, iou_type="bbox").ap50
    return boxes, evaluate_detections(ground_truth, results, iou_type="segm").ap50


@pytest.mark.parametrize(("name", "pictures", "steps"), [("mask_rcnn", 8, 50), ("cascade", 2, 70)])
def test_a_small_one_learns_generated_pictures(name: str, pictures: int, steps: int) -> None:
    images, targets = generated_pictures(pictures)
    model = minidat.create_model(CONFIGS[name](), seed=0)
    optimizer = AdamW(dict(model.named_parameters()), decay=decay_names(model))
    rng = np.random.default_rng(0)
    for step in range(steps):
        model.zero_grad()
        _, backward = model.loss(images, targets, Context(gradients=True, training=True, rng=rng))
        backward()
        optimizer.step(3e-3 * min(1.0, (step + 1) / 20))
    boxes, masks = average_precisions(model, images, targets)
    assert boxes > 0.9
    assert masks > 0.9
