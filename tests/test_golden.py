"""Whole models with the formula weights equal the authors' code: logits, stages, sampling positions, all gradients."""

from itertools import product

import numpy as np
import pytest

import minidat
from minidat.checkpoints import convert_state_dict
from minidat.checkpoints.convert import to_authors_state_dict

from .golden import RECORDINGS, formula_state, load_recording
from .golden.formula_weights import golden_input, golden_output_gradient, gradient_digest, sample

# with these weights datplus_tiny magnifies rounding: PyTorch's own float32 logits are off by 1.5e-4 there
FLOAT32_TOLERANCE = {"dat_tiny": 1e-4, "datpp_tiny": 1e-4, "datplus_tiny": 3e-4}
NAMES = {recording: recording.removesuffix("_224") for recording in RECORDINGS}


@pytest.fixture(
    scope="module", params=product(RECORDINGS, ("kernels", "plain")), ids=lambda param: f"{param[0]}-{param[1]}"
)
def run(request):
    """One forward and backward pass in float64, by the kernels or the textbook, beside its recording."""
    name, mode = request.param
    recording, authors_state = load_recording(name), formula_state(name)
    model = minidat.create_model(NAMES[name], dtype=np.float64)
    model.load_state_dict(convert_state_dict(authors_state))
    images = golden_input(len(recording["logits"]), 224).transpose(0, 2, 3, 1)
    context = minidat.Context(gradients=True, trace={}, plain=mode == "plain")
    logits, backward = model.forward(images, context)
    d_images = backward(golden_output_gradient(logits.shape))
    return recording, authors_state, model, images, context.trace, logits, d_images


def test_logits_equal_the_recording(run):
    recording, _, model, images, _, logits, _ = run
    np.testing.assert_allclose(logits, recording["logits"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(model(images), recording["logits"], rtol=0, atol=1e-9)
    assert model.parameter_count() == recording["params"]


def test_stage_outputs_equal_the_recording(run):
    recording, _, model, images, _, _, _ = run
    for i, feature in enumerate(model.features(images)):
        feature = feature.transpose(0, 3, 1, 2)
        assert feature.shape == tuple(recording[f"stage{i}/shape"])
        np.testing.assert_allclose([feature.mean(), feature.std()], recording[f"stage{i}/stats"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(sample(feature), recording[f"stage{i}/at"], rtol=0, atol=1e-9)


def test_sampling_positions_equal_the_recording(run):
    recording, _, _, _, trace, _, _ = run
    recorded = {key.removesuffix("/at") for key in recording if ".pos/at" in key}
    assert len(recorded) == len(trace) > 0
    for path, record in trace.items():
        stage, block = path.split(".")[1], path.split(".")[3]
        key = f"stage{stage}.attn{block}.pos"
        assert record.positions.shape == tuple(recording[f"{key}/shape"])
        np.testing.assert_allclose(sample(record.positions), recording[f"{key}/at"], rtol=0, atol=1e-9)


def test_input_gradient_equals_the_recording(run):
    recording, *_, d_images = run
    found, expected = sample(d_images.transpose(0, 3, 1, 2)), recording["grad_x/at"]
    assert np.abs(found - expected).max() <= 1e-8 * np.abs(expected).max()


def test_every_parameter_gradient_equals_the_recording(run):
    recording, authors_state, model, *_ = run
    gradients = to_authors_state_dict({name: parameter.grad for name, parameter in model.named_parameters()})
    assert gradients.keys() == authors_state.keys()
    for name, gradient in gradients.items():
        assert gradient.shape == authors_state[name].shape
        digest = gradient_digest(gradient)
        expected = recording[f"grad/{name}"]
        # softmax ignores a shift of all keys: that gradient is zero but for rounding
        scale = 1.0 if name.endswith("proj_k.bias") else np.abs(expected).max()
        assert np.abs(digest - expected).max() <= 1e-8 * scale, name


def test_float32_logits_are_near_the_recording(run):
    recording, authors_state, model, images, *_ = run
    single = minidat.create_model(model.config)
    single.load_state_dict(convert_state_dict(authors_state))
    logits = single(images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, recording["logits"], rtol=0, atol=FLOAT32_TOLERANCE[single.config.name])
