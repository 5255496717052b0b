"""A 3x3 convolution by tiles of 2 x 2 output pixels, for 16 multiplications a channel and tile where 36 would be done.

Two neighboring outputs of a kernel (g0, g1, g2) on a row (d0, d1, d2, d3) are

    y0 = m0 + m1 + m2,  y1 = m1 - m2 - m3,   where m0 = (d0 - d2) g0,  m1 = (d1 + d2) (g0 + g1 + g2) / 2,
                                                   m2 = (d2 - d1) (g0 - g1 + g2) / 2,  m3 = (d1 - d3) g2:

multiply out, and y0 = d0 g0 + d1 g1 + d2 g2. Four products, not six. The same along the columns of those gives 4 x 4
products for 2 x 2 outputs. Summed over the channels, each of the 16 is one matrix product over all tiles. The sums
before and after are passes over memory, so it pays where channels are many. The names are those of the source:
V = B' d B, U = G g G', M = V U, Y = A' M A.

On two cores 1.6 to 2 times as fast as a product with all patches (128 to 2048 channels, maps of 32 x 32 to 128 x 128
pixels).

Source: Lavin and Gray, arXiv 1509.09308, section 4.1.
"""

from __future__ import annotations

import numpy as np

from ..runtime.threads import chunked, cut, empty, parallel

TILES_FLOATS = 1048576  # of the 16 products, or of one transformed map, at once
DIFFERENCES = ((np.subtract, 0, 2), (np.add, 1, 2), (np.subtract, 2, 1), (np.subtract, 1, 3))  # the rows of B'
TILES_GRAIN = 2_000_000  # multiply-adds that are worth waking a thread for
PIXELS_GRAIN = 1024  # of the output, and
CHANNELS_GRAIN = 64  # of input and output: fewer, and the passes before and after take longer than what is saved


def pays(pixels: int, channels: int, outputs: int) -> bool:
    """Whether a convolution of this size is faster this way."""
    return pixels >= PIXELS_GRAIN and min(channels, outputs) >= CHANNELS_GRAIN


def winograd(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, padding: tuple[int, int], *, rectify: bool
) -> np.ndarray:
    """The 3x3 convolution of stride 1, and then its ReLU if `rectify`."""
    batch, height, width, channels = x.shape
    height, width = height + 2 * padding[0] - 2, width + 2 * padding[1] - 2  # of the output
    outputs, rows, columns = weight.shape[0], -(-height // 2), -(-width // 2)  # tiles
    u = _transformed_kernels(weight)  # (4, 4, C, D)
    output = empty((batch, height, width, outputs), x.dtype)
    row_products = 16 * columns * channels * outputs  # multiply-adds of a row of tiles
    grain = 1 + TILES_GRAIN // row_products
    parts = cut(rows, step=max(1, TILES_FLOATS // (columns * max(channels, 16 * outputs))), grain=grain)
    tasks = [(image, part) for image in range(batch) for part in parts]

    def work(start: int, stop: int) -> None:
        for image, part in tasks[start:stop]:
            corner = 2 * part.start - padding[0], -padding[1]
            d = _cut_out(x[image], corner, (2 * (part.stop - part.start) + 2, 2 * columns + 2))
            some_rows = output[image, 2 * part.start : 2 * part.stop]
            _finish(_products(d, u), some_rows)
            if bias is not None:
                some_rows += bias
            if rectify:
                np.maximum(some_rows, 0, out=some_rows)

    parallel(work, len(tasks), grain=max(1, grain * len(parts) // rows))
    return output


def _cut_out(x: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The piece of a map x (H, W, C) that begins at `corner`, with zeros where it reaches beyond the map."""
    piece = np.zeros((*size, x.shape[2]), x.dtype)
    (top, left), (bottom, right) = corner, (corner[0] + size[0], corner[1] + size[1])
    inside = x[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    down, along = max(-top, 0), max(-left, 0)
    piece[down : down + inside.shape[0], along : along + inside.shape[1]] = inside
    return piece


def _transformed_kernels(weight: np.ndarray) -> np.ndarray:
    """U = G g G' of each kernel: weight (D, C, 3, 3) -> (4, 4, C, D)."""
    outputs, channels = weight.shape[:2]
    u = empty((4, 4, channels, outputs), weight.dtype)
    g = weight.transpose(2, 3, 1, 0)  # (3, 3, C, D)

    def work(part: slice) -> None:
        taps = np.ascontiguousarray(g[:, :, part])
        rows = [taps[0], *_half_sums(taps[0], taps[1], taps[2]), taps[2]]
        for i, row in enumerate(rows):  # (3, some of C, D)
            u[i, 0, part], u[i, 3, part] = row[0], row[2]
            u[i, 1, part], u[i, 2, part] = _half_sums(row[0], row[1], row[2])

    chunked(work, channels, 16 * outputs)
    return u


def _half_sums(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first + second + third) / 2 and (first - second + third) / 2."""
    half = first.dtype.type(0.5)
    outer = half * (first + third)
    return outer + half * second, outer - half * second


def _products(d: np.ndarray, u: np.ndarray) -> np.ndarray:
    """M = V U, with V = B' d B of the 4 x 4 tiles that begin at every second pixel, one of its 16 maps at a time.

    d: (2 R + 2, 2 T + 2, C), u: (4, 4, C, D) -> (4, 4, R, T, D).
    """
    rows, columns, channels = d.shape[0] // 2 - 1, d.shape[1] // 2 - 1, d.shape[2]
    m = np.empty((4, 4, rows, columns, u.shape[3]), d.dtype)
    row_sums = np.empty((rows, d.shape[1], channels), d.dtype)
    v = np.empty((rows, columns, channels), d.dtype)
    for i, (along_rows, first, second) in enumerate(DIFFERENCES):
        along_rows(d[first : first + 2 * rows : 2], d[second : second + 2 * rows : 2], out=row_sums)
        for j, (along_columns, left, right) in enumerate(DIFFERENCES):
            pair = row_sums[:, left : left + 2 * columns : 2], row_sums[:, right : right + 2 * columns : 2]
            along_columns(*pair, out=v)
            np.matmul(v.reshape(-1, channels), u[i, j], out=m[i, j].reshape(-1, m.shape[4]))
    return m


def _finish(m: np.ndarray, output: np.ndarray) -> None:
    """Y = A' M A: the tiles' 4 x 4 products m (4, 4, R, T, D) to output (2 R, 2 T, D), or a row or column less."""
    middle, difference = m[1] + m[2], m[1] - m[2]
    middle += m[0]
    difference -= m[3]
    for i, n in enumerate((middle, difference)):  # (4, R, T, D)
        inner = n[1] + n[2]
        inner += n[0]
        odd = n[1] - n[2]
        odd -= n[3]
        for j, y in enumerate((inner, odd)):
            target = output[i::2, j::2]
            target[...] = y[: target.shape[0], : target.shape[1]]
