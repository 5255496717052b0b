"""`minidat bench`: what it reports is complete and is printed. No figure is compared: no test depends on timing."""

import platform
import sys
from dataclasses import asdict

import numpy as np
import pytest

from minidat import create_model, ops
from minidat.benchmark import _operator_line, format_benchmark, run_benchmark
from minidat.errors import ConfigError
from minidat.kernels import KERNELS
from minidat.operator_times import operator_times


@pytest.fixture(scope="module", params=[False, True], ids=["inference", "training"])
def result(request):
    return run_benchmark("dat_tiny", train=request.param, threads=1, seconds=0)


def test_result_is_complete(result):
    assert (result["model"], result["batch"], result["threads"], result["runs"]) == ("dat_tiny", 1, 1, 5)
    inference = result["mode"] == "inference"
    assert (result["session"] is not None) == inference
    for figures in (result, result["pytorch"], *([result["session"]] if inference else [])):
        assert 0 < figures["minimum_milliseconds"] <= figures["milliseconds"]
        assert 28e6 * 4 / 2**20 < figures["peak_memory_mib"] < 4096
    assert result["ratio"] == pytest.approx(result["milliseconds"] / result["pytorch"]["milliseconds"])
    assert result["floor_milliseconds"] > 0
    assert sum(result["operators"].values()) == pytest.approx(1)
    if inference:
        assert result["session"]["helpers"] == 0  # with one thread
        assert result["session"]["ratio"] > 0
    backwards = [op for op in result["operators"] if op.endswith(" backward")]
    assert bool(backwards) == (not inference)


def test_text_shows_the_figures(result):
    text = format_benchmark(result)
    assert f"{result['milliseconds']:.1f} ms" in text
    assert f"{result['ratio']:.2f} (minidat / PyTorch" in text
    assert "linear" in text
    assert ("(session / PyTorch)" in text) == (result["session"] is not None)
    alone = format_benchmark({**result, "session": None, "pytorch": None, "ratio": None})
    assert "nothing to compare with" in alone


def test_a_sessions_memory_includes_its_helpers():
    session = run_benchmark("dat_tiny", threads=2, seconds=0)["session"]
    helpers = 2 if sys.platform == "linux" and platform.machine() == "x86_64" else 0
    assert session["helpers"] == helpers
    assert session["peak_memory_mib"] > 28e6 * 4 / 2**20 + 10 * helpers


def test_a_row_for_each_operator_beside_textbook_pytorch_and_floor():
    config = create_model("dat_tiny", image_size=32).config
    rows = operator_times(create_model(config), np.zeros((1, 32, 32, 3), np.float32))
    assert {row.operator for row in rows} >= {"attention", "conv2d", "layer_norm", "linear", "mlp", "residual"}
    for row in rows:
        assert row.calls > 0
        assert row.textbook > 0
        assert (row.kernel is not None) == (getattr(ops, row.operator) in KERNELS)
        assert (row.floor > 0) == (row.operator in ("attention", "conv2d", "linear", "mlp", "sample_product_grid"))
    assert sum(row.calls for row in rows if row.operator == "mlp") == 12
    line = _operator_line(asdict(rows[0]))
    assert rows[0].operator in line
    assert f"{rows[0].textbook:.2f}" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "dat_huge"}, "model name: found 'dat_huge'"),
        ({"name": "dat_tiny", "batch": 0}, "batch: found 0"),
        ({"name": "dat_tiny", "threads": -1}, "threads: found -1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        run_benchmark(**arguments)
