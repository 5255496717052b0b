"""upernet_datpp_tiny with the formula weights equals the authors' code: maps, logits, classes, losses, gradients."""

from __future__ import annotations

import numpy as np
import pytest

import minidat
from minidat import ops
from minidat.catalog import get_config
from minidat.checkpoints import convert_state_dict
from minidat.checkpoints.convert import to_authors_state_dict
from minidat.segmentation import UperNet
from minidat.segmentation.segmentor import resize_in_steps

from .golden import FOLDER
from .golden.formula_weights import dense_state_dict, sample

NAME = "upernet_datpp_tiny"
RECORDING = dict(np.load(FOLDER / "dense" / f"{NAME}.npz"))
WEIGHTS = dense_state_dict(str(FOLDER / "dense" / f"{NAME}.keys.tsv"))


def make_model() -> UperNet:
    """Without dropout and stochastic depth, which the recordings leave out in training too."""
    config = get_config(NAME)
    config = config.replace(dropout=0.0, backbone=config.backbone.replace(drop_path=0.0))
    model = minidat.create_model(config, dtype=np.float64)
    model.load_state_dict(convert_state_dict(WEIGHTS))
    return model


def images_of(shape: tuple[int, int, int]) -> np.ndarray:
    batch, height, width = shape
    return np.random.default_rng(1234).standard_normal((batch, 3, height, width)).transpose(0, 2, 3, 1)


def labels_of(shape: tuple[int, int, int]) -> np.ndarray:
    batch, height, width = shape
    return np.random.default_rng(3).integers(0, 150, (batch, 1, height, width))[:, 0].astype(np.uint8)


