"""The PyTorch transcription in `tests/reference` is held to recordings of the authors' own code (`tests/golden`)."""

import numpy as np
import pytest
import torch
from torch import nn

from minidat.models.config import (
    POSITION_ENCODINGS,
    POSITION_RULES,
    DeformableConfig,
    ModelConfig,
    StageConfig,
    get_config,
    list_models,
)

from . import golden
from .golden.formula_weights import golden_input, golden_output_gradient, gradient_digest, sample
from .reference import build
from .reference.neighborhood_attention import NeighborhoodAttention, neighborhood_attention

PARAMETERS = {
    "dat_tiny": 28_319_138,
    "dat_small": 49_700_402,
    "dat_base": 87_881_632,
    "dat_base_384": 88_178_272,
    "datpp_tiny": 23_962_876,
    "datpp_small": 53_127_366,
    "datpp_base": 93_690_640,
    "datpp_base_384": 93_690_640,
    "datplus_tiny": 22_772_796,
}


def model_name(key_file: str) -> str:
    """The published model that a file of keys or recordings belongs to: "dat_tiny_224" is of dat_tiny."""
    return key_file.removesuffix("_224")


def build_without_values(name: str) -> nn.Module:
    with torch.device("meta"):
        return build(get_config(name))


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


# --- names, shapes, counts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    assert sum(parameter.numel() for parameter in build_without_values(name).parameters()) == PARAMETERS[name]


def test_every_published_model_is_counted_and_has_its_keys():
    assert set(PARAMETERS) == set(list_models()) == {model_name(file) for file in golden.KEY_FILES}


@pytest.mark.parametrize("file", golden.KEY_FILES)
def test_names_and_shapes_are_the_authors(file):
    model = build_without_values(model_name(file))
    expected = {key.name: (key.kind, key.shape) for key in golden.keys(file)}
    found = {name: ("param", tuple(parameter.shape)) for name, parameter in model.named_parameters()}
    found |= {name: ("buffer", tuple(buffer.shape)) for name, buffer in model.named_buffers()}
    assert found == expected


# --- the recordings ---------------------------------------------------------------------------------------------------


class Run:
    """One recording, and the same quantities from the transcription: computed once for all the tests below."""

    def __init__(self, name: str) -> None:
        self.recording = golden.load_recording(name)
        self.model = build(get_config(model_name(name))).double().eval()
        state = {key: torch.from_numpy(value) for key, value in golden.formula_state(name).items()}
        self.model.load_state_dict(state, strict=True)
        images = torch.from_numpy(golden_input(len(self.recording["logits"]), 224)).requires_grad_()
        logits = self.model(images)
        logits.backward(torch.from_numpy(golden_output_gradient(tuple(logits.shape))))
        with torch.no_grad():
            features = self.model.features(images)
        self.logits = logits.detach().numpy()
        self.arrays = {"grad_x": images.grad.numpy()}
        self.arrays |= {f"stage{i}": feature.numpy() for i, feature in enumerate(features)}
        self.arrays |= {
            f"stage{i}.attn{j}.pos": attention.last_positions.numpy()
            for i, stage in enumerate(self.model.stages)
            for j, attention in enumerate(stage.attns)
            if hasattr(attention, "last_positions")
        }


@pytest.fixture(scope="module", params=golden.RECORDINGS)
def run(request):
    return Run(request.param)


def test_logits_are_the_recorded_ones(run):
    np.testing.assert_allclose(run.logits, run.recording["logits"], rtol=0, atol=1e-9)


def test_stages_positions_and_input_gradient_are_the_recorded_ones(run):
    recorded = {key.removesuffix("/at") for key in run.recording if key.endswith("/at")}
    assert recorded == set(run.arrays)
    for name, array in run.arrays.items():
        tolerance = 1e-8 if name == "grad_x" else 1e-9
        assert array.shape == tuple(run.recording[f"{name}/shape"]), name
        assert relative_error(sample(array), run.recording[f"{name}/at"]) < tolerance, name
        assert relative_error(np.array([array.mean(), array.std()]), run.recording[f"{name}/stats"]) < tolerance, name


def test_parameter_gradients_are_the_recorded_ones(run):
    parameters = dict(run.model.named_parameters())
    assert {key.removeprefix("grad/") for key in run.recording if key.startswith("grad/")} == set(parameters)
    for name, parameter in parameters.items():
        digest, recorded = gradient_digest(parameter.grad.numpy()), run.recording[f"grad/{name}"]
        # the softmax ignores a shift of all scores of a query, so the gradient of a key's bias is exactly zero
        scale = 1.0 if name.endswith("proj_k.bias") else recorded[0]
        assert np.abs(digest - recorded).max() < 1e-8 * scale, name


# --- what no recording covers -----------------------------------------------------------------------------------------


