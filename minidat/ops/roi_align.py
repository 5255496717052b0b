"""RoIAlign: every box of an image, whatever its size, as a small map of fixed size."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._shapes import check


def roi_align(
    x: np.ndarray, *, boxes: np.ndarray, images: np.ndarray, size: int, scale: float
) -> tuple[np.ndarray, Any]:
    """Average a map over size x size equal bins of each box, reading between the pixels: output = Y x X^T.

    Each bin holds ceil(its height) x ceil(its width) sampling points at equal distances; the output is the mean of the
    bilinear samples there. Points and bilinear weights are products of a factor in y and one in x, and so is the whole:

        output[n, i, j, c] = sum_rs Y[n, i, r] X[n, j, s] x[images[n], r, s, c],

    Y[n, i, r] being the mean weight of row r in the samples of bin row i.
    x: (B, H, W, C), boxes: (n, 4), (x1, y1, x2, y2) in pixels of the image, images: (n,) the image each is in ->
    output: (n, size, size, C). scale: pixels of the map per pixel of the image. A box without width or height gives
    zeros. Raises ShapeError for boxes of another shape, or an image that is not there.
    Source: Mask R-CNN (arXiv 1703.06870), section 3; torchvision.ops.roi_align(aligned=True, sampling_ratio=0).
    """
    check(x.ndim == 4, "roi_align", "shape of x", x.shape, "(B, H, W, C)")
    _check_boxes(boxes, images, len(x))
    _, height, width, channels = x.shape
    on_map = boxes * scale - 0.5  # "aligned": the first pixel's center, 0.5, becomes 0
    along_y = [bin_weights(y, size, height).astype(x.dtype) for y in on_map[:, 1::2]]
    along_x = [bin_weights(x_, size, width).astype(x.dtype) for x_ in on_map[:, 0::2]]
    output = np.empty((len(boxes), size, size, channels), x.dtype)
    for n, image in enumerate(images):
        rows = np.tensordot(along_y[n], x[image], axes=1)  # (size, W, C)
        output[n] = along_x[n] @ rows

    def backward(d_output: np.ndarray) -> tuple[np.ndarray]:
        d_x = np.zeros_like(x)
        for n, image in enumerate(images):
            d_rows = along_x[n].T @ d_output[n]
            d_x[image] += np.tensordot(along_y[n].T, d_rows, axes=1)
        return (d_x,)

    return output, backward


def bin_weights(ends: np.ndarray, bins: int, length: int) -> np.ndarray:
    """How much each of `length` pixels counts in the mean of each bin's samples, on one axis: (bins, length).

    ends: (2,), where the first bin begins and the last one ends. A sample up to one pixel beyond the border takes the
    border's value; farther away it counts as zero.
    """
    start, stop = ends
    bin_size = (stop - start) / bins
    samples = int(np.ceil(np.float32(bin_size)))  # of a bin; float32 as the authors
    within = (np.arange(samples) + 0.5) / samples  # a bin, which goes from 0 to 1
    places = start + bin_size * (np.arange(bins)[:, None] + within)  # (bins, samples)
    counts = (places >= -1) & (places <= length)
    distances = np.abs(places.clip(0, length - 1)[..., None] - np.arange(length))
    hats = np.maximum(0, 1 - distances) * counts[..., None]  # (bins, samples, length)
    return hats.sum(axis=1) / max(samples, 1)


def _check_boxes(boxes: np.ndarray, images: np.ndarray, batch: int) -> None:
    check(boxes.ndim == 2 and boxes.shape[1] == 4, "roi_align", "shape of boxes", boxes.shape, "(n, 4)")
    in_batch = images.shape == (len(boxes),) and bool(np.all((images >= 0) & (images < batch)))
    check(in_batch, "roi_align", "images", images, f"{len(boxes)} numbers below {batch}")
