"""Pictures of what attention does, drawn with Pillow: every function returns an RGB `PIL.Image`.

Photographs are (H, W, 3) uint8 arrays, coordinates (y, x). Colors are told apart by color-blind people too.
"""

from .curves import draw_learning_curve
from .detections import draw_detections
from .offsets import OffsetShares, offset_shares, without_mean_offset
from .sampling import GROUP_COLORS, draw_bilinear_weights, draw_sampling_points
from .segmentation import draw_segmentation, label_picture
from .sheet import arrange, attention_records, block_kinds, visualize
from .tokens import draw_attention, draw_mask, draw_matrix, draw_windows

__all__ = [
    "GROUP_COLORS",
    "OffsetShares",
    "arrange",
    "attention_records",
    "block_kinds",
    "draw_attention",
    "draw_bilinear_weights",
    "draw_detections",
    "draw_learning_curve",
    "draw_mask",
    "draw_matrix",
    "draw_sampling_points",
    "draw_segmentation",
    "draw_windows",
    "label_picture",
    "offset_shares",
    "visualize",
    "without_mean_offset",
]
