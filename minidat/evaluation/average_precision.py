"""Average precision and recall of detections, boxes or masks, as COCO measures them.

In every image and class, detections are matched to annotations, the most certain first, each to the best that is still
free; then, over all images, precision is taken at 101 recalls, as the best at that recall or a higher one, and averaged
over ten thresholds of the intersection over union. Figures equal those of COCO's own tools (pycocotools), also where
these surprise: see `evaluate_detections`. [Lin et al. 2014, Microsoft COCO; cocodataset.org/#detection-eval]
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from ..data.masks import Runs, check_mask_size, paired_mask_ious
from ..errors import ConfigError, DatasetError, printable
from .tables import counted, shortened

IOU_TYPES = ("bbox", "segm")
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # T
RECALLS = np.linspace(0, 1, 101)  # R
MAX_DETECTIONS = (1, 10, 100)  # of an image and class
AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])  # pixels: all, small, medium, large; (A, 2)
ABSENT = -1.0  # the figure of what has no annotations
LARGEST = 2**53  # number in the data: float64 knows all integers up to it
Result = TypeVar("Result")


class ClassPrecision(NamedTuple):
    """AP and AP50 of one class; -1 if it has no annotations."""

    name: str
    ap: float
    ap50: float


@dataclass(frozen=True)
class DetectionMetrics:
    """What `evaluate_detections` found: figures in [0, 1], or -1 where nothing is annotated.

    ap: average precision, the mean over the thresholds 0.50, 0.55 ... 0.95 of the intersection over union; ap50, ap75:
    at one threshold; ap_small, ap_medium, ap_large: of annotations below 32 x 32 pixels, up to 96 x 96, and above;
    ar1, ar10, ar100: average recall with so many detections an image and class; ar_small, ar_medium, ar_large: with
    100. All are means over the classes that have annotations of the kind.

    iou_type: "bbox" or "segm"; images, annotations, detections: how many there were; per_class: in the order of the
    categories' ids; has_id_0: an annotation has the id 0, which counts as never found.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    iou_type: str
    images: int
    annotations: int
    detections: int
    per_class: tuple[ClassPrecision, ...]
    has_id_0: bool

    def as_dict(self) -> dict[str, float]:
        """The twelve figures under their usual names, in the order of COCO's tools."""
        return {
            "AP": self.ap,
            "AP50": self.ap50,
            "AP75": self.ap75,
            "APs": self.ap_small,
            "APm": self.ap_medium,
            "APl": self.ap_large,
            "AR@1": self.ar1,
            "AR@10": self.ar10,
            "AR@100": self.ar100,
            "ARs": self.ar_small,
            "ARm": self.ar_medium,
            "ARl": self.ar_large,
        }


def evaluate_detections(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, iou_type: str = "bbox"
) -> DetectionMetrics:
    """Compare detections with annotations, both in COCO's JSON form.

    ground_truth: "images" (each with "id"; for masks also "height" and "width"), "annotations" ("id", "image_id",
    "category_id", "area", "bbox" as [x, y, width, height], for masks "segmentation", perhaps "iscrowd") and
    "categories" ("id", perhaps "name"). results: "image_id", "category_id", "score", and "bbox" or "segmentation" (or
    both). iou_type: what is compared, "bbox" or "segm".

    As with COCO's tools: an annotation's size is its "area", a detection's that of its box, and of its mask only if it
    has no "bbox": leave that out of results for masks. A crowd takes any number of detections, which then count neither
    as right nor as wrong, and any part of a crowd overlaps it fully; "ignore" has no meaning. At most 100 detections an
    image and class count. Of equal scores, the first in the results comes first. An annotation with the id 0 is never
    found: number them from 1.

    Raises DatasetError for data of another form, and ConfigError for an unknown `iou_type`.
    """
    if iou_type not in IOU_TYPES:
        raise ConfigError(f"iou_type: found {iou_type!r}, expected one of {', '.join(IOU_TYPES)}")
    data = _read_index(ground_truth, with_sizes=iou_type == "segm")
    truth = _read_annotations(ground_truth, data)
    found = _read_results(results, data)
    names = data.names
    precision = np.full((len(AREAS), len(IOU_THRESHOLDS), len(RECALLS), len(names)), ABSENT)
    recall = np.full((len(AREAS), len(MAX_DETECTIONS), len(IOU_THRESHOLDS), len(names)), ABSENT)
    for category in range(len(names)):
        curves = _category_curves(truth.of(category), found.of(category))
        precision[..., category], recall[..., category] = curves
    return DetectionMetrics(
        ap=_mean(precision[0]),
        ap50=_mean(precision[0, 0]),
        ap75=_mean(precision[0, 5]),
        ap_small=_mean(precision[1]),
        ap_medium=_mean(precision[2]),
        ap_large=_mean(precision[3]),
        ar1=_mean(recall[0, 0]),
        ar10=_mean(recall[0, 1]),
        ar100=_mean(recall[0, 2]),
        ar_small=_mean(recall[1, 2]),
        ar_medium=_mean(recall[2, 2]),
        ar_large=_mean(recall[3, 2]),
        iou_type=iou_type,
        images=len(data.image_ids),
        annotations=len(truth),
        detections=len(results),
        per_class=tuple(
            ClassPrecision(name, _mean(precision[0, ..., k]), _mean(precision[0, 0, :, k]))
            for k, name in enumerate(names)
        ),
        has_id_0=bool((truth.ids == 0).any()),
    )


