"""AdamW and gradient clipping against PyTorch's; which weights are decayed against the authors' rule."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minidat.checkpoints.convert import to_authors_state_dict
from minidat.errors import CheckpointError, ConfigError
from minidat.models import DAT, ModelConfig, get_config, list_models
from minidat.models.neighborhood_attention import NeighborhoodAttention
from minidat.models.window_attention import WindowAttention
from minidat.nn import Linear, Parameter
from minidat.nn.initializers import constant
from minidat.training import AdamW, clip_gradients, decay_names

from .checks import SMALLEST_SCALE, assert_close, tiny_chunks
from .strategies import LAYOUTS, dtypes, normal, seeds, shapes, with_layout
from .test_models import configs


def parameter(value: np.ndarray) -> Parameter:
    made = Parameter(value.shape, constant(0.0))
    made.value = value
    return made


@st.composite
def parameter_sets(draw: st.DrawFn) -> dict[str, Parameter]:
    """One to four parameters of one dtype, called a, b, ..., of up to 80 numbers each."""
    dtype, seed = draw(dtypes()), draw(seeds())
    drawn = draw(st.lists(shapes(axes=(1, 3), longest=4), min_size=1, max_size=4))
    return {"abcd"[i]: parameter(normal(shape, seed + i).astype(dtype)) for i, shape in enumerate(drawn)}


def set_gradients(parameters: dict[str, Parameter], rng: np.random.Generator, layout: str = "contiguous") -> None:
    for p in parameters.values():
        scale = 10.0 ** rng.integers(-3, 3)
        p.grad = with_layout((scale * rng.standard_normal(p.shape)).astype(p.value.dtype), layout)


# --- AdamW ------------------------------------------------------------------------------------------------------------


@given(
    parameter_sets(),
    st.sets(st.sampled_from("abcd")),
    st.sampled_from([0.0, 0.05, 3.0]),
    st.sampled_from([(0.9, 0.999), (0.5, 0.7), (0.0, 0.0)]),
    st.sampled_from([1e-8, 0.3]),
    st.lists(st.sampled_from([0.0, 1e-3, 0.2]), min_size=1, max_size=6),
    st.sampled_from(LAYOUTS),
    seeds(),
)
def test_adamw_is_pytorchs(
    parameters: dict[str, Parameter],
    decay: set[str],
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    rates: list[float],
    layout: str,
    seed: int,
) -> None:
    decay &= set(parameters)
    tensors = {name: torch.tensor(p.value, requires_grad=True) for name, p in parameters.items()}
    groups = [
        {"params": [tensors[name] for name in sorted(decay)], "weight_decay": weight_decay},
        {"params": [tensors[name] for name in tensors if name not in decay], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1.0, betas=betas, eps=eps)
    optimizer = AdamW(parameters, decay=decay, weight_decay=weight_decay, betas=betas, eps=eps)
    rng, largest = np.random.default_rng(seed), dict.fromkeys(parameters, 0.0)
    for rate in rates:
        set_gradients(parameters, rng, layout)
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(np.ascontiguousarray(parameters[name].grad))
            largest[name] = max(largest[name], float(tensor.grad.abs().max()))
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
        with tiny_chunks():
            optimizer.step(rate)

    state = optimizer.state_dict()
    assert state["steps"] == len(rates)
    for name, p in parameters.items():
        tolerance = 1e-11 if p.value.dtype == np.float64 else 1e-5
        moments = reference.state[tensors[name]]
        for got, expected, scale in (  # gradients of both signs may leave little of a moment
            (p.value, tensors[name].detach(), SMALLEST_SCALE[p.value.dtype.type]),
            (state[f"first_moment.{name}"], moments["exp_avg"], largest[name]),
            (state[f"second_moment.{name}"], moments["exp_avg_sq"], 0.0),
        ):
            assert got.dtype == p.value.dtype
            assert_close(got, expected.numpy(), tolerance, name, smallest=scale)


def test_a_step_works_in_place_and_leaves_gradients_alone() -> None:
    """But for a value that is read-only or not contiguous: that is replaced."""
    own, frozen, turned = (np.ones((3, 4), np.float32) for _ in range(3))
    frozen.flags.writeable = False
    parameters = {"own": parameter(own), "frozen": parameter(frozen), "turned": parameter(turned.T)}
    for p in parameters.values():
        p.grad = np.ones(p.shape, np.float32)
        p.grad.flags.writeable = False
    AdamW(parameters, decay=()).step(0.5)
    assert parameters["own"].value is own
    for p in parameters.values():
        np.testing.assert_allclose(p.value, 0.5, rtol=1e-5)  # the first step is as long as the rate
        assert p.grad is not None
        assert np.all(p.grad == 1)
    assert np.all(frozen == 1)


@given(parameter_sets(), st.integers(0, 3), st.integers(1, 3), seeds())
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    parameters: dict[str, Parameter], before: int, after: int, seed: int
) -> None:
    """Through the bytes of an .npz, to the last bit."""
    rng = np.random.default_rng(seed)
    optimizer = AdamW(parameters, decay=["a"])
    for _ in range(before):
        set_gradients(parameters, rng)
        optimizer.step(0.1)
    file = io.BytesIO()
    np.savez(file, **optimizer.state_dict())
    copies = {name: parameter(p.value.copy()) for name, p in parameters.items()}
    resumed = AdamW(copies, decay=["a"])
    file.seek(0)
    with np.load(file, allow_pickle=False) as saved:
        resumed.load_state_dict(dict(saved))
    for _ in range(after):
        set_gradients(parameters, rng)
        for name, p in parameters.items():
            copies[name].grad = p.grad
        optimizer.step(0.1)
        resumed.step(0.1)
    assert all(np.array_equal(p.value, copies[name].value) for name, p in parameters.items())
    expected = optimizer.state_dict()
    assert all(np.array_equal(array, expected[name]) for name, array in resumed.state_dict().items())


def test_a_state_that_does_not_fit_is_refused_whole() -> None:
    optimizer = AdamW({"a": parameter(np.ones((2, 3))), "b": parameter(np.ones(4))}, decay=())
    for p in optimizer.parameters.values():
        p.grad = np.ones(p.shape)
    optimizer.step(0.1)
    good = {name: np.array(array) for name, array in optimizer.state_dict().items()}
    bad = {name: array for name, array in good.items() if name != "first_moment.a"}
    bad |= {"more": np.ones(1), "second_moment.b": np.ones(5), "second_moment.a": np.ones((2, 3), np.float32)}
    with pytest.raises(CheckpointError) as caught:
        optimizer.load_state_dict(bad)
    for part in ("missing first_moment.a", "unexpected more", "float64(5,), expected", "float32(2, 3)"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(np.array_equal(array, good[name]) for name, array in optimizer.state_dict().items())


def test_a_parameter_without_a_gradient_is_an_error_and_nothing_moves() -> None:
    parameters = {"a": parameter(np.ones(3)), "b": parameter(np.ones(3))}
    parameters["a"].grad = np.ones(3)
    optimizer = AdamW(parameters, decay=())
    with pytest.raises(ConfigError, match="b without a gradient"):
        optimizer.step(0.1)
    assert np.all(parameters["a"].value == 1)
    assert optimizer.state_dict()["steps"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_decay": -0.1}, "weight_decay: found -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay: found nan"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"betas": (0.9,)}, "betas"),
        ({"eps": -1e-8}, "eps"),
        ({"decay": ["a", "c"]}, "decay: c not among"),
        ({"parameters": {}, "decay": []}, "parameters: found none"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"parameters": {"a": parameter(np.ones(3))}, "decay": ["a"], **changes}
    with pytest.raises(ConfigError, match=message):
        AdamW(arguments.pop("parameters"), **arguments)


@pytest.mark.parametrize("rate", [-1e-3, float("nan"), float("inf")])
def test_a_rate_that_is_no_rate_is_refused(rate: float) -> None:
    a = parameter(np.ones(3))
    a.grad = np.ones(3)
    with pytest.raises(ConfigError, match="learning_rate"):
        AdamW({"a": a}, decay=()).step(rate)


# --- which weights are decayed ----------------------------------------------------------------------------------------


def authors_decay(model: DAT) -> set[str]:
    """Our names of what the authors' rule decays: their names and shapes, their words."""
    parameters = dict(model.named_parameters())
    numbered = {name: np.broadcast_to(np.float64(i), p.shape) for i, (name, p) in enumerate(parameters.items())}
    theirs = to_authors_state_dict(numbered)
    exempt = ("relative_position_bias_table", "rpe_table")
    decayed = [
        value
        for name, value in theirs.items()
        if value.ndim > 1 and not name.endswith(".bias") and not any(word in name for word in exempt)
    ]
    names = list(parameters)
    return {names[int(value.flat[0])] for value in decayed}


