"""Attention modules as layers of other networks: built on their own, on any map, trained by an optimizer."""

import numpy as np
import pytest

from minidat.errors import ConfigError
from minidat.models import DeformableAttention, DeformableConfig, NeighborhoodAttention
from minidat.nn import Context
from minidat.training import AdamW, decay_names

DEFORMABLE = {
    "plain": {},
    "dat++": {"groups": 2, "kernel": 7, "stride": 3, "range_factor": None, "position_rule": "dat++"},
    "log_mlp": {"groups": 2, "position_encoding": "log_mlp"},
}
LAYERS = {
    name: lambda s=settings, **k: DeformableAttention.create(12, 4, 8, **s, **k)
    for name, settings in DEFORMABLE.items()
}
LAYERS["neighborhood"] = lambda **k: NeighborhoodAttention.create(12, 4, 3, **k)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [(8, 8), (5, 11), (1, 3)])
def test_a_layer_takes_any_map_and_gives_the_gradient_of_its_input(name, size):
    layer = LAYERS[name](dtype=np.float64)
    rng = np.random.default_rng(0)
    x, direction, d_output = rng.standard_normal((3, 2, *size, 12))
    output, backward = layer.forward(x, Context(gradients=True))
    assert (output.shape, output.dtype) == (x.shape, np.float64)
    step = 1e-7
    difference = ((layer(x + step * direction) - layer(x - step * direction)) * d_output).sum() / (2 * step)
    assert (backward(d_output) * direction).sum() == pytest.approx(difference, rel=1e-5)
    assert all(parameter.grad is not None for _, parameter in layer.named_parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_an_optimizer_trains_a_layer(name):
    layer = LAYERS[name]()
    x, goal = np.random.default_rng(0).standard_normal((2, 2, 8, 8, 12), dtype=np.float32)
    optimizer = AdamW(dict(layer.named_parameters()), decay=decay_names(layer), weight_decay=0.01)
    losses = []
    for _ in range(5):
        output, backward = layer.forward(x, Context(gradients=True))
        losses.append(float(((output - goal) ** 2).mean()))
        layer.zero_grad()
        backward(2 * (output - goal) / output.size)
        optimizer.step(3e-3)
    assert losses == sorted(losses, reverse=True)


def test_the_settings_of_a_layer():
    layer = DeformableAttention.create(12, 4, (6, 9), groups=2, kernel=3, stride=3, offsets=False)
    assert layer.config == DeformableConfig(groups=2, kernel=3, stride=3, offsets=False)
    assert layer.relative_position_bias_table.shape == (4, 11, 17)
    assert layer.sample_grid((6, 9)) == (2, 3)
    assert NeighborhoodAttention.create(12, 4).kernel == 7


@pytest.mark.parametrize("name", LAYERS)
def test_the_seed_and_the_dtype_of_a_layer(name):
    states = [LAYERS[name](seed=seed, dtype=np.float64).state_dict() for seed in (1, 1, 2)]
    assert all(value.dtype == np.float64 for value in states[0].values())
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not np.array_equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize(
    ("create", "problem"),
    [
        (lambda: DeformableAttention.create(10, 4, 8), "DeformableAttention: dim: found 10, expected a multiple"),
        (lambda: DeformableAttention.create(12, 4, 8, groups=3), "groups: found 3, expected a divisor of heads"),
        (lambda: DeformableAttention.create(12, 4, 8, kernel=4), "kernel: found 4, expected an odd number"),
        (lambda: DeformableAttention.create(12, 4, (8, 0)), "map_size"),
        (lambda: DeformableAttention.create(12, 4, 8, position_rule="detr"), "position_rule"),
        (lambda: DeformableAttention.create(12, 4, 8, dtype=np.float16), "dtype"),
        (lambda: NeighborhoodAttention.create(12, 5), "NeighborhoodAttention: dim"),
        (lambda: NeighborhoodAttention.create(12, 4, 4), "neighborhood: found 4, expected an odd number"),
        (lambda: NeighborhoodAttention.create(12, 4, dtype=int), "dtype"),
    ],
)
def test_layers_that_cannot_be_built(create, problem):
    with pytest.raises(ConfigError, match=problem):
        create()