def _mean(figures: np.ndarray) -> float:
    present = figures[figures > ABSENT]
    return float(present.mean()) if present.size else ABSENT


def format_detection_metrics(metrics: DetectionMetrics) -> str:
    """A table for a terminal: the twelve figures in percent, then a line for each class with annotations."""
    kind = "boxes" if metrics.iou_type == "bbox" else "masks"
    lines = [
        f"{counted(metrics.images, 'image')}, {counted(metrics.annotations, 'annotation')}, "
        f"{counted(metrics.detections, 'detection')} ({kind})",
        f"AP {_percent(metrics.ap)}   AP50 {_percent(metrics.ap50)}   AP75 {_percent(metrics.ap75)}   "
        f"small {_percent(metrics.ap_small)}   medium {_percent(metrics.ap_medium)}   "
        f"large {_percent(metrics.ap_large)}",
        f"AR {_percent(metrics.ar100)}   with 1 {_percent(metrics.ar1)}   with 10 {_percent(metrics.ar10)}   "
        f"small {_percent(metrics.ar_small)}   medium {_percent(metrics.ar_medium)}   "
        f"large {_percent(metrics.ar_large)}",
    ]
    if metrics.has_id_0:
        lines.append("an annotation has the id 0 and counts as never found, as in COCO's tools: number them from 1")
    results = [result for result in metrics.per_class if result.ap > ABSENT]
    width = max([5, *(len(shortened(result.name)) for result in results)])
    lines += ["", f"{'class':<{width}}     AP   AP50"]
    lines += [
        f"{shortened(result.name):<{width}}  {_percent(result.ap):>5}  {_percent(result.ap50):>5}" for result in results
    ]
    return "\n".join(lines)


def _percent(figure: float) -> str:
    return "-" if figure == ABSENT else f"{100 * figure:.1f}"


