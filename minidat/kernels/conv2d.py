"""Convolution by the kind that is asked for: 1x1, dense, in groups, or each channel on its own.

A 1x1 convolution is a linear layer. Patches of a dense one keep (kh, kw, C) in memory order, so that they are copied in
long runs, unless there are fewer of them than kernels: then they take the kernels' order. Where nothing is kept for
backward, a few rows of the output at a time, as all patches of a large map would take nine times its memory, and one of
3x3 pixels by `winograd`, if it is large. A depthwise one is no matrix product at all but a weighted sum of shifted
views of the map, several pixels of a row at once; its gradient by the map is the same with the kernel turned by 180
degrees.

On one core 2.6 times as fast as the textbook (`minidat bench dat_tiny --plain --threads 1`: the dense ones of the
stages; `minidat bench datpp_tiny --plain --threads 1`: 1.9 times).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..ops._shapes import pair
from ..ops.convolution import check_conv2d
from ..runtime.threads import CACHE_FLOATS, COPY_GRAIN, SHARES, column_sums, contiguous, cut, empty, parallel, product
from . import winograd
from .linear import linear

Pair = tuple[int, int]

RUN_FLOATS = 4096  # of a row of a depthwise convolution's input that NumPy works on in one loop
TAPS_FLOATS = 32768  # of a depthwise convolution's output at once, when its kernel's gradient is summed up
SUM_OVER_TAPS = "...hwijn,ijn->...hwn"  # of what `runs_of_pixels` returns
TAPS_GRAIN = 400_000  # multiply-adds of a depthwise convolution that are worth waking a thread for
PATCHES_FLOATS = 2097152  # of a dense convolution's patches at once, if they are not kept
SHIFTS_FLOATS = 262144  # of a map, for all taps one after the other
PATCHES_GRAIN = 4_000_000  # multiply-adds of a dense convolution that are worth waking a thread for


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    groups: int = 1,
    keep: bool = True,
) -> tuple[np.ndarray, Any]:
    """`ops.conv2d`; not to `keep` saves a dense convolution memory, and there is no backward then (None)."""
    stride, padding = pair(stride), pair(padding)
    check_conv2d(x, weight, bias, stride, padding, groups)
    channels, outputs, kernel = x.shape[-1], weight.shape[0], weight.shape[2:]

    if kernel == stride == (1, 1) and padding == (0, 0) and groups == 1:
        output, pointwise_backward = _pointwise(x, weight, bias)
        return output, pointwise_backward if keep else None
    if groups == 1 and not keep:
        return dense(x, weight, bias, stride, padding), None
    if groups == 1 and _is_large(x, weight, stride) and max(padding) <= 2:
        return _large(x, weight, bias, padding)
    convolve = depthwise if groups == channels == outputs else _dense if groups == 1 else _grouped
    output, padded_backward = convolve(pad(x, padding), weight, bias, stride)
    if not keep:
        return output, None

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        d_padded, d_weight = padded_backward(d_output)
        d_x = d_padded[:, padding[0] : padding[0] + x.shape[1], padding[1] : padding[1] + x.shape[2]]
        return d_x, d_weight, None if bias is None else d_output.sum(axis=(0, 1, 2))

    return output, backward


def _pointwise(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, Any]:
    """A 1x1 convolution is a linear layer on the pixels."""
    output, linear_backward = linear(x, weight[:, :, 0, 0], bias)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        d_x, d_weight, d_bias = linear_backward(d_output)
        return d_x, d_weight[:, :, None, None], d_bias

    return output, backward


def _dense(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: Pair) -> tuple[np.ndarray, Any]:
    """All channels with all, without padding: each output pixel's patch becomes a row, the kernel a matrix (im2col)."""
    outputs, channels, kh, kw = weight.shape
    patches = _windows(np.ascontiguousarray(x), (kh, kw), stride)  # (B, H', W', kh, kw, C), a view
    batch, height, width = patches.shape[:3]
    rows = contiguous(patches).reshape(batch * height * width, kh * kw * channels)
    matrix = contiguous(weight.transpose(0, 2, 3, 1)).reshape(outputs, kh * kw * channels)
    output = product(rows, matrix.T, bias).reshape(batch, height, width, outputs)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_rows = d_output.reshape(-1, outputs)
        d_weight = product(d_rows.T, rows).reshape(outputs, kh, kw, channels).transpose(0, 3, 1, 2)
        d_patches = product(d_rows, matrix).reshape(patches.shape)
        d_x = empty(x.shape, x.dtype)

        def add_up(start: int, stop: int) -> None:
            some_images = d_x[start:stop]
            some_images[...] = 0
            for i, j in np.ndindex(kh, kw):
                _tap(some_images, i, j, (height, width), stride)[...] += d_patches[start:stop, :, :, i, j]

        parallel(add_up, batch, grain=1 + COPY_GRAIN // d_patches[0].size)
        return d_x, np.ascontiguousarray(d_weight)

    return output, backward


def dense(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: Pair, padding: Pair, *, rectify: bool = False
) -> np.ndarray:
    """The output of a convolution of all channels with all, and of its ReLU if `rectify`, with nothing kept."""
    if _is_large(x, weight, stride):
        return winograd.winograd(x, weight, bias, padding, rectify=rectify)
    x = pad(x, padding)
    if len(x) * math.prod(_output_size(x, weight.shape[2:], stride)) < len(weight):
        return _few_patches(x, weight, bias, stride, rectify)
    return _dense_in_parts(x, weight, bias, stride, rectify)


def _is_large(x: np.ndarray, weight: np.ndarray, stride: Pair) -> bool:
    """Whether a convolution is one for `winograd`."""
    outputs, channels, *kernel = weight.shape
    return kernel == [3, 3] and stride == (1, 1) and winograd.pays(x[..., 0].size, channels, outputs)


def _large(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, padding: Pair) -> tuple[np.ndarray, Any]:
    """A convolution for `winograd`, which its gradient by the map is too; nothing but x is kept for backward."""
    output = winograd.winograd(x, weight, bias, padding, rectify=False)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        turned = weight[:, :, ::-1, ::-1].swapaxes(0, 1)
        d_x = winograd.winograd(d_output, turned, None, (2 - padding[0], 2 - padding[1]), rectify=False)
        d_weight = _products_of_shifts(pad(x, padding), d_output, (3, 3))
        return d_x, d_weight, None if bias is None else column_sums(d_output.reshape(-1, len(weight)))

    return output, backward


def _products_of_shifts(x: np.ndarray, d_output: np.ndarray, kernel: Pair) -> np.ndarray:
    """d_weight[d, c, i, j] = sum_byx d_output[b, y, x, d] x[b, y + i, x + j, c], for a padded x and a stride of 1.

    In a list of all pixels of x, what tap (i, j) meets lies i rows and j pixels further on. So each tap is one product
    with a piece of that list, if d_output has as many rows and columns, of zeros.
    """
    batch, height, width, channels = x.shape
    spread = np.zeros((batch, height, width, d_output.shape[-1]), x.dtype)
    spread[:, : d_output.shape[1], : d_output.shape[2]] = d_output
    d_pixels, pixels = spread.reshape(-1, d_output.shape[-1]), np.ascontiguousarray(x).reshape(-1, channels)
    d_pixels = d_pixels[: len(pixels) - (kernel[0] - 1) * width - kernel[1] + 1]  # behind are zeros alone
    grain = 1 + PATCHES_GRAIN // (kernel[0] * kernel[1] * channels * d_output.shape[-1])
    shares = cut(len(d_pixels), step=len(d_pixels), grain=grain)
    sums = empty((len(shares), *kernel, d_output.shape[-1], channels), x.dtype)
    step = max(1, SHIFTS_FLOATS // channels)

    def work(start: int, stop: int) -> None:
        for n in range(start, stop):
            sums[n] = 0
            for first in range(shares[n].start, shares[n].stop, step):
                last = min(first + step, shares[n].stop)
                for i, j in np.ndindex(*kernel):
                    shift = i * width + j
                    sums[n, i, j] += d_pixels[first:last].T @ pixels[first + shift : last + shift]

    parallel(work, len(shares))
    return np.ascontiguousarray(sums.sum(axis=0).transpose(2, 3, 0, 1))


def _dense_in_parts(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: Pair, rectify: bool
) -> np.ndarray:
    """The output of `_dense`, some rows of it at a time."""
    outputs, channels, kh, kw = weight.shape
    patches = _windows(np.ascontiguousarray(x), (kh, kw), stride)  # (B, H', W', kh, kw, C), a view
    batch, height, width = patches.shape[:3]
    length = kh * kw * channels
    matrix = contiguous(weight.transpose(2, 3, 1, 0)).reshape(length, outputs)
    output = empty((batch, height, width, outputs), x.dtype)
    step = max(1, min(PATCHES_FLOATS // (width * length), CACHE_FLOATS // (width * outputs)))
    grain = 1 + PATCHES_GRAIN // (width * length * outputs)
    if batch >= SHARES and height <= step:
        tasks = [(images, slice(None)) for images in cut(batch, step=step // height, grain=-(-grain // height))]
    else:
        rows_of_image = cut(height, step=step, grain=grain)
        tasks = [(slice(i, i + 1), some_rows) for i in range(batch) for some_rows in rows_of_image]

    def work(start: int, stop: int) -> None:
        for images, some_rows in tasks[start:stop]:
            rows = output[images, some_rows].reshape(-1, outputs)  # a view: rows of one image, or whole images
            np.matmul(patches[images, some_rows].reshape(-1, length), matrix, out=rows)
            if bias is not None:
                rows += bias
            if rectify:
                np.maximum(rows, 0, out=rows)

    parallel(work, len(tasks), grain=max(1, grain * len(tasks) // (batch * height)))
    return output


def _few_patches(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: Pair, rectify: bool) -> np.ndarray:
    """The output of `_dense` for fewer patches than kernels: not the kernels are put in order, but the patches."""
    outputs, channels, kh, kw = weight.shape
    size = _output_size(x, (kh, kw), stride)
    patches = np.empty((len(x), *size, channels, kh, kw), x.dtype)
    for i, j in np.ndindex(kh, kw):
        patches[..., i, j] = _tap(x, i, j, size, stride)
    rows = patches.reshape(-1, channels * kh * kw)
    output = product(rows, weight.reshape(outputs, -1).T, bias).reshape(len(x), *size, outputs)
    return np.maximum(output, 0) if rectify else output


def _grouped(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: Pair) -> tuple[np.ndarray, Any]:
    """Each group of channels is a dense convolution of its own."""
    groups = x.shape[-1] // weight.shape[1]
    inputs, kernels = np.split(x, groups, axis=-1), np.split(weight, groups)
    biases = [None] * groups if bias is None else np.split(bias, groups)
    outputs, backwards = zip(
        *(_dense(*parts, stride) for parts in zip(inputs, kernels, biases, strict=True)), strict=True
    )

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d_outputs = np.split(d_output, groups, axis=-1)
        gradients = [group_backward(d) for group_backward, d in zip(backwards, d_outputs, strict=True)]
        return np.concatenate([d_x for d_x, _ in gradients], axis=-1), np.concatenate([d_w for _, d_w in gradients])

    return np.concatenate(outputs, axis=-1), backward


def depthwise(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: Pair) -> tuple[np.ndarray, Any]:
    """Each channel with its own kernel, without padding: a weighted sum of shifted views, no matrix product."""
    kernel = weight.shape[2], weight.shape[3]
    taps = as_taps(weight)
    output = _correlate(x, taps, bias, stride)

    def backward(d_output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # d_x is the correlation of d_output, spread out by the stride, with the kernel turned by 180 degrees
        batch, height, width, channels = d_output.shape
        spread = np.zeros((batch, x.shape[1] + kernel[0] - 1, x.shape[2] + kernel[1] - 1, channels), x.dtype)
        _tap(spread, kernel[0] - 1, kernel[1] - 1, (height, width), stride)[...] = d_output
        d_x = _correlate(spread, taps[::-1, ::-1], None, (1, 1))
        d_taps = _products_of_taps(x, d_output, kernel, stride)
        return d_x, np.ascontiguousarray(d_taps.transpose(2, 0, 1))[:, None]

    return output, backward


def as_taps(weight: np.ndarray) -> np.ndarray:
    """The kernels of a depthwise convolution, (C, 1, kh, kw) -> (kh, kw, C)."""
    return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))


def _correlate(x: np.ndarray, taps: np.ndarray, bias: np.ndarray | None, stride: Pair) -> np.ndarray:
    """output[y, x, c] = bias[c] + sum_ij taps[i, j, c] x[y s + i, x s + j, c]; x (B, H, W, C), taps (kh, kw, C)."""
    patches, tiled_taps = runs_of_pixels(np.ascontiguousarray(x), taps, stride)
    batch, output_height, runs, *_, run_length = patches.shape
    output = empty((batch, output_height, runs, run_length), x.dtype)
    channels = x.shape[-1]

    def work(start: int, stop: int) -> None:  # of all rows of all images
        for image in range(start // output_height, -(-stop // output_height)):
            first = image * output_height
            part = slice(max(start - first, 0), min(stop - first, output_height))
            np.einsum(SUM_OVER_TAPS, patches[image, part], tiled_taps, out=output[image, part])
            if bias is not None:
                output[image, part].reshape(-1, channels)[...] += bias

    parallel(work, batch * output_height, grain=max(1, TAPS_GRAIN // max(1, output[0, 0].size * taps[..., 0].size)))
    return output.reshape(batch, output_height, -1, channels)


def runs_of_pixels(x: np.ndarray, taps: np.ndarray, stride: Pair = (1, 1)) -> tuple[np.ndarray, np.ndarray]:
    """What `SUM_OVER_TAPS` multiplies: views of contiguous x (B, H, W, C), and taps (kh, kw, C) as often as a run asks.

    Returns (B, H', W' / run, kh, kw, run C) and (kh, kw, run C). Where nothing is strided, pixels side by side are one
    long row of numbers: a run is as many of them as give a good length.
    """
    _, output_width = _output_size(x, taps.shape[:2], stride)
    room = max(1, RUN_FLOATS // x.shape[-1]) if stride[1] == 1 else 1
    run = next(n for n in range(min(room, output_width), 0, -1) if output_width % n == 0)
    return _windows(x, taps.shape[:2], stride, run), np.tile(taps, run)


def _products_of_taps(x: np.ndarray, d_output: np.ndarray, kernel: Pair, stride: Pair) -> np.ndarray:
    """d_taps[i, j, c] = sum_byx x[b, y s + i, x s + j, c] d_output[b, y, x, c]: (kh, kw, C)."""
    batch, height, width, channels = d_output.shape
    step = max(1, TAPS_FLOATS // max(1, d_output[0].size))  # images that stay in the cache for all taps
    parts = [slice(start, start + step) for start in range(0, batch, step)]
    d_taps = np.zeros((len(parts), *kernel, channels), x.dtype)

    def work(start: int, stop: int) -> None:
        for part in range(start, stop):
            images, d_part = x[parts[part]], d_output[parts[part]]
            for i, j in np.ndindex(*kernel):
                tap = _tap(images, i, j, (height, width), stride)
                np.einsum("bhwc,bhwc->c", tap, d_part, out=d_taps[part, i, j])

    parallel(work, len(parts), grain=max(1, TAPS_GRAIN // max(1, step * d_output[0].size * kernel[0] * kernel[1])))
    return d_taps.sum(axis=0)


def _windows(x: np.ndarray, kernel: Pair, stride: Pair, run: int = 1) -> np.ndarray:
    """A view (B, H', W' / run, kh, kw, run C) of contiguous x (B, H, W, C): what each run of `run` output pixels sees.

    For each tap of the kernel that is as many pixels side by side; a run of several needs a stride of 1.
    """
    channels = x.shape[-1]
    size = _output_size(x, kernel, stride)
    per_image, per_row, per_pixel, per_number = x.strides
    shape = (len(x), size[0], size[1] // run, *kernel, run * channels)
    strides = (per_image, stride[0] * per_row, stride[1] * run * per_pixel, per_row, per_pixel, per_number)
    return np.ndarray(shape, x.dtype, x, 0, strides)  # as_strided takes twenty times as long


def _output_size(x: np.ndarray, kernel: Pair, stride: Pair) -> Pair:
    """(H', W') of the output for a map x (B, H, W, C) that has its padding."""
    height, width = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], kernel, stride, strict=True))
    return height, width


def _tap(x: np.ndarray, i: int, j: int, size: Pair, stride: Pair) -> np.ndarray:
    """The view (B, H', W', C) of x that tap (i, j) of the kernel meets, for an output of `size`."""
    return x[:, i : i + (size[0] - 1) * stride[0] + 1 : stride[0], j : j + (size[1] - 1) * stride[1] + 1 : stride[1]]


def pad(x: np.ndarray, padding: Pair) -> np.ndarray:
    """x with `padding` zeros around the map."""
    if padding == (0, 0):
        return x
    batch, height, width, channels = x.shape
    padded = np.zeros((batch, height + 2 * padding[0], width + 2 * padding[1], channels), x.dtype)
    padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x
    return padded
