"""Settings of the whole suite: how many examples Hypothesis tries, and how many threads the numerical libraries use.

`pytest --hypothesis-profile thorough` tries ten times as many examples.
"""

import os

import hypothesis

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
