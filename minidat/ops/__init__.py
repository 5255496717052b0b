"""Operators: pure functions on arrays. Each returns its output and its own backward.

A backward takes the gradient of the output and returns a tuple with one gradient per array argument, in their order
(None for an argument that was None). Maps are channels-last, (B, H, W, C).

Legend: B batch, H and W rows and columns of a map, C channels, Q queries, K keys, d width of a head.
"""

from .activation import gelu, log_spaced, relu, sigmoid, softmax, tanh
from .attention import attention, attention_probabilities
from .batch_normalization import batch_norm, batch_statistics, conv_norm_relu
from .binary_cross_entropy import binary_cross_entropy
from .boxes import box_area, box_giou, box_iof, box_iou, decode_boxes, encode_boxes
from .convolution import conv2d, local_perception
from .detection_losses import focal_loss, giou_loss, l1_loss, smooth_l1_loss
from .linear import linear, scale_channels
from .losses import cross_entropy, pixel_cross_entropy
from .masks import paste_mask
from .mlp import convolutional_mlp, mlp, residual
from .neighborhood import neighborhood_attention, neighborhood_probabilities, neighborhood_tokens
from .nms import class_nms, nms
from .normalization import layer_norm
from .pooling import adaptive_average_pool, average_pool, global_average_pool, max_pool
from .regularization import channel_dropout, drop_path, dropout
from .resize import resize
from .roi_align import roi_align
from .sampling import grid_sample, query_points, reference_points, sample_product_grid, sampling_points
from .transposed_convolution import transposed_conv2d
from .windows import (
    cyclic_shift,
    relative_position_index,
    shifted_window_mask,
    window_partition,
    window_position_bias,
    window_reverse,
)

__all__ = [
    "adaptive_average_pool",
    "attention",
    "attention_probabilities",
    "average_pool",
    "batch_norm",
    "batch_statistics",
    "binary_cross_entropy",
    "box_area",
    "box_giou",
    "box_iof",
    "box_iou",
    "channel_dropout",
    "class_nms",
    "conv2d",
    "conv_norm_relu",
    "convolutional_mlp",
    "cross_entropy",
    "cyclic_shift",
    "decode_boxes",
    "drop_path",
    "dropout",
    "encode_boxes",
    "focal_loss",
    "gelu",
    "giou_loss",
    "global_average_pool",
    "grid_sample",
    "l1_loss",
    "layer_norm",
    "linear",
    "local_perception",
    "log_spaced",
    "max_pool",
    "mlp",
    "neighborhood_attention",
    "neighborhood_probabilities",
    "neighborhood_tokens",
    "nms",
    "paste_mask",
    "pixel_cross_entropy",
    "query_points",
    "reference_points",
    "relative_position_index",
    "relu",
    "residual",
    "resize",
    "roi_align",
    "sample_product_grid",
    "sampling_points",
    "scale_channels",
    "shifted_window_mask",
    "sigmoid",
    "smooth_l1_loss",
    "softmax",
    "tanh",
    "transposed_conv2d",
    "window_partition",
    "window_position_bias",
    "window_reverse",
]
