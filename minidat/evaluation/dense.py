"""How good detectors and segmentors are on a data set: COCO's average precision, and mean IoU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..data.dense_dataset import DenseDataset, Targets
from ..data.dense_preprocessing import preprocess_segmentation
from ..data.detection_dataset import DetectionDataset
from ..data.masks import encode_rle
from ..data.segmentation_dataset import IGNORED, SegmentationDataset
from ..detection import Detections, Detector
from ..detection.detections import detect_picture
from ..errors import CheckpointError, ConfigError, DatasetError, MinidatError
from ..segmentation import Segmentor
from .accuracy import match_classes
from .average_precision import DetectionMetrics, evaluate_detections
from .segmentation import SegmentationMetrics

SCORE_THRESHOLD = 0.05  # the authors'
MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # the factors of the papers' multi-scale results, with flips

Progress = Callable[[int, int], None]
OnError = Callable[[MinidatError], None]


def evaluate_detector(
    model: Detector, dataset: DetectionDataset, *, progress: Progress | None = None, on_error: OnError | None = None
) -> dict[str, DetectionMetrics]:
    """Find the objects in all pictures of a data set, and compare with its annotations.

    Returns {"bbox": ...}, and "segm" too if the model gives masks and the data set has them. The data set's classes are
    found among the model's labels by their names; what the model finds of other classes does not count. progress:
    called with (done, total). on_error: called for each picture that cannot be read, which is left out; without it, it
    is an error. Raises DatasetError for that and for classes the model does not know, ConfigError if it has no labels.
    """
    columns = match_classes(model, dataset)
    categories = dict(zip(columns.tolist(), dataset.category_ids, strict=True))
    results: list[dict[str, Any]] = []
    seen: list[int] = []
    with_masks = False
    for index, image, _ in _pictures(dataset, progress, on_error):
        found = detect_picture(model, image, score_threshold=SCORE_THRESHOLD)
        seen.append(index)
        with_masks = with_masks or found.masks is not None
        results += _results(found, dataset.image_ids[index], categories)
    truth = dataset.annotations if len(seen) == len(dataset) else dataset.subset(seen).annotations
    boxes = [{name: value for name, value in result.items() if name != "segmentation"} for result in results]
    metrics = {"bbox": evaluate_detections(truth, boxes)}
    if with_masks and dataset.has_masks:
        masks = [{name: value for name, value in result.items() if name != "bbox"} for result in results]
        metrics["segm"] = evaluate_detections(truth, masks, iou_type="segm")
    return metrics


def evaluate_segmentor(
    model: Segmentor,
    dataset: SegmentationDataset,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    progress: Progress | None = None,
    on_error: OnError | None = None,
) -> SegmentationMetrics:
    """Tell the class of every pixel in all pictures of a data set, and compare with its label maps.

    scales: factors of `model.config.resize_size`, of which all answers are averaged, as probabilities; flip: each of
    them also mirrored. The papers' multi-scale figures are those of MULTI_SCALE with flips. The data set's classes are
    found among the model's labels by their names. progress, on_error, errors: see `evaluate_detector`.
    """
    if not scales or not all(0 < scale <= 16 for scale in scales):
        raise ConfigError(f"scales: found {tuple(scales)}, expected numbers above 0 and up to 16, at least one")
    columns = match_classes(model, dataset)
    numbers = np.full(256, IGNORED, np.uint8)  # the data set's label -> the model's
    numbers[: len(columns)] = columns
    metrics = SegmentationMetrics(tuple(model.labels or ()))
    for index, image, labels in _pictures(dataset, progress, on_error):
        answer = segment_picture(model, image, scales=scales, flip=flip)
        metrics.update(answer, numbers[labels], name=dataset.label_maps[index])
    return metrics


def segment_picture(
    model: Segmentor, image: np.ndarray, *, scales: Sequence[float] = (1.0,), flip: bool = False
) -> np.ndarray:
    """The class of every pixel of a picture (H, W, 3) uint8: (H, W) class numbers. See `evaluate_segmentor`.

    Raises CheckpointError if the weights give logits that are not finite.
    """
    single = len(scales) == 1 and not flip  # one answer needs no average
    total = np.zeros((*image.shape[:2], model.config.num_classes), model.dtype)
    sides = model.config.resize_size
    for scale in scales:
        longest, shortest = (max(1, int(side * scale)) for side in sides)
        for mirrored in (False, True) if flip else (False,):
            seen = np.ascontiguousarray(image[:, ::-1] if mirrored else image)
            pixels = preprocess_segmentation(seen, scale=(longest, shortest))
            (logits,) = model.full_logits(pixels[np.newaxis], [image.shape[:2]])
            _check_finite(model, logits)
            answer = logits if single else ops.softmax(logits)[0]
            total += answer[:, ::-1] if mirrored else answer
    return total.argmax(axis=-1).astype(model.label_dtype)


def _check_finite(model: Segmentor, logits: np.ndarray) -> None:
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{model.config.name}: the logits are not finite numbers; use undamaged weights")


def _pictures(
    dataset: DenseDataset[Targets], progress: Progress | None, on_error: OnError | None
) -> Iterator[tuple[int, np.ndarray, Targets]]:
    """(index, picture, targets) of all that can be read."""
    skipped = 0
    for index in range(len(dataset)):
        (item,) = dataset.load_many([index])
        if isinstance(item, MinidatError):
            if on_error is None:
                raise item
            on_error(item)
            skipped += 1
        else:
            yield index, *item
        if progress is not None:
            progress(index + 1, len(dataset))
    if skipped == len(dataset):
        raise DatasetError(f"{dataset.name}: none of its {len(dataset)} pictures can be read, expected at least one")


def _results(found: Detections, image_id: int, categories: dict[int, int]) -> list[dict[str, Any]]:
    """Detections in one picture as COCO's results have them, but for classes that the data set has not."""
    results = []
    boxes = found.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]  # (x1, y1, x2, y2) -> (x, y, width, height)
    for i, label in enumerate(found.labels.tolist()):
        if label in categories:
            result = {
                "image_id": image_id,
                "category_id": categories[label],
                "score": float(found.scores[i]),
                "bbox": boxes[i].tolist(),
            }
            if found.masks is not None:
                result["segmentation"] = encode_rle(found.masks[i])
            results.append(result)
    return results
