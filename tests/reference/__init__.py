"""The models of both papers in PyTorch: the tests' oracle for whole models, and the peer of `minidat bench`.

    from tests.reference import build
    model = build(minidat.models.config.get_config("dat_tiny"))     # a torch.nn.Module, channels first
    logits = model(torch.randn(1, 3, 224, 224))

It computes what the authors' public code computes, with the same PyTorch operators in the same memory layouts and under
the same parameter names (so a state dict of theirs loads strictly), because a peer slower than the original would make
a dishonest race. `tests/test_reference.py` holds it to recordings of the authors' own code.
"""

from .dat import DAT, build

__all__ = ["DAT", "build"]
