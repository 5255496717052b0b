"""Operators of dense prediction equal what the authors' frameworks recorded for them (`golden/dense/ops.npz`)."""

import numpy as np
import pytest

from minidat.ops import adaptive_average_pool, resize

from .golden import FOLDER


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "dense" / "ops.npz") as arrays:
        return {name.removeprefix("interp/"): arrays[name] for name in arrays if name.startswith("interp/")}


X = np.random.default_rng(106).standard_normal((1, 2, 9, 11)).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("size", [(18, 22), (17, 23), (40, 31), (5, 7), (9, 11), (1, 1)])
def test_bilinear_resize(recorded: dict[str, np.ndarray], size: tuple[int, int]) -> None:
    output, _ = resize(X, size=size)
    np.testing.assert_allclose(
        output.transpose(0, 3, 1, 2), recorded[f"bilinear_{size[0]}x{size[1]}"], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_adaptive_average_pool(recorded: dict[str, np.ndarray], side: int) -> None:
    output, _ = adaptive_average_pool(X, size=(side, side))
    np.testing.assert_allclose(output.transpose(0, 3, 1, 2), recorded[f"adaptive_avg_{side}"], rtol=0, atol=1e-12)
