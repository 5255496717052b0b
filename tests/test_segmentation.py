"""UperNet and Semantic FPN: counts, names, against the PyTorch transcription, the interface, and that they learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import minidat
from minidat.catalog import get_config
from minidat.checkpoints import convert_state_dict
from minidat.checkpoints.convert import to_authors_state_dict
from minidat.data.dense_preprocessing import preprocess_segmentation
from minidat.data.labels import ade20k_labels, ade20k_palette, load_labels
from minidat.errors import CheckpointError, ConfigError, MinidatError, ShapeError
from minidat.models import DeformableConfig, ModelConfig, StageConfig
from minidat.segmentation import SegmentorConfig, SemanticFPN, SemanticFPNConfig, UperNet, UperNetConfig
from minidat.training.optimizer import AdamW, decay_names

from .golden import FOLDER
from .golden.formula_weights import dense_state_dict
from .reference.segmentation import build_segmentor

PARAMETERS = {
    "upernet_dat_tiny": 59_972_646,
    "upernet_dat_small": 81_353_910,
    "upernet_dat_base": 121_393_124,
    "upernet_datpp_tiny": 53_758_400,
    "semantic_fpn_datpp_tiny": 27_701_034,
}


def plus_plus(**deformable: int) -> DeformableConfig:
    return DeformableConfig(range_factor=None, position_rule="dat++", **deformable)


BACKBONE = ModelConfig(
    name="tiny",
    image_size=(32, 32),
    num_classes=1,
    resize_size=32,
    mlp_ratio=2,
    convolutional_patches=True,
    local_perception=True,
    convolutional_mlp=True,
    stages=(
        StageConfig(8, 1, ("neighborhood",), neighborhood=3),
        StageConfig(8, 2, ("deformable",), deformable=plus_plus(groups=2, kernel=3, stride=2)),
        StageConfig(12, 2, ("neighborhood", "deformable"), neighborhood=3, deformable=plus_plus(groups=1, kernel=3)),
        StageConfig(16, 2, ("deformable",), deformable=plus_plus(groups=2, kernel=3)),
    ),
)
UPERNET = UperNetConfig(
    "tiny_upernet", BACKBONE, num_classes=5, image_size=(64, 64), channels=12, auxiliary_channels=8, dropout=0.0
)
SEMANTIC_FPN = SemanticFPNConfig(
    "tiny_semantic_fpn", BACKBONE, num_classes=5, image_size=(64, 64), channels=8, pyramid_channels=12, dropout=0.0
)
BOTH = pytest.mark.parametrize("config", [UPERNET, SEMANTIC_FPN], ids=lambda config: config.name)
NETWORKS = {UperNetConfig: UperNet, SemanticFPNConfig: SemanticFPN}


# --- names, shapes, counts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_the_published_one(name: str) -> None:
    config = get_config(name)
    assert NETWORKS[type(config)](config).parameter_count() == PARAMETERS[name]


@pytest.mark.parametrize("family", ["upernet", "semantic_fpn"])
def test_there_is_one_for_each_of_the_six_backbones(family: str) -> None:
    backbones = ["dat_tiny", "dat_small", "dat_base", "datpp_tiny", "datpp_small", "datpp_base"]
    assert [name for name in minidat.list_models() if name.startswith(family)] == [f"{family}_{b}" for b in backbones]


@pytest.mark.parametrize("name", ["upernet_datpp_tiny", "semantic_fpn_datpp_tiny"])
def test_weights_have_the_authors_names_and_shapes_and_come_back(name: str) -> None:
    theirs = dense_state_dict(str(FOLDER / "dense" / f"{name}.keys.tsv"))
    with torch.device("meta"):
        peer = build_segmentor(get_config(name))
    assert {key: tuple(value.shape) for key, value in peer.state_dict().items()} == {
        key: np.shape(value) for key, value in theirs.items()
    }
    config = get_config(name)
    model = NETWORKS[type(config)](config)
    model.load_state_dict(convert_state_dict(theirs), copy=False)
    back = to_authors_state_dict(model.state_dict())
    assert set(back) == {key for key in theirs if not key.endswith("num_batches_tracked")}
    for key, value in back.items():
        assert np.array_equal(value, theirs[key]), key


def test_names_of_other_heads_are_all_listed() -> None:
    theirs = {"backbone.norms.0.norm.weight": np.ones(3), "decode_head.a": np.ones(1), "head.b": np.ones(1)}
    with pytest.raises(
        CheckpointError, match=r"the heads of mmdetection or mmsegmentation: unknown decode_head.a, head.b"
    ):
        convert_state_dict(theirs)
    with pytest.raises(CheckpointError, match=r"minidat's heads: unknown decode_head.a, head.b"):
        to_authors_state_dict(
            {"backbone.norms.0.weight": np.ones(3), "decode_head.a": np.ones(1), "head.b": np.ones(1)}
        )


# --- against the transcription ----------------------------------------------------------------------------------------


def pair(config: SegmentorConfig, seed: int = 0) -> tuple[minidat.segmentation.Segmentor, torch.nn.Module]:
    """Our model and the transcription, in float64, with the same weights and running statistics, none of them 0."""
    model = minidat.create_model(config, dtype=np.float64)
    rng = np.random.default_rng(seed)
    for name, array in model.named_state():
        spread = 0.2 if len(array.shape) == 1 else float(np.prod(array.shape[1:])) ** -0.5
        array.value = spread * rng.standard_normal(array.shape) + name.endswith(("norm.weight", "norms.0.weight"))
        if name.endswith("running_var"):
            array.value = np.exp(array.value)
    peer = build_segmentor(config).double()
    theirs = {name: torch.tensor(value) for name, value in to_authors_state_dict(model.state_dict()).items()}
    missing, unexpected = peer.load_state_dict(theirs, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return model, peer


def assert_near(found: np.ndarray, expected: np.ndarray, what: str, smallest: float = 1e-6) -> None:
    assert found.shape == expected.shape, what
    scale = max(float(np.abs(expected).max()), smallest)
    assert np.abs(found - expected).max() <= 1e-8 * scale, what


@BOTH
@pytest.mark.parametrize("size", [(64, 64), (70, 93), (33, 129)])
def test_logits_equal_the_transcription(config: SegmentorConfig, size: tuple[int, int]) -> None:
    model, peer = pair(config)
    images = np.random.default_rng(1).standard_normal((2, *size, 3))
    with torch.no_grad():
        expected = peer.eval()(torch.tensor(images).movedim(-1, 1)).movedim(1, -1).numpy()
    logits, backward = model.forward(images, minidat.Context())
    assert backward is None
    assert logits.shape == (2, -(-size[0] // 4), -(-size[1] // 4), 5)
    assert_near(logits, expected, "logits")
    plain, _ = model.forward(images, minidat.Context(plain=True))
    assert_near(plain, expected, "logits of the textbook")


@BOTH
@pytest.mark.parametrize("training", [False, True])
def test_losses_and_gradients_equal_the_transcription(config: SegmentorConfig, training: bool) -> None:
    model, peer = pair(config.replace(class_weights=(0.5, 1.0, 3.0, 2.0, 0.0) if training else ()))
    rng = np.random.default_rng(2)
    images, labels = rng.standard_normal((2, 71, 90, 3)), rng.integers(0, 5, (2, 71, 90)).astype(np.uint8)
    labels[0, 10:30] = 255
    x = torch.tensor(images, requires_grad=True)
    expected = peer.train(training).loss(x.movedim(-1, 1), torch.tensor(labels.astype(np.int64)))
    sum(expected.values()).backward()

    losses, backward = model.loss(images, labels, minidat.Context(gradients=True, training=training))
    d_images = backward()
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(losses[name] - float(value.detach())) <= 1e-9 * float(value.detach()), name
    assert_near(d_images, x.grad.numpy(), "images")
    gradients = to_authors_state_dict({name: parameter.grad for name, parameter in model.named_parameters()})
    parameters = dict(peer.named_parameters())
    assert gradients.keys() == parameters.keys()
    for name, parameter in parameters.items():
        assert_near(gradients[name], parameter.grad.numpy(), name)
    state, buffers = to_authors_state_dict(model.state_dict()), dict(peer.named_buffers())
    for name, buffer in buffers.items():
        if not name.endswith("num_batches_tracked"):
            assert_near(state[name], buffer.numpy(), name)


@pytest.mark.parametrize("name", ["semantic_fpn_datpp_tiny"])
def test_a_published_model_equals_the_transcription(name: str) -> None:
    theirs = dense_state_dict(str(FOLDER / "dense" / f"{name}.keys.tsv"))
    peer = build_segmentor(get_config(name)).double().eval()
    peer.load_state_dict({key: torch.tensor(value) for key, value in theirs.items()})
    model = minidat.create_model(name, dtype=np.float64)
    model.load_state_dict(convert_state_dict(theirs))
    images = np.random.default_rng(1234).standard_normal((1, 3, 122, 157))
    with torch.no_grad():
        expected = peer(torch.tensor(images)).movedim(1, -1).numpy()
    assert_near(model(images.transpose(0, 2, 3, 1)), expected, "logits")


# --- the interface ----------------------------------------------------------------------------------------------------


@BOTH
def test_backward_of_the_logits_is_the_derivative(config: SegmentorConfig) -> None:
    model, _ = pair(config)
    rng = np.random.default_rng(3)
    images, direction = rng.standard_normal((2, 1, 40, 52, 3))
    logits, backward = model.forward(images, minidat.Context(gradients=True))
    d_logits = rng.standard_normal(logits.shape)
    found = float((backward(d_logits) * direction).sum())
    sides = [float((model(images + sign * 1e-7 * direction) * d_logits).sum()) for sign in (1, -1)]
    assert found == pytest.approx((sides[0] - sides[1]) / 2e-7, rel=1e-4)


def varied(config: SegmentorConfig) -> minidat.segmentation.Segmentor:
    """A float32 model that finds several classes in noise."""
    model = pair(config)[0].astype(np.float32)
    noise = np.random.default_rng(4).standard_normal((2, 40, 52, 3)).astype(np.float32)
    model.decode_head.classifier.bias.value -= model(noise).mean(axis=(0, 1, 2))
    return model


@BOTH
def test_segment_gives_class_numbers_at_the_size_of_images_or_pictures(config: SegmentorConfig) -> None:
    model = varied(config)
    images = np.random.default_rng(4).standard_normal((2, 40, 52, 3)).astype(np.float32)
    classes = model.segment(images)
    assert (classes.shape, classes.dtype) == ((2, 40, 52), np.uint8)
    assert len(np.unique(classes)) > 1
    assert model.segment(images, [(61, 83), (61, 83)]).shape == (2, 61, 83)
    unequal = model.segment(images, [(61, 83), (30, 20)])
    assert [answer.shape for answer in unequal] == [(61, 83), (30, 20)]
    for logits, answer in zip(model.full_logits(images), classes, strict=True):
        assert logits.shape == (40, 52, 5)
        assert np.array_equal(logits.argmax(axis=-1), answer)


@BOTH
def test_segment_for_people_answers_at_the_size_of_the_picture(config: SegmentorConfig) -> None:
    model = varied(config.replace(resize_size=(90, 60)))
    model.labels = ["sky", "ground", "ball", "tree", "sun"]
    image = np.random.default_rng(5).integers(0, 256, (77, 58, 3), np.uint8)
    answer = minidat.segment(model, image)
    assert answer.labels.shape == (77, 58)
    assert answer.classes == ("sky", "ground", "ball", "tree", "sun")
    (classes,) = model.segment(preprocess_segmentation(image, scale=(90, 60))[None], [(77, 58)])
    assert np.array_equal(answer.labels, classes)
    for number, share in enumerate(answer.shares):
        assert share == pytest.approx((classes == number).mean())
    names, shares = zip(*answer.largest(), strict=True)
    assert len(names) > 1
    assert sum(shares) == pytest.approx(1)
    assert list(shares) == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx((classes == answer.classes.index(names[0])).mean())


def test_segment_for_people_says_what_is_wrong() -> None:
    model = minidat.create_model(UPERNET)
    image = np.zeros((20, 30, 3), np.uint8)
    assert minidat.segment(model, image).classes[4] == "class 4"
    with pytest.raises(ShapeError):
        minidat.segment(model, image.astype(np.float32))
    model.labels = ["one"]
    with pytest.raises(ConfigError, match="labels: found 1, expected 5, one a class"):
        minidat.segment(model, image)
    model.labels = None
    model.decode_head.classifier.bias.value[:] = np.nan
    with pytest.raises(CheckpointError, match="logits are not finite"):
        minidat.segment(model, image)


def test_ade20k_has_150_names_and_colors() -> None:
    names, colors = ade20k_labels(), ade20k_palette()
    assert len(set(names)) == len(names) == 150
    assert (names[0], names[7], names[149]) == ("wall", "bed", "flag")
    assert (colors.shape, colors.dtype) == ((150, 3), np.uint8)
    assert colors[[0, 149]].tolist() == [[120, 120, 120], [92, 0, 255]]
    assert load_labels("ade20k") == names


def test_dropout_is_on_in_training_alone() -> None:
    model = minidat.create_model(UPERNET.replace(dropout=0.5))
    images = np.random.default_rng(5).standard_normal((2, 40, 52, 3)).astype(np.float32)
    first, second = (model.forward(images, minidat.Context())[0] for _ in range(2))
    assert np.array_equal(first, second)
    rng = np.random.default_rng(0)
    first, second = (model.forward(images, minidat.Context(training=True, rng=rng))[0] for _ in range(2))
    assert not np.allclose(first, second)


def test_training_one_picture_fails_with_one_line_where_a_channel_has_one_value() -> None:
    model = minidat.create_model(UPERNET)
    images, labels = np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 64, 64), np.uint8)
    with pytest.raises(ShapeError, match="values of a channel: found 1, expected at least 2 in training"):
        model.loss(images, labels, minidat.Context(gradients=True, training=True))


def test_labels_and_sizes_that_do_not_fit_are_named() -> None:
    model = minidat.create_model(UPERNET)
    images = np.zeros((2, 40, 52, 3), np.float32)
    with pytest.raises(ShapeError, match=r"labels: found shape \(2, 40, 50\), expected \(2, 40, 52\), as the images"):
        model.loss(images, np.zeros((2, 40, 50), np.uint8), minidat.Context())
    with pytest.raises(ShapeError, match=r"labels: found \[5\], expected 0 to 4, or 255"):
        model.loss(images, np.full((2, 40, 52), 5, np.uint8), minidat.Context())
    with pytest.raises(ShapeError, match="sizes: found 1, expected 2, one an image"):
        model.segment(images, [(3, 4)])


# --- configs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "num_classes: found 0, expected 1 to"),
        ({"channels": -1}, "channels: found -1, expected 1 to"),
        ({"dropout": 1.0}, r"dropout: found 1.0, expected a rate in \[0, 1\)"),
        ({"image_size": (0, 3)}, r"image_size: found \(0, 3\), expected two numbers of 1 to"),
        ({"pool_scales": ()}, r"pool_scales: found \(\), expected one to 16 numbers"),
        ({"auxiliary_channels": 0}, "auxiliary_channels: found 0, expected 1 to"),
        ({"auxiliary_weight": -1.0}, "auxiliary_weight: found -1.0, expected a number >= 0"),
        ({"class_weights": (1.0, 2.0)}, r"class_weights: found \(1.0, 2.0\), expected none, or 5 numbers >= 0"),
    ],
)
def test_a_segmentor_that_cannot_be_built_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=f"tiny_upernet: {message}"):
        UPERNET.replace(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": 3},
        {"num_classes": "5"},
        {"num_classes": True},
        {"pool_scales": [1, "2"]},
        {"image_size": [1]},
        {"unknown": 1},
        {"dropout": None},
    ],
)
def test_ill_typed_configs_are_refused(change: dict) -> None:
    with pytest.raises(MinidatError):
        UperNetConfig.from_dict({**UPERNET.to_dict(), **change})
    with pytest.raises(ConfigError, match="backbone"):
        UperNetConfig.from_dict({"name": "x"})
    with pytest.raises(ConfigError, match="found list, expected a dict"):
        UperNetConfig.from_dict([])


def test_create_model_changes_classes_and_size() -> None:
    model = minidat.create_model(UPERNET, num_classes=3, image_size=(48, 64))
    assert model.config == replace(UPERNET, num_classes=3, image_size=(48, 64))
    assert model(np.zeros((1, 48, 64, 3), np.float32)).shape == (1, 12, 16, 3)


def test_without_an_auxiliary_head_there_is_one_loss() -> None:
    model = minidat.create_model(UPERNET.replace(auxiliary_channels=None))
    images, labels = np.zeros((1, 40, 52, 3), np.float32), np.zeros((1, 40, 52), np.uint8)
    losses, _ = model.loss(images, labels, minidat.Context())
    assert list(losses) == ["decode"]


# --- learning ---------------------------------------------------------------------------------------------------------


def generated_pictures(count: int, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Landscapes: sky, ground below a slanted horizon, a large ball anywhere; each class has a color, under noise."""
    rng = np.random.default_rng(0)
    images, labels = np.zeros((count, side, side, 3)), np.zeros((count, side, side), np.uint8)
    y, x = np.mgrid[:side, :side]
    for image, label in zip(images, labels, strict=True):
        slope, height = rng.uniform(-0.5, 0.5), rng.uniform(0.4, 0.6) * side
        label[y > height + slope * (x - side / 2)] = 1
        center_y, center_x = rng.uniform(0.3, 0.7, 2) * side
        label[(y - center_y) ** 2 + (x - center_x) ** 2 < (side / 4) ** 2] = 2
        colors = np.array([[-0.5, 0.2, 1.0], [0.0, 0.8, -0.6], [1.0, -0.2, -0.2]])
        image[...] = colors[label] + 0.3 * rng.standard_normal((side, side, 3))
    return images.astype(np.float32), labels


def mean_iou(classes: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    pairs = [((classes == k), (labels == k)) for k in range(num_classes)]
    return float(np.mean([(found & wanted).sum() / (found | wanted).sum() for found, wanted in pairs]))


def test_a_tiny_upernet_learns_8_pictures() -> None:
    images, labels = generated_pictures(8)
    model = minidat.create_model(UPERNET.replace(num_classes=3, channels=16))
    optimizer = AdamW(dict(model.named_parameters()), decay=decay_names(model), weight_decay=0.01)
    before = mean_iou(model.segment(images), labels, 3)
    for _ in range(40):
        model.zero_grad()
        _, backward = model.loss(images, labels, minidat.Context(gradients=True, training=True))
        backward()
        optimizer.step(1e-2)
    after = mean_iou(model.segment(images), labels, 3)
    assert before < 0.5
    assert after > 0.9
