"""The data of the explorer page: runs of the models that come with minidat, on the photographs in examples/images.

For each photograph these files are added to the site's folder `explorer`: the photograph, as far as the model sees it;
a script with what the model did; another with what it does without offsets; for a classifier the few pixels that it is
given; for a segmentor its answers. They are scripts, not JSON, because a browser reads no JSON for a page that was
opened from a folder: `minidatRuns["cat"] = {...}`. What the numbers mean is said in `_deformable` and `_local`;
`assets/explorer.js` draws them.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
from dataclasses import asdict, dataclass, replace
from html import escape
from math import ceil, sqrt
from typing import Any

import numpy as np
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from PIL import Image
from sources import ROOT

from minidat import Context, classify, detect, load_image, load_model, preprocess, segment
from minidat.data.dense_preprocessing import preprocess_detection, preprocess_segmentation
from minidat.data.image import MEAN, STD, resize_image, seen_part
from minidat.models import DAT
from minidat.nn import AttentionRecord, LocalAttentionRecord
from minidat.segmentation import Segmentor
from minidat.visualization import label_picture
from minidat.visualization.canvas import COLORS, HEAT, fit
from minidat.visualization.legend import class_colors
from minidat.visualization.sampling import to_picture
from minidat.visualization.segmentation import segmentation_colors

PAGE = "explorer.md"
PLACEHOLDER = "{pictures}"
PICTURES = ROOT / "examples" / "images"
SIDE = 640  # pixels of the longer side of a photograph, at most
LARGE_SIDE = 960  # the same for a detector's or segmentor's
LARGEST_SCRIPT = 1_800_000  # bytes
ANSWERS = 4  # of a classifier
CLASSES = 8  # of a segmentor, the largest
UNSEEN = 1e-30  # a mask leaves less attention than this (its -100 is a factor of 4e-44)
QUERIES = 400  # at most so many of a detector's or segmentor's block are stored
FAINTEST = 0.25  # of an even share: less is stored as nothing, for these models


@dataclass(frozen=True)
class Shown:
    """A photograph of examples/images, what the page calls it, and whose weights look at it."""

    name: str
    title: str
    task: str  # "classifier", "detector" or "segmentor"
    weights: str


SHOWN = (
    Shown("cat", "cat", "classifier", "dat_mini_cifar10"),
    Shown("dog", "dog", "classifier", "dat_mini_cifar10"),
    Shown("horse", "horse", "classifier", "dat_mini_cifar10"),
    Shown("blood_cells", "blood cells", "detector", "dat_mini_bccd"),
    Shown("street", "street", "segmentor", "dat_mini_camvid"),
)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Run the models, and add what they did on each photograph."""
    if files.get_file_from_path(PAGE) is None:
        return

    def add(name: str, content: str | bytes) -> None:
        if name.endswith(".js") and len(content) > LARGEST_SCRIPT:
            raise PluginError(f"{PAGE}: {name} has {len(content)} bytes, expected at most {LARGEST_SCRIPT}")
        files.append(File.generated(config, f"explorer/{name}", content=content))

    models = {weights: load_model(ROOT / "weights" / f"{weights}.npz") for weights in {s.weights for s in SHOWN}}
    for shown in SHOWN:
        model, image = models[shown.weights], load_image(PICTURES / f"{shown.name}.jpg")
        for suffix, network in (("", model), ("-regular", without_offsets(model))):
            run = describe_run(network, image)
            if suffix:  # what the page shows besides does not depend on offsets
                run["blocks"] = {path: block for path, block in run["blocks"].items() if block["kind"] == "deformable"}
            name = f"{shown.name}{suffix}"
            data = json.dumps(run, separators=(",", ":"))
            add(f"{name}.js", f'(window.minidatRuns ??= {{}})["{name}"] = {data};\n')
            if isinstance(network, Segmentor):
                add(f"{name}-classes.png", _png(label_picture(segment(network, image))))
        if isinstance(model, DAT):
            add(f"{shown.name}-pixels.png", _png(Image.fromarray(_pixels(model, image))))
            add(f"{shown.name}.jpg", _jpeg(seen_part(image, model.config), SIDE))
        else:
            add(f"{shown.name}.jpg", _jpeg(image, LARGE_SIDE))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Tell the page which photographs there are."""
    if page.file.src_uri != PAGE:
        return markdown
    return markdown.replace(PLACEHOLDER, escape(json.dumps([asdict(shown) for shown in SHOWN])))


def without_offsets(model: Any) -> Any:
    """The same model, with the same weights, whose points stay on the regular grid."""
    classifies = isinstance(model, DAT)
    config = model.config if classifies else model.config.backbone
    stages = tuple(
        stage if stage.deformable is None else replace(stage, deformable=replace(stage.deformable, offsets=False))
        for stage in config.stages
    )
    config = replace(config, stages=stages)
    regular = type(model)(config if classifies else replace(model.config, backbone=config), model.labels)
    regular.load_state_dict({name: w for name, w in model.state_dict().items() if ".offset_" not in name})
    return regular


def describe_run(model: Any, image: np.ndarray) -> dict[str, Any]:
    """All that the page shows of what one model does on one photograph."""
    deformable: dict[str, AttentionRecord] = {}
    local: dict[str, LocalAttentionRecord] = {}
    pixels, size, answers = _input_and_answers(model, image)
    classifies = isinstance(model, DAT)
    network, config = (model, model.config) if classifies else (model.backbone, model.config.backbone)
    network.forward(pixels[np.newaxis], Context(trace=deformable, local_trace=local if classifies else None))
    stages, blocks = [], {}
    for i, stage in enumerate(config.stages):
        stride = config.patch_size * 2**i  # pixels that a token stands for
        stages.append({"map": [ceil(n / stride) for n in pixels.shape[:2]], "blocks": stage.blocks})
        for j in range(len(stage.blocks)):
            name = f"stages.{i}.blocks.{j}"
            path = f"{'' if classifies else 'backbone.'}{name}.attention"
            if path in deformable:
                sides = [n * stride / side for n, side in zip(deformable[path].map_size, size, strict=True)]
                blocks[name] = _deformable(deformable[path], sides, whole=classifies)
            elif path in local:
                blocks[name] = {"kind": stage.blocks[j]} | _local(local[path])
    if not deformable:
        raise PluginError(f"{PAGE}: {model.config.name} has no deformable block")
    shape = seen_part(image, model.config).shape if classifies else image.shape
    return {
        "model": model.config.name,
        "aspect": round(shape[0] / shape[1], 4),
        "pixels": size,
        "answers": answers,
        "stages": stages,
        "blocks": blocks,
        "groupColors": COLORS,
        "heatColors": HEAT,
    }


def _input_and_answers(model: Any, image: np.ndarray) -> tuple[np.ndarray, tuple[int, ...], list[dict[str, Any]]]:
    """What the network takes, (h, w, 3); the size of the photograph in it; and what the model says, best first."""
    if isinstance(model, DAT):
        answers = [{"label": p.label, "share": round(p.probability, 4)} for p in classify(model, image, ANSWERS)]
        return preprocess(image, model.config), model.config.image_size, answers
    if isinstance(model, Segmentor):
        answer = segment(model, image)
        colors = dict(zip(answer.classes, segmentation_colors(answer.classes), strict=True))
        largest = answer.largest()[:CLASSES]
        answers = [{"label": name, "share": round(share, 4), "color": colors[name]} for name, share in largest]
        pixels = preprocess_segmentation(image, scale=model.config.resize_size)
        return pixels, pixels.shape[:2], answers
    colors_of_classes = class_colors(model.config.num_classes)
    sides = np.array([image.shape[0], image.shape[1]] * 2)  # of y1, x1, y2, x2
    answers = [
        {
            "label": found.label,
            "share": round(found.score, 4),
            "color": colors_of_classes[found.index],
            "box": np.round(np.array(found.box)[[1, 0, 3, 2]] / sides, 4).tolist(),
        }
        for found in detect(model, image)
    ]
    prepared = preprocess_detection(image, scale=model.config.resize_size)
    return prepared.pixels, prepared.size, answers


def _deformable(record: AttentionRecord, sides: list[float], *, whole: bool) -> dict[str, Any]:
    """What a deformable block did.

    sides: (height, width) of its map, in pictures: 1, or more where padding makes the map reach beyond the picture;
    points as shares (y, x) of the picture's height and width; attention: (heads, queries, keys), encoded.

    Of a detector or segmentor (`whole` is false) only every `step`-th row and column of queries is kept, and each share
    as 8 bits instead of 16: 255 times its root.
    """
    heads, keys, _ = record.attention.shape[1:]
    attention = record.attention[0].swapaxes(1, 2).reshape(heads, *record.map_size, keys)
    step = 1 if whole else ceil(sqrt(np.prod(record.map_size) / QUERIES))
    attention = attention[:, ::step, ::step]
    if not whole:
        attention = np.where(attention * keys < FAINTEST, 0, attention)
    return {
        "kind": "deformable",
        "map": record.map_size,
        "sides": [round(side, 4) for side in sides],
        "grid": record.positions.shape[2:4],
        "heads": heads,
        "groups": record.positions.shape[1],
        "reference": _shares(record.reference, record.map_size, sides),  # (keys, 2)
        "points": _shares(record.positions[0], record.map_size, sides),  # (groups keys, 2)
        "step": step,
        "bits": 16 if whole else 8,
        "attention": _encoded(attention, whole=whole),
    }


def _local(record: LocalAttentionRecord) -> dict[str, Any]:
    """sets: lists of tokens (row times columns plus column) that queries see; set: each query's one.

    attention: (heads, queries, tokens of the query's set), one after the other, encoded. Tokens of the padding, and
    those that a mask hides, are left out.
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
        "sides": [1, 1],
        "heads": len(attention),
        "sets": list(sets),
        "set": set_of_query,
        "bits": 16,
        "attention": _encoded(np.concatenate(kept, axis=1), whole=True),
    }


def _shares(points: np.ndarray, map_size: tuple[int, int], sides: list[float]) -> list[list[float]]:
    return np.round(to_picture(points, map_size, (1, 1)).reshape(-1, 2) * sides, 4).tolist()


def _encoded(probabilities: np.ndarray, *, whole: bool) -> str:
    """Packed, in base64: 16 bits a number, little-endian, 65535 for 1; if not whole 8 bits, 255 for a root of 1."""
    numbers = np.round(probabilities * 65535) if whole else np.round(probabilities**0.5 * 255)
    packed = gzip.compress(numbers.astype("<u2" if whole else "u1").tobytes(), mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _pixels(model: DAT, image: np.ndarray) -> np.ndarray:
    """What a classifier is given, as (h, w, 3) uint8."""
    pixels = (preprocess(image, model.config) * STD + MEAN) * 255
    return np.round(np.clip(pixels, 0, 255)).astype(np.uint8)


def _jpeg(image: np.ndarray, side: int) -> bytes:
    size = fit(image.shape, min(side, max(image.shape[:2])))
    file = io.BytesIO()
    Image.fromarray(resize_image(image, size)).save(file, "JPEG", quality=85, optimize=True)
    return file.getvalue()


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
