"""The losses of Mask R-CNN and its cascade in PyTorch, from the pyramid's levels on, as mmdetection computes them.

Weights are a dict of tensors under minidat's names. All anchors and all regions take part: nothing is drawn. Proposals
are given. Maps are channels first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .roi_align import roi_align

Tensors = Mapping[str, torch.Tensor]


def iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(n, 4) and (m, 4) -> (n, m)."""
    top_left = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, others)]
    return intersection / (areas[0][:, None] + areas[1] - intersection)


def assign(
    boxes: torch.Tensor, objects: torch.Tensor, positive: float, negative: float, low_quality: float | None
) -> torch.Tensor:
    """mmdetection's MaxIoUAssigner: the number of each box's object, -1 for background, -2 for neither."""
    assigned = torch.full((len(boxes),), -1)
    if not len(objects):
        return assigned
    overlaps = iou(objects, boxes)
    for n in range(len(boxes)):
        best = overlaps[:, n].max()
        assigned[n] = -1 if best < negative else -2
        if best >= positive:
            assigned[n] = overlaps[:, n].argmax()
    if low_quality is not None:
        for i in range(len(objects)):
            if overlaps[i].max() >= low_quality:
                assigned[overlaps[i] == overlaps[i].max()] = i
    return assigned


def encode(boxes: torch.Tensor, goals: torch.Tensor, stds: Sequence[float]) -> torch.Tensor:
    size, goal_size = boxes[:, 2:] - boxes[:, :2], goals[:, 2:] - goals[:, :2]
    shift = ((goals[:, :2] + goals[:, 2:]) / 2 - (boxes[:, :2] + boxes[:, 2:]) / 2) / size
    return torch.cat([shift, torch.log(goal_size / size)], dim=1) / torch.tensor(stds, dtype=boxes.dtype)


def decode(boxes: torch.Tensor, deltas: torch.Tensor, stds: Sequence[float]) -> torch.Tensor:
    deltas = deltas * torch.tensor(stds, dtype=deltas.dtype)
    size = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2 + deltas[:, :2] * size
    half = size * deltas[:, 2:].clamp(math.log(16 / 1000), -math.log(16 / 1000)).exp() / 2
    return torch.cat([center - half, center + half], dim=1)


