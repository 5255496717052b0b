"""Region proposals: where there may be an object, of whatever class (Faster R-CNN, arXiv 1506.01497, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import ops
from ..data.targets import BoxTargets
from ..models.pyramid import Maps
from ..nn import Backward, Context, Conv2d, Module
from ..nn.initializers import constant, truncated_normal
from .assignment import assign
from .sampling import generator, sample
from .two_stage_config import TwoStageConfig

PROPOSAL_IOU = 0.7  # of two proposals of a level that overlap more, the better one stays
POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3  # of an anchor with an object; an object's best anchors count from 0.3 on
ANCHOR_FRACTION = 0.5  # at most so many of the sampled anchors are positive


class RegionProposals(Module):
    """Every level of a pyramid, (B, H, W, channels) -> logits (B, H, W, anchors, 1) and deltas (B, H, W, anchors, 4).

    One small network for all levels: a 3x3 convolution and a ReLU, then a 1x1 convolution for "is there an object" and
    one for the way from the anchor to its box.
    """

    def __init__(self, channels: int, anchors: int) -> None:
        self.conv = Conv2d(channels, channels, 3, padding=1)
        self.classifier = Conv2d(channels, anchors, 1)
        self.regressor = Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.classifier, self.regressor):
            assert layer.bias is not None
            layer.weight.initializer, layer.bias.initializer = truncated_normal(0.01), constant(0.0)

    def forward(self, levels: Sequence[np.ndarray], context: Context) -> tuple[tuple[Maps, Maps], Backward]:
        """Backward takes two lists, (d_logits, d_deltas), and returns one with the gradient of each level."""
        logits, deltas, backwards = [], [], []
        for level in levels:
            (of_level, deltas_of_level), level_backward = self._forward_level(level, context)
            logits.append(of_level)
            deltas.append(deltas_of_level)
            backwards.append(level_backward)

        def backward(d_logits: Maps, d_deltas: Maps) -> Maps:
            return [level_backward(*d) for level_backward, *d in zip(backwards, d_logits, d_deltas, strict=True)]

        return (logits, deltas), backward

    def _forward_level(self, level: np.ndarray, context: Context) -> tuple[tuple[np.ndarray, np.ndarray], Backward]:
        x, conv_backward = self.conv.forward(level, context)
        x, relu_backward = context.apply(ops.relu, x)
        logits, classifier_backward = self.classifier.forward(x, context)
        deltas, regressor_backward = self.regressor.forward(x, context)
        batch, height, width, anchors = logits.shape

        def backward(d_logits: np.ndarray, d_deltas: np.ndarray) -> np.ndarray:
            d_x = classifier_backward(d_logits.reshape(logits.shape)) + regressor_backward(
                d_deltas.reshape(deltas.shape)
            )
            return conv_backward(relu_backward(d_x))

        return (logits[..., None], deltas.reshape(batch, height, width, anchors, 4)), backward


def choose_proposals(
    logits: Sequence[np.ndarray],
    deltas: Sequence[np.ndarray],
    anchors: Sequence[np.ndarray],
    size: tuple[int, int],
    context: Context,
    *,
    per_level: int,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The proposals of one image: boxes (n, 4), clipped to its size (height, width), and scores (n,), best first.

    A level each: logits (N,), deltas (N, 4), anchors (N, 4). Of a level only the `per_level` most probable anchors are
    looked at, and of two boxes that overlap much only the better one stays; `count` boxes of all levels remain.
    """
    boxes, scores, levels = [], [], []
    for i, (of_level, deltas_of_level, anchors_of_level) in enumerate(zip(logits, deltas, anchors, strict=True)):
        best = np.argsort(-of_level, kind="stable")[:per_level]
        decoded, _ = ops.decode_boxes(deltas_of_level[best], anchors=anchors_of_level[best], image_size=size)
        probabilities, _ = ops.sigmoid(of_level[best])
        has_area = (decoded[:, 2:] > decoded[:, :2]).all(axis=1)
        boxes.append(decoded[has_area])
        scores.append(probabilities[has_area])
        levels.append(np.full(has_area.sum(), i))
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    choose = context.choose(ops.class_nms)
    kept = choose(all_boxes, all_scores, np.concatenate(levels), threshold=PROPOSAL_IOU)[:count]
    return all_boxes[kept], all_scores[kept]


