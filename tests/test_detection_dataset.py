"""minidat.data.detection_dataset and coco_json: COCO's JSON and its pictures, in a folder or a zip, and what errs."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minidat.data.coco_json import read_coco_json
from minidat.data.detection_dataset import DetectionDataset
from minidat.errors import DatasetError, ImageError, MinidatError

TRIANGLE = [[2.0, 1.0, 9.0, 1.0, 2.0, 6.5]]
RUNS = {"size": [10, 12], "counts": [30, 20, 70]}


def annotation(number: int, image: int, category: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}


def document() -> dict[str, Any]:
    """Two pictures with objects, out of the order of their ids, and one without; categories out of order too."""
    content = {
        "info": {"year": 2026},
        "images": [
            {"id": 7, "file_name": "b.png", "width": 12, "height": 10},
            {"id": 0, "file_name": "a.png", "width": 8, "height": 6},
            {"id": 9, "file_name": "deep/c.png", "width": 5, "height": 4},
        ],
        "categories": [{"id": 30, "name": "zebra"}, {"id": 4, "name": "ant"}, {"id": 5, "name": "moth"}],
        "annotations": [
            annotation(0, 7, 30, [2.0, 1.0, 7.0, 5.5], area=20.5, iscrowd=0, segmentation=TRIANGLE),
            annotation(1, 0, 4, [1, 2, 3, 3], area=9, segmentation=[[1, 2, 4, 2, 4, 5, 1, 5]]),
            annotation(2, 7, 4, [0, 0, 12, 10], area=50, iscrowd=1, segmentation=RUNS),
            annotation(3, 7, 5, [-2.5, 3, 6, 20], segmentation=RUNS),
        ],
    }
    return copy.deepcopy(content)


def png(height: int, width: int, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def files(content: dict[str, Any] | bytes, *, root: str = "", images: str = "images/val/") -> dict[str, bytes]:
    """A data set's files by name."""
    return {
        f"{root}annotations/instances_val.json": content
        if isinstance(content, bytes)
        else json.dumps(content).encode(),
        f"{root}{images}b.png": png(10, 12, 1),
        f"{root}{images}a.png": png(6, 8, 2),
        f"{root}{images}deep/c.png": png(4, 5, 3),
    }


def make_folder(path: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def make_zip(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(params=["folder", "zip"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    if request.param == "folder":
        return lambda contents: make_folder(tmp_path / "data", contents)
    return lambda contents: make_zip(tmp_path / "data.zip", contents)


Make = Callable[[dict[str, bytes]], Path]


@pytest.mark.parametrize("root", ["", "cells/", "a/b/"])
@pytest.mark.parametrize("images", ["images/val/", "images/", "val/", ""])
def test_classes_pictures_and_boxes(make: Make, root: str, images: str) -> None:
    dataset = DetectionDataset(make(files(document(), root=root, images=images)))
    assert dataset.classes == ("ant", "moth", "zebra")  # by id: 4, 5, 30
    assert (dataset.category_ids, dataset.image_ids, len(dataset)) == ((4, 5, 30), (7, 0, 9), 3)
    assert dataset.name.endswith(" (val)")
    image, targets = dataset.load(0)
    np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(png(10, 12, 1)))))
    # the crowd is left out, the last box is cut off at the border
    np.testing.assert_array_equal(targets.boxes, np.array([[2, 1, 9, 6.5], [0, 3, 3.5, 10]], np.float32))
    np.testing.assert_array_equal(targets.labels, [2, 1])
    assert (targets.boxes.dtype, targets.labels.dtype) == (np.float32, np.int64)
    assert targets.masks == [TRIANGLE, RUNS]
    assert dataset.load(2)[0].shape == (4, 5, 3)
    empty = dataset.targets(2)
    assert (empty.boxes.shape, empty.labels.shape, empty.masks) == ((0, 4), (0,), [])
    assert dataset.occupied.tolist() == [0, 1]
    assert [item[0].shape for item in dataset.load_many([1, 0])] == [(6, 8, 3), (10, 12, 3)]  # type: ignore[index]


def test_the_annotations_stay_what_an_evaluation_needs(make: Make) -> None:
    dataset = DetectionDataset(make(files(document())))
    expected = document()
    del expected["info"]
    expected["annotations"][1] |= {"iscrowd": 0}
    expected["annotations"][3] |= {"iscrowd": 0, "area": 120}  # of the whole box: nothing else is known
    assert dataset.annotations == expected


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"bbox": [1, 1, 1, 1]}, True),
        ({"bbox": [1, 1, 0.99, 5]}, False),
        ({"bbox": [1, 1, 5, 0.5]}, False),
        ({"bbox": [8, 6, 0, 0]}, False),  # on the border, but too small to matter
        ({"area": 0}, False),
        ({"iscrowd": 1}, False),
        ({"iscrowd": True}, False),
        ({"ignore": 1}, False),
        ({"ignore": 0}, True),
    ],
)
def test_what_is_learned(tmp_path: Path, change: dict[str, Any], kept: bool) -> None:
    content = document()
    content["annotations"][1] |= change
    dataset = DetectionDataset(make_folder(tmp_path, files(content)))
    assert len(dataset.targets(1).boxes) == kept
    assert (1 in dataset.occupied) == kept
    assert len(dataset.annotations["annotations"]) == 4


