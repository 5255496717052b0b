"""The class of every pixel over a photograph, with a legend; and as a picture of class numbers with a palette."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data.image import check_image
from ..data.labels import ade20k_labels, ade20k_palette
from ..errors import ConfigError, ShapeError
from ..segmentation import Segmentation
from .canvas import Canvas, Color, mixed
from .legend import NARROWEST, class_colors, legend_height, put_legend, size_on_sheet

if TYPE_CHECKING:
    from PIL.Image import Image

OPACITY = 0.5
MOST_COLORS = 256  # of a palette
MOST_ENTRIES = 40  # in a legend


def segmentation_colors(classes: Sequence[str]) -> list[Color]:
    """The colors that classes are shown in: ADE20K's own for its classes, else those of `class_colors`."""
    if tuple(classes) == ade20k_labels():
        return [(int(red), int(green), int(blue)) for red, green, blue in ade20k_palette()]
    return class_colors(len(classes))


def draw_segmentation(image: np.ndarray, segmentation: Segmentation, *, opacity: float = OPACITY) -> Image:
    """A photograph under the colors of its pixels' classes, above a legend: the classes, largest first.

    image: (H, W, 3) uint8; segmentation: as `minidat.segment` returns it; opacity: the share of the colors, 0 to 1.
    Raises ShapeError for another kind of image or labels of another size, ConfigError for another opacity.
    """
    check_image(image)
    check_opacity(opacity)
    if segmentation.labels.shape != image.shape[:2]:
        raise ShapeError(f"labels: found shape {segmentation.labels.shape}, expected the image's {image.shape[:2]}")
    colors = segmentation_colors(segmentation.classes)
    order = np.argsort(-segmentation.shares, kind="stable")
    there = [int(i) for i in order if segmentation.shares[i] > 0][:MOST_ENTRIES]
    entries = [(colors[i], f"{segmentation.classes[i]}  {segmentation.shares[i]:.1%}") for i in there]

    height, width = size_on_sheet(image.shape)
    across = max(width, NARROWEST)
    canvas = Canvas((height + legend_height(entries, across), across))
    tinted = mixed(image, np.array(colors, np.uint8)[segmentation.labels], opacity)
    canvas.paste(tinted, (0, 0), (height, width))
    put_legend(canvas, entries, top=height, width=across)
    return canvas.picture()


def label_picture(segmentation: Segmentation) -> Image:
    """The class numbers as a picture of mode "P", whose palette has their colors; of the photograph's size.

    Raises ConfigError for more than 256 classes.
    """
    from PIL import Image

    if len(segmentation.classes) > MOST_COLORS:
        raise ConfigError(f"labels: found {len(segmentation.classes)} classes, expected at most {MOST_COLORS}")
    picture = Image.fromarray(segmentation.labels.astype(np.uint8))
    picture.putpalette(np.array(segmentation_colors(segmentation.classes), np.uint8).tobytes())
    return picture


def check_opacity(opacity: float) -> None:
    """Raise ConfigError unless this is a share."""
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity: found {opacity}, expected 0 to 1")
