"""The two-stage detectors as data: Mask R-CNN and Cascade Mask R-CNN on every backbone."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.config import MAX_DIM, check, check_size, get_config
from .config import DROP_PATH, MOST_ANCHORS, MOST_LAYERS, DetectorConfig

# of the three stages of a cascade
CASCADE_STDS = (0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067)
CASCADE_IOUS = 0.5, 0.6, 0.7
CASCADE_WEIGHTS = 1.0, 0.5, 0.25


@dataclass(frozen=True)
class StageSettings:
    """What the stages of region heads differ in.

    stds: what a box head's deltas are multiplied by; iou: a region is to find the object it overlaps most, if their IoU
    is at least that; low_quality: whether an object's best regions are to find it too, from that IoU on, if another
    object's overlap is better still; weight: what the stage's losses are multiplied by.
    """

    stds: tuple[float, float, float, float]
    iou: float
    low_quality: bool
    weight: float


@dataclass(frozen=True)
class TwoStageConfig(DetectorConfig):
    """What both have.

    pooled_level: the pyramid's levels beyond the backbone's are every second pixel of the one before, not convolutions;
    anchor_scale: side of a square anchor, in strides of its level; anchor_ratios: height / width of the anchors;
    anchor_sample: anchors an image that the region proposals are trained on; anchors_within_image: no anchor that is
    trained on may cross the image's border; proposal_beta: of the smooth L1 loss of the proposals' boxes, 0 for L1;
    proposals_per_level: boxes of a level that are looked at, at most; proposals: boxes of an image that are passed on,
    at most; training_proposals_per_level: boxes of a level that are looked at in training; training_proposals: boxes of
    an image that are passed on in training; region_sample: regions an image that the heads are trained on;
    box_convolutions: layers of a box head; box_linears: linear layers after them; box_features: width of the linear
    layers; giou_weight: boxes are trained on so many times their GIoU loss, if 0 on the L1 loss of their deltas;
    mask_convolutions: layers of a mask head.
    """

    pooled_level: bool = False
    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_sample: int = 256
    anchors_within_image: bool = False
    proposal_beta: float = 0.0
    proposals_per_level: int = 1000
    proposals: int = 1000
    training_proposals_per_level: int = 2000
    training_proposals: int = 1000
    region_sample: int = 512
    box_convolutions: int = 0
    box_linears: int = 2
    box_features: int = 1024
    giou_weight: float = 0.0
    mask_convolutions: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        ratios = self.anchor_ratios
        check(
            1 <= len(ratios) <= MOST_ANCHORS and min(ratios) > 0, self.name, "anchor_ratios", ratios, "positive numbers"
        )
        check(self.anchor_scale > 0, self.name, "anchor_scale", self.anchor_scale, "a positive number")
        for field in (
            "anchor_sample",
            "proposals_per_level",
            "proposals",
            "training_proposals_per_level",
            "training_proposals",
            "region_sample",
            "box_features",
        ):
            check_size(self.name, field, getattr(self, field), MAX_DIM)
        for field in ("box_convolutions", "box_linears", "mask_convolutions"):
            check_size(self.name, field, getattr(self, field), MOST_LAYERS, 0)
        for field in ("proposal_beta", "giou_weight"):
            check(getattr(self, field) >= 0, self.name, field, getattr(self, field), "a number >= 0")

    @property
    def stages(self) -> tuple[StageSettings, ...]:
        """One entry for each look at the regions."""
        raise NotImplementedError


@dataclass(frozen=True)
class MaskRCNNConfig(TwoStageConfig):
    """Mask R-CNN: one stage."""

    @property
    def stages(self) -> tuple[StageSettings, ...]:
        return (StageSettings(CASCADE_STDS[0], CASCADE_IOUS[0], low_quality=True, weight=1.0),)


@dataclass(frozen=True)
class CascadeMaskRCNNConfig(TwoStageConfig):
    """Cascade Mask R-CNN: three stages; as Swin has it, with convolutions in the box heads and GIoU loss."""

    pooled_level: bool = True
    anchors_within_image: bool = True
    proposal_beta: float = 1 / 9
    training_proposals: int = 2000
    box_convolutions: int = 4
    box_linears: int = 1
    giou_weight: float = 10.0

    @property
    def stages(self) -> tuple[StageSettings, ...]:
        settings = zip(CASCADE_STDS, CASCADE_IOUS, CASCADE_WEIGHTS, strict=True)
        return tuple(StageSettings(stds, iou, low_quality=False, weight=weight) for stds, iou, weight in settings)


# --- the published models ---------------------------------------------------------------------------------------------

BACKBONES = {name: get_config(name).replace(drop_path=rate) for name, rate in DROP_PATH.items()}
MASK_RCNN_CONFIGS = {
    f"mask_rcnn_{name}": MaskRCNNConfig(f"mask_rcnn_{name}", backbone) for name, backbone in BACKBONES.items()
}
CASCADE_MASK_RCNN_CONFIGS = {
    f"cascade_mask_rcnn_{name}": CascadeMaskRCNNConfig(f"cascade_mask_rcnn_{name}", backbone)
    for name, backbone in BACKBONES.items()
}
