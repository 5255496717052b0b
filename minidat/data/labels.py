"""The names of the classes that models answer with, in the order of their logits."""

import os
from pathlib import Path

import numpy as np

from ..errors import MinidatError
from ..files.reading import read_text


def cifar10_labels() -> tuple[str, ...]:
    """The ten classes of CIFAR-10."""
    return ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def imagenet_labels() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1K (ILSVRC 2012) in the order of every published model: by WordNet identifier.

    Each is its synset's first name in WordNet 3.0; the three names that two classes share are told apart in brackets.
    """
    return tuple(Path(__file__).with_name("imagenet_labels.txt").read_text(encoding="utf-8").splitlines())


def ade20k_labels() -> tuple[str, ...]:
    """The 150 classes of ADE20K's scene parsing benchmark, in the order of every published segmentor."""
    return tuple(line.split(" ", 3)[3] for line in _ade20k_lines())


def ade20k_palette() -> np.ndarray:
    """The colors those classes are usually shown in, (150, 3) uint8 RGB; road and skyscraper share one."""
    return np.array([line.split(" ", 3)[:3] for line in _ade20k_lines()], np.uint8)


def _ade20k_lines() -> list[str]:
    """One line a class: red, green, blue, name."""
    return Path(__file__).with_name("ade20k_classes.txt").read_text(encoding="utf-8").splitlines()


def coco_labels() -> tuple[str, ...]:
    """The 80 classes of COCO's objects, in the order of every published detector: by category id."""
    return tuple(line.split(" ", 1)[1] for line in _coco_lines())


def coco_category_ids() -> tuple[int, ...]:
    """The ids, 1 to 90 with gaps, that COCO's files have for those classes."""
    return tuple(int(line.split(" ", 1)[0]) for line in _coco_lines())


def _coco_lines() -> list[str]:
    """One line a class: category id, name."""
    return Path(__file__).with_name("coco_classes.txt").read_text(encoding="utf-8").splitlines()


def load_labels(name_or_path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The labels called "imagenet", "cifar10", "ade20k" or "coco", or those in a UTF-8 text file, one a line in order.

    Raises MinidatError for a file that cannot be read, is not text, or has an empty line.
    """
    if name_or_path == "imagenet":
        return imagenet_labels()
    if name_or_path == "cifar10":
        return cifar10_labels()
    if name_or_path == "ade20k":
        return ade20k_labels()
    if name_or_path == "coco":
        return coco_labels()
    try:
        labels = tuple(line.strip() for line in read_text(name_or_path).splitlines())
    except OSError as error:
        raise MinidatError(
            f"{name_or_path}: {error.strerror}; "
            "expected a text file of labels, `imagenet`, `cifar10`, `ade20k` or `coco`"
        ) from None
    except ValueError:
        raise MinidatError(f"{name_or_path}: not UTF-8 text; expected labels, one a line") from None
    if "" in labels or not labels:
        line = labels.index("") + 1 if labels else 1
        raise MinidatError(f"{name_or_path}: line {line} is empty; expected labels, one a line")
    return labels
