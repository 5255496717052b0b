"""Operators: pure functions on arrays. Each returns its output and its own backward.

A backward takes the gradient of the output and returns a tuple with one gradient per array argument, in their order
(None for an argument that was None). Maps are channels-last, (B, H, W, C).

Legend: B batch, H and W rows and columns of a map, C channels, Q queries, K keys, d width of a head.
"""

from .activation import gelu, log_spaced, relu, softmax, tanh
from .attention import attention, attention_probabilities
from .convolution import conv2d, local_perception
from .linear import linear, scale_channels
from .losses import cross_entropy
from .mlp import convolutional_mlp, mlp, residual
from .neighborhood import neighborhood_attention, neighborhood_probabilities, neighborhood_tokens
from .normalization import layer_norm
from .pooling import average_pool, global_average_pool
from .regularization import drop_path, dropout
from .resize import resize
from .sampling import grid_sample, query_points, reference_points, sample_product_grid, sampling_points
from .windows import (
    cyclic_shift,
    relative_position_index,
    shifted_window_mask,
    window_partition,
    window_position_bias,
    window_reverse,
)

__all__ = [
    "attention",
    "attention_probabilities",
    "average_pool",
    "conv2d",
    "convolutional_mlp",
    "cross_entropy",
    "cyclic_shift",
    "drop_path",
    "dropout",
    "gelu",
    "global_average_pool",
    "grid_sample",
    "layer_norm",
    "linear",
    "local_perception",
    "log_spaced",
    "mlp",
    "neighborhood_attention",
    "neighborhood_probabilities",
    "neighborhood_tokens",
    "query_points",
    "reference_points",
    "relative_position_index",
    "relu",
    "residual",
    "resize",
    "sample_product_grid",
    "sampling_points",
    "scale_channels",
    "shifted_window_mask",
    "softmax",
    "tanh",
    "window_partition",
    "window_position_bias",
    "window_reverse",
]
