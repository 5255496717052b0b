"""RetinaNet: every anchor of every level says at once what it holds and where exactly (arXiv 1708.02002)."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np

from .. import ops
from ..data.targets import BoxTargets
from ..models.pyramid import Maps
from ..nn import Backward, Context, Conv2d, Module
from ..nn.initializers import constant, truncated_normal
from .anchors import base_anchors, level_anchors
from .assignment import IGNORED, assign
from .config import RetinaNetConfig
from .detections import Detections, check_finite
from .detector import IOU_THRESHOLD, LIMIT, SCORE_THRESHOLD, Detector, Sizes, check_targets, image_sizes

CANDIDATES = 1000  # at most so many answers of a level are looked at, the best
EPSILON = float(np.finfo(np.float32).eps)  # which mmdetection adds to the number of positives


class Tower(Module):
    """x (B, H, W, channels) -> (B, H, W, outputs): convolutions with ReLU, and a last one without; all 3x3."""

    def __init__(self, channels: int, outputs: int, convolutions: int, *, bias: float = 0.0) -> None:
        self.convs = [Conv2d(channels, channels, 3, padding=1) for _ in range(convolutions)]
        self.output = Conv2d(channels, outputs, 3, padding=1)
        for conv in (*self.convs, self.output):
            assert conv.bias is not None
            conv.weight.initializer, conv.bias.initializer = truncated_normal(0.01), constant(0.0)
        assert self.output.bias is not None
        self.output.bias.initializer = constant(bias)

    def forward(self, x: np.ndarray, context: Context) -> tuple[np.ndarray, Backward]:
        backwards = []
        for conv in self.convs:
            x, conv_backward = conv.forward(x, context)
            x, relu_backward = context.apply(ops.relu, x)
            backwards += [conv_backward, relu_backward]
        output, output_backward = self.output.forward(x, context)

        def backward(d_output: np.ndarray) -> np.ndarray:
            d_x = output_backward(d_output)
            for step_backward in reversed(backwards):
                d_x = step_backward(d_x)
            return d_x

        return output, backward


class RetinaHead(Module):
    """Two towers that all levels share: one for classes, one for boxes."""

    def __init__(self, config: RetinaNetConfig) -> None:
        self.anchors = len(config.anchor_scales) * len(config.anchor_ratios)
        channels, convolutions = config.pyramid_channels, config.head_convolutions
        prior = -log((1 - config.prior) / config.prior)  # its sigmoid is config.prior: few false alarms at first
        self.classes = Tower(channels, self.anchors * config.num_classes, convolutions, bias=prior)
        self.boxes = Tower(channels, self.anchors * 4, convolutions)

    def forward(self, x: np.ndarray, context: Context) -> tuple[tuple[np.ndarray, np.ndarray], Backward]:
        """A level (B, H, W, channels) -> logits (B, H, W, anchors, classes) and deltas (B, H, W, anchors, 4).

        Backward takes the gradients of both.
        """
        logits, classes_backward = self.classes.forward(x, context)
        deltas, boxes_backward = self.boxes.forward(x, context)

        def backward(d_logits: np.ndarray, d_deltas: np.ndarray) -> np.ndarray:
            return classes_backward(d_logits.reshape(logits.shape)) + boxes_backward(d_deltas.reshape(deltas.shape))

        split = (*x.shape[:3], self.anchors, -1)
        return (logits.reshape(split), deltas.reshape(split)), backward


class RetinaNet(Detector):
    """images (B, H, W, 3), normalized floats of any size -> class logits and box deltas of every anchor."""

    config: RetinaNetConfig

    def __init__(self, config: RetinaNetConfig, labels: list[str] | None = None) -> None:
        super().__init__(config, labels)
        self.head = RetinaHead(config)
        self.set_paths()

    def forward(self, images: np.ndarray, context: Context) -> tuple[tuple[Maps, Maps], Backward]:
        """Two lists, a level each: class logits (B, H, W, anchors, classes), box deltas (B, H, W, anchors, 4).

        Backward takes two such lists of gradients and returns d_images.
        """
        levels, levels_backward = self.levels(images, context)
        logits, deltas, head_backwards = [], [], []
        for level in levels:
            (of_classes, of_boxes), head_backward = self.head.forward(level, context)
            logits.append(of_classes)
            deltas.append(of_boxes)
            head_backwards.append(head_backward)

        def backward(d_logits: Maps, d_deltas: Maps) -> np.ndarray:
            return levels_backward([b(*d) for b, *d in zip(head_backwards, d_logits, d_deltas, strict=True)])

        return (logits, deltas), backward if context.gradients else None  # type: ignore[return-value]

    def base_anchors(self) -> list[np.ndarray]:
        """The anchors of each level around the origin, (anchors, 4) float32."""
        config = self.config
        return [base_anchors(stride, config.anchor_scales, config.anchor_ratios) for stride in config.strides]

    def loss(
        self, images: np.ndarray, targets: Sequence[BoxTargets], context: Context
    ) -> tuple[dict[str, float], Backward]:
        """({"class": ..., "box": ...}, backward): focal loss of all answers, L1 loss of the positive anchors' deltas.

        Both are divided by the number of positive anchors in the batch; an image without any counts as one with one.
        targets: the objects of each image. `backward()` accumulates the gradient of every parameter and returns
        d_images. Raises ShapeError for targets that do not fit the images or the classes.
        """
        check_targets(images, targets, self.config.num_classes)
        (logits, deltas), forward_backward = self.forward(images, context)
        batch, classes = len(images), self.config.num_classes
        all_logits = np.concatenate([x.reshape(batch, -1, classes) for x in logits], axis=1)  # (B, N, classes)
        all_deltas = np.concatenate([x.reshape(batch, -1, 4) for x in deltas], axis=1)  # (B, N, 4)
        anchors = np.concatenate(self.anchors(logits))
        goals = [self._goals(anchors, target) for target in targets]
        labels, weights, positive = (np.stack([goal[i] for goal in goals]) for i in range(3))  # (B, N) each
        count = sum(max(1, int(number)) for number in positive.sum(axis=1)) + EPSILON
        class_loss, class_backward = context.apply(
            ops.focal_loss, all_logits.reshape(-1, classes), labels=labels.ravel(), weights=weights.ravel()
        )
        box_targets = np.concatenate([encoded for *_, encoded in goals])
        box_loss, box_backward = context.apply(ops.l1_loss, all_deltas[positive], targets=box_targets)

        def backward() -> np.ndarray:
            d_logits = class_backward(1 / count).reshape(all_logits.shape)
            d_deltas = np.zeros_like(all_deltas)
            d_deltas[positive] = box_backward(1 / count)
            return forward_backward(_split(d_logits, logits), _split(d_deltas, deltas))

        losses = {"class": float(class_loss) / count, "box": float(box_loss) / count}
        return losses, backward if context.gradients else None  # type: ignore[return-value]

    def anchors(self, levels: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The anchors of each level (B, H, W, ...), (H W anchors, 4) float32."""
        strides = self.config.strides
        return [
            level_anchors((level.shape[1], level.shape[2]), stride, base)
            for level, stride, base in zip(levels, strides, self.base_anchors(), strict=True)
        ]

    def _goals(self, anchors: np.ndarray, target: BoxTargets) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What the anchors (N, 4) of one image are to answer.

        labels (N,), the number of classes for the background; weights (N,), 0 for the anchors that do not count; which
        are positive (N,); and the deltas of these, (p, 4) float32 as mmdetection has them.
        """
        config = self.config
        assigned = assign(
            anchors,
            target.boxes,
            positive_iou=config.positive_iou,
            negative_iou=config.negative_iou,
            low_quality_iou=0.0,
        )
        positive = assigned >= 0
        labels = np.full(len(anchors), config.num_classes)
        labels[positive] = target.labels[assigned[positive]]
        objects = target.boxes[assigned[positive]].astype(np.float32)
        deltas, _ = ops.encode_boxes(objects, anchors=anchors[positive])
        return labels, (assigned != IGNORED).astype(np.float32), positive, deltas

    def detect(
        self,
        images: np.ndarray,
        sizes: Sizes | None = None,
        *,
        score_threshold: float = SCORE_THRESHOLD,
        iou_threshold: float = IOU_THRESHOLD,
        limit: int = LIMIT,
        scale_factors: Sequence[np.ndarray] | None = None,
        picture_sizes: Sizes | None = None,
    ) -> list[Detections]:
        """See `Detector.detect`; there are no masks, for which `picture_sizes` would matter.

        Of each level the 1000 best answers that exceed `score_threshold` are looked at: an anchor may hold several
        classes. Raises ShapeError for another number of sizes, CheckpointError for scores that are not finite.
        """
        images = np.asarray(images)
        sizes = image_sizes(images, sizes)
        (logits, deltas), _ = self.forward(images, Context())
        check_finite(self.config.name, *logits, *deltas)
        answers = []
        for i, size in enumerate(sizes):
            boxes, scores, labels = self._candidates(
                [x[i] for x in logits], [x[i] for x in deltas], size, score_threshold
            )
            if scale_factors is not None:
                boxes = boxes / scale_factors[i]
            kept = ops.class_nms(boxes, scores, labels, threshold=iou_threshold)[:limit]
            answers.append(Detections(boxes[kept], scores[kept], labels[kept]))
        return answers

    def _candidates(
        self, logits: Maps, deltas: Maps, size: tuple[int, int], score_threshold: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best answers of all levels for one image: boxes (n, 4), clipped to its size, scores (n,), labels (n,)."""
        boxes, scores, labels = [], [], []
        for of_classes, of_boxes, stride, base in zip(
            logits, deltas, self.config.strides, self.base_anchors(), strict=True
        ):
            probabilities = ops.sigmoid(of_classes)[0].ravel()
            best = best_above(probabilities, score_threshold, CANDIDATES)
            anchor, label = np.divmod(best, self.config.num_classes)
            anchors = level_anchors(of_classes.shape[:2], stride, base.astype(of_boxes.dtype))
            decoded, _ = ops.decode_boxes(of_boxes.reshape(-1, 4)[anchor], anchors=anchors[anchor], image_size=size)
            boxes.append(decoded)
            scores.append(probabilities[best])
            labels.append(label)
        return np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels)


def best_above(scores: np.ndarray, threshold: float, limit: int) -> np.ndarray:
    """Indices of the scores (N,) above `threshold`, best first, at most `limit`; equal ones in their order."""
    above = np.flatnonzero(scores > threshold)
    if len(above) > limit:  # those that cannot be among the best need no sorting
        above = above[scores[above] >= np.partition(scores[above], -limit)[-limit]]
    return above[np.argsort(-scores[above], kind="stable")][:limit]


def _split(flat: np.ndarray, levels: Maps) -> Maps:
    """(B, N, ...) of all levels -> a list of arrays of the levels' shapes."""
    bounds = np.cumsum([level[0].size // flat.shape[-1] for level in levels])[:-1]
    return [part.reshape(level.shape) for part, level in zip(np.split(flat, bounds, axis=1), levels, strict=True)]
