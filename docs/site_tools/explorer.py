"""The data of the explorer page: a run of the model that comes with minidat for each animal in examples/images.

Three files each are added to the site's folder `explorer`: the photograph, as far as the model sees it; the few pixels
the model is given; and a script with everything else. It is a script, not JSON, because a browser reads no JSON for a
page that was opened from a folder: `minidatPhotographs.cat = {...}`. What the numbers mean is said in `_deformable`
and `_local`; `assets/explorer.js` draws them.
"""

from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from PIL import Image
from sources import ROOT

from minidat import Context, classify, load_image, load_model, preprocess
from minidat.classification import default_weights
from minidat.data.image import MEAN, STD, resize_image
from minidat.models import DAT
from minidat.nn import AttentionRecord, LocalAttentionRecord
from minidat.visualization.canvas import COLORS, HEAT, fit
from minidat.visualization.sampling import to_picture

PAGE = "explorer.md"
PLACEHOLDER = "{photographs}"
PHOTOGRAPHS = ROOT / "examples" / "images"
SIDE = 640  # pixels of the longer side of a photograph, at most
LARGEST_SCRIPT = 500_000  # bytes
ANSWERS = 4
UNSEEN = 1e-30  # a mask leaves less attention than this (its -100 is a factor of 4e-44)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Run the model, and add what it did on each photograph."""
    if files.get_file_from_path(PAGE) is None:
        return
    model = load_model(default_weights())
    for path in _photographs():
        image = load_image(path)
        data = json.dumps(_describe(model, image), separators=(",", ":"))
        script = f"(window.minidatPhotographs ??= {{}}).{path.stem} = {data};\n"
        if len(script) > LARGEST_SCRIPT:
            raise PluginError(
                f"{PAGE}: the data of {path.name} have {len(script)} bytes, expected at most {LARGEST_SCRIPT}"
            )
        contents: dict[str, str | bytes] = {
            ".jpg": _jpeg(_seen_part(model, image)),
            "-pixels.png": _png(_pixels(model, image)),
            ".js": script,
        }
        for ending, content in contents.items():
            files.append(File.generated(config, f"explorer/{path.stem}{ending}", content=content))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Tell the page which photographs there are."""
    if page.file.src_uri != PAGE:
        return markdown
    return markdown.replace(PLACEHOLDER, escape(" ".join(path.stem for path in _photographs())))


def _photographs() -> list[Path]:
    """The photographs of what the classifier knows; their names become JavaScript's."""
    paths = [PHOTOGRAPHS / f"{name}.jpg" for name in ("cat", "dog", "horse")]
    for path in paths:
        if not path.is_file():
            raise PluginError(f"{PAGE}: {path.name}: no such photograph")
    return paths


def _describe(model: DAT, image: np.ndarray) -> dict[str, Any]:
    """All that the page shows of one photograph."""
    deformable: dict[str, AttentionRecord] = {}
    local: dict[str, LocalAttentionRecord] = {}
    model.forward(preprocess(image, model.config)[np.newaxis], Context(trace=deformable, local_trace=local))
    if not deformable or not local:
        raise PluginError(f"{PAGE}: {model.config.name} lacks deformable or local blocks, expected both kinds")
    records: dict[str, AttentionRecord | LocalAttentionRecord] = {**deformable, **local}
    height, width = _seen_part(model, image).shape[:2]
    stages, blocks = [], {}
    for i, stage in enumerate(model.config.stages):
        stages.append({"map": model.config.map_size(i), "blocks": stage.blocks})
        for j, kind in enumerate(stage.blocks):
            record = records[f"stages.{i}.blocks.{j}.attention"]
            data = _deformable(record) if isinstance(record, AttentionRecord) else _local(record)
            blocks[f"stages.{i}.blocks.{j}"] = {"kind": kind} | data
    return {
        "model": model.config.name,
        "aspect": round(height / width, 4),
        "pixels": model.config.image_size,
        "answers": [[p.label, round(p.probability, 4)] for p in classify(model, image, ANSWERS)],
        "stages": stages,
        "blocks": blocks,
        "groupColors": COLORS,
        "heatColors": HEAT,
    }


def _deformable(record: AttentionRecord) -> dict[str, Any]:
    """Points as shares (y, x) of the picture's height and width; attention: (heads, queries, keys), see `_encoded`."""
    return {
        "map": record.map_size,
        "grid": record.positions.shape[2:4],
        "heads": record.attention.shape[1],
        "groups": record.positions.shape[1],
        "reference": _shares(record.reference, record.map_size),  # (keys, 2)
        "points": _shares(record.positions[0], record.map_size),  # (groups keys, 2)
        "attention": _encoded(record.attention[0].swapaxes(1, 2)),
    }


def _local(record: LocalAttentionRecord) -> dict[str, Any]:
    """sets: lists of tokens (row times columns plus column) that queries see; set: each query's one.

    attention: (heads, queries, tokens of the query's set), one after the other, see `_encoded`. Tokens of the padding,
    and those that a mask hides, are left out.
    """
    (rows, columns), attention = record.map_size, record.attention[0]  # (heads, K, queries)
    sets: dict[tuple[int, ...], int] = {}
    set_of_query, kept = [], []
    for query, tokens in enumerate(record.tokens):
        on_map = (tokens[:, 0] < rows) & (tokens[:, 1] < columns)
        shown = np.flatnonzero(on_map & (attention[:, :, query].max(axis=0) > UNSEEN))
        numbers = tokens[shown, 0] * columns + tokens[shown, 1]
        order = np.argsort(numbers)
        set_of_query.append(sets.setdefault(tuple(numbers[order].tolist()), len(sets)))
        kept.append(attention[:, shown[order], query])
    return {
        "map": record.map_size,
        "heads": len(attention),
        "sets": list(sets),
        "set": set_of_query,
        "attention": _encoded(np.concatenate(kept, axis=1)),
    }


def _shares(points: np.ndarray, map_size: tuple[int, int]) -> list[list[float]]:
    return np.round(to_picture(points, map_size, (1, 1)).reshape(-1, 2), 4).tolist()


def _encoded(probabilities: np.ndarray) -> str:
    """Probabilities as 16 bits each, 65535 for 1, little-endian, in base64."""
    return base64.b64encode(np.round(probabilities * 65535).astype("<u2").tobytes()).decode("ascii")


def _seen_part(model: DAT, image: np.ndarray) -> np.ndarray:
    """The center of a photograph, as large a part as `preprocess` cuts out."""
    share = max(model.config.image_size) / model.config.resize_size
    height, width = (round(n * share) for n in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _pixels(model: DAT, image: np.ndarray) -> np.ndarray:
    """What the model is given, as (h, w, 3) uint8."""
    pixels = (preprocess(image, model.config) * STD + MEAN) * 255
    return np.round(np.clip(pixels, 0, 255)).astype(np.uint8)


def _jpeg(image: np.ndarray) -> bytes:
    size = fit(image.shape, min(SIDE, max(image.shape[:2])))
    file = io.BytesIO()
    Image.fromarray(resize_image(image, size)).save(file, "JPEG", quality=85, optimize=True)
    return file.getvalue()


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return file.getvalue()
