"""Chapter 1: patch embedding as a reshape and a matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(
    numbers: Numbers, *, batch: int, patch_rows: int, patch_columns: int, patch: int, channels: int, features: int
) -> dict[str, Any]:
    return {
        "images": numbers.normal(batch, patch_rows * patch, patch_columns * patch, channels),
        "weight": numbers.normal(features, channels, patch, patch),
        "bias": numbers.normal(features),
        "patch": patch,
    }


def reference(images: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, patch: int) -> np.ndarray:
    return ops.conv2d(images, weight, bias, stride=patch)[0]


def patches(images: np.ndarray, patch: int) -> np.ndarray:
    """(B, h, w, y in the patch, x in the patch, channel)."""
    batch, height, width, channels = images.shape
    return images.reshape(batch, height // patch, patch, width // patch, patch, channels).swapaxes(2, 3)


def project(pixels: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """pixels (B, h, w, y, x, c), weight (D, c, y, x) -> (B, h, w, D)."""
    return np.einsum("bhwyxc,dcyx->bhwd", pixels, weight) + bias


def cut_in_memory_order(images: np.ndarray, patch: int) -> np.ndarray:
    batch, height, width, channels = images.shape
    return images.reshape(batch, height // patch, width // patch, patch, patch, channels)


def flat_product(pixels: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The pixels in the order y, x, channel times the weights in the order channel, y, x."""
    return pixels.reshape(*pixels.shape[:3], -1) @ weight.reshape(len(weight), -1).T + bias


UNCUT = "the image is cut in memory order: the axis of a patch's rows must first move behind that of the patch columns"

EXERCISE = Exercise(
    chapter="01-patches",
    functions=(
        Function(
            name="patch_embedding",
            hints=Hints(
                where="The numbers of a patch are spread over the rows of the image. Which axes does images.reshape(B, "
                "H // p, p, W // p, p, C) have, and which of them belong to one patch? Try p = 1 first: then it is a "
                "matrix product of the channels and nothing else.",
                idea="Bring the two axes inside a patch together with transpose, and put the channels where the weight "
                "has them: it is (D, C, y, x). Numbers of the patches and of the weight must be in the same order "
                "before both are flattened.",
                formula="reshape to (B, H/p, p, W/p, p, C), transpose to (B, H/p, W/p, C, p, p), flatten the last "
                "three axes; then\n"
                "    output = patches @ weight.reshape(D, -1).T + bias",
            ),
            sizes={
                "batch": (1, 2), "patch_rows": (1, 2), "patch_columns": (1, 2, 3),
                "patch": (1, 2, 3), "channels": (1, 2), "features": (1, 2),
            },
            case=case,
            reference=reference,
            mistakes=(
                Mistake(
                    "output",
                    "the numbers of a patch are in the order (y, x, channel) and those of a weight in (channel, y, x): "
                    "bring both into the same order before the product",
                    lambda images, weight, bias, patch: flat_product(patches(images, patch), weight, bias),
                ),
                Mistake(
                    "output", UNCUT,
                    lambda images, weight, bias, patch: project(cut_in_memory_order(images, patch), weight, bias),
                ),
                Mistake(
                    "output", UNCUT + "; besides, its pixels are in the order (y, x, channel), the weights in another",
                    lambda images, weight, bias, patch: flat_product(cut_in_memory_order(images, patch), weight, bias),
                ),
                Mistake(
                    "output", "y and x are swapped inside each patch (or in the weight)",
                    lambda images, weight, bias, patch: project(
                        patches(images, patch).swapaxes(3, 4), weight, bias),
                ),
                Mistake(
                    "output", "the bias is missing",
                    lambda images, weight, bias, patch: reference(images, weight, 0 * bias, patch=patch),
                ),
            ),
        ),
    ),
)  # fmt: skip