def test_masks_are_all_or_none(tmp_path: Path) -> None:
    content = document()
    del content["annotations"][2]["segmentation"]  # a crowd's is not needed
    assert DetectionDataset(make_folder(tmp_path, files(content))).has_masks
    content["annotations"][1]["segmentation"] = []
    dataset = DetectionDataset(make_folder(tmp_path, files(content)))
    assert not dataset.has_masks
    assert dataset.targets(0).masks is None


def test_the_annotations_may_lie_elsewhere(tmp_path: Path, make: Make) -> None:
    contents = files(document(), images="")
    file = tmp_path / "elsewhere.json"
    file.write_bytes(contents.pop("annotations/instances_val.json"))
    dataset = DetectionDataset(make(contents), annotations=file)
    assert len(dataset.load(0)[1].boxes) == 2
    with pytest.raises(DatasetError, match=r"gone.json: cannot be read: No such file or directory; expected a file"):
        DetectionDataset(dataset.path, annotations=tmp_path / "gone.json")


def test_the_split_is_chosen(make: Make) -> None:
    contents = files(document())
    contents |= {
        "annotations/instances_train.json": contents["annotations/instances_val.json"],
        "annotations/captions_val.json": b"{}",  # beside them in COCO
        **{name.replace("val/", "train/"): png(10, 12) for name in contents if "b.png" in name},
    }
    path = make(contents)
    assert DetectionDataset(path, "val").split == "val"
    assert DetectionDataset(path, default_split="val").split == "val"
    with pytest.raises(DatasetError, match="found the parts train, val; say which one, as the split"):
        DetectionDataset(path)
    with pytest.raises(DatasetError, match="found the parts train, val; expected 'test'"):
        DetectionDataset(path, "test")
    with pytest.raises(
        DatasetError, match=r"2 of 3 pictures are missing \(a.png, deep/c.png\), expected them in .*/train"
    ):
        DetectionDataset(path, "train")


def test_no_picture_is_looked_for_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(10, 12))
    content = document()
    for name in (
        "../secret.png",
        "../../../secret.png",
        str(tmp_path / "secret.png"),
        "images/../../secret.png",
        "\0/x",
    ):
        content["images"][0]["file_name"] = name
        with pytest.raises(DatasetError):
            DetectionDataset(make_folder(tmp_path / "data", files(content)))


def test_a_bad_picture_is_named(make: Make) -> None:
    contents = files(document())
    contents["images/val/b.png"] = png(12, 10)
    contents["images/val/a.png"] = contents["images/val/a.png"][:60]
    dataset = DetectionDataset(make(contents))
    wrong_size, damaged, good = dataset.load_many([0, 1, 2])
    assert isinstance(wrong_size, DatasetError)
    assert "images/val/b.png: found 12 x 10 pixels (height x width), expected 10 x 12" in str(wrong_size)
    assert isinstance(damaged, ImageError)
    assert str(damaged).startswith(f"{dataset.path}/images/val/a.png: the image is damaged")
    assert isinstance(good, tuple)
    with pytest.raises(DatasetError, match="expected 10 x 12"):
        dataset.load(0)


def test_a_picture_lies_as_its_orientation_says(tmp_path: Path) -> None:
    """The boxes are those of the upright picture."""
    contents = files(document())
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (10, 12)).save(buffer, "JPEG", exif=exif)  # 10 wide and 12 high until it is turned
    contents["images/val/b.png"] = buffer.getvalue()
    assert DetectionDataset(make_folder(tmp_path, contents)).load(0)[0].shape == (10, 12, 3)


