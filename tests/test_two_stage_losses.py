"""The losses of Mask R-CNN and its cascade, and every gradient, against the transcription in PyTorch."""

from typing import Any

import numpy as np
import pytest
import torch

import minidat
from minidat.detection import CascadeMaskRCNNConfig, MaskRCNNConfig
from minidat.errors import ShapeError
from minidat.models import DeformableConfig, ModelConfig, StageConfig

from .checks import assert_close
from .reference import two_stage as reference
from .strategies import normal

EVERY_ONE = 2**16  # a sample so large that nothing is left to chance
STAGES = tuple(
    StageConfig(4 * 2**i, 2, ("window", "deformable"), window=2, deformable=DeformableConfig(2, 3)) for i in range(4)
)
BACKBONE = ModelConfig("backbone", (64, 64), 2, STAGES, resize_size=64)
SMALL = {
    "backbone": BACKBONE,
    "num_classes": 3,
    "pyramid_channels": 6,
    "box_features": 10,
    "anchor_sample": EVERY_ONE,
    "region_sample": EVERY_ONE,
    "training_proposals": 30,
    "mask_convolutions": 2,
}
CONFIGS = {
    "mask_rcnn": MaskRCNNConfig("tiny", **SMALL),  # type: ignore[arg-type]
    "cascade": CascadeMaskRCNNConfig("tiny", **SMALL, box_convolutions=2),  # type: ignore[arg-type]
}
SIZE = (128, 192)


def blob(box: np.ndarray, seed: int) -> np.ndarray:
    """A mask with a ragged border inside a box."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    center, radius = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    angle = np.arctan2(y - center[1], x - center[0])
    distance = np.hypot((y - center[1]) / radius[1], (x - center[0]) / radius[0])
    return distance < 0.8 + 0.2 * np.sin(5 * angle + seed)


def objects(seed: int, count: int) -> minidat.BoxTargets:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.5, (count, 2)) * SIZE[::-1]
    boxes = np.concatenate([corners, corners + rng.uniform(0.15, 0.45, (count, 2)) * SIZE[::-1]], axis=1)
    labels = rng.integers(0, 3, count)
    return minidat.BoxTargets(boxes, labels, [blob(box, i) for i, box in enumerate(boxes)])


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    model = minidat.create_model(CONFIGS[request.param], dtype=np.float64)
    for name, parameter in model.named_parameters():  # the initial last layers are so small that proposals coincide
        if name.endswith(("classifier.weight", "regressor.weight")):
            parameter.value = parameter.value * 20
    return model


@pytest.mark.parametrize("counts", [(2, 3), (1, 0)])
def test_losses_and_gradients(counts: tuple[int, int], model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = model.config
    sizes = [(-(-SIZE[0] // stride), -(-SIZE[1] // stride)) for stride in config.strides]
    levels = [normal((2, *size, config.pyramid_channels), i) for i, size in enumerate(sizes)]
    d_levels: list[np.ndarray] = []
    monkeypatch.setattr(model, "levels", lambda images, context: (levels, d_levels.extend))
    kept: dict[str, Any] = {}
    propose = model.propose
    monkeypatch.setattr(model, "propose", lambda *a, **k: kept.setdefault("proposals", propose(*a, **k)))
    targets = [objects(i, count) for i, count in enumerate(counts)]
    context = minidat.Context(gradients=True, training=True, rng=np.random.default_rng(0))
    losses, backward = model.loss(np.zeros((2, *SIZE, 3)), targets, context)
    backward()

    state = {name: torch.tensor(p.value, requires_grad=True) for name, p in model.named_parameters()}
    maps = [torch.tensor(level.transpose(0, 3, 1, 2).copy(), requires_grad=True) for level in levels]
    anchors = torch.tensor(np.concatenate(model.anchors(levels)).astype(np.float64))
    expected = reference.proposal_losses(state, maps, anchors, targets, config)
    expected |= reference.region_losses(state, maps, kept["proposals"], targets, config)
    assert list(losses) == list(expected)
    for name, loss in expected.items():
        assert_close(losses[name], loss.item(), 1e-9, name)
    torch.stack(list(expected.values())).sum().backward()
    for i, (found, level) in enumerate(zip(d_levels, maps, strict=True)):
        assert level.grad is not None
        assert_close(found, level.grad.permute(0, 2, 3, 1).numpy(), 1e-8, f"gradient of level {i}")
    checked = 0
    for name, parameter in model.named_parameters():
        if not name.startswith(("backbone.", "pyramid.")):
            assert state[name].grad is not None, name
            assert_close(parameter.grad, state[name].grad.numpy(), 1e-8, name)
            checked += 1
    assert checked > 20


def test_finite_differences_through_the_whole_model(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images' gradient along random directions, with the boxes held: no gradient
    passes through their choice."""
    images = normal((1, 64, 96, 3), 0)
    target = minidat.BoxTargets(np.array([[10.3, 8.2, 50.7, 44.1]]), np.array([1]), [[[10, 8, 50, 10, 30, 44]]])
    stages = getattr(model, "stages", [])
    held: dict[Any, Any] = {}

    def hold(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def first_answer(*arguments: Any, **settings: Any) -> Any:
            if (owner, name) not in held:
                held[owner, name] = original(*arguments, **settings)
            return held[owner, name]

        monkeypatch.setattr(owner, name, first_answer)

    for owner, name in [(model, "propose"), *((stage, "move") for stage in stages)]:
        hold(owner, name)

    def loss(images: np.ndarray) -> tuple[float, Any]:
        losses, backward = model.loss(images, [target], minidat.Context(gradients=True))
        return sum(losses.values()), backward

    total, backward = loss(images)
    d_images = backward()
    assert np.isfinite(total)
    for seed in range(3):
        direction, step = normal(images.shape, seed + 1), 1e-7
        expected = (loss(images + step * direction)[0] - loss(images - step * direction)[0]) / (2 * step)
        assert abs(np.sum(d_images * direction) - expected) < 1e-5 * np.linalg.norm(d_images)


def test_an_image_without_objects_gives_every_parameter_a_gradient(model: Any) -> None:
    nothing = minidat.BoxTargets(np.zeros((0, 4)), np.zeros(0, int), [])
    losses, backward = model.loss(normal((1, 64, 96, 3), 0), [nothing], minidat.Context(gradients=True))
    backward()
    assert all(np.isfinite(loss) for loss in losses.values())
    assert all(loss == 0 for name, loss in losses.items() if name.endswith(("box", "mask")))
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_what_does_not_fit_is_refused(model: Any) -> None:
    images, context = np.zeros((1, 64, 96, 3)), minidat.Context()
    box, label = np.array([[1.0, 2.0, 30.0, 40.0]]), np.array([0])
    with pytest.raises(ShapeError, match=r"targets\[0\]: masks: found None, expected 1, one a box"):
        model.loss(images, [minidat.BoxTargets(box, label)], context)
    with pytest.raises(ShapeError, match=r"targets\[0\]: masks: found 2, expected 1, one a box"):
        model.loss(images, [minidat.BoxTargets(box, label, [np.ones((64, 96), bool)] * 2)], context)
    with pytest.raises(ShapeError, match="targets: found 2, expected 1"):
        model.loss(images, [minidat.BoxTargets(box, label)] * 2, context)
    with pytest.raises(ShapeError, match="sizes: found 2, expected 1"):
        model.detect(images, [(64, 96)] * 2)