def one_query_at_a_time(query, key, value, bias):
    """Neighborhood attention as its definition reads, (B, heads, H, W, d)."""
    height, width = query.shape[2:4]
    kernel = (bias.shape[1] + 1) // 2
    out = torch.empty_like(query)
    for y in range(height):
        for x in range(width):
            top, left = (min(max(i - kernel // 2, 0), n - kernel) for i, n in ((y, height), (x, width)))
            rows, columns = slice(top, top + kernel), slice(left, left + kernel)
            scores = torch.einsum("bhd,bhijd->bhij", query[:, :, y, x], key[:, :, rows, columns])
            i, j = top - y + kernel - 1, left - x + kernel - 1
            scores = scores + bias[:, i : i + kernel, j : j + kernel]
            weights = scores.flatten(2).softmax(dim=-1).reshape(scores.shape)
            out[:, :, y, x] = torch.einsum("bhij,bhijd->bhd", weights, value[:, :, rows, columns])
    return out


@pytest.mark.parametrize("size", [(3, 3), (5, 4), (4, 15), (9, 29)])
@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
def test_neighborhood_attention_is_its_definition(size, kernel):
    generator = torch.Generator().manual_seed(kernel)
    height, width = (max(n, kernel) for n in size)
    qkv = torch.randn(3, 2, 3, height, width, 4, dtype=torch.float64, generator=generator)
    bias = torch.randn(3, 2 * kernel - 1, 2 * kernel - 1, dtype=torch.float64, generator=generator)
    expected = one_query_at_a_time(*qkv, bias)
    torch.testing.assert_close(neighborhood_attention(*qkv, bias), expected, rtol=0, atol=1e-12)
    single = neighborhood_attention(*qkv.float(), bias.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 4)])
def test_a_map_smaller_than_the_kernel_is_padded_before_the_first_linear_layer(size):
    torch.manual_seed(0)
    module = NeighborhoodAttention(8, 2, 7).double()
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    padded = torch.zeros(2, 8, max(size[0], 7), max(size[1], 7), dtype=torch.float64)
    padded[:, :, : size[0], : size[1]] = x
    torch.testing.assert_close(module(x), module(padded)[:, :, : size[0], : size[1]], rtol=0, atol=1e-12)


def small_config(deformable: DeformableConfig, **settings) -> ModelConfig:
    """Four narrow stages with each kind of attention, for images of 64 x 32 pixels: maps of 16 x 8 to 2 x 1."""
    blocks = ("window", "deformable", "neighborhood")
    stages = tuple(
        StageConfig(
            8 * 2**i, 2, (*blocks, "shifted_window") if i < 3 else blocks, window=2 if i < 3 else 1, neighborhood=3,
            deformable=deformable,
        )
        for i in range(4)
    )  # fmt: skip
    return ModelConfig("small", (64, 32), 5, stages, resize_size=64, **settings)


OPTIONS = [
    (rule, encoding, offsets, range_factor)
    for rule in POSITION_RULES
    for offsets, range_factor in ((True, 2.0), (True, None), (False, 2.0))
    for encoding in (POSITION_ENCODINGS if offsets or rule == "dat" else ("none",))
]


@pytest.mark.parametrize(("rule", "encoding", "offsets", "range_factor"), OPTIONS)
def test_every_option_gives_finite_logits_and_positions(rule, encoding, offsets, range_factor):
    deformable = DeformableConfig(2, 3, 1, range_factor, rule, encoding, offsets)
    everything = {"convolutional_patches": True, "local_perception": True, "convolutional_mlp": True}
    config = small_config(deformable, **everything, layer_scale=0.5, drop_path=0.3)
    model = build(config)
    images = torch.randn(2, 3, 64, 32)
    model(images).sum().backward()  # stochastic depth is on
    model.eval()
    with torch.inference_mode():
        logits, features = model(images), model.features(images)
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    assert [feature.shape for feature in features] == [(2, 8 * 2**i, *config.map_size(i)) for i in range(4)]
    positions = [stage.attns[1].last_positions for stage in model.stages]
    assert [p.shape for p in positions] == [(2, 2, *config.map_size(i), 2) for i in range(4)]
    assert all(p.isfinite().all() for p in positions)
    if range_factor is None:
        assert all(p.abs().max() <= 1 for p in positions)
    if not offsets:
        assert torch.equal(positions[0], positions[0][:1, :1].expand(2, 2, -1, -1, -1))


def test_the_one_cell_axis_of_datpp_lies_at_the_center():
    model = build(small_config(DeformableConfig(2, 3, 1, 2.0, "dat++"))).eval()
    model(torch.randn(1, 3, 64, 32))
    positions = model.stages[3].attns[1].last_positions  # of a map of 2 x 1
    assert torch.equal(positions[..., 1], torch.zeros(1, 2, 2, 1))


def test_stochastic_depth_is_active_in_training_only():
    torch.manual_seed(0)
    model = build(small_config(DeformableConfig(2, 3), drop_path=0.9))
    images = torch.randn(1, 3, 64, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