def assert_recorded(found: np.ndarray, key: str) -> None:
    """A channels-last map equals the recording called `key`: shape, mean, standard deviation and 64 numbers."""
    found = found.transpose(0, 3, 1, 2)
    assert found.shape == tuple(RECORDING[f"{key}/shape"]), key
    for number, expected in ((found.mean(), "mean"), (found.std(), "std"), (sample(found), "vals")):
        np.testing.assert_allclose(number, RECORDING[f"{key}/{expected}"], rtol=0, atol=1e-9, err_msg=key)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percentage of the pixels whose label counts that have the class of the largest logit."""
    counted = labels != 255
    return 100 * float((logits.argmax(axis=-1) == labels)[counted].mean())


@pytest.fixture(scope="module")
def model() -> UperNet:
    return make_model()


@pytest.fixture(scope="module", params=[("", (256, 320)), ("odd/", (250, 313))], ids=["even", "odd"])
def inference(request: pytest.FixtureRequest, model: UperNet) -> tuple[str, tuple[int, int], list[np.ndarray]]:
    """(prefix of the recording, size of the images, the backbone's maps)."""
    prefix, size = request.param
    features, _ = model.backbone.forward(images_of((1, *size)), minidat.Context())
    return prefix, size, features


def test_maps_and_logits_equal_the_recording(model: UperNet, inference) -> None:
    prefix, _, features = inference
    for i, feature in enumerate(features):
        assert_recorded(feature, f"{prefix}backbone.{i}")
    pooling = model.decode_head.pyramid_pooling
    for i, (branch, scale) in enumerate(zip(pooling.branches, pooling.scales, strict=True)):
        pooled, _ = ops.adaptive_average_pool(features[-1], size=(scale, scale))
        assert_recorded(branch(pooled), f"{prefix}decode.ppm.{i}")
    assert_recorded(pooling(features[-1]), f"{prefix}decode.psp")
    fused, _ = model.decode_head.fused(features, minidat.Context())
    assert_recorded(fused, f"{prefix}decode.feature")
    assert_recorded(model.decode_head.classifier(fused), f"{prefix}decode_logits")
    assert model.auxiliary_head is not None
    assert_recorded(model.auxiliary_head(features[2]), f"{prefix}aux_logits")


def test_classes_at_full_resolution_equal_the_recording(model: UperNet, inference) -> None:
    prefix, size, features = inference
    logits, _ = model.decode(features, minidat.Context())
    original = tuple(int(n) for n in RECORDING[f"{prefix}ori_shape"])
    for name, steps in (("", [size]), ("_rescaled", [size, original])):
        full = resize_in_steps(logits[0], steps)
        probabilities, _ = ops.softmax(full)
        assert_recorded(probabilities[None], f"{prefix}probs{name}")
        if len(steps) == 1:
            assert_recorded(full[None], f"{prefix}logits_at_input_size")
        classes = full.argmax(axis=-1)
        assert np.array_equal(np.bincount(classes.ravel(), minlength=150), RECORDING[f"{prefix}argmax{name}/counts"])
        assert np.array_equal(classes[::4, ::4], RECORDING[f"{prefix}argmax{name}/every4"])


def test_losses_and_accuracies_equal_the_recording(model: UperNet, inference) -> None:
    """Without gradients, on logits resized to the size of the labels."""
    prefix, size, features = inference
    if prefix:
        return
    assert model.auxiliary_head is not None
    decoded, _ = model.decode(features, minidat.Context())
    for logits, name, weight in ((decoded, "decode", 1), (model.auxiliary_head(features[2]), "aux", 0.4)):
        full, _ = ops.resize(logits, size=size)
        for run, ignored in (("train", 0), ("train_ignore", 40)):
            labels = labels_of((1, *size))
            labels[:, :ignored] = 255
            loss, _ = ops.pixel_cross_entropy(full, labels=labels)
            np.testing.assert_allclose(weight * loss, RECORDING[f"{run}/{name}.loss_ce"], rtol=1e-9)
            np.testing.assert_allclose(accuracy(full, labels), RECORDING[f"{run}/{name}.acc_seg"], rtol=1e-5)


# prefix of the recording, shape of the images, whether the batch's statistics are used, rows of labels to ignore
TRAINING = [("train_ignore", (1, 256, 320), False, 40), ("train_batchstats", (2, 128, 160), True, 0)]


@pytest.mark.parametrize(("prefix", "shape", "training", "ignored"), TRAINING)
def test_losses_and_gradients_equal_the_recording(
    prefix: str, shape: tuple[int, int, int], training: bool, ignored: int
) -> None:
    model, images, labels = make_model(), images_of(shape), labels_of(shape)
    labels[:, :ignored] = 255
    losses, backward = model.loss(images, labels, minidat.Context(gradients=True, training=training))
    d_images = backward()

    np.testing.assert_allclose(losses["decode"], RECORDING[f"{prefix}/decode.loss_ce"], rtol=1e-9)
    np.testing.assert_allclose(losses["auxiliary"], RECORDING[f"{prefix}/aux.loss_ce"], rtol=1e-9)
    np.testing.assert_allclose(sum(losses.values()), RECORDING[f"{prefix}/loss"], rtol=1e-9)

    flat = d_images.transpose(0, 3, 1, 2).ravel()
    found = flat[np.random.default_rng(7).integers(0, flat.size, 256)]
    expected = RECORDING[f"{prefix}/dx/vals"]
    assert np.abs(found - expected).max() <= 1e-8 * np.abs(expected).max()
    np.testing.assert_allclose(np.linalg.norm(flat), RECORDING[f"{prefix}/dx/l2"], rtol=1e-8)

    gradients = to_authors_state_dict({name: parameter.grad for name, parameter in model.named_parameters()})
    assert set(gradients) == set(RECORDING["grad/names"].tolist())
    for name, expected in zip(RECORDING["grad/names"].tolist(), RECORDING[f"{prefix}/grad/l2"], strict=True):
        assert gradients[name].shape == WEIGHTS[name].shape
        # softmax ignores a shift of all keys, batch normalization one of a channel: those gradients are but rounding
        scale = 1.0 if name.endswith("proj_k.bias") else max(expected, 1e-6)
        assert abs(np.linalg.norm(gradients[name]) - expected) <= 1e-8 * scale, name

    if training:
        state = to_authors_state_dict(model.state_dict())
        recorded = [key for key in RECORDING if key.startswith(f"{prefix}/buffers_after/")]
        assert len(recorded) == 26
        for key in recorded:
            np.testing.assert_allclose(state[key.rpartition("/")[2]][:8], RECORDING[key], rtol=1e-9, err_msg=key)


def test_segment_resizes_to_the_size_of_the_picture_and_float32_is_near() -> None:
    model = make_model().astype(np.float32)
    images = images_of((1, 250, 313)).astype(np.float32)
    (logits,) = model.full_logits(images, [(333, 417)])
    classes = logits.argmax(axis=-1)
    assert logits.dtype == np.float32
    assert (classes[::4, ::4] == RECORDING["odd/argmax_rescaled/every4"]).mean() > 0.999
    every = np.bincount(classes.ravel(), minlength=150) - RECORDING["odd/argmax_rescaled/counts"]
    assert np.abs(every).sum() < 100
