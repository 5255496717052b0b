"""What all segmentors have in common: logits, the loss, and class numbers at a picture's full resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .. import ops
from ..errors import ShapeError
from ..models.backbone import DenseBackbone
from ..nn import Backward, Context, Module
from .classifier import FCNHead
from .config import SegmentorConfig
from .maps import Maps

AUXILIARY_STAGE = 2  # whose map the auxiliary head sees

Sizes = Sequence[tuple[int, int]]


class Segmentor(Module):
    """images (B, H, W, 3), normalized floats of any size -> logits (B, ceil(H / 4), ceil(W / 4), num_classes).

    A subclass adds its head and `decode`, which leads from the backbone's four maps to the logits; with an
    `auxiliary_head` the loss has a second part. `labels` names the classes, in the order of the logits, or is None.
    """

    def __init__(self, config: SegmentorConfig, labels: list[str] | None = None) -> None:
        self.config = config
        self.labels = labels
        self.backbone = DenseBackbone(config.backbone)
        self.auxiliary_head: FCNHead | None = None

    def set_paths(self) -> None:
        """Tell every module its dotted path; a subclass calls this when it is complete."""
        for path, module in self.named_modules():
            module.path = path

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the weights, which images are converted to."""
        return self.backbone.dtype

    @property
    def label_dtype(self) -> np.dtype:
        """The smallest dtype of class numbers: uint8 up to 256 classes."""
        return np.min_scalar_type(self.config.num_classes - 1)

    def decode(self, features: Maps, context: Context) -> tuple[np.ndarray, Backward]:
        """The backbone's maps -> logits; backward takes their gradient and returns a list with one for each map."""
        raise NotImplementedError

    def forward(self, images: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        features, features_backward = self.backbone.forward(images, context)
        logits, decode_backward = self.decode(features, context)

        def backward(d_logits: np.ndarray) -> np.ndarray:
            return features_backward(decode_backward(d_logits))

        return logits, backward if context.gradients else None  # type: ignore[return-value]

    def loss(self, images: np.ndarray, labels: np.ndarray, context: Context) -> tuple[dict[str, float], Backward]:
        """({"decode": ..., "auxiliary": ...}, backward): the parts of the loss, which is their sum, weighted already.

        labels: (B, H, W) class numbers, 255 where a pixel is to be ignored. `backward()` accumulates the gradient of
        every parameter and returns d_images. Raises ShapeError for labels that do not fit the images or the classes.
        """
        if np.shape(labels) != np.shape(images)[:3]:
            raise ShapeError(f"labels: found shape {np.shape(labels)}, expected {np.shape(images)[:3]}, as the images")
        features, features_backward = self.backbone.forward(images, context)
        logits, decode_backward = self.decode(features, context)
        losses = {}
        losses["decode"], decode_loss_backward = self._map_loss(logits, labels, 1.0, context)
        if self.auxiliary_head is not None:
            logits, auxiliary_backward = self.auxiliary_head.forward(features[AUXILIARY_STAGE], context)
            weight = self.config.auxiliary_weight
            losses["auxiliary"], auxiliary_loss_backward = self._map_loss(logits, labels, weight, context)

        def backward() -> np.ndarray:
            d_features = decode_backward(decode_loss_backward())
            if self.auxiliary_head is not None:
                d_feature = auxiliary_backward(auxiliary_loss_backward())
                d_features[AUXILIARY_STAGE] = d_features[AUXILIARY_STAGE] + d_feature
            return features_backward(d_features)

        return losses, backward if context.gradients else None  # type: ignore[return-value]

    def _map_loss(
        self, logits: np.ndarray, labels: np.ndarray, weight: float, context: Context
    ) -> tuple[float, Backward]:
        """weight times the loss of logits (B, h, w, K), resized to labels (B, H, W); backward() gives the gradient."""
        resized, resize_backward = context.apply(ops.resize, logits, size=labels.shape[1:])
        weights = self.config.class_weights
        loss, loss_backward = context.apply(ops.pixel_cross_entropy, resized, labels=labels, class_weights=weights)

        def backward() -> np.ndarray:
            return resize_backward(loss_backward(weight))

        return weight * float(loss), backward

    def segment(self, images: np.ndarray, sizes: Sizes | None = None) -> np.ndarray | list[np.ndarray]:
        """The most probable class of each pixel: (B, H, W) class numbers.

        sizes: (height, width) of each picture before it was resized for the network; the answer has this size (a list
        of arrays if they differ). None stands for the size of the images.
        """
        answers = [logits.argmax(axis=-1).astype(self.label_dtype) for logits in self.full_logits(images, sizes)]
        return np.stack(answers) if len({answer.shape for answer in answers}) == 1 else answers

    def full_logits(self, images: np.ndarray, sizes: Sizes | None = None) -> Iterator[np.ndarray]:
        """The logits of one picture after another, (height, width, num_classes), at the sizes that `segment` explains.

        They are resized twice, as the authors do: to the size of the images, then to that of the picture.
        """
        size = np.shape(images)[1:3]
        _check_sizes(images, sizes)
        logits, _ = self.forward(images, Context())
        for i in range(len(logits)):
            steps = [size]
            if sizes is not None:
                steps.append((int(sizes[i][0]), int(sizes[i][1])))
            yield resize_in_steps(logits[i], steps)


def _check_sizes(images: np.ndarray, sizes: Sizes | None) -> None:
    if sizes is not None and len(sizes) != len(images):
        raise ShapeError(f"sizes: found {len(sizes)}, expected {len(images)}, one an image")


def resize_in_steps(logits: np.ndarray, sizes: Sizes) -> np.ndarray:
    """Logits (h, w, K) resized to one of `sizes` after another, bilinear."""
    maps = logits[np.newaxis]
    for size in sizes:
        maps, _ = Context().apply(ops.resize, maps, size=size)
    return maps[0]
