"""Chapter 20: RoIAlign, and its gradient by the map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(numbers: Numbers, *, height: int, width: int, channels: int, boxes: int, size: int) -> dict[str, Any]:
    corners = np.stack([inside(numbers, n, boxes) for n in (width, height)], axis=-1)  # (boxes, start and end, x and y)
    return {"x": numbers.normal(height, width, channels), "boxes": corners.reshape(boxes, 4), "size": size}


def inside(numbers: Numbers, length: int, boxes: int) -> np.ndarray:
    """(boxes, 2): start and end in [0, length], in quarters of a pixel or anywhere, at least 1/4 apart."""
    start = numbers.rng.integers(0, 4 * length, boxes) / 4
    end = start + (numbers.rng.integers(1, 4 * length + 1, boxes) / 4).clip(max=length - start)
    if not numbers.simple:
        start, end = start + numbers.rng.uniform(0, 0.1, boxes), end - numbers.rng.uniform(0, 0.1, boxes)
    return np.stack([start, end], axis=1)


def reference(
    x: np.ndarray, boxes: np.ndarray, *, size: int
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray]]]:
    output, backward = ops.roi_align(x[None], boxes=boxes, images=np.zeros(len(boxes), int), size=size, scale=1.0)
    return output, lambda d_output: (backward(d_output)[0][0],)


def line(
    start: float, end: float, bins: int, length: int, *, half: float = 0.5, shift: float = 0.5, single: bool = False,
    mean: bool = True, zeros: bool = False,
) -> np.ndarray:  # fmt: skip
    """(bins, length): how much each pixel counts in each bin, on one axis, with the ways to go wrong as settings."""
    width = (end - start) / bins
    samples = 1 if single else int(np.ceil(width))
    places = start - half + width * (np.arange(bins)[:, None] + (np.arange(samples) + shift) / samples)
    near = places if zeros else places.clip(0, length - 1)
    hats = np.maximum(0, 1 - np.abs(near[..., None] - np.arange(length)))
    return hats.sum(axis=1) / (samples if mean else 1)


Lines = list[tuple[np.ndarray, np.ndarray]]


def lines(x: np.ndarray, boxes: np.ndarray, size: int, **change: Any) -> Lines:
    height, width, _ = x.shape
    return [(line(y1, y2, size, height, **change), line(x1, x2, size, width, **change)) for x1, y1, x2, y2 in boxes]


def pool(x: np.ndarray, weights: Lines) -> np.ndarray:
    return np.stack([np.einsum("ir,rsc,js->ijc", along_y, x, along_x) for along_y, along_x in weights])


def spread(x: np.ndarray, weights: Lines, d_output: np.ndarray) -> np.ndarray:
    return sum(
        (np.einsum("ir,ijc,js->rsc", y, d, along_x) for (y, along_x), d in zip(weights, d_output, strict=True)),
        np.zeros_like(x),
    )


def wrong(**change: Any) -> Callable[..., np.ndarray]:
    """The output with lines that go wrong in one way."""

    def result(x: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
        return pool(x, lines(x, boxes, size, **change))

    return result


def wrong_gradient(**change: Any) -> Callable[..., np.ndarray]:
    def result(x: np.ndarray, boxes: np.ndarray, size: int, d_output: np.ndarray) -> np.ndarray:
        return spread(x, lines(x, boxes, size, **change), d_output)

    return result


Rounding = Callable[[np.ndarray], np.ndarray]


def rounded(boxes: np.ndarray, start: Rounding, end: Rounding) -> np.ndarray:
    """To whole pixels, of which there is at least one."""
    starts = start(boxes[:, :2])
    return np.concatenate([starts, np.maximum(end(boxes[:, 2:]), starts + 1)], axis=1)


EXERCISE = Exercise(
    chapter="20-regions",
    functions=(
        Function(
            name="roi_align",
            hints=Hints(
                where="Begin with one axis: a line of pixels, a stretch of it from start to end, cut into `size` bins. "
                "Where are the samples of a bin, and which two pixels does each of them read, with which weights?",
                idea="Bin weights are products: the mean over rows and columns of samples is a mean over the rows of a "
                "mean over the columns. So for each box there is a matrix Y (size, H) with the weight of each row of "
                "the map in each row of bins, and X (size, W) alike, and the output is Y x X^T, channel by channel. "
                "It is linear in x: backward is the same with both matrices transposed, added up over the boxes.",
                formula="on one axis of n pixels, with bin = (end - start) / size, s = ceil(bin), and t = start - 0.5 "
                "+ bin * (i + (k + 0.5) / s) for k = 0 ... s - 1,\n"
                "    Y[i, r] = mean over k of max(0, 1 - |clip(t, 0, n - 1) - r|)\n"
                "    output[b] = np.einsum('ir,rsc,js->ijc', Y, x, X)\n"
                "    d_x = sum over b of np.einsum('ir,ijc,js->rsc', Y, d_output[b], X)",
            ),
            sizes={"height": (1, 2, 3, 4), "width": (1, 2, 3, 4), "channels": (1, 2), "boxes": (1, 2), "size": (1, 2)},
            case=case,
            reference=reference,
            gradients=("x",),
            fixed=frozenset({"boxes"}),
            mistakes=(
                Mistake(
                    "output", "half a pixel is missing: the center of the first pixel, at 0.5, is place 0 of the map",
                    wrong(half=0),
                ),
                Mistake(
                    "output", "each bin has one sample, in its center: it has ceil(height) times ceil(width) of them",
                    wrong(single=True),
                ),
                Mistake(
                    "output", "the samples of a bin are added up: their mean is taken",
                    wrong(mean=False),
                ),
                Mistake(
                    "output", "samples lie at the edges of the parts of a bin, k / s: they lie in their centers, "
                    "(k + 0.5) / s",
                    wrong(shift=0),
                ),
                Mistake(
                    "output", "boxes are rounded to whole pixels (that is RoIPool): RoIAlign reads between the pixels",
                    lambda x, boxes, size: pool(x, lines(x, rounded(boxes, np.floor, np.ceil), size)),
                ),
                Mistake(
                    "output", "boxes are rounded to whole pixels (that is RoIPool): RoIAlign reads between the pixels",
                    lambda x, boxes, size: pool(x, lines(x, rounded(boxes, np.round, np.round), size)),
                ),
                Mistake(
                    "output", "samples beyond the center of a border pixel fade to zero: they take the border's value",
                    wrong(zeros=True),
                ),
                Mistake(
                    "output", "y and x are swapped: a box is (x1, y1, x2, y2)",
                    lambda x, boxes, size: pool(x, lines(x, boxes[:, [1, 0, 3, 2]], size)),
                ),
                Mistake(
                    "d_x", "only the last box counts: all of them add to d_x",
                    lambda x, boxes, size, d_output: spread(x, lines(x, boxes, size)[-1:], d_output[-1:]),
                ),
                Mistake(
                    "d_x", "the gradient is not divided by the number of samples of a bin",
                    wrong_gradient(mean=False),
                ),
                Mistake(
                    "d_x", "only one sample a bin, that in its center, gets a gradient: all of them do, each its part",
                    wrong_gradient(single=True),
                ),
                Mistake("d_x", "half a pixel is missing", wrong_gradient(half=0)),
            ),
        ),
    ),
)  # fmt: skip
