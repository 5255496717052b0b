"""minidat.data.segmentation_dataset: pictures and label maps of numbers or colors, in a folder or a zip."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minidat.data.segmentation_dataset import SegmentationDataset, read_palette
from minidat.errors import DatasetError, ImageError, MinidatError

from .strategies import seeds

CLASSES = b"sky\nroad\ntree\n"
PALETTE = "0 0 0 void\n10 20 30 sky\n200 0 0 road\n0 0 255 tall tree\n1 1 1 void\n"


def pixels(seed: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def numbers(seed: int, height: int = 6, width: int = 8) -> np.ndarray:
    """0 to 2, and 255."""
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), (height, width))


def png(array: np.ndarray, mode: str = "", **options: Any) -> bytes:
    """`mode` P: a palette that says nothing about the numbers."""
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def files(root: str = "", labels: str = "labels") -> dict[str, bytes]:
    return {
        f"{root}images/train/a.png": png(pixels(0)),
        f"{root}images/train/b.JPG": png(pixels(1)),
        f"{root}images/val/c.png": png(pixels(2, 5, 3)),
        f"{root}{labels}/train/a.png": png(numbers(0)),
        f"{root}{labels}/train/b.png": png(numbers(1), "P"),
        f"{root}{labels}/val/c.PNG": png(numbers(2, 5, 3)),
        f"{root}classes.txt": CLASSES,
    }


@pytest.fixture(params=["folder", "zip"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Put files into a folder or a zip."""

    def make_folder(contents: dict[str, bytes]) -> Path:
        for name, content in contents.items():
            (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name).write_bytes(content)
        return tmp_path / "data"

    def make_zip(contents: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return tmp_path / "data.zip"

    return make_folder if request.param == "folder" else make_zip


Make = Callable[[dict[str, bytes]], Path]


@pytest.mark.parametrize("root", ["", "streets/"])
@pytest.mark.parametrize("labels", ["labels", "annotations"])
def test_pictures_and_labels(make: Make, root: str, labels: str) -> None:
    path = make(files(root, labels))
    dataset = SegmentationDataset(path, "train")
    assert (dataset.name, dataset.classes, len(dataset)) == (f"{path} (train)", ("sky", "road", "tree"), 2)
    assert dataset.pictures == [f"{root}images/train/a.png", f"{root}images/train/b.JPG"]
    for seed, item in enumerate(dataset.load_many([0, 1])):
        assert isinstance(item, tuple)
        np.testing.assert_array_equal(item[0], pixels(seed))
        np.testing.assert_array_equal(item[1], numbers(seed))
        assert item[1].dtype == np.uint8
    image, label_map = SegmentationDataset(path, default_split="val").load(0)
    assert (image.shape, label_map.shape) == ((5, 3, 3), (5, 3))


def test_without_splits(make: Make) -> None:
    contents = {name.replace("train/", ""): content for name, content in files().items() if "val/" not in name}
    path = make(contents)
    assert len(SegmentationDataset(path)) == 2
    assert len(SegmentationDataset(path, default_split="val")) == 2
    with pytest.raises(DatasetError, match="has no part 'val': found pictures alone; leave the split out"):
        SegmentationDataset(path, "val")


@given(seeds(), st.integers(1, 254))
def test_the_zero_label_is_reduced_as_the_authors_do(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int
) -> None:
    stored = np.random.default_rng(seed).choice(np.array([*range(n + 1), 255], np.uint8), (6, 8))
    folder = tmp_path_factory.mktemp("ade")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    (folder / "images/a.png").write_bytes(png(pixels(0)))
    (folder / "labels/a.png").write_bytes(png(stored))
    expected = stored.copy()  # as mmsegmentation has it, in arithmetic modulo 256
    expected[expected == 0] = 255
    expected = expected - np.uint8(1)
    expected[expected == 254] = 255
    dataset = SegmentationDataset(folder, classes=[f"class {i}" for i in range(n)], reduce_zero_label=True)
    np.testing.assert_array_equal(dataset.load(0)[1], expected)


def test_colors_become_classes(make: Make, tmp_path: Path) -> None:
    (tmp_path / "palette.txt").write_text(PALETTE)
    assert read_palette(tmp_path / "palette.txt")[0, 0, 255] == "tall tree"
    colors = np.array([(0, 0, 0), (10, 20, 30), (200, 0, 0), (0, 0, 255), (1, 1, 1)], np.uint8)
    index = np.random.default_rng(0).integers(0, 5, (6, 8))
    contents = {"images/a.png": png(pixels(0)), "labels/a.png": png(colors[index])}
    # all names of the palette are classes: void, which has two colors, sky, road, tall tree
    dataset = SegmentationDataset(make(contents), palette=tmp_path / "palette.txt")
    assert dataset.classes == ("void", "sky", "road", "tall tree")
    np.testing.assert_array_equal(dataset.load(0)[1], np.array([0, 1, 2, 3, 0])[index])
    # colors whose name is no class are ignored
    dataset = SegmentationDataset(make(contents), palette=tmp_path / "palette.txt", classes=("tall tree", "sky"))
    np.testing.assert_array_equal(dataset.load(0)[1], np.array([255, 1, 255, 0, 255])[index])
    # a PNG that has a palette itself
    image = Image.fromarray(colors[index]).quantize(8)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    dataset = SegmentationDataset(
        make(contents | {"labels/a.png": buffer.getvalue()}), palette=tmp_path / "palette.txt"
    )
    np.testing.assert_array_equal(dataset.load(0)[1], np.array([0, 1, 2, 3, 0])[index])
    # a color that the palette has not
    strange = colors[index].copy()
    strange[3, 4] = 9, 8, 7
    dataset = SegmentationDataset(make(contents | {"labels/a.png": png(strange)}), palette=tmp_path / "palette.txt")
    with pytest.raises(DatasetError, match=r"labels/a.png: found the color \(9, 8, 7\) \(red, green, blue\), expected"):
        dataset.load(0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2 sky", "line 2: found '1 2 sky', expected red green blue name"),
        ("1 2 256 sky", "line 2: found '1 2 256 sky'"),
        ("1 2 -3 sky", "line 2: found '1 2 -3 sky'"),
        ("0 0 0 sky", "line 2: found the color 0 0 0 a second time"),
        ("", "line 2 is empty"),
    ],
)
def test_palettes_that_are_none(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "palette.txt").write_text(f"0 0 0 void\n{line}\n9 9 9 tree")
    with pytest.raises(DatasetError, match=rf"palette.txt: {message}"):
        read_palette(tmp_path / "palette.txt")
    with pytest.raises(DatasetError, match=r"gone.txt: cannot be read: No such file"):
        read_palette(tmp_path / "gone.txt")


