"""Weights and pictures by name: what a copy of the repository finds, an installed package finds too."""

import os
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

import minidat
from minidat.classification import default_weights
from minidat.errors import CheckpointError, MinidatError
from minidat.files import shipped
from minidat.files.shipped import IMAGES, WEIGHTS, shipped_file

REPOSITORY = Path(__file__).parents[1]


def packed_folders() -> dict[str, str]:
    """What pyproject.toml says is put into the wheel besides the code: path in the repository -> path in the wheel."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    return settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package as the wheel has it, without the code; only `shipped` believes to live there."""
    for source, target in packed_folders().items():
        shutil.copytree(REPOSITORY / source, tmp_path / target)
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "minidat")
    return tmp_path / "minidat"


def test_the_wheel_holds_what_a_checkout_finds(installed):
    for folder in (WEIGHTS, IMAGES):
        files = [file for file in (REPOSITORY / folder).iterdir() if file.suffix != ".md"]
        assert files
        for file in files:
            stem, dot, suffix = file.name.partition(".")
            found = shipped_file(folder, stem, dot + suffix)
            assert found.is_relative_to(installed)
            assert found.read_bytes() == file.read_bytes()


def test_an_unknown_name_is_answered_with_the_names():
    with pytest.raises(MinidatError, match=r"hors: no \.jpg file .* expected one of .*cat, dog, horse"):
        minidat.example_image("hors")
    with pytest.raises(MinidatError, match="README"):
        shipped_file(WEIGHTS, "../README", ".md")


def test_an_installed_package_without_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "minidat")
    with pytest.raises(MinidatError, match="expected one of none"):
        minidat.example_image("horse")


def test_example_image():
    image = minidat.example_image("horse")
    np.testing.assert_array_equal(image, minidat.load_image(REPOSITORY / "examples/images/horse.jpg"))
    assert image.ndim == 3


def test_load_model_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = minidat.load_model(REPOSITORY / "weights/dat_mini_cifar10.npz")
    found = minidat.load_model("dat_mini_cifar10")
    assert found.config == expected.config
    assert found.labels == expected.labels
    for (name, value), (other, same) in zip(found.named_parameters(), expected.named_parameters(), strict=True):
        assert name == other
        np.testing.assert_array_equal(value.value, same.value)
    assert minidat.load_model("dat_mini_bccd").config.name == "retinanet_dat_mini_bccd"


def test_a_file_comes_before_a_name_and_a_folder_after_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("dat_mini_bccd")
    assert minidat.load_model("dat_mini_bccd").config.name == "retinanet_dat_mini_bccd"
    shutil.copy(REPOSITORY / "weights/dat_mini_bccd.npz", "dat_mini_cifar10")
    assert minidat.load_model("dat_mini_cifar10").config.name == "retinanet_dat_mini_bccd"


def test_load_model_names_the_weights_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"dat_mini_cifar: no such file, .* dat_mini_bccd, .*dat_mini_cifar10"):
        minidat.load_model("dat_mini_cifar")
    for path in ("dat_mini_cifar.npz", "./dat_mini_cifar", Path("dat_mini_cifar")):
        with pytest.raises(CheckpointError, match=r"no such file$"):
            minidat.load_model(path)
    os.mkdir("runs")
    with pytest.raises(CheckpointError, match="a folder, expected"):
        minidat.load_model("runs")


def test_default_weights():
    assert default_weights() == shipped_file(WEIGHTS, "dat_mini_cifar10", ".npz")
