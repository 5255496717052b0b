"""Whole models of random configurations against the PyTorch transcription: outputs, stages, and every gradient.

One draw covers every module: both patch embeddings, all kinds of attention and position encoding, with and without
offsets, both papers' rules, MLPs, local perception, layer scale.
"""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minidat
from minidat.checkpoints.convert import to_authors_state_dict
from minidat.errors import ConfigError, ShapeError
from minidat.models import DeformableConfig, ModelConfig, StageConfig, get_config, list_models
from minidat.models.config import ATTENTIONS, POSITION_ENCODINGS, SHIFTED_WINDOW, WINDOW

from .reference import build

RELATIVE = 1e-9


@st.composite
def configs(draw, with_windows=True):
    """A small ModelConfig whose windows divide its maps, as the transcription needs."""
    patch_size = draw(st.sampled_from([2, 4]))
    last_map = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 3), (3, 3)]))
    rule = draw(st.sampled_from(["dat", "dat++"]))
    stages = []
    for i in range(4):
        height, width = (side * 2 ** (3 - i) for side in last_map)
        divisors = [w for w in (2, 3, 4, 6) if height % w == 0 and width % w == 0]
        kinds = [kind for kind in ATTENTIONS if divisors or kind not in (WINDOW, SHIFTED_WINDOW)]
        heads = draw(st.sampled_from([1, 2, 4]))
        stride = draw(st.sampled_from([s for s in (1, 2, 4) if s <= min(height, width)]))
        offsets = draw(st.booleans())
        encodings = POSITION_ENCODINGS if offsets or rule == "dat" else ("none",)
        deformable = DeformableConfig(
            groups=draw(st.sampled_from([g for g in (1, 2, 4) if heads % g == 0])),
            kernel=draw(st.sampled_from([1, 3, 5] if rule == "dat" else [1, 3, 5, stride])),
            stride=stride,
            range_factor=draw(st.sampled_from([None, 1.0, 2.5])),
            position_rule=rule,
            position_encoding=draw(st.sampled_from(encodings)),
            offsets=offsets,
        )
        stages.append(
            StageConfig(
                dim=heads * draw(st.sampled_from([2, 3])),
                heads=heads,
                blocks=tuple(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=2))),
                window=draw(st.sampled_from(divisors)) if divisors else 7,
                neighborhood=draw(st.sampled_from([3, 5])),
                deformable=deformable,
            )
        )
    convolutional = draw(st.booleans())
    if convolutional:  # this patch embedding halves its width in between
        stages[0] = dataclasses.replace(stages[0], dim=2 * stages[0].dim)
    image_size = tuple(side * 8 * patch_size for side in last_map)
    return ModelConfig(
        name="random",
        image_size=image_size,
        num_classes=draw(st.integers(1, 4)),
        stages=tuple(stages),
        resize_size=max(image_size),
        patch_size=patch_size,
        mlp_ratio=draw(st.integers(1, 3)),
        convolutional_patches=convolutional,
        local_perception=draw(st.booleans()),
        convolutional_mlp=draw(st.booleans()),
        layer_scale=draw(st.sampled_from([None, 0.7])),
    )


def _pair(config, seed):
    """Our model and the transcription with the same random weights, in float64."""
    rng = np.random.default_rng(seed)
    model = minidat.create_model(config, dtype=np.float64)
    for _, parameter in model.named_parameters():
        parameter.value = rng.standard_normal(parameter.shape) / np.sqrt(max(1, np.prod(parameter.shape[1:])))
    reference = build(config).double().eval()
    state = {
        name: torch.from_numpy(np.array(value)) for name, value in to_authors_state_dict(model.state_dict()).items()
    }
    missing, unexpected = reference.load_state_dict(state, strict=False)
    buffers = ("relative_position_index", "attn_mask")
    assert not unexpected
    assert all(name.endswith(buffers) or "conv_offset" in name for name in missing), missing
    return model, reference, rng


def _assert_close(found, expected, what):
    assert found.shape == expected.shape, f"{what}: {found.shape}, expected {expected.shape}"
    error, scale = np.abs(found - expected).max(), np.abs(expected).max()
    # what is zero in theory (a shift before a softmax or a layer norm) is compared with the inputs' size, which is 1
    assert error <= RELATIVE * max(scale, 1e-3), f"{what}: off by {error} of {scale}"


