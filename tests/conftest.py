"""Settings of the whole suite: how many examples Hypothesis tries, and how many threads the numerical libraries use.
And a small weights file.

`pytest --hypothesis-profile thorough` tries ten times as many examples.
"""

import os
from pathlib import Path

import hypothesis
import pytest

# Read by PyTorch and by NumPy's OpenBLAS when they are imported, which is later than this. PyTorch sees tiny arrays
# here, on which its threads mostly wait for each other; OpenBLAS uses its second thread for the whole models only.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import numpy as np

np.set_printoptions(threshold=16, edgeitems=1)  # a failing example is named by its shapes and seeds, not by its numbers

for profile, examples in (("quick", 50), ("thorough", 500)):
    hypothesis.settings.register_profile(
        profile, max_examples=examples, deadline=None, print_blob=True, derandomize=False
    )
hypothesis.settings.load_profile("quick")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a real model, random and small, of three classes. Not to be changed."""
    import minidat
    from minidat.models import DeformableConfig, ModelConfig, StageConfig

    stages = tuple(
        StageConfig(8 * 2**i, 2, ("window", "deformable"), window=2, deformable=DeformableConfig(2, 3))
        for i in range(4)
    )
    config = ModelConfig("tiny", (32, 32), 3, stages, resize_size=36)
    path = tmp_path_factory.mktemp("weights") / "tiny.npz"
    minidat.save_npz(path, minidat.create_model(config).state_dict(), config, ["ant", "bee", "cow"])
    return path
