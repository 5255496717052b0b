"""Reading COCO's JSON, the annotations of a detection data set, with a clear error for whatever may be wrong in it.

An object with three lists (https://cocodataset.org/#format-data):

- `images`: `id`, `file_name`, `width`, `height`;
- `categories`: `id`, `name`;
- `annotations`: `id`, `image_id`, `category_id`, `bbox` [x, y, width, height] in pixels, and where they are known
  `area` (of the object; the box's if it is absent), `iscrowd` (1: the box holds many, not told apart) and
  `segmentation` (polygons [[x1, y1, x2, y2, ...], ...], or a run-length encoding, {"size": [height, width],
  "counts": ...}).

What else there is stays as it is.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable
from typing import Any

from ..errors import DatasetError

MAX_ID = 2**63 - 1
MAX_SIDE = 1 << 20  # of a picture
MAX_COORDINATE = 1 << 24  # above, single precision has no whole pixels

Annotations = dict[str, list[dict[str, Any]]]


def read_coco_json(content: bytes, name: str) -> Annotations:
    """The `images`, `categories` and `annotations` in a file called `name`.

    They are as they stand, but for an absent `area` or `iscrowd`, which is filled in, and an empty `segmentation`,
    which is left out. Raises DatasetError for what is no JSON or not laid out so; for an id, size, name or number of
    another type or out of range, and an id that appears twice; for an annotation without its image or category, whose
    box lies outside of its picture, or whose run-length encoding has another size.
    """
    document = _parse(content, name)
    if not isinstance(document, dict):
        raise DatasetError(f"{name}: found {_shown(document)}, expected an object with images, annotations, categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            raise DatasetError(f"{name}: {key}: found {_shown(document.get(key))}, expected a list: COCO's JSON")
    images = _by_id(document["images"], f"{name}: images", _check_image)
    categories = _by_id(document["categories"], f"{name}: categories", _check_category)
    if not categories:
        raise DatasetError(f"{name}: categories: found none, expected at least one")

    def checked_annotation(record: dict[str, Any], where: str) -> None:
        _check_annotation(record, where, images, categories)

    annotations = _by_id(document["annotations"], f"{name}: annotations", checked_annotation)
    return {
        "images": list(images.values()),
        "annotations": list(annotations.values()),
        "categories": list(categories.values()),
    }


def _parse(content: bytes, name: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"found {constant}, expected a number")

    try:
        return json.loads(content, parse_constant=refuse)
    except RecursionError:
        raise DatasetError(f"{name}: its lists are nested too deeply, expected COCO's JSON") from None
    except ValueError as error:  # among them the errors of the decoder and of numbers with thousands of digits
        reason = " ".join(str(error).split())
        raise DatasetError(f"{name}: damaged, or not JSON ({ascii(reason[:120])[1:-1]}); get another copy") from None


def _by_id(records: list[Any], where: str, check: Callable[[dict[str, Any], str], None]) -> dict[int, dict[str, Any]]:
    """The records, checked, by their id."""
    known: dict[int, dict[str, Any]] = {}
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise DatasetError(f"{where}[{i}]: found {_shown(record)}, expected an object")
        number = _integer(record, "id", f"{where}[{i}]", -MAX_ID, MAX_ID)
        if number in known:
            raise DatasetError(f"{where}[{i}]: id: found {number} a second time, expected an id of its own")
        check(record, f"{where}: id {number}")
        known[number] = record
    return known


def _check_image(record: dict[str, Any], where: str) -> None:
    _text(record, "file_name", where)
    for side in ("width", "height"):
        _integer(record, side, where, 1, MAX_SIDE)


def _check_category(record: dict[str, Any], where: str) -> None:
    _text(record, "name", where)


def _check_annotation(
    record: dict[str, Any], where: str, images: dict[int, dict[str, Any]], categories: dict[int, dict[str, Any]]
) -> None:
    """And what is absent is filled in."""
    for key, known, kind in (("image_id", images, "images"), ("category_id", categories, "categories")):
        if _integer(record, key, where, -MAX_ID, MAX_ID) not in known:
            raise DatasetError(f"{where}: {key}: found {record[key]}, expected the id of one of the {kind}")
    image = images[record["image_id"]]
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_coordinate, box)) or min(box[2:]) < 0:
        raise DatasetError(f"{where}: bbox: found {_shown(box)}, expected [x, y, width, height] in pixels")
    x, y, width, height = box
    meets = x < image["width"] and y < image["height"] and x + width > 0 and y + height > 0
    if min(width, height) >= 1 and not meets:  # a smaller one is dropped anyway, and may lie on the border
        raise DatasetError(
            f"{where}: bbox: found {_shown(box)}, outside of its picture {_shown(image['file_name'])} of "
            f"{image['width']} x {image['height']} pixels (width x height)"
        )
    area = record.setdefault("area", width * height)
    if not (_is_number(area) and 0 <= area <= MAX_COORDINATE**2):
        raise DatasetError(f"{where}: area: found {_shown(area)}, expected a number of at least 0")
    for flag in ("iscrowd", "ignore"):
        if record.get(flag, 0) not in (0, 1):
            raise DatasetError(f"{where}: {flag}: found {_shown(record[flag])}, expected 0 or 1")
    record.setdefault("iscrowd", 0)
    if record.get("segmentation") in (None, []):
        record.pop("segmentation", None)
    else:
        _check_segmentation(record["segmentation"], f"{where}: segmentation", (image["height"], image["width"]))


def _check_segmentation(segmentation: Any, where: str, size: tuple[int, int]) -> None:
    """What `minidat.data.masks` draws from it is its own affair: here are the types only, and the size."""
    if isinstance(segmentation, dict):
        if segmentation.get("size") != list(size):
            raise DatasetError(
                f"{where}: size: found {_shown(segmentation.get('size'))}, expected {list(size)}, the picture's"
            )
        if not isinstance(segmentation.get("counts"), str | list):
            raise DatasetError(f"{where}: counts: found {_shown(segmentation.get('counts'))}, expected the runs")
        return
    if not isinstance(segmentation, list):
        raise DatasetError(f"{where}: found {_shown(segmentation)}, expected polygons or a run-length encoding")
    for polygon in segmentation:
        if (
            not isinstance(polygon, list)
            or len(polygon) < 6
            or len(polygon) % 2
            or not all(map(_is_coordinate, polygon))
        ):
            raise DatasetError(
                f"{where}: found {_shown(polygon)}, expected a polygon [x1, y1, x2, y2, ...] of at least three corners"
            )


def _integer(record: dict[str, Any], key: str, where: str, smallest: int, largest: int) -> int:
    value = record.get(key)
    if type(value) is not int or not smallest <= value <= largest:
        bounds = f" of {smallest} to {largest}" if smallest > 0 else ""
        raise DatasetError(f"{where}: {key}: found {_shown(value)}, expected a whole number{bounds}")
    return value


def _text(record: dict[str, Any], key: str, where: str) -> None:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise DatasetError(f"{where}: {key}: found {_shown(value)}, expected a name")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_coordinate(value: Any) -> bool:
    return _is_number(value) and abs(value) <= MAX_COORDINATE  # neither NaN nor infinite


def _shown(value: Any) -> str:
    """What was found, in a few printable characters."""
    return "nothing" if value is None else ascii(reprlib.repr(value))[1:-1]