@pytest.mark.parametrize("name", list_models())
def test_published_models_are_decayed_as_the_authors_do(name: str) -> None:
    model = DAT(get_config(name))
    assert decay_names(model) == authors_decay(model)


@settings(max_examples=30)
@given(configs())
def test_any_model_is_decayed_as_the_authors_would(config: ModelConfig) -> None:
    """All kinds of attention, position encoding, patches and MLP."""
    model = DAT(config)
    assert decay_names(model) == authors_decay(model)


def test_tables_are_told_apart_by_their_module() -> None:
    """They have the same name; also where the attention is the whole model."""
    assert decay_names(NeighborhoodAttention(8, 2, 3)) == {
        "qkv.weight",
        "projection.weight",
        "relative_position_bias_table",
    }
    assert decay_names(WindowAttention(8, 2, 3, shifted=False)) == {"qkv.weight", "projection.weight"}
    assert decay_names(Linear(3, 4)) == {"weight"}


# --- clipping ---------------------------------------------------------------------------------------------------------


@given(parameter_sets(), st.sampled_from([1e-4, 1.0, 30.0, float("inf")]), st.sampled_from(LAYOUTS), seeds())
def test_clipping_is_pytorchs(parameters: dict[str, Parameter], max_norm: float, layout: str, seed: int) -> None:
    set_gradients(parameters, np.random.default_rng(seed), layout)
    tensors = []
    for p in parameters.values():
        tensor = torch.tensor(p.value, requires_grad=True)
        tensor.grad = torch.tensor(np.ascontiguousarray(p.grad))
        tensors.append(tensor)
    expected = float(torch.nn.utils.clip_grad_norm_(tensors, max_norm))
    norm = clip_gradients(parameters.values(), max_norm)
    assert isinstance(norm, float)
    tolerance = 1e-12 if tensors[0].dtype == torch.float64 else 1e-5
    assert norm == pytest.approx(expected, rel=tolerance)
    for p, tensor in zip(parameters.values(), tensors, strict=True):
        assert p.grad is not None
        assert tensor.grad is not None
        assert p.grad.dtype == p.value.dtype
        assert_close(p.grad, tensor.grad.numpy(), tolerance, "gradient", smallest=0.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_norm_that_is_not_finite_is_returned_and_nothing_is_clipped(bad: float) -> None:
    """1e30 is finite, its square in float32 is not."""
    a, b, without = (parameter(np.ones(2, np.float32)) for _ in range(3))
    a.grad, b.grad = np.array([3.0, bad], np.float32), np.array([100.0, 0.0], np.float32)
    kept = a.grad, b.grad
    assert not np.isfinite(clip_gradients([a, b, without], 1.0))
    assert (a.grad, b.grad, without.grad) == (*kept, None)
    assert a.grad[0] == 3


def test_an_array_that_is_the_gradient_of_two_parameters_is_scaled_once() -> None:
    a, b = parameter(np.ones(2)), parameter(np.ones(2))
    a.grad = b.grad = np.array([3.0, 4.0])
    assert clip_gradients(iter([a, b]), 1.0) == pytest.approx(50**0.5)
    assert a.grad is not None
    assert b.grad is not None
    assert np.linalg.norm([a.grad, b.grad]) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, float("nan")])
def test_a_norm_to_clip_at_must_be_positive(max_norm: float) -> None:
    with pytest.raises(ConfigError, match="max_norm"):
        clip_gradients([], max_norm)


def test_no_gradients_have_the_norm_zero() -> None:
    assert clip_gradients([parameter(np.ones(2))], 1.0) == 0


def test_weights_of_a_valley_reach_its_bottom() -> None:
    """What the whole thing is for."""
    target = np.array([[1.0, -2.0], [0.5, 3.0]])
    weight = parameter(np.zeros((2, 2)))
    gradient: Callable[[np.ndarray], np.ndarray] = lambda w: 2 * (w - target)  # noqa: E731
    optimizer = AdamW({"w": weight}, decay=())
    for step in range(400):
        weight.grad = gradient(weight.value)
        optimizer.step(0.1 * (1 - step / 400))
    np.testing.assert_allclose(weight.value, target, atol=1e-2)
