"""Pictures with boxes around objects: a folder or .zip of pictures and a file of annotations in COCO's JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError, ImageError, MinidatError, listed
from .coco_json import Annotations, read_coco_json
from .dense_dataset import DenseDataset, choose_split, find_root
from .file_tree import Place, open_tree, read_file
from .targets import BoxTargets

PathLike = str | os.PathLike[str]

MAX_JSON_BYTES = 1 << 30  # COCO's training annotations have 450 MB
SMALLEST_SIDE = 1.0  # of a box to learn from, in pixels


class DetectionDataset(DenseDataset[BoxTargets]):
    """Pictures and the objects in them, annotated in COCO's JSON (see `read_coco_json`).

    path: a folder or a .zip that holds `annotations/instances_<split>.json` and the pictures in `images/<split>`,
    `<split>` or `images`, possibly inside a folder that holds nothing else. split: its name; None: the only one there
    is, or else `default_split`. annotations: a JSON file elsewhere; `path` then holds the pictures it names.

    Classes are numbered in the order of their categories' ids. Pictures are in the order of the file, among them those
    without objects: `occupied` has the indices of the others, (n,). `has_masks`: whether every object has a mask.
    `annotations`: the file's content, of which `image_ids` and `category_ids` name the picture of an index and the
    category of a class number: what an evaluation compares with.

    An item's targets: boxes (n, 4) float32, (x1, y1, x2, y2), cut off at the border of the picture; labels (n,) int64;
    masks: n times polygons or a run-length encoding, as they stand in the file, or None if `has_masks` is false. Crowds
    are left out, and objects marked to be ignored, of no area, or whose box is less than one pixel wide or high.

    Raises DatasetError if there is no such file, for anything wrong in it, and for pictures that are missing.
    """

    def __init__(
        self,
        path: PathLike,
        split: str | None = None,
        *,
        default_split: str | None = None,
        annotations: PathLike | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = str(path)
        self._tree = open_tree(path)
        root = find_root(self._tree, ("annotations", "images"))
        if annotations is None:
            self.split, file = self._find_annotations(root, split, default_split)
            self.name += f" ({self.split})"
            content, name = self._tree.read(file, most=MAX_JSON_BYTES), f"{path}/{file}"
        else:
            self.split = split or ""
            content, name = read_file(annotations, most=MAX_JSON_BYTES), str(annotations)
        self.annotations: Annotations = read_coco_json(content, name)

        categories = sorted(self.annotations["categories"], key=lambda category: category["id"])
        self.classes = tuple(category["name"] for category in categories)
        self.category_ids = tuple(category["id"] for category in categories)
        self._numbers = {category: number for number, category in enumerate(self.category_ids)}
        self.image_ids = tuple(image["id"] for image in self.annotations["images"])
        if not self.image_ids:
            raise DatasetError(f"{name}: images: found none, expected at least one")
        self.pictures = self._find_pictures(root, name)

        objects: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in self.image_ids}
        for annotation in self.annotations["annotations"]:
            if _is_learned(annotation):
                objects[annotation["image_id"]].append(annotation)
        self._objects = tuple(objects.values())
        self.occupied = np.flatnonzero([len(found) > 0 for found in self._objects])
        self.has_masks = all("segmentation" in found for some in self._objects for found in some)

    def __len__(self) -> int:
        return len(self.image_ids)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of a picture, as its annotations have it."""
        image = self.annotations["images"][index]
        return image["height"], image["width"]

    def targets(self, index: int) -> BoxTargets:
        """What is to be found in a picture, which is not read."""
        objects = self._objects[index]
        height, width = self.size(index)
        boxes = np.array([annotation["bbox"] for annotation in objects], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # (x, y, width, height) -> (x1, y1, x2, y2)
        boxes = np.clip(boxes, 0, (width, height, width, height)).astype(np.float32)
        labels = np.array([self._numbers[annotation["category_id"]] for annotation in objects], np.int64)
        masks = [annotation["segmentation"] for annotation in objects] if self.has_masks else None
        return BoxTargets(boxes, labels, masks)

    def load_many(self, indices: Sequence[int]) -> list[tuple[np.ndarray, BoxTargets] | MinidatError]:
        images = self._tree.load_images([self.pictures[index] for index in indices])
        items: list[tuple[np.ndarray, BoxTargets] | MinidatError] = []
        for index, image in zip(indices, images, strict=True):
            if isinstance(image, ImageError):
                items.append(image)
            elif image.shape[:2] != self.size(index):
                (height, width), (found_height, found_width) = self.size(index), image.shape[:2]
                items.append(
                    DatasetError(
                        f"{self.path}/{self.pictures[index]}: found {found_height} x {found_width} pixels (height x "
                        f"width), expected {height} x {width}, as its annotations have it"
                    )
                )
            else:
                items.append((image, self.targets(index)))
        return items

    def _find_annotations(self, root: Place, split: str | None, default_split: str | None) -> tuple[str, str]:
        """The split and its file."""
        folder = (*root, "annotations")
        stems = [file.removesuffix(".json") for file in self._tree.files(folder) if file.endswith(".json")]
        stems = [stem for stem in stems if stem.startswith("instances_")] or stems  # beside COCO's captions
        if not stems:
            raise DatasetError(
                f"{self.path}: found no annotations, expected {'/'.join(folder)}/instances_<split>.json, COCO's JSON"
            )
        files = {stem.removeprefix("instances_"): "/".join((*folder, f"{stem}.json")) for stem in stems}
        split = choose_split(str(self.path), sorted(files), split, default_split)
        return split, files[split]

    def _find_pictures(self, root: Place, name: str) -> list[str]:
        """The name of each picture in the tree."""
        split = (self.split,) if self.split else ()
        places = [(*root, "images", *split), (*root, *split), (*root, "images"), root]
        pictures, missing = [], []
        for image in self.annotations["images"]:
            parts = [part for part in image["file_name"].replace("\\", "/").split("/") if part != "."]
            candidates = ("/".join((*place, *parts)) for place in places)
            found = next((file for file in candidates if self._tree.has(file)), None)
            if found is None:
                missing.append(image["file_name"])
            else:
                pictures.append(found)
        if missing:
            raise DatasetError(
                f"{name}: {len(missing)} of {len(self)} pictures are missing ({listed(missing, 3)}), expected them in "
                f"{'/'.join((str(self.path), *places[0]))}"
            )
        return pictures


def _is_learned(annotation: dict[str, Any]) -> bool:
    """Whether an object is one to learn from, by mmdetection's rules."""
    wanted = not annotation["iscrowd"] and not annotation.get("ignore", 0) and annotation["area"] > 0
    return wanted and min(annotation["bbox"][2:]) >= SMALLEST_SIDE
