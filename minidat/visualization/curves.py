"""How a training run went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from .canvas import BLUE, FAINT, GREEN, INK, RULE, VERMILION, Canvas, Color, mixed, text_width

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = (450, 1000)
PANEL = (310, 390)  # (height, width) of each panel's axes
TOP, LEFTS = 76, (72, 572)
TITLE, LETTERS = 16, 13
TRAINING, VALIDATION, MASKS = BLUE, VERMILION, GREEN
FIGURES = {"accuracy": "accuracy", "AP": "box AP", "mIoU": "mean IoU"}  # what validation is about -> a panel's title
SMOOTHING = 40  # a point is the mean of a stretch as long as the curve divided by this

Curve = tuple[np.ndarray, np.ndarray]  # epochs (n,) and values (n,)


def draw_learning_curve(records: Sequence[Mapping[str, Any]]) -> Image:
    """A training run in two panels over its epochs: the loss, and the accuracy (or AP, or mean IoU) in validation.

    records: the lines of a training log. Those with "loss" have "epoch" (a fraction), "loss" and, of a classifier,
    "accuracy", a share in [0, 1] of augmented pictures; those with "validation_accuracy", "validation_AP" or
    "validation_mIoU", a share too, have "epoch"; where masks are found as well as boxes, "validation_mask_AP" is a
    curve of its own. What is measured a batch is faint, its running mean strong. The last validation is written out.
    Numbers that are not finite are left out, and a panel without any says so. Raises ConfigError for no records at
    all, or one that lacks a number.
    """
    figure = next((name for name in FIGURES if any(f"validation_{name}" in record for record in records)), "accuracy")
    loss = _curve(records, "loss", "loss")
    accuracy = _curve(records, "accuracy" if figure != "accuracy" else "loss", "accuracy", factor=100)
    validation = _curve(records, f"validation_{figure}", f"validation_{figure}", factor=100)
    masks = _curve(records, "validation_mask_AP", "validation_mask_AP", factor=100)
    if not any(len(epochs) for epochs, _ in (loss, validation)):
        raise ConfigError('records: found none with a "loss" or a "validation_accuracy", expected those of a training')

    canvas = Canvas((SIZE[0], SIZE[1]))
    last_epoch = max(float(epochs.max()) for epochs, _ in (loss, accuracy, validation, masks) if len(epochs))
    panel = _Panel(canvas, LEFTS[0], "loss", [loss], last_epoch)
    panel.draw_noisy(loss, TRAINING)
    panel.legend([("training", TRAINING)])

    title, curves = FIGURES[figure], [("validation", validation, VALIDATION)]
    if len(masks[0]):
        title, curves = "AP", [("boxes", validation, VALIDATION), ("masks", masks, MASKS)]
    panel = _Panel(canvas, LEFTS[1], f"{title}, %", [accuracy, validation, masks], last_epoch, highest=100)
    panel.draw_noisy(accuracy, TRAINING)
    names = [("training (augmented)", TRAINING)] if len(accuracy[0]) else []
    for name, curve, color in curves:
        panel.draw_line(curve, color, 2.5)
        if len(curve[0]):
            canvas.disc(panel.at(curve[0][-1], curve[1][-1]), 4.5, color)
            names.append((f"{name}, latest {curve[1][-1]:.2f} %", color))
    panel.legend(names)
    return canvas.picture()


class _Panel:
    """Axes, ticks and title of one panel, and where a value lies in it."""

    def __init__(
        self,
        canvas: Canvas,
        left: float,
        title: str,
        curves: list[Curve],
        last_epoch: float,
        highest: float = math.inf,
    ) -> None:
        self.canvas, self.left = canvas, left
        values = np.concatenate([values for _, values in curves])
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        self.values = _ticks(low, high, highest)
        self.end = last_epoch or 1.0
        height, width = PANEL
        bottom, right = TOP + height, left + width

        canvas.text((26, left), title, size=TITLE, anchor="lm")
        for value in self.values:
            y, _ = self.at(0, value)
            canvas.line([(y, left), (y, right)], RULE)
            canvas.text((y, left - 8), f"{value:.6g}", size=LETTERS, color=FAINT, anchor="rm")
        for epoch in _ticks(0, self.end):
            if epoch <= self.end:
                _, x = self.at(epoch, self.values[0])
                canvas.line([(bottom, x), (bottom + 5, x)], FAINT)
                canvas.text((bottom + 9, x), f"{epoch:.6g}", size=LETTERS, color=FAINT, anchor="mt")
        canvas.line([(TOP, left), (bottom, left), (bottom, right)], FAINT)
        canvas.text((bottom + 44, left + width / 2), "epochs", size=LETTERS)
        if not len(values):
            canvas.text((TOP + height / 2, left + width / 2), "nothing recorded yet", size=LETTERS, color=FAINT)

    def at(self, epoch: float, value: float) -> tuple[float, float]:
        """(y, x) on the canvas."""
        height, width = PANEL
        low, high = self.values[0], self.values[-1]
        return TOP + (high - value) / (high - low) * height, self.left + epoch / self.end * width

    def draw_line(self, curve: Curve, color: Color, width: float) -> None:
        points = [self.at(epoch, value) for epoch, value in zip(*curve, strict=True)]
        if len(points) > 1:
            self.canvas.line(points, color, width)

    def draw_noisy(self, curve: Curve, color: Color) -> None:
        """What was measured, faint, and its running mean."""
        red, green, blue = mixed(np.array(color), (255, 255, 255), 0.72).tolist()
        self.draw_line(curve, (red, green, blue), 1)
        self.draw_line((curve[0], _running_mean(curve[1])), color, 2.5)

    def legend(self, names: list[tuple[str, Color]]) -> None:
        x = self.left + PANEL[1]
        for name, color in reversed(names):
            x -= text_width(name, LETTERS)
            self.canvas.text((52, x), name, size=LETTERS, anchor="lm", color=INK)
            x -= 26
            self.canvas.line([(52, x), (52, x + 18)], color, 3)
            x -= 18


def _curve(records: Sequence[Mapping[str, Any]], marker: str, field: str, factor: float = 1) -> Curve:
    """The finite values of a field, times a factor, in the records that have the marker."""
    points = []
    for i, record in enumerate(records):
        if marker not in record:
            continue
        for name in ("epoch", field):
            if isinstance(record.get(name), bool) or not isinstance(record.get(name), int | float):
                raise ConfigError(f"records[{i}]: {name}: found {record.get(name)!r}, expected a number")
        epoch, value = _as_float(record["epoch"]), _as_float(record[field])
        if math.isfinite(epoch) and math.isfinite(value):
            points.append((epoch, value * factor))
    epochs, values = np.array(points, float).reshape(-1, 2).T
    return epochs, values


def _as_float(number: float) -> float:
    """A number of JSON, which may be an integer beyond every float: that is infinity."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of each value and its neighbors on both sides, as far as there are any: (n,) -> (n,)."""
    here, reach = np.arange(len(values)), len(values) // (2 * SMOOTHING)
    first, last = np.maximum(here - reach, 0), np.minimum(here + reach + 1, len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[last] - sums[first]) / (last - first)


def _ticks(low: float, high: float, highest: float = math.inf) -> list[float]:
    """Round numbers, about five steps of 1, 2 or 5 times a power of ten, from below `low` to above `high`."""
    rough = max(high - low, 1e-9 * max(abs(high), 1)) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(min(high, highest) / step)
    last = max(last, first + 1)
    return [i * step for i in range(first, last + 1)]
