"""Detectors: the pyramid, anchors, assignment, RetinaNet's interface, and that a small one learns."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import minidat
from minidat.catalog import config_from_dict, config_to_dict, get_config
from minidat.checkpoints import to_authors_state_dict
from minidat.detection import Detections, RetinaNet, RetinaNetConfig
from minidat.detection.anchors import base_anchors, level_anchors
from minidat.detection.assignment import BACKGROUND, IGNORED, assign
from minidat.detection.retinanet import best_above
from minidat.errors import CheckpointError, ConfigError, ShapeError
from minidat.models.pyramid import FeaturePyramid
from minidat.nn import Context
from minidat.ops import box_iou
from minidat.training.optimizer import AdamW, decay_names

from .checks import assert_close, check_against_torch, check_finite_differences
from .reference.detection import build_retinanet
from .small_detectors import average_precision, generated_pictures, small_retinanet
from .strategies import normal, seeds
from .test_boxes import random_boxes

# --- the feature pyramid ----------------------------------------------------------------------------------------------


def torch_pyramid(maps: tuple[torch.Tensor, ...], pyramid: FeaturePyramid) -> torch.Tensor:
    """All levels, channels last, in a row."""
    f = torch.nn.functional

    def convolve(x: torch.Tensor, layer: Any) -> torch.Tensor:
        weight, bias = torch.tensor(layer.weight.value).double(), torch.tensor(layer.bias.value).double()
        return f.conv2d(x, weight, bias, layer.stride, layer.padding)

    features = [x.permute(0, 3, 1, 2) for x in maps]
    inner = [convolve(x, layer) for x, layer in zip(features, pyramid.laterals, strict=True)]
    for i in range(len(inner) - 2, -1, -1):
        inner[i] = inner[i] + f.interpolate(inner[i + 1], size=inner[i].shape[2:], mode="nearest")
    levels = [convolve(x, layer) for x, layer in zip(inner, pyramid.outputs, strict=False)]
    x = features[-1]
    for i in range(pyramid.extra_levels):
        x = f.max_pool2d(levels[-1], 1, 2) if pyramid.pooled else convolve(x, pyramid.outputs[len(inner) + i])
        levels.append(x)
    return torch.cat([level.permute(0, 2, 3, 1).reshape(-1) for level in levels])


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("extra_levels", [0, 1, 2])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (5, 1)])
def test_pyramid(pooled: bool, extra_levels: int, size: tuple[int, int]) -> None:
    """Levels and gradients, even where halving the sides rounds them up."""
    widths = [3, 5, 4]
    pyramid = FeaturePyramid(widths, 6, extra_levels=extra_levels, pooled=pooled)
    pyramid.initialize(np.random.default_rng(0), np.float64)

    def levels_in_a_row(*maps: np.ndarray) -> tuple[np.ndarray, Any]:
        pyramid.astype(maps[0].dtype)
        levels, levels_backward = pyramid.forward(list(maps), Context(gradients=True))
        bounds = np.cumsum([level.size for level in levels])[:-1]

        def backward(d_output: np.ndarray) -> tuple[np.ndarray, ...]:
            d_levels = [d.reshape(x.shape) for d, x in zip(np.split(d_output, bounds), levels, strict=True)]
            return tuple(levels_backward(d_levels))

        return np.concatenate([level.ravel() for level in levels]), backward

    shapes = [(2, -(-size[0] // 2**i), -(-size[1] // 2**i), width) for i, width in enumerate(widths)]
    maps = [normal(shape, i) for i, shape in enumerate(shapes)]
    check_against_torch(levels_in_a_row, maps, {}, lambda *maps: torch_pyramid(maps, pyramid))
    pyramid.initialize(np.random.default_rng(0), np.float64)
    check_finite_differences(levels_in_a_row, maps, {})


# --- anchors and their assignment -------------------------------------------------------------------------------------


def test_anchors_have_their_scales_and_ratios_and_stand_at_multiples_of_the_stride() -> None:
    base = base_anchors(8, (4, 6), (0.5, 2))
    sides = base[:, 2:] - base[:, :2]
    assert_close(sides.prod(axis=1), [32**2, 48**2, 32**2, 48**2], 1e-6, "areas")
    assert_close(sides[:, 1] / sides[:, 0], [0.5, 0.5, 2, 2], 1e-6, "height / width")
    anchors = level_anchors((3, 2), 8, base).reshape(3, 2, 4, 4)
    centers = (anchors[..., :2] + anchors[..., 2:]) / 2
    for y, x in np.ndindex(3, 2):
        assert_close(centers[y, x], np.tile([8 * x, 8 * y], (4, 1)), 1e-6, "center")


@given(st.integers(0, 12), st.integers(0, 4), st.sampled_from([None, 0.0, 0.3]), seeds())
def test_assignment_is_its_definition(boxes: int, objects: int, low_quality: float | None, seed: int) -> None:
    all_boxes, all_objects = random_boxes((boxes,), seed), random_boxes((objects,), [seed, 1])
    if objects > 1:
        all_boxes = np.concatenate([all_boxes, all_boxes[:2]])  # equal overlaps
    expected = []
    for box in all_boxes:
        overlaps = [float(box_iou(box, one)[0]) for one in all_objects]
        most = max(overlaps, default=0.0)
        found = overlaps.index(most) if objects and most >= 0.5 else BACKGROUND if most < 0.4 else IGNORED
        if low_quality is not None:
            for i, overlap in enumerate(overlaps):
                best = max(float(box_iou(other, all_objects[i])[0]) for other in all_boxes)
                found = i if overlap == best and best > 0 and best >= low_quality else found
        expected.append(found)
    found = assign(all_boxes, all_objects, positive_iou=0.5, negative_iou=0.4, low_quality_iou=low_quality)
    assert found.tolist() == expected


@given(st.integers(0, 40), st.integers(1, 10), st.sampled_from([-1.0, 0.3, 2.0]), st.booleans(), seeds())
def test_the_best_scores_above_a_threshold(number: int, limit: int, threshold: float, ties: bool, seed: int) -> None:
    scores = np.random.default_rng(seed).random(number)
    scores = np.round(scores, 1) if ties else scores
    order = sorted((i for i in range(number) if scores[i] > threshold), key=lambda i: (-scores[i], i))
    assert best_above(scores, threshold, limit).tolist() == order[:limit]


# --- RetinaNet --------------------------------------------------------------------------------------------------------


def small_model(dtype: Any = np.float64, seed: int = 0, **changes: Any) -> RetinaNet:
    """With box deltas that are not nearly zero."""
    model = minidat.create_model(small_retinanet(**changes), dtype=dtype, seed=seed)
    model.head.boxes.output.weight.value *= 30
    model.head.classes.output.weight.value *= 100
    return model


@pytest.mark.parametrize(
    "changes", [{}, {"first_stage": 1, "pyramid_levels": 5, "head_convolutions": 2, "anchor_ratios": (0.5, 1.0, 2.0)}]
)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (72, 100), (45, 70)])
def test_outputs_and_gradients_equal_the_transcription(
    changes: dict[str, Any], shifted: bool, size: tuple[int, int]
) -> None:
    """Images whose maps the windows, the patches and the down-samplings do not divide, too."""
    config = small_retinanet(**changes)
    if shifted:
        stages = (replace(config.backbone.stages[0], blocks=("window", "shifted_window")), *config.backbone.stages[1:])
        config = config.replace(backbone=config.backbone.replace(stages=stages))
    model = minidat.create_model(config, dtype=np.float64)
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        spread = 0.2 if len(parameter.shape) == 1 else float(np.prod(parameter.shape[1:])) ** -0.5
        parameter.value = spread * rng.standard_normal(parameter.shape) + (name.split(".")[-2].startswith("norm"))
    peer = build_retinanet(config).double()
    peer.load_state_dict({k: torch.tensor(v) for k, v in to_authors_state_dict(model.state_dict()).items()})

    images = rng.standard_normal((2, *size, 3))
    (logits, deltas), backward = model.forward(images, Context(gradients=True))
    tensor = torch.tensor(images, requires_grad=True)
    expected = [x for outputs in peer(tensor.movedim(-1, 1)) for x in outputs]
    cotangents = []
    for found, wanted in zip(logits + deltas, expected, strict=True):
        assert_close(found.reshape(*found.shape[:3], -1), wanted.detach().movedim(1, -1).numpy(), 1e-9, "output")
        cotangents.append(rng.standard_normal(found.shape))
    levels = len(logits)
    d_images = backward(cotangents[:levels], cotangents[levels:])
    torch.autograd.backward(
        expected,
        [torch.tensor(d.reshape(*d.shape[:3], -1)).movedim(-1, 1) for d in cotangents],
    )
    assert_close(d_images, tensor.grad.numpy(), 1e-8, "gradient of the images")
    gradients = to_authors_state_dict({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, parameter in peer.named_parameters():
        smallest = 1.0 if name.endswith("proj_k.bias") else 1e-3  # zero but for rounding
        assert_close(gradients[name], parameter.grad.numpy(), 1e-8, name, smallest)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("first_stage", [0, 1, 2])
@pytest.mark.parametrize("size", [(64, 64), (50, 71)])
def test_outputs_have_a_row_for_every_anchor(dtype: Any, first_stage: int, size: tuple[int, int]) -> None:
    model = small_model(dtype, first_stage=first_stage, pyramid_levels=5, num_classes=3)
    images = normal((2, *size, 3), 0)
    (logits, deltas), backward = model.forward(images, Context(gradients=True))
    assert len(logits) == len(deltas) == 5
    sides = [-(-side // (4 * 2**first_stage)) for side in size]
    for of_classes, of_boxes in zip(logits, deltas, strict=True):
        assert of_classes.shape == (2, *sides, 6, 3)
        assert of_boxes.shape == (2, *sides, 6, 4)
        assert of_classes.dtype == of_boxes.dtype == dtype
        sides = [-(-side // 2) for side in sides]
    d_images = backward([np.ones_like(x) for x in logits], [np.ones_like(x) for x in deltas])
    assert d_images.shape == images.shape
    assert all(parameter.grad is not None for _, parameter in model.named_parameters())
    _, no_backward = model.forward(images, Context())
    assert no_backward is None


def test_images_of_a_batch_do_not_see_each_other() -> None:
    model, images = small_model(), normal((2, 64, 64, 3), 0)
    together = model.detect(images, [(64, 64), (40, 50)])
    for i, size in enumerate([(64, 64), (40, 50)]):
        (alone,) = model.detect(images[i : i + 1], [size])
        assert len(alone) > 0
        assert_close(together[i].boxes, alone.boxes, 1e-9, "boxes")
        assert_close(together[i].scores, alone.scores, 1e-9, "scores")
        assert np.array_equal(together[i].labels, alone.labels)
        assert (alone.boxes[:, 0::2] <= size[1]).all()
        assert (alone.boxes[:, 1::2] <= size[0]).all()
        assert alone.boxes.min() >= 0
        assert (np.diff(alone.scores) <= 0).all()


def test_detections_obey_their_settings() -> None:
    model, images = small_model(), normal((1, 64, 64, 3), 0)
    (many,) = model.detect(images, score_threshold=0.0)
    assert len(many) == 100
    middle = float(np.median(many.scores))
    (some,) = model.detect(images, score_threshold=middle)
    assert np.array_equal(some.scores, many.scores[many.scores > middle])
    (few,) = model.detect(images, score_threshold=0.0, limit=3)
    assert np.array_equal(few.boxes, many.boxes[:3])
    (apart,) = model.detect(images, score_threshold=0.0, iou_threshold=0.01)
    overlaps, _ = box_iou(apart.boxes[:, None], apart.boxes)
    same = (apart.labels[:, None] == apart.labels) & ~np.eye(len(apart), dtype=bool)
    assert overlaps[same].max() <= 0.01
    (none,) = model.detect(images, score_threshold=1.0)
    assert none.boxes.shape == (0, 4)
    assert none.scores.shape == none.labels.shape == (0,)
    factors = np.array([2, 0.5, 2, 0.5], np.float32)
    (scaled,) = model.detect(images, score_threshold=0.0, scale_factors=[factors])
    assert_close(scaled.boxes, many.boxes / factors, 1e-12, "boxes")


def test_the_gradient_of_the_loss() -> None:
    """Of one weight of every kind, against finite differences.

    Steps are small, for the kinks of bilinear sampling.
    """
    model, (images, targets) = small_model(), generated_pictures(2)
    targets[1] = minidat.BoxTargets(np.zeros((0, 4)), np.zeros(0, int))  # an image without objects
    images = images.astype(np.float64)
    losses, backward = model.loss(images, targets, Context(gradients=True))
    assert set(losses) == {"class", "box"}
    d_images = backward()
    total = lambda: sum(model.loss(images, targets, Context())[0].values())  # noqa: E731
    rng = np.random.default_rng(1)
    direction = rng.standard_normal(images.shape)
    step = 1e-7
    images += step * direction
    after = total()
    images -= 2 * step * direction
    before = total()
    images += step * direction
    expected = (after - before) / (2 * step)
    assert abs((d_images * direction).sum() - expected) <= 1e-4 * max(abs(expected), np.linalg.norm(d_images))
    for name in ("head.classes.output.bias", "head.boxes.convs.0.weight", "pyramid.laterals.1.weight"):
        parameter = dict(model.named_parameters())[name]
        direction, value = rng.standard_normal(parameter.shape), parameter.value
        sides = []
        for sign in (1, -1):
            parameter.value = value + sign * step * direction
            sides.append(total())
        parameter.value = value
        expected = (sides[0] - sides[1]) / (2 * step)
        assert abs((parameter.grad * direction).sum() - expected) <= 1e-4 * np.linalg.norm(parameter.grad), name


def test_losses_of_a_batch_are_averaged_over_its_positive_anchors() -> None:
    """An image without any counts as one with one."""
    model, (images, targets) = small_model(), generated_pictures(3)
    targets[1] = minidat.BoxTargets(np.zeros((0, 4)), np.zeros(0, int))
    anchors = np.concatenate(model.anchors(model.forward(images, Context())[0][0]))
    counts = [max(1, int(model._goals(anchors, target)[2].sum())) for target in targets]
    together, _ = model.loss(images, targets, Context())
    alone = [model.loss(images[i : i + 1], targets[i : i + 1], Context())[0] for i in range(3)]
    for part in ("class", "box"):
        expected = np.average([losses[part] for losses in alone], weights=counts)
        assert together[part] == pytest.approx(expected, rel=1e-6)


def test_a_small_retinanet_learns_generated_pictures() -> None:
    images, targets = generated_pictures(8)
    model = minidat.create_model(small_retinanet(), seed=0)
    optimizer = AdamW(dict(model.named_parameters()), decay=decay_names(model))
    assert average_precision(model.detect(images), targets) < 0.1
    for step in range(70):
        model.zero_grad()
        _, backward = model.loss(images, targets, Context(gradients=True, training=True))
        backward()
        optimizer.step(3e-3 * min(1.0, (step + 1) / 20))
    found = model.detect(images)
    assert average_precision(found, targets) > 0.9
    assert average_precision(found, targets, iou=0.75) > 0.5


# --- for people -------------------------------------------------------------------------------------------------------


def test_detect_answers_in_the_pixels_of_the_picture() -> None:
    """A picture twice as high and three times as wide is resized, padded, and its boxes are brought back."""
    model = minidat.create_model(small_retinanet(), seed=0)
    picture = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    found = minidat.detect(model, picture, threshold=0.001)
    assert found
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(one.score > 0.001 and one.label == f"class {one.index}" and one.mask is None for one in found)
    corners = np.array([one.box for one in found])
    assert corners.min() >= 0
    assert 64 < corners[:, 2].max() <= 140 + 1e-3
    assert corners[:, 3].max() <= 90 + 1e-3
    prepared = minidat.data.dense_preprocessing.preprocess_detection(picture, scale=(64, 64))
    assert prepared.size == (41, 64)
    (expected,) = model.detect(prepared.pixels[None], [prepared.size], score_threshold=0.001)
    assert_close(corners, expected.boxes / prepared.scale_factor, 1e-5, "boxes")
    model.labels = ["square", "disk"]
    assert {one.label for one in minidat.detect(model, picture, threshold=0.001)} <= {"square", "disk"}
    assert minidat.detect(model, picture, threshold=1.0) == []


def test_detect_refuses_what_cannot_be() -> None:
    model = minidat.create_model(small_retinanet(), seed=0)
    picture = np.zeros((8, 9, 3), np.uint8)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"threshold: found .*, expected 0 to 1"):
            minidat.detect(model, picture, threshold=wrong)
    with pytest.raises(ShapeError, match="image: found shape"):
        minidat.detect(model, picture[..., :2])
    model.labels = ["square"]
    with pytest.raises(ConfigError, match="labels: found 1, expected 2, one a class"):
        minidat.detect(model, picture)
    model.labels = None
    model.head.boxes.output.bias.value[:] = np.nan
    with pytest.raises(CheckpointError, match="the scores are not finite numbers"):
        minidat.detect(model, picture)


# --- configs, initial values, errors ----------------------------------------------------------------------------------


def test_weights_start_as_the_authors_do() -> None:
    """Normal of 0.01 in the head, Xavier's uniform in the pyramid, biases 0, and a score of 0.01 everywhere."""
    model = minidat.create_model("retinanet_datpp_tiny", seed=1)
    state = model.state_dict()
    assert_close(state["head.classes.output.bias"], np.full(720, -np.log(99)), 1e-6, "prior")
    for name, value in state.items():
        if name.startswith(("head.", "pyramid.")) and name.endswith(".bias") and name != "head.classes.output.bias":
            assert not value.any(), name
        if name.startswith("head.") and name.endswith(".weight"):
            assert value.std() == pytest.approx(0.01, rel=0.02), name
            assert abs(value.mean()) < 2e-4
        if name.startswith("pyramid.") and name.endswith(".weight"):
            bound = (6 / (value[0].size + value.size / value.shape[1])) ** 0.5
            assert 0.99 * bound < np.abs(value).max() <= bound, name
            assert value.std() == pytest.approx(bound / 3**0.5, rel=0.02), name
    again = minidat.create_model("retinanet_datpp_tiny", seed=1).state_dict()
    assert all(np.array_equal(value, again[name]) for name, value in state.items())


