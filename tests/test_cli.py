"""The command line beyond `classify` (see test_classification): figures, errors, and how long it takes to start."""

import json
import subprocess
import sys

import pytest

from minidat.catalog import list_models
from minidat.commands import main


def test_info_lists_all_models_as_json(capsys):
    assert main(["info", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in models] == list_models()
    tiny = models[0]
    assert (tiny["parameters"], tiny["gflops"]) == (28_319_138, pytest.approx(4.588931392, abs=1e-12))


def test_info_of_one_model(capsys):
    assert main(["info", "dat_base_384"]) == 0
    text = capsys.readouterr().out
    assert "88,178,272" in text
    assert "84.75%" in text
    assert "stage 4" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "dat_huge"], "minidat: error: model name: found 'dat_huge', expected one of dat_tiny"),
        (["bench", "dat_huge"], "minidat: error: model name: found 'dat_huge'"),
        (["bench", "dat_tiny", "--batch", "0"], "minidat: error: batch: found 0, expected a number of at least 1"),
        (["convert", "nowhere.pth", "out.npz"], "minidat: error: nowhere.pth"),
    ],
)
def test_errors_are_one_line_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(message)
    assert output.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_importing_minidat_imports_nothing_heavy():
    """`import minidat` must cost little: no SciPy, no Pillow, not even NumPy until a name is used."""
    code = "import sys, minidat; print([m for m in ('numpy', 'scipy', 'PIL', 'ctypes') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_classifying_imports_no_scipy(tmp_path):
    code = (
        "import sys; from minidat.commands import main; status = main(['classify', sys.argv[1]]); "
        "sys.exit(status or any(m.startswith('scipy') for m in sys.modules))"
    )
    from PIL import Image

    Image.new("RGB", (40, 30), "green").save(tmp_path / "green.png")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "green.png")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