WRONG: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda d: d.pop("images"), "images: found nothing, expected a list"),
    (lambda d: d.update(annotations={}), "annotations: found {}, expected a list"),
    (lambda d: d.update(categories=[]), "categories: found none, expected at least one"),
    (lambda d: d.update(images=[], annotations=[]), "images: found none, expected at least one"),
    (lambda d: d["images"].append(3), "images[3]: found 3, expected an object"),
    (lambda d: d["images"][1].update(id=7), "images[1]: id: found 7 a second time"),
    (lambda d: d["images"][1].update(id="7"), "images[1]: id: found '7', expected a whole number"),
    (lambda d: d["images"][1].update(id=True), "images[1]: id: found True, expected a whole number"),
    (lambda d: d["images"][1].update(id=10**30), "images[1]: id: found 1000000000000000000000000000000, expected"),
    (lambda d: d["images"][1].update(width=0), "images: id 0: width: found 0, expected a whole number of 1 to"),
    (lambda d: d["images"][1].update(height=6.5), "images: id 0: height: found 6.5, expected a whole number of 1 to"),
    (lambda d: d["images"][1].pop("file_name"), "images: id 0: file_name: found nothing, expected a name"),
    (lambda d: d["images"][1].update(file_name="gone.png"), "1 of 3 pictures are missing (gone.png), expected them in"),
    (lambda d: d["categories"][0].update(name=" "), "categories: id 30: name: found ' ', expected a name"),
    (lambda d: d["categories"][0].update(name="a\x1b[2J"), "categories: id 30: name: found 'a\\\\x1b[2J', expected"),
    (
        lambda d: d["annotations"][1].update(image_id=5),
        "annotations: id 1: image_id: found 5, expected the id of one of",
    ),
    (
        lambda d: d["annotations"][1].update(category_id=6),
        "annotations: id 1: category_id: found 6, expected the id of",
    ),
    (
        lambda d: d["annotations"][1].pop("category_id"),
        "annotations: id 1: category_id: found nothing, expected a whole",
    ),
    (lambda d: d["annotations"][1].pop("id"), "annotations[1]: id: found nothing, expected a whole number"),
    (lambda d: d["annotations"][1].update(id=0), "annotations[1]: id: found 0 a second time"),
    (
        lambda d: d["annotations"][1].update(bbox=[1, 2, 3]),
        "id 1: bbox: found [1, 2, 3], expected [x, y, width, height]",
    ),
    (lambda d: d["annotations"][1].update(bbox=[1, 2, -3, 3]), "id 1: bbox: found [1, 2, -3, 3], expected"),
    (lambda d: d["annotations"][1].update(bbox=[1, 2, 3, 1e300]), "id 1: bbox: found [1, 2, 3, 1e+300], expected"),
    (lambda d: d["annotations"][1].update(bbox=[1, 2, 3, 10**400]), "id 1: bbox: found [1, 2, 3, 10000"),
    (lambda d: d["annotations"][1].update(bbox=[1, 2, 3, "4"]), "id 1: bbox: found [1, 2, 3, '4'], expected"),
    (
        lambda d: d["annotations"][1].update(bbox=[8, 2, 3, 3]),
        "id 1: bbox: found [8, 2, 3, 3], outside of its picture 'a.png' of 8 x 6 pixels",
    ),
    (
        lambda d: d["annotations"][1].update(bbox=[1, -3, 3, 3]),
        "id 1: bbox: found [1, -3, 3, 3], outside of its picture",
    ),
    (lambda d: d["annotations"][1].update(area=-1), "id 1: area: found -1, expected a number of at least 0"),
    (lambda d: d["annotations"][1].update(area="9"), "id 1: area: found '9', expected a number of at least 0"),
    (lambda d: d["annotations"][1].update(iscrowd=2), "id 1: iscrowd: found 2, expected 0 or 1"),
    (lambda d: d["annotations"][1].update(segmentation="x"), "id 1: segmentation: found 'x', expected polygons or"),
    (
        lambda d: d["annotations"][1].update(segmentation=[[1, 2, 3, 4]]),
        "id 1: segmentation: found [1, 2, 3, 4], expected a polygon",
    ),
    (
        lambda d: d["annotations"][1].update(segmentation=[[0] * 7]),
        "expected a polygon [x1, y1, x2, y2, ...] of at least",
    ),
    (
        lambda d: d["annotations"][1].update(segmentation=RUNS),
        "id 1: segmentation: size: found [10, 12], expected [6, 8], the picture's",
    ),
    (
        lambda d: d["annotations"][2].update(segmentation={"size": [10, 12]}),
        "id 2: segmentation: counts: found nothing, expected the runs",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG)
