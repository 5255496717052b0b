"""Where the blocks of a model look on a photograph: `minidat visualize`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data.image import check_image, preprocess, seen_part
from ..errors import CheckpointError, ConfigError, printable
from ..models import DAT, ModelConfig
from ..models.config import DEFORMABLE
from ..nn import AttentionRecord, Context, LocalAttentionRecord
from .canvas import FAINT, Canvas
from .sampling import draw_sampling_points
from .tokens import draw_attention

if TYPE_CHECKING:
    from PIL.Image import Image

FEW = 4  # panels that are drawn large
LARGE_SIDE, SMALL_SIDE = 400, 280  # pixels of a photograph's longer side
ACROSS = 4  # panels side by side
GAP, LETTERS = 16, 13


def visualize(
    model: DAT,
    image: np.ndarray,
    *,
    blocks: Sequence[str] | None = None,
    head: int | None = None,
    query: tuple[float, float] | None = None,
) -> Image:
    """Where blocks of a model look on a photograph, one panel for each block.

    image: (H, W, 3) uint8; blocks: names such as "stages.2.blocks.1", None for all deformable ones; head: which head of
    each block, counted from 0, None for the mean of all; query: the point that attends, (y, x) as shares of the height
    and width of the picture that the model sees, (0, 0) its upper left corner and (1, 1) its lower right one, None for
    the mean over all queries, which shows what is attended to most.

    A deformable block is drawn by `draw_sampling_points`, any other as a heat map by `draw_attention`. Raises
    ShapeError for another kind of image, ConfigError for a block, head or query that there is not, CheckpointError if
    the weights lead to numbers that are not finite.
    """
    check_image(image)
    names = _chosen_blocks(model.config, blocks)
    for name in names:
        heads = model.config.stages[_stage_index(name)].heads
        if head is not None and not 0 <= head < heads:
            raise ConfigError(f"head: found {head}, expected 0 ... {heads - 1}, the heads of {name}")
    if query is not None and not all(0 <= share <= 1 for share in query):
        raise ConfigError(f"query: found {query}, expected (y, x) as shares of the height and width, from 0 to 1")

    trace: dict[str, AttentionRecord] = {}
    local_trace: dict[str, LocalAttentionRecord] = {}
    model.forward(preprocess(image, model.config)[np.newaxis], Context(trace=trace, local_trace=local_trace))
    kinds, panels = block_kinds(model.config), {}
    for name in names:
        key = f"{name}.attention"
        record = trace[key] if key in trace else local_trace[key]
        if not np.isfinite(record.attention).all():
            raise CheckpointError(f"{model.config.name}: the attention is not finite numbers; use undamaged weights")
        picture, token = _on_map(
            seen_part(image, model.config), query, record.map_size, model.config, _stage_index(name)
        )
        side = LARGE_SIDE if len(names) <= FEW else SMALL_SIDE
        if isinstance(record, AttentionRecord):
            panel = draw_sampling_points(picture, record, query=token, head=head, side=side)
        else:
            panel = draw_attention(picture, _heat(record, token, head), query=token, side=side)
        panels[f"{name}, {kinds[name]}"] = panel

    whose = "all queries, on average" if query is None else "the query in the white frame"
    notes = [f"Attention of {whose}; {'the mean of all heads' if head is None else f'head {head}'}."]
    if any(kinds[name] == DEFORMABLE for name in names):
        notes.append("Crosses: the regular grid. Discs: where its points moved to, larger with more attention,")
        notes.append("in the color of their group of channels.")
    return _sheet(panels, notes)


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


def _on_map(
    picture: np.ndarray,
    query: tuple[float, float] | None,
    map_size: tuple[int, int],
    config: ModelConfig,
    stage: int,
) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The picture (H, W, 3) that a block's map covers, and the token (row, column) which the query lies in.

    Where a patch does not divide the image, the map reaches beyond its right and lower border: there is black.
    """
    pixels = config.patch_size * 2**stage  # of the image that a token stands for, on each axis
    sides = [n * pixels / side for n, side in zip(map_size, config.image_size, strict=True)]  # of the map, in images
    beyond = [round(n * (side - 1)) for n, side in zip(picture.shape, sides, strict=False)]
    covered = np.pad(picture, ((0, beyond[0]), (0, beyond[1]), (0, 0)))
    if query is None:
        return covered, None
    row, column = (min(int(share / side * n), n - 1) for share, side, n in zip(query, sides, map_size, strict=True))
    return covered, (row, column)


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


def _sheet(panels: dict[str, Image], notes: list[str]) -> Image:
    """Panels under their titles, in rows, above lines of text."""
    across = min(len(panels), 2 if len(panels) == 4 else ACROSS)
    height, width = (max(getattr(panel, side) for panel in panels.values()) for side in ("height", "width"))
    title, line = round(2.2 * LETTERS), round(1.6 * LETTERS)
    bottom = -(-len(panels) // across) * (height + title) + GAP
    canvas = Canvas((bottom + len(notes) * line + GAP, max(GAP + across * (width + GAP), 620)))
    for i, (name, panel) in enumerate(panels.items()):
        top, left = i // across * (height + title) + title, GAP + i % across * (width + GAP)
        canvas.text((top - 8, left), name, size=LETTERS, anchor="ls")
        canvas.paste(np.asarray(panel), (top, left), (panel.height, panel.width), smooth=False)
    for i, note in enumerate(notes):
        canvas.text((bottom + (i + 0.5) * line, GAP), note, size=LETTERS, color=FAINT, anchor="lm")
    return canvas.picture()
