"""To learn what is where: detectors and segmentors, on pictures of many sizes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.box_augmentation import BoxAugmentation
from ..data.dense_dataset import DenseDataset
from ..data.dense_preprocessing import DETECTION_MULTIPLE, pad_batch
from ..data.detection_dataset import DetectionDataset
from ..data.label_augmentation import LabelAugmentation
from ..data.segmentation_dataset import SegmentationDataset
from ..detection import Detector, DetectorConfig
from ..errors import ConfigError, MinidatError
from ..evaluation import evaluate_detector, evaluate_segmentor
from ..nn import Context
from ..segmentation import Segmentor, SegmentorConfig
from .recipe import Recipe
from .tasks import Objective, Part, Task, scale_gradients


@dataclass(frozen=True)
class DetectionObjective(Objective):
    """Items are (picture (H, W, 3) uint8, BoxTargets, seed of its augmentation).

    Pictures are padded to one size. The loss of a part is divided by what counts in that part (RetinaNet: its positive
    anchors), as on each of the authors' graphics cards; parts weigh as much as they have pictures.
    """

    augmentation: BoxAugmentation

    def gradients(self, model: Detector, items: Sequence[Any], batch: int, rng: np.random.Generator) -> Part:
        augmented = [self.augmentation(image, targets, np.random.default_rng(seed)) for image, targets, seed in items]
        images, _ = pad_batch([image for image, _ in augmented], multiple=DETECTION_MULTIPLE)
        return _gradients(model, images, [targets for _, targets in augmented], batch, rng)


@dataclass(frozen=True)
class SegmentationObjective(Objective):
    """Items are (picture (H, W, 3) uint8, labels (H, W) uint8, seed of its augmentation)."""

    augmentation: LabelAugmentation

    def gradients(self, model: Segmentor, items: Sequence[Any], batch: int, rng: np.random.Generator) -> Part:
        augmented = [self.augmentation(image, labels, np.random.default_rng(seed)) for image, labels, seed in items]
        images, labels = (np.stack(column) for column in zip(*augmented, strict=True))
        return _gradients(model, images, labels, batch, rng)


def _gradients(model: Any, images: np.ndarray, targets: Any, batch: int, rng: np.random.Generator) -> Part:
    """Set all gradients to those of the loss of these images, weighted by their share of the batch."""
    model.zero_grad()
    losses, backward = model.loss(images, targets, Context(gradients=True, training=True, rng=rng))
    backward()
    scale_gradients(model, len(images) / batch)
    for _, parameter in model.named_parameters():
        if parameter.grad is None:  # of a head that had nothing to do, such as that of masks in a part without objects
            parameter.grad = np.zeros_like(parameter.value)
    return Part(len(images), {name: value * len(images) for name, value in losses.items()})


class DenseTask(Task):
    """Pictures in files, each read when its turn comes. The augmentation of a picture is drawn from (seed, epoch, its
    number): it depends neither on the batch it is in nor on the workers."""

    def __init__(self, config: Any, training: DenseDataset[Any], validation: DenseDataset[Any], recipe: Recipe) -> None:
        self.config, self.classes = config, training.classes
        self.training, self.validation = training, validation
        self.seed = recipe.seed

    def __len__(self) -> int:
        return len(self.training)

    def items(self, indices: np.ndarray, epoch: int) -> list[Any]:
        items = []
        for index, item in zip(indices.tolist(), self.training.load_many(indices.tolist()), strict=True):
            if isinstance(item, MinidatError):
                raise item
            items.append((*item, (self.seed, epoch, index, 1)))  # not 0 at the end, which a seed does not tell apart
        return items

    def fingerprint(self) -> dict[str, Any]:
        return {
            name: {"images": len(data), "checksum": zlib.crc32(repr(self._identity(data)).encode())}
            for name, data in (("training", self.training), ("validation", self.validation))
        }

    def _identity(self, dataset: Any) -> Any:
        """What tells a data set from others, as texts and numbers; pictures are not read for it."""
        return dataset.pictures


class DetectionTask(DenseTask):
    """Pictures with boxes; those without any are not trained on, as with the authors."""

    figure = "AP"

    def __init__(
        self, config: DetectorConfig, training: DetectionDataset, validation: DetectionDataset, recipe: Recipe
    ) -> None:
        super().__init__(config, training.subset(training.occupied.tolist()), validation, recipe)
        self.annotated = validation
        assert isinstance(recipe.augmentation, BoxAugmentation)
        self.objective = DetectionObjective(recipe.augmentation)

    def _identity(self, dataset: DetectionDataset) -> Any:
        return [dataset.pictures, dataset.annotations]

    def validate(self, model: Detector) -> dict[str, float]:
        """COCO's average precision of boxes, "AP" and "AP50"; with masks theirs too, "mask_AP" and "mask_AP50"."""
        metrics = evaluate_detector(model, self.annotated)
        figures = {"AP": metrics["bbox"].ap, "AP50": metrics["bbox"].ap50}
        if "segm" in metrics:
            figures |= {"mask_AP": metrics["segm"].ap, "mask_AP50": metrics["segm"].ap50}
        return figures


class SegmentationTask(DenseTask):
    """Pictures with label maps. Raises ConfigError for parts of one picture, which have no statistics to speak of."""

    figure = "mIoU"

    def __init__(
        self, config: SegmentorConfig, training: SegmentationDataset, validation: SegmentationDataset, recipe: Recipe
    ) -> None:
        super().__init__(config, training, validation, recipe)
        self.labeled = validation
        if recipe.batch // recipe.workers < 2:
            raise ConfigError(
                f"recipe: batch: found {recipe.batch} for {recipe.workers} workers, expected at least 2 images for "
                "each: a segmentor normalizes by the statistics of its batch"
            )
        assert isinstance(recipe.augmentation, LabelAugmentation)
        self.objective = SegmentationObjective(recipe.augmentation)

    def _identity(self, dataset: SegmentationDataset) -> Any:
        return [dataset.pictures, dataset.label_maps, dataset.classes]

    def validate(self, model: Segmentor) -> dict[str, float]:
        """Mean IoU, "mIoU", and the share of pixels that are right, "aAcc"."""
        metrics = evaluate_segmentor(model, self.labeled)
        return {"mIoU": metrics.mean_iou, "aAcc": metrics.pixel_accuracy}
