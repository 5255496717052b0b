"""The exercises of the course, in the order of the chapters: a module each, of the same name as its stub."""

NAMES = (
    "patches",
    "linear",
    "layer_norm",
    "softmax",
    "attention",
    "windows",
    "shifted_mask",
    "bilinear",
    "bilinear_backward",
    "reference_points",
    "deformable",
    "product_grid",
    "residual_block",
    "adamw",
    "neighborhood",
)