def changed(change: dict[str, bytes | None]) -> dict[str, bytes]:
    return {name: content for name, content in (files() | change).items() if content is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images/train/b.JPG": None},
            "1 of 2 files, such as labels/train/b.png, have no partner, expected one of the ",
        ),
        (
            {"labels/train/a.png": None},
            "1 of 2 files, such as images/train/a.png, have no partner, expected one of the ",
        ),
        ({"images/train/a.jpg": b""}, "found a.png and another a, expected one"),
        ({"classes.txt": None}, "found no classes.txt, expected the names of the classes in it, one a line"),
        ({"classes.txt": b"sky\n\nroad"}, "classes.txt: line 2 is empty"),
        ({"classes.txt": b""}, "classes.txt: line 1 is empty"),
        ({"classes.txt": b"sky\nsky"}, "classes.txt: found 2 names, 1 of them different, expected 1 to 255 different"),
        ({"classes.txt": b"\xff\xfe\xff"}, "classes.txt: not UTF-8 text"),
    ],
)
def test_what_is_wrong_is_said_at_once(make: Make, change: dict[str, bytes | None], message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        SegmentationDataset(make(changed(change)), "train")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("label_map", "kind", "message"),
    [
        (png(numbers(0, 8, 6)), DatasetError, "found 8 x 6 pixels (height x width), expected 6 x 8 as its picture has"),
        (
            png(np.full((6, 8), 3, np.uint8)),
            DatasetError,
            "found the label 3 in 48 pixels, expected 3 classes: at most 2",
        ),
        (png(np.full((6, 8), 1000, np.uint16)), DatasetError, "found the label 1000 in 48 pixels"),
        (png(pixels(3)), DatasetError, "found colors, expected a class number in each pixel; or give the palette"),
        (png(numbers(0))[:40], ImageError, "the image is damaged or cut short"),
        (b"", ImageError, "the file is empty"),
    ],
)
def test_a_bad_label_map_is_named(make: Make, label_map: bytes, kind: type[MinidatError], message: str) -> None:
    dataset = SegmentationDataset(make(files() | {"labels/train/a.png": label_map}), "train")
    bad, good = dataset.load_many([0, 1])
    assert isinstance(bad, kind)
    assert str(bad).startswith(f"{dataset.path}/labels/train/a.png: {message}")
    assert isinstance(good, tuple)
    with pytest.raises(kind):
        dataset.load(0)


def test_a_bad_picture_is_named(make: Make) -> None:
    dataset = SegmentationDataset(make(files() | {"images/train/a.png": b"GIF8"}), "train")
    with pytest.raises(ImageError, match=r"images/train/a.png: the image is damaged"):
        dataset.load(0)


def test_layouts_that_are_none(make: Make) -> None:
    path = make(files())
    with pytest.raises(DatasetError, match="found the parts train, val; say which one, as the split"):
        SegmentationDataset(path)
    with pytest.raises(DatasetError, match="found the parts train, val; expected 'test'"):
        SegmentationDataset(path, "test")


@pytest.mark.parametrize(
    "contents", [{"photos/a.png": b"", "masks/a.png": b""}, {"images/a.png": b"", "classes.txt": CLASSES}]
)
def test_folders_of_other_names(make: Make, contents: dict[str, bytes]) -> None:
    with pytest.raises(DatasetError, match=r"found the folders (images|masks, photos), expected images and labels"):
        SegmentationDataset(make(contents), classes=("sky",))


@given(st.sampled_from(sorted(files())), st.integers(0, 300), st.binary(max_size=8), st.booleans())
@settings(max_examples=100)
def test_no_file_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: int, piece: bytes, cut: bool
) -> None:
    contents = files()
    content = contents[name]
    contents[name] = content[:place] + piece + (b"" if cut else content[place + len(piece) :])
    path = tmp_path_factory.mktemp("fuzzed") / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in contents.items():
            archive.writestr(each, content)
    with contextlib.suppress(MinidatError):
        dataset = SegmentationDataset(path, "train")
        for item in dataset.load_many([0, 1]):
            if isinstance(item, tuple):
                assert item[0].shape[:2] == item[1].shape
                assert ((item[1] < len(dataset.classes)) | (item[1] == 255)).all()