@settings(max_examples=60)
@given(configs(), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_model_agrees_with_pytorch(config, batch, seed):
    model, reference, rng = _pair(config, seed)
    images = rng.standard_normal((batch, *config.image_size, 3))
    torch_images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()

    logits, backward = model.forward(images, minidat.Context(gradients=True))
    expected = reference(torch_images)
    _assert_close(logits, expected.detach().numpy(), "logits")
    _assert_close(model(images), expected.detach().numpy(), "logits of inference")
    for i, (found, feature) in enumerate(zip(model.features(images), reference.features(torch_images), strict=True)):
        _assert_close(found.transpose(0, 3, 1, 2), feature.detach().numpy(), f"stage {i}")

    d_logits = rng.standard_normal(logits.shape)
    expected.backward(torch.from_numpy(d_logits))
    d_images = backward(d_logits)
    _assert_close(d_images.transpose(0, 3, 1, 2), torch_images.grad.numpy(), "gradient of the images")
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch_gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    largest = max(float(g.abs().max()) for g in torch_gradients.values())
    for name, gradient in to_authors_state_dict(gradients).items():
        found, wanted = gradient, torch_gradients[name].numpy()
        # a gradient that is zero in theory is compared with the others' size
        error = np.abs(found - wanted).max()
        assert error <= RELATIVE * max(np.abs(wanted).max(), 1e-3 * largest), f"gradient of {name}: off by {error}"


@settings(max_examples=30)
@given(configs(), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_kernels_and_textbook_give_the_same_model(config, batch, seed):
    """In training too: with the same seed, the same branches are dropped."""
    model, _, rng = _pair(config, seed)
    images = rng.standard_normal((batch, *config.image_size, 3))

    def results(plain):
        model.zero_grad()
        context = minidat.Context(gradients=True, training=True, rng=np.random.default_rng(seed), plain=plain)
        logits, backward = model.forward(images, context)
        d_images = backward(np.random.default_rng(0).standard_normal(logits.shape))
        return [logits, d_images, *(p.grad for _, p in model.named_parameters() if p.grad is not None)]

    found, expected = results(plain=False), results(plain=True)
    # gradients may be what cancellation has left, such as those of layer norm of two channels: how much does the
    # textbook itself change when each weight is moved by half a unit in its last place or so?
    for _, parameter in model.named_parameters():
        parameter.value = parameter.value * (1 + rng.choice([-2e-16, 2e-16], parameter.shape))
    moved = results(plain=True)
    largest = max(np.abs(array).max() for array in expected[2:])
    for got, wanted, other in zip(found, expected, moved, strict=True):
        # some gradients are zero in theory (a shift before a softmax): compared with the others' size
        bound = 1e-10 * max(np.abs(wanted).max(), 1e-3 * largest)
        assert np.abs(got - wanted).max() <= max(bound, 30 * np.abs(other - wanted).max())


def test_inference_of_a_large_batch_equals_one_image_at_a_time():
    model = minidat.create_model("dat_tiny", image_size=64, num_classes=5)
    images = np.random.default_rng(0).standard_normal((20, 64, 64, 3), dtype=np.float32)
    together = model(images)
    alone = np.concatenate([model(image[None]) for image in images])
    np.testing.assert_allclose(together, alone, rtol=0, atol=2e-5)


def test_features_have_the_sizes_of_the_stages_and_a_backward():
    model = minidat.create_model("dat_tiny", image_size=64, dtype=np.float64)
    images = np.random.default_rng(0).standard_normal((1, 64, 64, 3))
    features, backward = model.forward_features(images, minidat.Context(gradients=True))
    assert [f.shape for f in features] == [(1, 16, 16, 96), (1, 8, 8, 192), (1, 4, 4, 384), (1, 2, 2, 768)]
    # the gradient of a sum of uses of the maps is the sum of their gradients
    rng = np.random.default_rng(1)
    d_features = [rng.standard_normal(f.shape) for f in features]
    alone = [backward([d if i == j else None for j, d in enumerate(d_features)]) for i in range(4)]
    np.testing.assert_allclose(backward(d_features), sum(alone), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (31, 64), (50, 83)])
def test_any_image_size_gives_finite_logits_and_gradients(name, size):
    """Maps of 1 x 1, odd maps, and maps that neither windows nor strides divide."""
    config = get_config(name)
    stages = tuple(
        dataclasses.replace(
            s, dim=2 * s.heads, blocks=s.blocks[:2], deformable=s.deformable and dataclasses.replace(s.deformable)
        )
        for s in config.stages
    )
    small = config.replace(stages=stages, num_classes=3)
    model = minidat.create_model(small, dtype=np.float64)
    images = np.random.default_rng(0).standard_normal((2, *size, 3))
    logits, backward = model.forward(images, minidat.Context(gradients=True))
    d_images = backward(np.ones_like(logits))
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()
    assert d_images.shape == images.shape
    assert np.isfinite(d_images).all()
    features = model.features(images)
    assert [f.shape[1:3] for f in features] == [config.map_size(i, size) for i in range(4)]


def test_stochastic_depth_leaves_inference_alone_and_repeats_with_its_seed():
    model = minidat.create_model("dat_tiny", image_size=32, num_classes=3)
    images = np.random.default_rng(0).standard_normal((4, 32, 32, 3), dtype=np.float32)

    def train(seed):
        context = minidat.Context(gradients=True, training=True, rng=np.random.default_rng(seed))
        return model.forward(images, context)[0]

    np.testing.assert_array_equal(train(1), train(1))
    assert np.abs(train(1) - train(2)).max() > 0
    plain = model.forward(images, minidat.Context(gradients=True))[0]
    np.testing.assert_allclose(plain, model(images), rtol=0, atol=1e-5)


def test_stochastic_depth_drops_whole_images_also_without_gradients():
    config = get_config("dat_tiny").replace(image_size=(32, 32), num_classes=3)
    model = minidat.create_model(config)
    images = np.repeat(np.random.default_rng(0).standard_normal((1, 32, 32, 3), dtype=np.float32), 6, axis=0)
    with_gradients, without = (
        model.forward(images, minidat.Context(gradients=g, training=True, rng=np.random.default_rng(3)))[0]
        for g in (True, False)
    )
    np.testing.assert_allclose(without, with_gradients, rtol=0, atol=1e-5)


def test_the_same_seed_draws_the_same_weights():
    one, two, other = (minidat.create_model("dat_tiny", image_size=32, seed=s).state_dict() for s in (1, 1, 2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)
    tables = [v for name, v in one.items() if name.endswith("relative_position_bias_table")]
    assert all(0.005 < table.std() < 0.015 for table in tables)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (np.zeros((224, 224, 3), np.float32), "shape (224, 224, 3)"),
        (np.zeros((1, 3, 8, 8), np.float32), "shape (1, 3, 8, 8)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "uint8"),
        (np.zeros((0, 8, 8, 3), np.float32), "shape (0, 8, 8, 3)"),
    ],
)
def test_wrong_images_are_named(images, found):
    model = minidat.create_model("dat_tiny", image_size=32)
    with pytest.raises(ShapeError, match=r"expected \(batch, height, width, 3\)") as error:
        model(images)
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minidat.create_model("dat_large"), "expected one of dat_tiny, dat_small"),
        (lambda: minidat.create_model(7), "expected a name or a config such as ModelConfig"),
        (lambda: minidat.create_model("dat_tiny", dtype=np.float16), "expected float32 or float64"),
        (lambda: minidat.create_model("dat_tiny", num_classes=0), "num_classes: found 0"),
        (lambda: minidat.create_model("dat_tiny", image_size=0), "image_size: found"),
        (lambda: dataclasses.replace(get_config("dat_tiny"), drop_path=1.0), "drop_path: found 1.0"),
    ],
)
def test_wrong_configs_are_named(call, message):
    with pytest.raises(ConfigError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(configs())
def test_config_survives_json(config):
    import json

    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("image_size", [(64,), (8, 8, 8), "64", 2.5, None])
def test_image_sizes_are_numbers_of_pixels(image_size):
    if image_size is None:
        assert minidat.create_model("dat_tiny", image_size=np.int64(64)).config.image_size == (64, 64)
        return
    with pytest.raises(ConfigError, match="image_size: found"):
        minidat.create_model("dat_tiny", image_size=image_size)


def test_loading_wrong_values_changes_nothing():
    model = minidat.create_model("dat_tiny", image_size=32, num_classes=2)
    before = {name: value.copy() for name, value in model.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    state["head.bias"] = np.array(["a", "b"])
    with pytest.raises(minidat.MinidatError, match=r"head.bias has dtype <U1, expected numbers"):
        model.load_state_dict(state)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