def test_modules_know_their_paths_and_leave_traces() -> None:
    model = small_model(np.float32)
    assert model.backbone.stages[2].blocks[1].attention.path == "backbone.stages.2.blocks.1.attention"
    trace: dict[str, Any] = {}
    model.forward(normal((1, 64, 64, 3), 0), Context(trace=trace))
    assert set(trace) == {f"backbone.stages.{path}.attention" for path in ("2.blocks.1", "3.blocks.0")}


def test_create_model_changes_the_config() -> None:
    model = minidat.create_model("retinanet_dat_tiny", image_size=(96, 128), num_classes=4)
    assert (model.config.image_size, model.config.resize_size) == ((96, 128), (128, 96))
    assert model.head.classes.output.bias.shape == (36,)
    assert model.labels is None
    assert model.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 0}, "num_classes: found 0, expected 1 to"),
        ({"pyramid_channels": 0}, "pyramid_channels: found 0, expected 1 to"),
        ({"pyramid_levels": 3}, "pyramid_levels: found 3, expected 4 to"),
        ({"first_stage": 4}, "first_stage: found 4, expected 0 to 3"),
        ({"image_size": (0, 5)}, r"image_size: found \(0, 5\), expected two numbers of 1 to"),
        ({"anchor_ratios": ()}, r"anchor_ratios: found \(\), expected positive numbers"),
        ({"anchor_scales": (1.0, 0.0)}, r"anchor_scales: found \(1.0, 0.0\), expected positive numbers"),
        ({"head_convolutions": -1}, "head_convolutions: found -1, expected 0 to"),
        ({"prior": 1.0}, r"prior: found 1.0, expected a probability in \(0, 1\)"),
        ({"negative_iou": 0.6}, r"negative_iou: found 0.6, expected 0 to positive_iou \(0.5\)"),
    ],
)
def test_configs_that_cannot_be_built_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"small_retinanet: {message}"):
        small_retinanet(**changes)


