"""Where the blocks of a model look on a photograph: `minidat visualize`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.dense_preprocessing import preprocess_detection, preprocess_segmentation
from ..data.image import check_image, preprocess, seen_part
from ..detection import Detector
from ..errors import CheckpointError, ConfigError, printable
from ..models import DAT, ModelConfig
from ..models.config import DEFORMABLE
from ..nn import AttentionRecord, Context, LocalAttentionRecord
from ..segmentation import Segmentor
from .canvas import FAINT, Canvas
from .offsets import without_mean_offset
from .sampling import draw_sampling_points
from .tokens import draw_attention

if TYPE_CHECKING:
    from PIL.Image import Image

FEW = 4  # panels that are drawn large
LARGE_SIDE, SMALL_SIDE = 400, 280  # pixels of a photograph's longer side
DENSE_POINTS = 200  # of the thousands in a detector or segmentor
FULL_SIDE = 1600  # where a detector or segmentor, which sees it at full resolution, has a single panel
ACROSS = 4  # panels side by side
GAP, LETTERS = 16, 13
NARROWEST = 620  # a sheet with notes


def visualize(
    model: DAT | Detector | Segmentor,
    image: np.ndarray,
    *,
    blocks: Sequence[str] | None = None,
    head: int | None = None,
    query: tuple[float, float] | None = None,
    points: int | None = None,
    box: tuple[float, float, float, float] | None = None,
    without_mean: bool = False,
) -> Image:
    """Where blocks of a model look on a photograph, one panel for each block.

    model: a classifier, or a detector or segmentor, whose backbone sees the photograph at full resolution; image:
    (H, W, 3) uint8; blocks: names such as "stages.2.blocks.1", None for all deformable ones; head: which head of each
    block, counted from 0, None for the mean of all; query: the point that attends, (y, x) as shares of the height and
    width of the picture that the model sees, (0, 0) its upper left corner and (1, 1) its lower right one, None for the
    mean over all queries, which shows what is attended to most; points: how many points of a deformable block to draw,
    those with most attention, None for all of a classifier's and 200 of another's; box: (x1, y1, x2, y2) in pixels of
    the photograph, such as a detected object's, whose queries attend together; for deformable blocks; without_mean:
    beside each deformable block, draw it once more with the mean offset of each group subtracted from its points
    (`without_mean_offset`): what depends on the place and on the picture.

    A deformable block is drawn by `draw_sampling_points`, any other as a heat map by `draw_attention`. Raises
    ShapeError for another kind of image, ConfigError for a block, head or query that there is not, CheckpointError if
    the weights lead to numbers that are not finite.
    """
    check_image(image)
    config: ModelConfig = model.config if isinstance(model, DAT) else model.config.backbone
    names = _chosen_blocks(config, blocks)
    for name in names:
        heads = config.stages[_stage_index(name)].heads
        if head is not None and not 0 <= head < heads:
            raise ConfigError(f"head: found {head}, expected 0 ... {heads - 1}, the heads of {name}")
    if query is not None and not all(0 <= share <= 1 for share in query):
        raise ConfigError(f"query: found {query}, expected (y, x) as shares of the height and width, from 0 to 1")

    if points is not None and points < 1:
        raise ConfigError(f"points: found {points}, expected at least 1")
    if box is not None and (query is not None or isinstance(model, DAT)):
        raise ConfigError("box: found one with a query or a classifier, expected it alone, and a detector or segmentor")
    if box is not None and any(block_kinds(config)[name] != DEFORMABLE for name in names):
        raise ConfigError("box: found it with a block that is not deformable, expected deformable blocks")
    if points is None and not isinstance(model, DAT):
        points = DENSE_POINTS
    pixels, seen, size = _input_of(model, image)
    corners = None if box is None else _corners(box, image.shape)
    stride = {name: config.patch_size * 2 ** _stage_index(name) for name in names}  # pixels that a token stands for

    def token(name: str, map_size: tuple[int, int]) -> tuple[int, int] | None:
        return None if query is None else _token(query, size, map_size, stride[name])

    def queries(name: str, map_size: tuple[int, int]) -> np.ndarray | None:
        if corners is None and query is None:
            return None
        ends = [query, query] if corners is None else corners
        (top, left), (bottom, right) = (_token(end, size, map_size, stride[name]) for end in ends if end is not None)
        numbers = np.arange(map_size[0] * map_size[1]).reshape(map_size)
        return numbers[top : bottom + 1, left : right + 1].ravel()

    paths = {f"{'' if isinstance(model, DAT) else 'backbone.'}{name}.attention": name for name in names}
    trace, local_trace = _Trace(paths, queries), _Trace(paths, queries)
    context = Context(trace=trace, local_trace=local_trace)
    try:
        (model if isinstance(model, DAT) else model.backbone).forward(pixels[np.newaxis], context)
    except CheckpointError as error:
        raise CheckpointError(f"{model.config.name}: {error}") from None

    side = LARGE_SIDE if len(names) <= FEW else SMALL_SIDE
    if len(names) == 1 and not isinstance(model, DAT):
        side = max(side, min(FULL_SIDE, max(image.shape)))
    kinds, panels = block_kinds(config), {}
    for name in names:
        record = trace[name] if name in trace else local_trace[name]
        picture = _covered(seen, size, record.map_size, stride[name])
        marked = token(name, record.map_size)
        title = f"{name}, {kinds[name]}"
        if not isinstance(record, AttentionRecord):
            panels[title] = draw_attention(picture, _heat(record, marked, head), query=marked, side=side)
            continue
        frame = None if corners is None else _on_covered(corners, image.shape, picture.shape)
        for text in (title, f"{title}, without the mean offset")[: 1 + without_mean]:
            shown = record if text == title else without_mean_offset(record)
            panels[text] = draw_sampling_points(
                picture, shown, query=marked, head=head, side=side, points=points, box=frame
            )

    whose = "all queries, on average" if query is None else "the query in the white frame"
    if box is not None:
        whose = "the queries in the white frame, on average"
    notes = [f"Attention of {whose}; {'the mean of all heads' if head is None else f'head {head}'}."]
    if any(kinds[name] == DEFORMABLE for name in names):
        notes.append("Crosses: the regular grid. Discs: where its points moved to, larger with more attention,")
        notes.append("in the color of their group of channels.")
    return arrange(panels, notes)


def attention_records(
    model: DAT | Detector | Segmentor, image: np.ndarray
) -> dict[str, tuple[np.ndarray, AttentionRecord]]:
    """What every deformable block of a model does on a photograph: {name of the block: (picture, record)}.

    model, image: as in `visualize`. picture: (H, W, 3) uint8, what the block's map covers of the photograph, black
    where padding lets it reach beyond; record: for `draw_sampling_points` and `offset_shares`. Raises ShapeError for
    another kind of image.
    """
    check_image(image)
    config: ModelConfig = model.config if isinstance(model, DAT) else model.config.backbone
    pixels, seen, size = _input_of(model, image)
    context = Context(trace={})
    (model if isinstance(model, DAT) else model.backbone).forward(pixels[np.newaxis], context)
    found = {}
    for path, record in (context.trace or {}).items():
        name = path.removeprefix("backbone.").removesuffix(".attention")
        picture = _covered(seen, size, record.map_size, config.patch_size * 2 ** _stage_index(name))
        found[name] = picture, record
    return found


class _Trace(dict[str, Any]):
    """The records of some modules alone; of deformable attention, whose records are large, what some queries do.

    names: of the blocks to keep, by their modules' paths; queries: gives the numbers of those whose mean is kept, None
    for all, on a block's map of this size. The attention that is kept stands for every query.
    """

    def __init__(self, names: Mapping[str, str], queries: Callable[[str, tuple[int, int]], np.ndarray | None]):
        super().__init__()
        self.names, self.queries = names, queries

    def __setitem__(self, path: str, record: AttentionRecord | LocalAttentionRecord) -> None:
        if path not in self.names:
            return
        if not np.isfinite(record.attention).all():
            raise CheckpointError("the attention is not finite numbers; use undamaged weights")
        if isinstance(record, AttentionRecord):
            attention, numbers = record.attention, self.queries(self.names[path], record.map_size)
            kept = (attention if numbers is None else attention[..., numbers]).mean(axis=-1, keepdims=True)
            record = replace(record, attention=np.broadcast_to(kept, attention.shape))
        super().__setitem__(self.names[path], record)


def _input_of(model: DAT | Detector | Segmentor, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """What the network takes, (h, w, 3); the part of the photograph that is in it, (H, W, 3); and its size there."""
    if isinstance(model, DAT):
        return preprocess(image, model.config), seen_part(image, model.config), model.config.image_size
    if isinstance(model, Detector):
        pixels, _, size = preprocess_detection(image, scale=model.config.resize_size)
        return pixels, image, size
    pixels = preprocess_segmentation(image, scale=model.config.resize_size)
    return pixels, image, (pixels.shape[0], pixels.shape[1])


def block_kinds(config: ModelConfig) -> dict[str, str]:
    """The name of each block of a model, in order, and the kind of its attention (see models.config.ATTENTIONS)."""
    return {
        f"stages.{s}.blocks.{b}": kind for s, stage in enumerate(config.stages) for b, kind in enumerate(stage.blocks)
    }


def _chosen_blocks(config: ModelConfig, blocks: Sequence[str] | None) -> Sequence[str]:
    kinds = block_kinds(config)
    known = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    if blocks is None:
        deformable = [name for name, kind in kinds.items() if kind == DEFORMABLE]
        if not deformable:
            raise ConfigError(f"{config.name}: found no deformable block, expected the choice of another: {known}")
        return deformable
    for name in blocks:
        if name not in kinds:
            raise ConfigError(f"block: found '{printable(name)}', expected one of {known}")
    return blocks


def _stage_index(name: str) -> int:
    return int(name.split(".")[1])


def _corners(box: tuple[float, float, float, float], shape: tuple[int, ...]) -> list[tuple[float, float]]:
    """A box (x1, y1, x2, y2) in pixels of a picture (H, W, 3) as two corners (y, x) in shares of its sides.

    Raises ConfigError for what is no box in the picture.
    """
    x1, y1, x2, y2 = np.clip(box, 0, [shape[1], shape[0]] * 2).tolist()
    if not (x1 < x2 and y1 < y2):
        raise ConfigError(f"box: found {box}, expected (x1, y1, x2, y2) in a picture of {shape[0]} x {shape[1]} pixels")
    return [(y1 / shape[0], x1 / shape[1]), (y2 / shape[0], x2 / shape[1])]


def _on_covered(
    corners: Sequence[tuple[float, float]], shape: tuple[int, ...], covered: tuple[int, ...]
) -> tuple[float, float, float, float]:
    """(y1, x1, y2, x2) of a box in shares of the picture with its padding."""
    (y1, x1), (y2, x2) = corners
    down, across = shape[0] / covered[0], shape[1] / covered[1]
    return y1 * down, x1 * across, y2 * down, x2 * across


def _map_sides(size: tuple[int, int], map_size: tuple[int, int], stride: int) -> list[float]:
    """(height, width) of a map in pictures: 1, or more where padding lets it reach beyond the picture."""
    return [n * stride / side for n, side in zip(map_size, size, strict=True)]


def _token(
    query: tuple[float, float], size: tuple[int, int], map_size: tuple[int, int], stride: int
) -> tuple[int, int]:
    """The token (row, column) of a map that a point of the picture lies in, (y, x) as shares of its sides."""
    sides = _map_sides(size, map_size, stride)
    row, column = (min(int(share / side * n), n - 1) for share, side, n in zip(query, sides, map_size, strict=True))
    return row, column


def _covered(picture: np.ndarray, size: tuple[int, int], map_size: tuple[int, int], stride: int) -> np.ndarray:
    """The picture (H, W, 3) that a map covers: black where it reaches beyond the right and lower border."""
    sides = _map_sides(size, map_size, stride)
    beyond = [max(0, round(n * (side - 1))) for n, side in zip(picture.shape, sides, strict=False)]
    return np.pad(picture, ((0, beyond[0]), (0, beyond[1]), (0, 0)))


def _heat(record: LocalAttentionRecord, query: tuple[int, int] | None, head: int | None) -> np.ndarray:
    """(rows, columns): how much attention each token of the map gets from a query, or from all on average."""
    rows, columns = record.map_size
    attention = record.attention[0].mean(axis=0) if head is None else record.attention[0, head]  # (K, queries)
    heat = np.zeros((rows, columns))
    queries = range(rows * columns) if query is None else [query[0] * columns + query[1]]
    for i in queries:
        on_map = (record.tokens[i] < record.map_size).all(axis=1)  # the others are padding
        heat[tuple(record.tokens[i, on_map].T)] += attention[on_map, i] / len(queries)
    return heat


def arrange(
    panels: Mapping[str, Image], notes: Sequence[str] = (), *, across: int | None = None, letters: int = LETTERS
) -> Image:
    """Pictures under their titles, in rows, above lines of text: one sheet.

    panels: the pictures by their titles; notes: the lines; across: pictures in a row, None for at most four (two by
    two, if they are four); letters: their size in pixels. Raises ConfigError for no pictures.
    """
    if not panels:
        raise ConfigError("panels: found none, expected at least one")
    across = across or min(len(panels), 2 if len(panels) == 4 else ACROSS)
    height, width = (max(getattr(panel, side) for panel in panels.values()) for side in ("height", "width"))
    title, line = round(2.2 * letters), round(1.6 * letters)
    bottom = -(-len(panels) // across) * (height + title) + GAP
    narrowest = NARROWEST if notes else 0
    canvas = Canvas((bottom + len(notes) * line + (GAP if notes else 0), max(GAP + across * (width + GAP), narrowest)))
    for i, (name, panel) in enumerate(panels.items()):
        top, left = i // across * (height + title) + title, GAP + i % across * (width + GAP)
        canvas.text((top - 8, left), name, size=letters, anchor="ls")
        canvas.paste(np.asarray(panel), (top, left), (panel.height, panel.width), smooth=False)
    for i, note in enumerate(notes):
        canvas.text((bottom + (i + 0.5) * line, GAP), note, size=letters, color=FAINT, anchor="lm")
    return canvas.picture()
