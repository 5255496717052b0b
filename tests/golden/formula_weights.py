"""Deterministic weights for comparing implementations without downloading any.

Every tensor of a state dict is filled from its own name, so two programs that agree on names and
shapes hold the same float64 numbers. The recorded outputs (*.npz) were computed in float64 by the
authors' PyTorch code with these weights and `golden_input`.
"""

import zlib

import numpy as np


def formula_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float64 value of the parameter called `name` (the authors' state-dict name)."""
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if any(part in name for part in ("relative_position_bias_table", "rpe_table", "rpb")):
        return 0.5 * z
    if name.endswith("running_var"):
        return np.exp(0.2 * z)
    if len(shape) == 1:
        return 1 + 0.1 * z if name.endswith(".weight") else 0.1 * z
    z = z / np.sqrt(np.prod(shape[1:]))
    return 2 * z if name.endswith("conv_offset.3.weight") else z


def formula_state_dict(keys_tsv: str) -> dict[str, np.ndarray]:
    """All parameters listed in a `*.keys.tsv` file (buffers are left out)."""
    state = {}
    with open(keys_tsv) as lines:
        for line in lines:
            name, shape, _, kind = line.rstrip("\n").split("\t")
            if kind == "param":
                state[name] = formula_tensor(name, tuple(map(int, shape.split("x"))))
    return state


def dense_state_dict(keys_tsv: str) -> dict[str, np.ndarray]:
    """All that a `dense/*.keys.tsv` file lists, buffers too: a detector's or segmentor's 'state_dict'."""
    state = {}
    with open(keys_tsv) as lines:
        for line in lines:
            name, shape, _ = line.rstrip("\n").split("\t")
            state[name] = np.int64(0) if shape == "()" else formula_tensor(name, tuple(map(int, shape.split(","))))
    return state


def golden_input(batch: int, size: int) -> np.ndarray:
    """The input image batch, float64, (batch, 3, size, size) — channels first, as PyTorch has it."""
    return np.random.default_rng(1234).standard_normal((batch, 3, size, size))


def golden_output_gradient(shape: tuple[int, ...]) -> np.ndarray:
    """The gradient fed to the logits when the recorded gradients were computed."""
    return np.random.default_rng(99).standard_normal(shape)


def sample(tensor: np.ndarray) -> np.ndarray:
    """The 64 entries of a tensor, in the authors' layout (B, C, H, W), that a recording keeps."""
    flat = tensor.ravel()
    return flat[np.random.default_rng(7).integers(0, flat.size, 64)]


def gradient_digest(gradient: np.ndarray) -> np.ndarray:
    """A parameter gradient's (L2 norm, dot product with a fixed random tensor), in the authors' layout."""
    return np.array(
        [np.linalg.norm(gradient), (gradient * np.random.default_rng(5).standard_normal(gradient.shape)).sum()]
    )