@pytest.mark.parametrize(
    ("field", "value"), [("anchor_scales", [1, "2"]), ("num_classes", 2.0), ("backbone", None), ("prior", True)]
)
def test_damaged_configs_are_refused(field: str, value: Any) -> None:
    data = config_to_dict(small_retinanet())
    assert config_from_dict(data) == small_retinanet()
    with pytest.raises(ConfigError, match="model config"):
        config_from_dict({**data, field: value})
    with pytest.raises(ConfigError, match="model config"):
        config_from_dict({**data, "surprise": 1})
    del data["backbone"]
    with pytest.raises(ConfigError, match="model config: backbone: missing"):
        config_from_dict(data)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "targets: found 0, expected 1, one an image"),
        ([(np.zeros((1, 4)), np.zeros(2, int))], r"targets\[0\]: found boxes \(1, 4\) and labels \(2,\)"),
        ([(np.zeros(4), np.zeros(4, int))], r"targets\[0\]: found boxes \(4,\)"),
        ([(np.ones((1, 4)), np.array([2]))], r"targets\[0\]: labels: found 2 to 2, expected 0 to 1"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets: list[Any], message: str) -> None:
    model = small_model()
    with pytest.raises(ShapeError, match=message):
        model.loss(np.zeros((1, 64, 64, 3)), [minidat.BoxTargets(*target) for target in targets], Context())


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="sizes: found 2, expected 1, one an image"):
        small_model().detect(np.zeros((1, 64, 64, 3)), [(64, 64)] * 2)
    with pytest.raises(ShapeError, match="images: found shape"):
        small_model().detect(np.zeros((64, 64, 3)))


def test_detections_know_their_number() -> None:
    assert len(Detections(np.zeros((3, 4)), np.zeros(3), np.zeros(3, int))) == 3
    assert isinstance(get_config("retinanet_dat_base"), RetinaNetConfig)
