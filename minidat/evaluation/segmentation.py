"""How well label maps agree with the true ones: mean IoU, mean accuracy, pixel accuracy, and both class by class.

All follow from the confusion matrix of pixels, which is counted image by image. Figures are those that papers report
with mmsegmentation: sums over the whole data set, not means over images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import ConfigError, DatasetError, ShapeError
from .tables import counted, shortened

IGNORED = 255  # the label of pixels that do not count


@dataclass(eq=False)
class SegmentationMetrics:
    """Counts of pixels, and the figures that follow from them.

    classes: the names of the K classes; confusion: (K, K) int64, the number of pixels of the class [row] that were
    taken for the class [column], zeros to begin with; images: how many were counted. With the matrix C of counts:

    - IoU of a class k: C[k, k] / (C[k, :].sum() + C[:, k].sum() - C[k, k]); NaN if it occurs nowhere, in neither map;
    - its accuracy: C[k, k] / C[k, :].sum(); NaN if no pixel is of it;
    - their means leave out classes that have none; pixel accuracy: trace(C) / C.sum().

    Raises ConfigError if there are no classes, or more than the 255 that a label of 8 bits can tell.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray = field(init=False)
    images: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.classes = tuple(self.classes)
        if not 1 <= len(self.classes) <= IGNORED:
            raise ConfigError(f"classes: found {len(self.classes)}, expected 1 to {IGNORED}")
        self.confusion = np.zeros((len(self.classes), len(self.classes)), np.int64)

    def update(self, prediction: np.ndarray, label: np.ndarray, *, name: str = "label") -> None:
        """Count an image's pixels: prediction and label, (H, W) integers each; where the label is 255, none.

        name: of the label map, for messages. Raises ShapeError for maps of several sizes, of other numbers, or a
        prediction that is none of the classes, and DatasetError for such a label.
        """
        for side, array in (("prediction", prediction), ("label", label)):
            if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "iu":
                found = f"shape {array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else type(array)
                raise ShapeError(f"{side}: found {found}, expected (height, width) of integers")
        if prediction.shape != label.shape:
            raise ShapeError(f"prediction: found shape {prediction.shape}, expected the label's {label.shape}")
        counts = label != IGNORED
        found, true = prediction[counts].astype(np.int64), label[counts].astype(np.int64)
        most = len(self.classes) - 1
        if true.size and not 0 <= true.min() <= true.max() <= most:
            wrong = true[(true < 0) | (true > most)][0]
            raise DatasetError(f"{name}: found the label {wrong}, expected 0 to {most}, or {IGNORED} for none")
        if found.size and not 0 <= found.min() <= found.max() <= most:
            wrong = found[(found < 0) | (found > most)][0]
            raise ShapeError(f"prediction: found the class {wrong}, expected 0 to {most}")
        pairs = np.bincount(true * len(self.classes) + found, minlength=self.confusion.size)
        self.confusion += pairs.reshape(self.confusion.shape)
        self.images += 1

    def merge(self, other: SegmentationMetrics) -> None:
        """Add the counts of another part of the data. Raises ConfigError if it has other classes."""
        if other.classes != self.classes:
            raise ConfigError(f"classes: found {len(other.classes)} others, expected the same {len(self.classes)}")
        self.confusion += other.confusion
        self.images += other.images

    @property
    def class_iou(self) -> np.ndarray:
        """Intersection over union of each class, (K,) float64, in [0, 1] or NaN."""
        right = self.confusion.diagonal()
        found, true = self.confusion.sum(axis=0), self.confusion.sum(axis=1)
        return _ratio(right, true + found - right)

    @property
    def class_accuracy(self) -> np.ndarray:
        """The share of each class's pixels that were recognized, (K,) float64, in [0, 1] or NaN."""
        return _ratio(self.confusion.diagonal(), self.confusion.sum(axis=1))

    @property
    def mean_iou(self) -> float:
        """mIoU, in [0, 1]; NaN if no pixel was counted, as for the other means."""
        return _mean(self.class_iou)

    @property
    def mean_accuracy(self) -> float:
        """mAcc, in [0, 1]."""
        return _mean(self.class_accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """aAcc, the share of all pixels that were recognized, in [0, 1]."""
        return float(_ratio(np.trace(self.confusion), self.confusion.sum()))

    def as_dict(self) -> dict[str, float]:
        """The three figures under their usual names."""
        return {"mIoU": self.mean_iou, "mAcc": self.mean_accuracy, "aAcc": self.pixel_accuracy}


def format_segmentation_metrics(metrics: SegmentationMetrics) -> str:
    """A table for a terminal: the three means in percent, then a line for each class that occurs."""
    lines = [
        f"{counted(metrics.images, 'image')}, {counted(int(metrics.confusion.sum()), 'labeled pixel')}",
        f"mIoU {_percent(metrics.mean_iou)}   mAcc {_percent(metrics.mean_accuracy)}   "
        f"aAcc {_percent(metrics.pixel_accuracy)}",
        "",
    ]
    names = [shortened(name) for name in metrics.classes]
    occurring = np.flatnonzero(~np.isnan(metrics.class_iou))
    width = max([5, *(len(names[k]) for k in occurring)])
    lines.append(f"{'class':<{width}}    IoU  accuracy  share of pixels")
    shares = metrics.confusion.sum(axis=1) / max(1, metrics.confusion.sum())
    for k in occurring:
        figures = f"{_percent(metrics.class_iou[k]):>5}  {_percent(metrics.class_accuracy[k]):>8}"
        lines.append(f"{names[k]:<{width}}  {figures}  {_percent(shares[k]):>15}")
    return "\n".join(lines)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(figures: np.ndarray) -> float:
    present = figures[~np.isnan(figures)]
    return float(present.mean()) if present.size else float("nan")


def _percent(figure: float) -> str:
    return "-" if np.isnan(figure) else f"{100 * figure:.2f}"