def proposal_loss(
    logits: Sequence[np.ndarray],
    deltas: Sequence[np.ndarray],
    anchors: Sequence[np.ndarray],
    targets: Sequence[BoxTargets],
    size: tuple[int, int],
    config: TwoStageConfig,
    context: Context,
) -> tuple[dict[str, float], Backward]:
    """Cross entropy of the sampled anchors and L1 loss of the deltas of the positive ones, both over the sample's size.

    A level each: logits (B, H, W, anchors, 1), deltas (B, H, W, anchors, 4), anchors (H W anchors, 4); size: (height,
    width) of the images. `backward()` returns two lists, the gradients of logits and deltas.
    """
    all_logits = np.concatenate([x.reshape(len(x), -1) for x in logits], axis=1)  # (B, anchors of all levels)
    all_deltas = np.concatenate([x.reshape(len(x), -1, 4) for x in deltas], axis=1)
    all_anchors = np.concatenate(anchors)
    usable = np.arange(len(all_anchors))
    if config.anchors_within_image:
        low, high = all_anchors[:, :2], all_anchors[:, 2:]
        usable = np.flatnonzero((low >= 0).all(axis=1) & (high < (size[1], size[0])).all(axis=1))
    positives, negatives, goals, count = [], [], [], 0.0
    for image, target in enumerate(targets):
        objects = target.boxes.astype(all_anchors.dtype)
        assigned = assign(
            all_anchors[usable],
            objects,
            positive_iou=POSITIVE_IOU,
            negative_iou=NEGATIVE_IOU,
            low_quality_iou=NEGATIVE_IOU,
        )
        positive, negative = sample(assigned, config.anchor_sample, ANCHOR_FRACTION, generator(context))
        goals.append(ops.encode_boxes(objects[assigned[positive]], anchors=all_anchors[usable[positive]])[0])
        positives += [(image, anchor) for anchor in usable[positive]]
        negatives += [(image, anchor) for anchor in usable[negative]]
        count += max(len(positive), 1) + max(len(negative), 1)  # as mmdetection counts

    sampled = tuple(np.array(positives + negatives, int).reshape(-1, 2).T)  # two index arrays: images, anchors
    with_object = tuple(index[: len(positives)] for index in sampled)
    is_object = np.arange(len(sampled[0])) < len(positives)
    class_loss, class_backward = context.apply(ops.binary_cross_entropy, all_logits[sampled], targets=is_object)
    chosen, wanted = all_deltas[with_object], np.concatenate(goals)
    if config.proposal_beta:
        box_loss, box_backward = context.apply(ops.smooth_l1_loss, chosen, targets=wanted, beta=config.proposal_beta)
    else:
        box_loss, box_backward = context.apply(ops.l1_loss, chosen, targets=wanted)

    def backward() -> tuple[Maps, Maps]:
        d_logits, d_deltas = np.zeros_like(all_logits), np.zeros_like(all_deltas)
        d_logits[sampled] = class_backward(1 / count)
        d_deltas[with_object] = box_backward(1 / count)
        bounds = np.cumsum([len(of_level) for of_level in anchors])[:-1]
        return tuple(
            [part.reshape(x.shape) for part, x in zip(np.split(d, bounds, axis=1), outputs, strict=True)]
            for d, outputs in ((d_logits, logits), (d_deltas, deltas))
        )  # type: ignore[return-value]

    return {"proposal_class": float(class_loss) / count, "proposal_box": float(box_loss) / count}, backward