# --- one class --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Regions:
    """Annotations or detections, sorted by category and then by image.

    images, categories: (N,) int64, their indices in the order of the ids; areas: (N,); shapes: boxes (N, 4) as (x, y,
    width, height), or masks, (N,) of Runs.
    """

    images: np.ndarray
    categories: np.ndarray
    areas: np.ndarray
    shapes: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: np.ndarray | slice) -> Self:
        return replace(self, **{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def of(self, category: int) -> Self:
        return self.take(slice(*self.categories.searchsorted([category, category + 1])))


@dataclass(frozen=True)
class _Annotations(_Regions):
    """is_crowd, ids: (N,)."""

    is_crowd: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class _Detections(_Regions):
    """scores: (N,), descending in an image and category; ranks: (N,), 0 for the first of these."""

    scores: np.ndarray
    ranks: np.ndarray


def _category_curves(truth: _Annotations, found: _Detections) -> tuple[np.ndarray, np.ndarray]:
    """Precision at each recall, (A, T, R), and the highest recall with 1, 10 and 100 detections, (A, 3, T).

    truth, found: of one category.
    """
    precision = np.full((len(AREAS), len(IOU_THRESHOLDS), len(RECALLS)), ABSENT)
    recall = np.full((len(AREAS), len(MAX_DETECTIONS), len(IOU_THRESHOLDS)), ABSENT)
    is_ignored = truth.is_crowd[:, np.newaxis] | _is_outside(truth.areas)  # (G, A)
    totals = (~is_ignored).sum(axis=0)  # (A,), the annotations to be found
    if not totals.any():
        return precision, recall
    is_match, is_void = _match(truth, found, is_ignored)  # (A, T, N)
    is_void |= ~is_match & _is_outside(found.areas).T[:, np.newaxis]
    by_score = np.argsort(-found.scores, kind="stable")
    is_right = (is_match & ~is_void)[..., by_score]
    is_wrong = ~(is_match | is_void)[..., by_score]
    right, wrong = np.cumsum(is_right, axis=-1), np.cumsum(is_wrong, axis=-1)
    for area in np.flatnonzero(totals):
        recalls = right[area] / totals[area]  # (T, N)
        precisions = right[area] / (wrong[area] + right[area] + np.spacing(1))
        envelope = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
        envelope = np.pad(envelope, ((0, 0), (0, 1)))  # 0 at recalls that are not reached
        for t in range(len(IOU_THRESHOLDS)):
            precision[area, t] = envelope[t, recalls[t].searchsorted(RECALLS)]
        for m, most in enumerate(MAX_DETECTIONS):
            counts = is_right[area][:, found.ranks[by_score] < most].sum(axis=1)
            recall[area, m] = counts / totals[area]
    return precision, recall


def _is_outside(areas: np.ndarray) -> np.ndarray:
    """Which objects have another size than each range, (N, A)."""
    return (areas[:, np.newaxis] < AREAS[:, 0]) | (areas[:, np.newaxis] > AREAS[:, 1])


def _match(truth: _Annotations, found: _Detections, is_ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which detections are matched to an annotation, and which to one that is ignored: (A, T, N) of bool each.

    A detection takes the annotation it overlaps most, above the threshold, of those that no better detection took; an
    ignored one only if no other is left; of equal overlaps the last. A crowd can be taken again. Detections of several
    images have nothing to do with each other: first the best of each image are matched, then the second ones ...
    is_ignored: (G, A).
    """
    shape = len(AREAS), len(IOU_THRESHOLDS), len(found)
    is_match, is_void = np.zeros(shape, bool), np.zeros(shape, bool)
    detections, choices, ious = _choices(truth, found)
    taken = np.zeros((len(truth), *shape[:2]), bool)
    for turn in _turns(found.images[detections]):
        choice = choices[turn]  # (n, P): indices of annotations, the one that is overlapped most first
        is_open = ~taken[choice] | truth.is_crowd[choice][..., np.newaxis, np.newaxis]
        is_open &= ious[turn][..., np.newaxis, np.newaxis] >= IOU_THRESHOLDS  # (n, P, A, T)
        ignored = is_ignored[choice][..., np.newaxis]
        is_open = np.concatenate([is_open & ~ignored, is_open & ignored], axis=1)  # (n, 2 P, A, T)
        best = is_open.argmax(axis=1)  # (n, A, T)
        match = np.nonzero(is_open.any(axis=1))
        best_of_match = best[match]
        annotation = choice[match[0], best_of_match % choice.shape[1]]
        taken[annotation, match[1], match[2]] = True
        detection = detections[turn][match[0]]
        is_match[match[1], match[2], detection] = truth.ids[annotation] != 0
        is_void[match[1], match[2], detection] = best_of_match >= choice.shape[1]
    return is_match, is_void


def _choices(truth: _Annotations, found: _Detections) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The detections that overlap an annotation enough for any threshold, and those annotations, the best first.

    -> indices of detections (C,), ascending; indices of annotations (C, P), and the overlaps with them (C, P), -1 where
    there are fewer than P.
    """
    first = truth.images.searchsorted(found.images)
    counts = truth.images.searchsorted(found.images, side="right") - first
    detection = np.repeat(np.arange(len(found)), counts)  # of each pair in the same image
    annotation = _places(counts) + first[detection]
    if found.shapes.ndim == 2:
        ious = _box_ious(found.shapes[detection], truth.shapes[annotation], truth.is_crowd[annotation])
    else:
        ious = paired_mask_ious(found.shapes, truth.shapes, truth.is_crowd, detection, annotation)
    order = np.lexsort((-annotation, -ious, detection))
    order = order[ious[order] >= IOU_THRESHOLDS[0]]
    detections, counts = np.unique(detection[order], return_counts=True)
    row, column = np.repeat(np.arange(len(counts)), counts), _places(counts)
    choices = np.zeros((len(counts), counts.max(initial=0)), np.int64)
    choice_ious = np.full(choices.shape, -1.0)
    choices[row, column], choice_ious[row, column] = annotation[order], ious[order]
    return detections, choices, choice_ious


def _turns(images: np.ndarray) -> Iterator[np.ndarray]:
    """The indices of the first entries of all images, those of the second ones ... images: (C,), ascending."""
    _, counts = np.unique(images, return_counts=True)
    places = _places(counts)
    order = np.argsort(places, kind="stable")
    yield from np.split(order, np.cumsum(np.bincount(places))[:-1]) if len(images) else ()


def _places(counts: np.ndarray) -> np.ndarray:
    """0 1 ... count - 1 for each count, in one array."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _box_ious(boxes: np.ndarray, others: np.ndarray, is_crowd: np.ndarray) -> np.ndarray:
    """Intersection over union of pairs of boxes, (P, 4) as (x, y, width, height) -> (P,); over the first for crowds."""
    corners, other_corners = boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:]
    sides = np.minimum(corners, other_corners) - np.maximum(boxes[:, :2], others[:, :2])
    overlaps = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    areas, other_areas = boxes[:, 2] * boxes[:, 3], others[:, 2] * others[:, 3]
    unions = np.where(is_crowd, areas, areas + other_areas - overlaps)
    return np.divide(overlaps, unions, out=np.zeros(len(boxes)), where=overlaps > 0)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Index:
    """What annotations and results refer to.

    image_ids: (I,), category_ids: (K,), both ascending; sizes: (I, 2), heights and widths, or None where boxes are
    compared; names: of the categories.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    sizes: np.ndarray | None
    names: list[str]


def _read_index(ground_truth: Mapping[str, Any], *, with_sizes: bool) -> _Index:
    if not isinstance(ground_truth, Mapping):
        raise DatasetError(f"ground truth: found {_shown(ground_truth)}, expected an object with 'annotations'")
    images, categories = (_rows(ground_truth.get(name), name) for name in ("images", "categories"))
    image_ids, image_order = _ids(images, "images")
    category_ids, category_order = _ids(categories, "categories")
    sizes = None
    if with_sizes:
        sizes = np.stack([_numbers(images, "images", side, whole=True) for side in ("height", "width")], axis=1)
        for row, size in enumerate(sizes.tolist()):
            _at(f"images[{row}]", check_mask_size, *size)
        sizes = sizes[image_order]
    names = [categories[row].get("name", str(categories[row]["id"])) for row in category_order]
    for name in names:
        if not isinstance(name, str):
            raise DatasetError(f"categories: name: found {_shown(name)}, expected a string")
    return _Index(image_ids, category_ids, sizes, names)


def _read_annotations(ground_truth: Mapping[str, Any], index: _Index) -> _Annotations:
    name = "annotations"
    rows = _rows(ground_truth.get(name), name)
    _ids(rows, name)  # raises for one that occurs twice
    images, categories = _references(rows, name, index)
    annotations = _Annotations(
        images=images,
        categories=categories,
        areas=_numbers(rows, name, "area"),
        shapes=_boxes(rows, name) if index.sizes is None else _masks(rows, name, index.sizes[images]),
        is_crowd=_numbers(rows, name, "iscrowd", default=0) != 0,
        ids=_numbers(rows, name, "id", whole=True),
    )
    return annotations.take(np.lexsort((images, categories)))


def _read_results(results: Sequence[Mapping[str, Any]], index: _Index) -> _Detections:
    name = "results"
    rows = _rows(results, name)
    images, categories = _references(rows, name, index)
    shapes = _boxes(rows, name) if index.sizes is None else _masks(rows, name, index.sizes[images])
    if index.sizes is None or (rows and "bbox" in rows[0]):
        areas = _boxes(rows, name)[:, 2:].prod(axis=1)
    else:
        areas = np.array([runs.area for runs in shapes], np.float64)
    scores = _numbers(rows, name, "score")
    detections = _Detections(images, categories, areas, shapes, scores, ranks=np.zeros(len(rows), np.int64))
    detections = detections.take(np.lexsort((-scores, images, categories)))
    ranks = _places(np.unique(detections.categories * len(index.image_ids) + detections.images, return_counts=True)[1])
    return replace(detections, ranks=ranks).take(ranks < MAX_DETECTIONS[-1])


def _rows(rows: Any, name: str) -> Sequence[dict[str, Any]]:
    if not isinstance(rows, list | tuple):
        raise DatasetError(f"{name}: found {_shown(rows)}, expected a list of objects")
    for row in rows:
        if not isinstance(row, dict):
            raise DatasetError(f"{name}: found {_shown(row)} in the list, expected objects")
    return rows


def _ids(rows: Sequence[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows' ids, ascending, and the order of the rows that makes them so."""
    ids = _numbers(rows, name, "id", whole=True)
    order = np.argsort(ids)
    ids = ids[order]
    for twice in ids[1:][ids[1:] == ids[:-1]]:
        raise DatasetError(f"{name}: the id {twice} occurs more than once")
    return ids, order


def _references(rows: Sequence[dict[str, Any]], name: str, index: _Index) -> Iterator[np.ndarray]:
    """Which image and which category each row belongs to, by their places in the index."""
    for key, ids in (("image_id", index.image_ids), ("category_id", index.category_ids)):
        wanted = _numbers(rows, name, key, whole=True)
        places = ids.searchsorted(wanted)
        for row in np.flatnonzero(~np.isin(wanted, ids)):
            raise DatasetError(
                f"{name}[{row}]: {key}: found {wanted[row]}, expected one of the {len(ids)} ids in the ground truth"
            )
        yield places


def _boxes(rows: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    boxes = _numbers(rows, name, "bbox", length=4)
    for row in np.flatnonzero((boxes[:, 2:] < 0).any(axis=1)):
        raise DatasetError(
            f"{name}[{row}]: bbox: found {boxes[row].tolist()}, expected [x, y, width, height] of no negative size"
        )
    return boxes


def _masks(rows: Sequence[dict[str, Any]], name: str, sizes: np.ndarray) -> np.ndarray:
    masks = np.empty(len(rows), object)
    for number, (row, size) in enumerate(zip(rows, sizes.tolist(), strict=True)):
        place = f"{name}[{number}]: segmentation"
        masks[number] = _at(place, Runs.from_segmentation, row.get("segmentation"), *size)
    return masks


def _numbers(
    rows: Sequence[dict[str, Any]],
    name: str,
    key: str,
    *,
    whole: bool = False,
    length: int | None = None,
    default: int | None = None,
) -> np.ndarray:
    """What the rows hold under a key: numbers, (N,) or (N, length), as float64, or int64 if they must be whole."""
    shape = () if length is None else (length,)
    if not rows:
        return np.zeros((0, *shape), np.int64 if whole else np.float64)
    values = _array([row.get(key, default) for row in rows], whole)
    if values is None or values.shape != (len(rows), *shape):
        for number, row in enumerate(rows):
            value = row.get(key, default)
            array = _array(value, whole)
            if array is None or array.shape != shape:
                one = "a whole number" if whole else "a number"
                expected = one if length is None else f"{length} numbers"
                raise DatasetError(f"{name}[{number}]: {key}: found {_shown(value)}, expected {expected}")
    assert values is not None  # each row has been looked at
    return values.astype(np.int64 if whole else np.float64)


def _array(values: Any, whole: bool) -> np.ndarray | None:
    """Values as an array; None unless all are numbers that float64 can count to, and whole if they must be."""
    try:
        array = np.array(values)
    except (ValueError, TypeError, OverflowError):  # lists of several lengths
        return None
    if array.dtype.kind not in ("iu" if whole else "iufb") or not ((array >= -LARGEST) & (array <= LARGEST)).all():
        return None
    return array


def _at(place: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """What the function returns; errors say where in the data they are."""
    try:
        return function(*arguments)
    except DatasetError as error:
        raise DatasetError(f"{place}: {error}") from None


def _shown(value: Any) -> str:
    """A value from a file, for a message: its beginning."""
    return printable(reprlib.repr(value))