def giou_losses(boxes: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
    """1 - GIoU of each pair, (n,)."""
    overlap = torch.minimum(boxes[:, 2:], goals[:, 2:]) - torch.maximum(boxes[:, :2], goals[:, :2])
    intersection = overlap.clamp(min=0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (goals[:, 2:] - goals[:, :2]).prod(dim=1)
    union = areas - intersection
    around = torch.maximum(boxes[:, 2:], goals[:, 2:]) - torch.minimum(boxes[:, :2], goals[:, :2])
    enclosure = around.prod(dim=1)
    return 1 - (intersection / union - (enclosure - union) / enclosure)


def proposal_outputs(state: Tensors, levels: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Logits (B, H W A) and deltas (B, H W A, 4) of every level."""
    logits, deltas = [], []
    for level in levels:
        hidden = F.relu(F.conv2d(level, state["proposals.conv.weight"], state["proposals.conv.bias"], padding=1))
        scores = F.conv2d(hidden, state["proposals.classifier.weight"], state["proposals.classifier.bias"])
        moves = F.conv2d(hidden, state["proposals.regressor.weight"], state["proposals.regressor.bias"])
        logits.append(scores.permute(0, 2, 3, 1).reshape(len(level), -1))
        deltas.append(moves.permute(0, 2, 3, 1).reshape(len(level), -1, 4))
    return logits, deltas


def proposal_losses(
    state: Tensors, levels: Sequence[torch.Tensor], anchors: torch.Tensor, targets: Sequence[Any], config: Any
) -> dict[str, torch.Tensor]:
    logits, deltas = (torch.cat(outputs, dim=1) for outputs in proposal_outputs(state, levels))
    class_loss = box_loss = torch.zeros((), dtype=logits.dtype)
    count = 0
    height, width = levels[0].shape[2] * 4, levels[0].shape[3] * 4
    for i, target in enumerate(targets):
        inside = torch.ones(len(anchors), dtype=torch.bool)
        if config.anchors_within_image:
            inside = (anchors[:, 0] >= 0) & (anchors[:, 1] >= 0) & (anchors[:, 2] < width) & (anchors[:, 3] < height)
        objects = torch.tensor(target.boxes)
        own, own_logits, own_deltas = anchors[inside], logits[i][inside], deltas[i][inside]
        assigned = assign(own, objects, 0.7, 0.3, 0.3)
        used, positive = assigned != -2, assigned >= 0
        class_loss = class_loss + F.binary_cross_entropy_with_logits(
            own_logits[used], positive[used].to(logits.dtype), reduction="sum"
        )
        goals = encode(own[positive], objects[assigned[positive]], (1, 1, 1, 1))
        found = own_deltas[positive]
        box_loss = box_loss + (
            F.smooth_l1_loss(found, goals, beta=config.proposal_beta, reduction="sum")
            if config.proposal_beta
            else F.l1_loss(found, goals, reduction="sum")
        )
        count += max(int(positive.sum()), 1) + max(int((assigned == -1).sum()), 1)
    return {"proposal_class": class_loss / count, "proposal_box": box_loss / count}


def pool(levels: Sequence[torch.Tensor], boxes: torch.Tensor, images: torch.Tensor, size: int) -> torch.Tensor:
    """RoIAlign on the level that each box belongs to -> (n, C, size, size)."""
    pooled: list[torch.Tensor] = [torch.empty(0)] * len(boxes)
    for n, box in enumerate(boxes):
        side = math.sqrt(float((box[2] - box[0]) * (box[3] - box[1])))
        level = min(max(math.floor(math.log2(side / 56 + 1e-6)), 0), 3)
        pooled[n] = roi_align(
            levels[level].permute(0, 2, 3, 1),
            boxes=box[None].numpy(),
            images=images[n : n + 1].numpy(),
            size=size,
            scale=1 / 4 / 2**level,
        )[0]
    return torch.stack(pooled).permute(0, 3, 1, 2)


def box_head(state: Tensors, prefix: str, regions: torch.Tensor, config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """In training: batch normalization by the batch's statistics."""
    x = regions
    for i in range(config.box_convolutions):
        name = f"{prefix}.convs.{i}"
        x = F.conv2d(x, state[f"{name}.conv.weight"], padding=1)
        x = F.relu(F.batch_norm(x, None, None, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"], training=True))
    x = x.flatten(1)
    for i in range(config.box_linears):
        x = F.relu(F.linear(x, state[f"{prefix}.linears.{i}.weight"], state[f"{prefix}.linears.{i}.bias"]))
    logits = F.linear(x, state[f"{prefix}.classifier.weight"], state[f"{prefix}.classifier.bias"])
    deltas = F.linear(x, state[f"{prefix}.regressor.weight"], state[f"{prefix}.regressor.bias"])
    return logits, deltas.reshape(len(x), -1, 4)


def mask_head(state: Tensors, prefix: str, regions: torch.Tensor, config: Any) -> torch.Tensor:
    x = regions
    for i in range(config.mask_convolutions):
        x = F.relu(F.conv2d(x, state[f"{prefix}.convs.{i}.weight"], state[f"{prefix}.convs.{i}.bias"], padding=1))
    x = F.conv_transpose2d(x, state[f"{prefix}.upsampling.weight"], state[f"{prefix}.upsampling.bias"], stride=2)
    return F.conv2d(F.relu(x), state[f"{prefix}.classifier.weight"], state[f"{prefix}.classifier.bias"])


def region_losses(
    state: Tensors,
    levels: Sequence[torch.Tensor],
    proposals: Sequence[np.ndarray],
    targets: Sequence[Any],
    config: Any,
) -> dict[str, torch.Tensor]:
    """Of all stages; a cascade's are called stage1_class, ..."""
    losses: dict[str, torch.Tensor] = {}
    size = levels[0].shape[2] * 4, levels[0].shape[3] * 4
    boxes_of = [torch.tensor(boxes) for boxes in proposals]
    cascaded = len(config.stages) > 1
    for number, settings in enumerate(config.stages):
        prefix = f"stages.{number}" if cascaded else "regions"
        low_quality = settings.iou if settings.low_quality else None
        boxes, images, found, labels, goals = [], [], [], [], []
        for i, (proposed, target) in enumerate(zip(boxes_of, targets, strict=True)):
            objects = torch.tensor(target.boxes)
            everything = torch.cat([objects, proposed])
            assigned = torch.cat(
                [torch.arange(len(objects)), assign(proposed, objects, settings.iou, settings.iou, low_quality)]
            )
            order = torch.cat([torch.nonzero(assigned >= 0)[:, 0], torch.nonzero(assigned == -1)[:, 0]])
            boxes.append(everything[order])
            images.append(torch.full((len(order),), i))
            found.append(torch.where(assigned >= 0, assigned, -1)[order])
            classes = torch.cat([torch.tensor(target.labels), torch.tensor([config.num_classes])])
            labels.append(classes[found[-1]])
            goals.append(torch.cat([objects, torch.zeros(1, 4, dtype=objects.dtype)])[found[-1]])
        all_boxes, all_images, all_labels = torch.cat(boxes), torch.cat(images), torch.cat(labels)
        all_found, all_goals = torch.cat(found), torch.cat(goals)
        positive = all_found >= 0
        logits, deltas = box_head(state, f"{prefix}.box_head", pool(levels, all_boxes, all_images, 7), config)
        own = deltas[positive][torch.arange(int(positive.sum())), all_labels[positive]]
        if config.giou_weight:
            moved = decode(all_boxes[positive], own, settings.stds)
            box_loss = config.giou_weight * giou_losses(moved, all_goals[positive]).sum() / len(all_boxes)
        else:
            encoded = encode(all_boxes[positive], all_goals[positive], settings.stds)
            box_loss = F.l1_loss(own, encoded, reduction="sum") / len(all_boxes)
        masks = mask_head(
            state, f"{prefix}.mask_head", pool(levels, all_boxes[positive], all_images[positive], 14), config
        )
        wanted = []
        for box, image, number_of_object in zip(
            all_boxes[positive], all_images[positive], all_found[positive], strict=True
        ):
            bitmap = torch.tensor(targets[int(image)].masks[int(number_of_object)], dtype=torch.float64)
            clipped = box.clone()
            clipped[0::2], clipped[1::2] = box[0::2].clamp(0, size[1]), box[1::2].clamp(0, size[0])
            wanted.append(
                roi_align(
                    bitmap[None, :, :, None],
                    boxes=clipped[None].numpy(),
                    images=np.zeros(1, int),
                    size=28,
                    scale=1.0,
                )[0, ..., 0]
                >= 0.5
            )
        own_masks = masks[torch.arange(len(masks)), all_labels[positive]]
        mask_loss = F.binary_cross_entropy_with_logits(own_masks, torch.stack(wanted).to(own_masks.dtype))
        name = f"stage{number + 1}_" if cascaded else ""
        parts = {"class": F.cross_entropy(logits, all_labels), "box": box_loss, "mask": mask_loss}
        losses |= {name + part: settings.weight * loss for part, loss in parts.items()}

        chosen = torch.where(positive, all_labels, logits[:, :-1].argmax(dim=1))
        refined = decode(all_boxes, deltas[torch.arange(len(chosen)), chosen].detach(), settings.stds)
        refined[:, 0::2], refined[:, 1::2] = refined[:, 0::2].clamp(0, size[1]), refined[:, 1::2].clamp(0, size[0])
        boxes_of = []
        for i, target in enumerate(targets):
            objects = torch.tensor(target.boxes)
            own_boxes = all_boxes[all_images == i]
            is_object = (own_boxes[:, None] == objects).all(dim=2).any(dim=1)
            boxes_of.append(refined[all_images == i][~is_object])
    return losses
