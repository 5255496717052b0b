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
    check(boxes.ndim == 2 and boxes.shape[1] == 4, "roi_align", "shape of boxes", boxes.shape, "(n, 4)")
    in_batch = images.shape == (len(boxes),) and bool(np.all((images >= 0) & (images < len(x))))
    check(in_batch, "roi_align", "images", images, f"{len(boxes)} numbers below {len(x)}")
    x1, y1, x2, y2 = (boxes * scale - 0.5).T  # "aligned": the first pixel's center, 0.5, is coordinate 0
    along_y = [bin_weights(*ends, size, x.shape[1]).astype(x.dtype) for ends in zip(y1, y2, strict=True)]
    along_x = [bin_weights(*ends, size, x.shape[2]).astype(x.dtype) for ends in zip(x1, x2, strict=True)]
    output = np.empty((len(boxes), size, size, x.shape[3]), x.dtype)
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


def bin_weights(start: float, stop: float, bins: int, length: int) -> np.ndarray:
    """How much each of `length` pixels counts in the mean of each bin's samples, on one axis: (bins, length).

    A sample up to one pixel beyond the border takes the border's value; farther away it counts as zero.
    """
    bin_size = (stop - start) / bins
    samples = int(np.ceil(np.float32(bin_size)))  # a bin; rounded to float32 first, as the authors' code does
    places = start + bin_size * (np.arange(bins)[:, None] + (np.arange(samples) + 0.5) / samples)  # (bins, samples)
    counts = (places >= -1) & (places <= length)
    hats = np.maximum(0, 1 - np.abs(places.clip(0, length - 1)[..., None] - np.arange(length)))
    return (hats * counts[..., None]).sum(axis=1) / max(samples, 1)