def test_what_is_wrong_is_said(tmp_path: Path, spoil: Callable[[dict[str, Any]], Any], message: str) -> None:
    content = document()
    spoil(content)
    with pytest.raises(DatasetError) as caught:
        DetectionDataset(make_folder(tmp_path, files(content)))
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/annotations/instances_val.json: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, or not JSON"),
        (b"\xff\xd8\xff\xe0", "damaged, or not JSON"),
        (b'{"images": [', "damaged, or not JSON (Expecting value: line 1 column 13"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"images": ' + b'{"a":' * 50_000, "nested too deeply"),
        (b'{"images": NaN}', "damaged, or not JSON (found NaN, expected a number)"),
        (b'{"images": [' + b"9" * 5000 + b"]}", "damaged, or not JSON (Exceeds the limit"),
        (b"[1, 2]", "found [1, 2], expected an object with images, annotations, categories"),
    ],
)
def test_what_is_no_json_is_said(content: bytes, message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read_coco_json(content, "the file")
    assert str(caught.value).startswith(
        f"the file: {message}" if message[0] != "n" else "the file: its lists are nested"
    )


def test_layouts_that_are_none(tmp_path: Path, make: Make) -> None:
    with pytest.raises(DatasetError, match="nowhere: no such file or folder"):
        DetectionDataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"found no annotations, expected annotations/instances_<split>.json"):
        DetectionDataset(make({"images/a.png": png(3, 4), "labels/a.png": png(3, 4)}))
    (tmp_path / "text.zip").write_bytes(b"no zip")
    with pytest.raises(DatasetError, match=r"text.zip: not a data set that can be read"):
        DetectionDataset(tmp_path / "text.zip")


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """Opening it would wait for somebody to write to it."""
    os.mkfifo(tmp_path / "pipe.json")
    path = make_folder(tmp_path / "data", files(document()))
    with pytest.raises(DatasetError, match=r"pipe.json: cannot be read: not a regular file; expected a file"):
        DetectionDataset(path, annotations=tmp_path / "pipe.json")
    (path / "annotations" / "instances_val.json").unlink()
    os.mkfifo(path / "annotations" / "instances_val.json")
    with pytest.raises(DatasetError, match="found no annotations"):
        DetectionDataset(path)
    with pytest.raises(DatasetError, match="cannot be read: embedded null byte; expected a file"):
        DetectionDataset(path, annotations="a\0b")


# --- fuzzing ----------------------------------------------------------------------------------------------------------

ODD_VALUES = st.one_of(
    st.sampled_from(
        [None, True, False, 0, -1, 1e308, -1e308, 2**63, 10**400, "", "x", "\ud800", "\0", [], {}, [[]], [[[]]], [None]]
    ),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-20, 40),
    st.lists(st.integers(-5, 20), max_size=8),
    st.sampled_from([TRIANGLE, RUNS, {"size": [10, 12], "counts": "abc"}, {"size": [10, 12], "counts": [-1]}]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside of a document."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(*path, key) for key in keys] + [place for key in keys for place in places(value[key], (*path, key))]


@st.composite
def spoiled_documents(draw: st.DrawFn) -> dict[str, Any]:
    content = document()
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(content)))
        holder = content
        for key in path:
            holder = holder[key]
        what = draw(st.sampled_from(["replace", "delete", "repeat"]))
        if what == "replace":
            holder[last] = copy.deepcopy(draw(ODD_VALUES))
        elif what == "delete":
            del holder[last]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
    return content


@st.composite
def spoiled_bytes(draw: st.DrawFn) -> bytes:
    """Valid text with a piece replaced by another, or cut off."""
    content = json.dumps(document()).encode()
    start = draw(st.integers(0, len(content)))
    stop = draw(st.integers(start, min(start + 40, len(content))))
    middle = draw(st.one_of(st.binary(max_size=6), st.sampled_from([b"[" * 3000, b"1e999", b"Infinity", b"9" * 6000])))
    return content[:start] + middle + content[stop:]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("fuzzed"), files(document()))


@given(st.one_of(spoiled_documents(), spoiled_bytes()))
@settings(max_examples=200)
def test_no_file_raises_anything_else(fuzzed: Path, content: dict[str, Any] | bytes) -> None:
    with contextlib.suppress(MinidatError):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (fuzzed / "annotations" / "instances_val.json").write_bytes(raw)
        dataset = DetectionDataset(fuzzed)
        for index in range(len(dataset)):
            targets = dataset.targets(index)
            height, width = dataset.size(index)
            assert np.isfinite(targets.boxes).all()
            assert (targets.boxes[:, 2:] > targets.boxes[:, :2]).all()
            assert (targets.boxes >= 0).all()
            assert (targets.boxes <= [width, height] * 2).all()
            assert ((targets.labels >= 0) & (targets.labels < len(dataset.classes))).all()
