"""Region proposals: where there may be an object, of whatever class (Faster R-CNN, arXiv 1506.01497, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import ops
from ..data.targets import BoxTargets
from ..nn import Backward, Context, Conv2d, Module
from ..nn.initializers import constant, truncated_normal
from .assignment import assign
from .sampling import Sampling, sample

Maps = list[np.ndarray]


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
            return [b(d, d_) for b, d, d_ in zip(backwards, d_logits, d_deltas, strict=True)]

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


@dataclass(frozen=True)
class ProposalConfig:
    """How proposals are chosen.

    per_level: at most so many anchors of a level, the most probable, are looked at; count: so many proposals an image
    remain; iou_threshold: of two of a level that overlap more, the better one stays.
    """

    per_level: int
    count: int
    iou_threshold: float = 0.7


def choose_proposals(
    logits: Sequence[np.ndarray],
    deltas: Sequence[np.ndarray],
    anchors: Sequence[np.ndarray],
    size: tuple[int, int],
    config: ProposalConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """The proposals of one image: boxes (n, 4), clipped to its size (height, width), and scores (n,), best first.

    A level each: logits (N,), deltas (N, 4), anchors (N, 4).
    """
    boxes, scores, levels = [], [], []
    for i, (of_level, deltas_of_level, anchors_of_level) in enumerate(zip(logits, deltas, anchors, strict=True)):
        best = np.argsort(-of_level, kind="stable")[: config.per_level]
        decoded, _ = ops.decode_boxes(deltas_of_level[best], anchors=anchors_of_level[best], image_size=size)
        probabilities, _ = ops.sigmoid(of_level[best])
        has_area = (decoded[:, 2:] > decoded[:, :2]).all(axis=1)
        boxes.append(decoded[has_area])
        scores.append(probabilities[has_area])
        levels.append(np.full(has_area.sum(), i))
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    kept = ops.class_nms(all_boxes, all_scores, np.concatenate(levels), threshold=config.iou_threshold)[: config.count]
    return all_boxes[kept], all_scores[kept]


@dataclass(frozen=True)
class ProposalTraining:
    """How proposals are trained.

    sampling: the anchors an image; positive_iou, negative_iou: an anchor that overlaps an object at least, or all of
    them less than that, is positive or negative; each object's best anchors are positive from negative_iou on, too;
    within_image: whether anchors that cross the border are left out; beta: of smooth L1, 0 for plain L1.
    """

    sampling: Sampling = Sampling(256, 0.5)
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    within_image: bool = False
    beta: float = 0.0


def proposal_loss(
    logits: Sequence[np.ndarray],
    deltas: Sequence[np.ndarray],
    anchors: Sequence[np.ndarray],
    targets: Sequence[BoxTargets],
    size: tuple[int, int],
    training: ProposalTraining,
    rng: np.random.Generator,
    context: Context,
) -> tuple[dict[str, float], Backward]:
    """The loss of the anchors that are sampled: cross entropy of all, L1 of the positives' deltas, both over their number.

    A level each: logits (B, H, W, anchors, 1), deltas (B, H, W, anchors, 4), anchors (H W anchors, 4). `backward()`
    returns the gradients of logits and deltas, two lists.
    """
    batch, all_anchors = len(targets), np.concatenate(anchors)
    flat_logits = np.concatenate([x.reshape(batch, -1) for x in logits], axis=1)  # (B, all anchors)
    flat_deltas = np.concatenate([x.reshape(batch, -1, 4) for x in deltas], axis=1)
    candidates = np.arange(len(all_anchors))
    if training.within_image:
        height, width = size
        inside = (all_anchors[:, :2] >= 0).all(axis=1) & (all_anchors[:, 2:] < (width, height)).all(axis=1)
        candidates = candidates[inside]
    positives, negatives, goals = [], [], []  # (image, anchor) pairs, and the deltas of the positives
    count = 0
    for image, target in enumerate(targets):
        assigned = assign(
            all_anchors[candidates],
            target.boxes,
            positive_iou=training.positive_iou,
            negative_iou=training.negative_iou,
            low_quality_iou=training.negative_iou,
        )
        chosen, rejected = sample(assigned, training.sampling, rng)
        count += max(len(chosen), 1) + max(len(rejected), 1)
        own = candidates[chosen]
        positives += [(image, anchor) for anchor in own]
        negatives += [(image, anchor) for anchor in candidates[rejected]]
        objects = target.boxes[assigned[chosen]].astype(all_anchors.dtype)
        goals.append(ops.encode_boxes(objects, anchors=all_anchors[own])[0])
    where = tuple(np.array(positives + negatives, int).reshape(-1, 2).T)
    where_positive = tuple(np.array(positives, int).reshape(-1, 2).T)
    is_object = np.arange(len(where[0])) < len(positives)
    class_loss, class_backward = context.apply(ops.binary_cross_entropy, flat_logits[where], targets=is_object)
    box_settings = {"beta": training.beta} if training.beta else {}
    box_loss, box_backward = context.apply(
        ops.smooth_l1_loss if training.beta else ops.l1_loss,
        flat_deltas[where_positive],
        targets=np.concatenate(goals),
        **box_settings,
    )

    def backward() -> tuple[Maps, Maps]:
        d_logits, d_deltas = np.zeros_like(flat_logits), np.zeros_like(flat_deltas)
        d_logits[where] = class_backward(1 / count)
        d_deltas[where_positive] = box_backward(1 / count)
        bounds = np.cumsum([len(a) for a in anchors])[:-1]
        return (
            [d.reshape(x.shape) for d, x in zip(np.split(d_logits, bounds, axis=1), logits, strict=True)],
            [d.reshape(x.shape) for d, x in zip(np.split(d_deltas, bounds, axis=1), deltas, strict=True)],
        )

    losses = {"proposal_class": float(class_loss) / count, "proposal_box": float(box_loss) / count}
    return losses, backward
