"""minidat.data.datasets and minidat.data.cifar10: labeled pictures in folders, zips and CIFAR-10's archives."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import types
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minidat.data import datasets, image
from minidat.data.cifar10 import BATCHES
from minidat.data.datasets import ArrayDataset, split_dataset, split_validation
from minidat.data.image import load_image, load_images, preprocess, preprocess_batch
from minidat.data.image_folder import ImageFolder
from minidat.data.labels import cifar10_labels
from minidat.data.opening import open_dataset
from minidat.errors import ConfigError, DatasetError, ImageError, MinidatError, ShapeError


def pixels(seed, height=6, width=8):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(seed, **size):
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, **size)).save(buffer, "PNG")
    return buffer.getvalue()


PETS = {"dog/b.png": png(0), "cat/x.PNG": png(1), "dog/a.png": png(2), "cat/y.png": png(3), "eel/1.png": png(4)}
PETS_IN_ORDER = ["cat/x.PNG", "cat/y.png", "dog/a.png", "dog/b.png", "eel/1.png"]
PETS_SEEDS = [1, 3, 2, 0, 4]


def make_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (path / name).mkdir(exist_ok=True)
        else:
            (path / name).write_bytes(content)
    return path


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_zip(path, files):
    path.write_bytes(zipped(files))
    return path


@pytest.fixture(params=["folder", "zip"])
def make(request, tmp_path):
    """Put files into a folder or a zip."""
    if request.param == "folder":
        return lambda files: make_folder(tmp_path / "data", files)
    return lambda files: make_zip(tmp_path / "data.zip", files)


@pytest.fixture(scope="module")
def mutated(tmp_path_factory):
    """A file to write damaged archives to."""
    return tmp_path_factory.mktemp("mutated") / "file"


def below(prefix, files=PETS):
    return {prefix + name: content for name, content in files.items()}


def fails(path, split=None, **settings):
    """open_dataset must raise DatasetError: one line that names the path. Returns the line."""
    with pytest.raises(DatasetError) as caught:
        open_dataset(path, split, **settings)
    message = str(caught.value)
    assert message.startswith(f"{path}")
    assert "\n" not in message
    return message


def read_or_fail(path, read):
    """Any other exception than a MinidatError fails the test, and so does a message that does not name the file."""
    problem = None
    try:
        read()
    except MinidatError as error:
        problem = str(error)
    assert problem is None or (problem.startswith(str(path)) and "\n" not in problem)


# --- image folders ----------------------------------------------------------------------------------------------------


def test_image_folder(make):
    """Classes by name, pictures by class and name; suffixes in any case."""
    dataset = open_dataset(make(PETS))
    assert isinstance(dataset, ImageFolder)
    assert len(dataset) == 5
    assert dataset.classes == ("cat", "dog", "eel")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2]
    assert dataset.labels.dtype == np.int64
    assert dataset.pictures == PETS_IN_ORDER
    for i, seed in enumerate(PETS_SEEDS):
        assert np.array_equal(dataset.load(i), pixels(seed))
    with pytest.raises(IndexError):
        dataset.load(5)


def test_every_format_that_load_image_knows(make):
    files = {}
    for suffix, file_format in [
        ("jpg", "JPEG"), ("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("gif", "GIF"), ("tif", "TIFF"),
        ("tiff", "TIFF"), ("bmp", "BMP"),
    ]:  # fmt: skip
        buffer = io.BytesIO()
        Image.new("L", (4, 4), 90).save(buffer, file_format)
        files[f"gray/x.{suffix}"] = buffer.getvalue()
    images, _ = open_dataset(make(files)).load_all()
    assert images.shape == (8, 4, 4, 3)
    assert (images == 90).all()


def test_pictures_are_read_as_load_image_does(tmp_path):
    """Upright, and in 8-bit RGB: the same code."""
    exif = Image.Exif()
    exif[0x0112] = 6
    make_folder(tmp_path, {"a/": b""})
    Image.fromarray(pixels(0)).convert("CMYK").save(tmp_path / "a" / "x.jpg", exif=exif)
    assert open_dataset(tmp_path).load(0).shape == (8, 6, 3)
    assert np.array_equal(open_dataset(tmp_path).load(0), load_image(tmp_path / "a" / "x.jpg"))


@pytest.mark.parametrize("prefix", ["pets/", "a/b/c/"])
def test_leading_folders(make, prefix):
    assert open_dataset(make(below(prefix))).pictures == [prefix + name for name in PETS_IN_ORDER]


@pytest.mark.parametrize("prefix", ["", "cifar10/", "a/b/"])
def test_splits(make, prefix):
    """One level above the classes, wherever that is."""
    tests = {"cat/1.png": png(7), "owl/1.png": png(8)}
    path = make({**below(prefix + "train/"), **below(prefix + "test/", tests), prefix + "readme.txt": b"hello"})
    train, test = open_dataset(path, "train"), open_dataset(path, "test")
    assert (train.classes, len(train)) == (("cat", "dog", "eel"), 5)
    assert (test.classes, len(test)) == (("cat", "owl"), 2)
    assert np.array_equal(test.load(1), pixels(8))
    assert test.name == f"{path} (test)"
    assert open_dataset(path, default_split="test").split == "test"
    assert open_dataset(path, "train", default_split="test").split == "train"
    assert "found the parts test, train; say which one" in fails(path)
    assert "found the parts test, train; say which one" in fails(path, default_split="dev")
    assert "found the parts test, train, expected 'val'" in fails(path, "val")


def test_a_split_that_is_the_only_one(make):
    path = make(below("data/train/"))
    assert open_dataset(path).split is None
    assert open_dataset(path, "train").split == "train"
    assert open_dataset(path, default_split="test").split is None  # a wish, not a demand
    assert len(open_dataset(path, "data")) == 5


def test_a_split_where_there_is_none(make):
    path = make(PETS)
    assert "no part 'train': found the classes cat, dog, eel; leave the split out" in fails(path, "train")
    assert len(open_dataset(path, default_split="cat")) == 5  # a class may be called as one


def test_one_class(make):
    dataset = open_dataset(make(below("cat/", {"1.png": png(0), "2.png": png(1)})))
    assert dataset.classes == ("cat",)
    assert dataset.labels.tolist() == [0, 0]


def test_what_is_no_picture_is_left_out(make):
    junk = {
        **dict.fromkeys(["cat/notes.txt", "__MACOSX/cat/z.png", "cat/._x.png", "cat/.thumbs/x.png", "Thumbs.db"], b""),
        ".git/x.png": png(0),
        "cover.png": png(0),
    }
    assert open_dataset(make({**PETS, **junk})).pictures == PETS_IN_ORDER


def test_symbolic_links_to_folders_are_followed(tmp_path):
    make_folder(tmp_path / "elsewhere", PETS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "elsewhere")
    assert len(open_dataset(tmp_path / "data", "train")) == 5


def test_empty_classes_are_refused(make):
    for name in ("fox/", "fox/notes.txt"):
        assert "the class fox has no pictures (.jpg, " in fails(make({**PETS, name: b""}))


def test_folders_among_pictures_are_refused(make):
    assert "the class dog holds the folder more" in fails(make({**PETS, "dog/more/c.png": png(0)}))


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a/": b""}, "found no pictures, expected a folder for each class"),
        ({"a.png": png(0), "b.png": png(0)}, "found 2 pictures without a class"),
        ({"readme.txt": b""}, "found no pictures"),
        ({"train/1.png": png(0), "test/a/1.png": png(0)}, "holds the folder a"),
    ],
)
def test_other_layouts(make, files, problem):
    assert problem in fails(make(files))


def test_nothing_there(tmp_path):
    assert "no such file or folder" in fails(tmp_path / "missing.zip")
    assert "no such file or folder" in fails(tmp_path / "missing")
    assert "found no pictures" in fails(tmp_path)


def test_neither_a_zip_nor_a_folder(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"dear reader")
    assert "not a data set that can be read" in fails(tmp_path / "x.zip")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in fails(tmp_path / "pipe")
    make_zip(tmp_path / "cut.zip", PETS)
    os.truncate(tmp_path / "cut.zip", 500)
    assert "not a data set that can be read" in fails(tmp_path / "cut.zip")


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert "cannot be read: Permission denied" in fails(tmp_path)


def test_a_long_name_in_a_zip_takes_no_memory(tmp_path):
    """65,000 bytes may name 32,000 folders within each other, of 16,000 names on average."""
    path = make_zip(tmp_path / "x.zip", {**PETS, "a/" * 4000 + "x.png": b""})
    tracemalloc.start()
    open_dataset(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def test_endless_folders(make):
    assert "found no pictures" in fails(make({"a/" * 40 + "cat/x.png": png(0)}))


def test_hostile_names_in_a_zip(tmp_path):
    """`../`, absolute paths, backslashes: nothing is extracted; names steer no terminal."""
    names = ["../../evil/x.png", "..\\up\\x.png", "/dog/x.png", "cat\\y.png", "dog/\x1b[2J\n.png"]
    path = make_zip(tmp_path / "data.zip", {**dict.fromkeys(names, png(1)), names[-1]: b"bad"})
    dataset = open_dataset(path)
    assert dataset.pictures == ["cat/y.png", "dog/\x1b[2J\n.png", "dog/x.png"]
    assert np.array_equal(dataset.load(2), pixels(1))
    with pytest.raises(DatasetError, match=r"dog/\?\[2J\?\.png: not a JPEG"):
        dataset.load_all()
    assert [found.name for found in tmp_path.iterdir()] == ["data.zip"]


def zip_with(tmp_path, change):
    """A zip of PETS and what `change` makes of its bytes."""
    content = bytearray(make_zip(tmp_path / "data.zip", PETS).read_bytes())
    change(content)
    (tmp_path / "data.zip").write_bytes(content)
    return tmp_path / "data.zip"


def test_a_damaged_picture_in_a_zip(tmp_path):
    """The checksum of the zip tells, even where the picture alone would not."""

    def change(content):
        content[content.index(b"IDAT") + 30] ^= 1

    dataset = open_dataset(zip_with(tmp_path, change))
    with pytest.raises(ImageError, match=r"data\.zip/dog/b\.png: cannot be read from the zip file \(Bad CRC-32"):
        dataset.load(3)
    assert np.array_equal(dataset.load(2), pixels(2))


def test_an_encrypted_zip(tmp_path):
    def change(content):
        position = 0
        while (position := content.find(b"PK\x01\x02", position)) >= 0:
            content[position + 8] |= 1
            position += 4

    with pytest.raises(DatasetError, match=r"5 of 5 pictures cannot be read.*encrypted"):
        open_dataset(zip_with(tmp_path, change)).load_all()


def test_a_zip_that_claims_too_much(tmp_path):
    def change(content):
        position = content.index(b"PK\x01\x02")
        content[position + 24 : position + 28] = struct.pack("<I", 3 << 30)  # the size of dog/b.png

    with pytest.raises(ImageError, match=r"dog/b\.png: has 3,221,225,472 bytes, expected at most 268,435,456"):
        open_dataset(zip_with(tmp_path, change)).load(3)


@settings(max_examples=60, deadline=None, database=None)
@given(st.data())
def test_a_zip_with_any_bytes_changed_is_read_or_an_error(mutated, data):
    content = bytearray(zipped(PETS))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    mutated.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
    read_or_fail(mutated, lambda: open_dataset(mutated).load_all(on_error=lambda error: None))


# --- all pictures at once ---------------------------------------------------------------------------------------------


def test_load_all(make, monkeypatch):
    monkeypatch.setattr(datasets, "IMAGES_AT_ONCE", 2)
    done = []
    images, labels = open_dataset(make(PETS)).load_all(progress=lambda *counts: done.append(counts))
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert np.array_equal(images, np.stack([pixels(seed) for seed in PETS_SEEDS]))
    assert labels.tolist() == [0, 0, 1, 1, 2]
    assert done == [(2, 5), (4, 5), (5, 5)]


def test_load_all_of_several_sizes(make):
    dataset = open_dataset(make({**PETS, "eel/2.png": png(5, height=9, width=7)}))
    with pytest.raises(DatasetError, match=r"several sizes, such as 6 x 8 and 9 x 7 \(height x width\)"):
        dataset.load_all()
    images, labels = dataset.load_all((6, 8))
    assert len(images) == len(labels) == 6
    assert np.array_equal(images[0], pixels(1))  # of the right size: as it is
    resized = Image.fromarray(pixels(5, 9, 7)).resize((8, 6), Image.Resampling.BICUBIC)
    assert np.array_equal(images[5], np.asarray(resized))
    with pytest.raises(ConfigError, match="size: found"):
        dataset.load_all((0, 8))


def test_unreadable_pictures_are_named_and_counted(make):
    bad = {f"dog/z{i}.png": png(0)[:50] for i in range(4)} | {"cat/a.png": b"meow"}
    path = make({**PETS, **bad})
    with pytest.raises(DatasetError) as caught:
        open_dataset(path).load_all()
    message = str(caught.value)
    assert message.startswith(f"{path}: 5 of 10 pictures cannot be read; ")
    assert f"{path}/cat/a.png: not a JPEG" in message
    assert f"{path}/dog/z1.png: the image is damaged or cut short" in message
    assert "z2.png" not in message
    assert message.endswith("; and 2 more)")
    with pytest.raises(ImageError, match="not a JPEG"):
        open_dataset(path).load(0)


def test_unreadable_pictures_may_be_skipped(make):
    path = make({**PETS, "cat/a.png": b"meow", "dog/c.png": b""})
    errors = []
    images, labels = open_dataset(path).load_all(on_error=errors.append)
    assert np.array_equal(images, np.stack([pixels(seed) for seed in PETS_SEEDS]))
    assert labels.tolist() == [0, 0, 1, 1, 2]
    assert [type(error) for error in errors] == [ImageError] * 2
    assert str(errors[0]).startswith(f"{path}/cat/a.png: not a JPEG")
    assert str(errors[1]) == f"{path}/dog/c.png: the file is empty; expected an image"


def test_a_class_whose_pictures_are_all_unreadable(make):
    path = make({**PETS, "eel/1.png": b"bad"})
    with pytest.raises(DatasetError, match="no picture of the class eel can be read"):
        open_dataset(path).load_all(on_error=lambda error: None)


@pytest.mark.parametrize("size", [{}, {"height": 128, "width": 130}])
def test_several_threads_find_the_same(make, monkeypatch, size):
    """Only pictures that are worth it go to several threads."""
    calls = []

    def backwards(work, count):
        calls.append(count)
        for i in reversed(range(count)):
            work(i, i + 1)

    files = {f"{c}/{i:02}.png": png(i, **size) for i in range(9) for c in "ab"}
    files["b/07.png"] = b"bad"
    dataset = open_dataset(make(files))
    monkeypatch.setattr("minidat.runtime.threads.parallel", backwards)
    expected = dataset.load_many(range(18))
    assert calls == ([17] if size else [])
    monkeypatch.undo()
    found = dataset.load_many(range(18))
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        if i == 16:
            assert str(x) == str(y)
            assert "not a JPEG" in str(x)
        else:
            assert np.array_equal(x, pixels(i % 9, **size))
            assert np.array_equal(y, pixels(i % 9, **size))
    assert dataset.load_many([]) == []


def test_load_images(tmp_path):
    """A picture or what is wrong with it, in the order asked for; a decompression bomb is an error in all threads.

    Whatever the process does about warnings.
    """
    warnings.simplefilter("ignore")
    make_folder(tmp_path, {"a.png": png(0), "b.png": b"bad"})
    bomb = bytearray(png(0))
    bomb[16:24] = struct.pack(">II", 10_000, 10_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    (tmp_path / "bomb.png").write_bytes(bomb)
    names = [str(tmp_path / name) for name in ["bomb.png", "a.png", "missing.png", "b.png", "a.png", "bomb.png"]]
    found = load_images(names)
    assert np.array_equal(found[1], pixels(0))
    assert np.array_equal(found[4], pixels(0))
    for i, problem in [(0, "decompression bombs"), (2, "no such file"), (3, "not a JPEG"), (5, "decompression bombs")]:
        assert isinstance(found[i], ImageError)
        assert str(found[i]).startswith(names[i])
        assert problem in str(found[i])


def test_array_dataset():
    dataset = ArrayDataset(np.stack([pixels(0), pixels(1)]), np.array([1, 0], np.uint8), ["a", "b"], name="mine")
    assert (len(dataset), dataset.classes, dataset.name) == (2, ("a", "b"), "mine")
    assert dataset.labels.dtype == np.int64
    assert np.array_equal(dataset.load(1), pixels(1))
    images, labels = dataset.load_all((3, 4))
    assert images.shape == (2, 3, 4, 3)
    assert labels.tolist() == [1, 0]


def test_a_data_set_is_read_into_memory(make):
    dataset = open_dataset(make(PETS)).in_memory((5, 4))
    assert isinstance(dataset, ArrayDataset)
    assert dataset.classes == ("cat", "dog", "eel")
    assert dataset.images.shape == (5, 5, 4, 3)
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2]
    part = dataset.subset([3, 0])
    assert part.labels.tolist() == [1, 0]
    assert np.array_equal(part.images, dataset.images[[3, 0]])
    assert (part.classes, part.name) == (dataset.classes, dataset.name)
    assert len(dataset.subset([])) == 0


def test_a_part_is_set_apart():
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 2, 2, 3), np.uint8)
    dataset = ArrayDataset(images, np.arange(12) % 3, ["a", "b", "c"])
    training, validation = split_dataset(dataset, fraction=0.5, seed=1)
    assert np.bincount(validation.labels).tolist() == [2, 2, 2]  # from each class its share
    expected = split_validation(dataset.labels, fraction=0.5, seed=1)
    for part, indices in zip((training, validation), expected, strict=True):
        assert part.images[:, 0, 0, 0].tolist() == indices.tolist()
    with pytest.raises(ConfigError, match="validation"):
        split_dataset(dataset, count=12)


@pytest.mark.parametrize(
    ("images", "labels", "error"),
    [
        (np.zeros((2, 4, 4, 3)), np.zeros(2, int), ShapeError),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, int), ShapeError),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, int), ShapeError),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2), ShapeError),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 2]), ConfigError),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0, -1]), ConfigError),
    ],
)
def test_arrays_that_are_no_data_set(images, labels, error):
    with pytest.raises(error, match=r"^(images|labels): found .*, expected "):
        ArrayDataset(images, labels, ["a", "b"])


# --- CIFAR-10 ---------------------------------------------------------------------------------------------------------


def batch(name, count=3):
    """(N, 3072) bytes and labels, different for each name."""
    rng = np.random.default_rng(sum(map(ord, name)))
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, 10, count).tolist()


def binary(data, labels):
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, data, strict=True))


def python2(data, labels):
    """A batch as the published archive has it: protocol 2, written by Python 2 with NumPy 1. Byte for byte by hand."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    names = b"".join(text(b"x.png") for _ in labels)
    raw = data.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85" + text(b"b") + b"\x87Rq\t("
        b"K\x01M" + struct.pack("<H", len(data)) + b"M\x00\x0c\x86cnumpy\ndtype\nq\n" + text(b"u1") + b"K\x00K\x01\x87"
        b"Rq\x0b(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(raw)) + raw + b"tb"
    )  # fmt: skip
    return (
        b"\x80\x02}q\x01(" + text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03"
        + text(b"labels") + b"q\x04]q\x05(" + numbers + b"e" + text(b"data") + b"q\x06" + array
        + text(b"filenames") + b"q\x0c]q\r(" + names + b"eu."
    )  # fmt: skip


def python3(protocol, key=str, order="C"):
    def write(data, labels):
        data = np.asarray(data, order=order)
        content = {"batch_label": "x", "labels": labels, "data": data, "filenames": ["x.png"] * len(labels)}
        return pickle.dumps({key(name): value for name, value in content.items()}, protocol)

    return write


WRITERS = {
    "binary": binary,
    "python 2": python2,
    "python 3": python3(2),
    "python 3 with byte keys": python3(2, key=str.encode),
    "protocol 4": python3(4),
    "Fortran order": python3(4, order="F"),
}


def cifar_files(write, names=(*BATCHES["train"], *BATCHES["test"])):
    is_binary = write is binary
    folder, suffix = ("cifar-10-batches-bin", ".bin") if is_binary else ("cifar-10-batches-py", "")
    files = {f"{folder}/{name}{suffix}": write(*batch(name)) for name in names}
    return {f"{folder}/readme.html": b"<html>", f"{folder}/batches.meta{'.txt' if is_binary else ''}": b"", **files}


def make_tar(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def check_cifar(dataset, split):
    names = BATCHES[split]
    assert isinstance(dataset, ArrayDataset)
    assert dataset.classes == cifar10_labels()
    assert dataset.labels.tolist() == [label for name in names for label in batch(name)[1]]
    data = np.concatenate([batch(name)[0] for name in names])
    assert dataset.images.shape == (len(data), 32, 32, 3)
    for i, y, x, c in [(0, 0, 0, 0), (1, 0, 31, 0), (2, 5, 3, 1), (len(data) - 1, 31, 30, 2)]:
        assert dataset.images[i, y, x, c] == data[i, 1024 * c + 32 * y + x]


def test_the_handmade_batch_is_a_pickle_of_python_2():
    data, labels = batch("x")
    loaded = pickle.loads(python2(data, labels), encoding="bytes")
    assert np.array_equal(loaded[b"data"], data)
    assert loaded[b"labels"] == labels


@pytest.mark.parametrize("writer", WRITERS)
def test_cifar10_archives(tmp_path, writer):
    path = make_tar(tmp_path / "cifar.tar.gz", cifar_files(WRITERS[writer]))
    for split in ("train", "test"):
        check_cifar(open_dataset(path, split), split)
        assert open_dataset(path, split).name == f"{path} ({split})"
    check_cifar(open_dataset(path, default_split="test"), "test")


@pytest.mark.parametrize("writer", ["binary", "python 2"])
def test_cifar10_without_compression_and_extracted(tmp_path, writer):
    files = cifar_files(WRITERS[writer])
    folder = make_folder(tmp_path / "data", files)
    for path in (make_tar(tmp_path / "cifar.tar", files, "w"), folder, folder / next(iter(files)).partition("/")[0]):
        check_cifar(open_dataset(path, "train"), "train")
        check_cifar(open_dataset(path, "test"), "test")


def test_cifar10_splits(tmp_path):
    path = make_tar(tmp_path / "x.tar.gz", cifar_files(binary))
    assert "CIFAR-10 has the parts test, train; say which one" in fails(path)
    assert "found 'val'" in fails(path, "val")


@pytest.mark.parametrize("writer", ["binary", "python 2"])
def test_cifar10_batches_missing_or_of_different_sizes(tmp_path, writer):
    write = WRITERS[writer]
    names = ["data_batch_1", "data_batch_3", "data_batch_4", "test_batch"]
    for path in (
        make_tar(tmp_path / "cifar.tar.gz", cifar_files(write, names)),
        make_folder(tmp_path / "data", cifar_files(write, names)),
    ):
        assert "data_batch_2 and data_batch_5 of CIFAR-10 missing" in fails(path, "train")
        check_cifar(open_dataset(path, "test"), "test")
    files = cifar_files(write)
    name = next(name for name in files if "data_batch_4" in name)
    path = make_tar(tmp_path / "cifar.tar.gz", {**files, name: write(*batch("data_batch_4", count=2))})
    assert "its batches have 3, 3, 3, 2, 3 pictures, expected as many" in fails(path, "train")


def test_another_archive(tmp_path):
    assert "of CIFAR-10 missing" in fails(make_tar(tmp_path / "x.tar.gz", below("x/")), "train")


def test_a_batch_that_is_there_twice(tmp_path):
    path = tmp_path / "x.tar.gz"
    make_tar(path, {**cifar_files(binary), "again/test_batch.bin": binary(*batch("test_batch"))})
    assert "found the batch test_batch twice" in fails(path, "test")


def test_links_in_an_archive_are_not_followed(tmp_path):
    files = cifar_files(binary, BATCHES["train"])
    (tmp_path / "test_batch.bin").write_bytes(binary(*batch("test_batch")))
    with tarfile.open(make_tar(tmp_path / "x.tar", files, "w"), "a") as archive:
        entry = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path / "test_batch.bin")
        archive.addfile(entry)
    assert "test_batch of CIFAR-10 missing" in fails(tmp_path / "x.tar", "test")


def only_test_batch(tmp_path, name, content):
    return make_tar(tmp_path / "x.tar.gz", {f"x/{name}": content})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "found 0 bytes, expected a multiple of 3,073"),
        (binary(*batch("x"))[:-1], "found 9,218 bytes"),
        (b"\x0a" + bytes(3072), "found 1 labels outside of 0 to 9"),
    ],
)
def test_bad_binary_batches(tmp_path, content, problem):
    path = only_test_batch(tmp_path, "test_batch.bin", content)
    assert f"test_batch.bin is damaged, or not of CIFAR-10: {problem}" in fails(path, "test")


class Command:
    """Pickled, it runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


DATA, LABELS = batch("x")
BAD_BATCHES = {
    "no pickle": (b"hello", "its pickle holds"),
    "a list": (pickle.dumps([1, 2], 2), "found a list, expected a dict"),
    "no data": (pickle.dumps({"labels": LABELS}, 2), "data: found a NoneType, expected a NumPy array of (N, 3072)"),
    "no labels": (pickle.dumps({"data": DATA}, 2), "labels: found a NoneType, expected a list"),
    "no pictures": (pickle.dumps({"data": DATA[:0], "labels": []}, 2), "found 0 labels and 0 pictures"),
    "another shape": (pickle.dumps({"data": DATA[:, :5], "labels": LABELS}, 2), "data: found"),
    "floats": (pickle.dumps({"data": DATA.astype(np.float32), "labels": LABELS}, 2), "data: found"),
    "another count": (pickle.dumps({"data": DATA, "labels": LABELS[:2]}, 2), "found 2 labels and 3 pictures"),
    "a label of 10": (pickle.dumps({"data": DATA, "labels": [1, 10, -1]}, 2), "found 2 labels outside of 0 to 9"),
    "a huge label": (pickle.dumps({"data": DATA, "labels": [1, 2**80, 2]}, 2), "found 1 labels outside of 0 to 9"),
    "labels of text": (pickle.dumps({"data": DATA, "labels": list("abc")}, 2), "expected a list of integers"),
    "a shape that lies": (
        python2(DATA, LABELS).replace(b"M\x03\x00M\x00\x0c", b"M\x09\x00M\x00\x0c"), "data: found other bytes than",
    ),
    "text beyond Latin-1": (
        pickle.dumps({"data": types.SimpleNamespace(x="€"), "labels": LABELS}, 2), "data: found",
    ),
    "cut off": (python2(DATA, LABELS)[:200], "goes on beyond the end"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_BATCHES)
def test_bad_python_batches(tmp_path, kind):
    content, problem = BAD_BATCHES[kind]
    message = fails(only_test_batch(tmp_path, "test_batch", content), "test")
    assert "test_batch is damaged, or not of CIFAR-10: " in message
    assert problem in message


def test_nothing_in_a_pickle_is_executed(tmp_path):
    trap = tmp_path / "trapped"
    for content in ({"data": Command(f"touch {trap}"), "labels": LABELS}, Command(f"touch {trap}")):
        fails(only_test_batch(tmp_path, "test_batch", pickle.dumps(content, 2)), "test")
    assert not trap.exists()
    pickle.loads(pickle.dumps(Command(f"touch {trap}")))
    assert trap.exists()  # it would have run


def test_cut_off_and_damaged_archives(tmp_path):
    path = make_tar(tmp_path / "x.tar.gz", cifar_files(binary))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "a damaged or cut-off archive" in fails(path, "train")
    path.write_bytes(whole[:-20])
    assert "a damaged or cut-off archive" in fails(path, "train")
    stored = bytearray(gzip.compress(gzip.decompress(whole), 0))  # as gzip holds what it cannot compress
    pixel = stored.index(batch("data_batch_3")[0][1, 100:140].tobytes())
    stored[pixel] ^= 1
    path.write_bytes(stored)
    assert "a damaged or cut-off archive, or none of CIFAR-10 (CRC check failed" in fails(path, "train")
    path.write_bytes(b"\x1f\x8b")
    assert "a damaged or cut-off archive" in fails(path, "train")


@pytest.mark.parametrize("kind", ["a large file", "a large name", "many files"])
def test_an_archive_that_claims_too_much(tmp_path, kind):
    """Some bytes of gzip may stand for gigabytes; memory is not asked for them."""
    entries = (
        [tarfile.TarInfo(f"{i}.txt") for i in range(101)] if kind == "many files" else [tarfile.TarInfo("test_batch")]
    )
    if kind != "many files":
        entries[0].size = 5 << 30
        entries[0].type = tarfile.REGTYPE if kind == "a large file" else tarfile.GNUTYPE_LONGNAME
    for mode in ("w:gz", "w"):
        with tarfile.open(tmp_path / "x.tar", mode) as archive:
            archive.fileobj.write(b"".join(entry.tobuf() for entry in entries))
        message = fails(tmp_path / "x.tar", "test")
        assert (
            "more than 100 files, or one of more than 67,108,864 bytes" in message or "a part of 5368709120" in message
        )


def test_a_large_batch_in_a_folder(tmp_path):
    make_folder(tmp_path, {"test_batch": b""})
    os.truncate(tmp_path / "test_batch", 65 << 20)
    assert "has 68,157,440 bytes, expected at most 67,108,864" in fails(tmp_path, "test")


def small_archive(mode):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in (("x/test_batch", python2(*batch("x", 1))), ("x/test_batch.bin", b"")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@settings(max_examples=100, deadline=None, database=None)
@given(st.data())
def test_an_archive_with_any_bytes_changed_is_read_or_an_error(mutated, data):
    content = bytearray(data.draw(st.sampled_from([small_archive("w"), small_archive("w:gz")])))
    positions = st.one_of(
        st.integers(0, 1200), st.integers(0, len(content) - 1)
    )  # 1200: the header, the pickle's start
    for position in data.draw(st.lists(positions, min_size=1, max_size=6)):
        content[position % len(content)] = data.draw(st.integers(0, 255))
    mutated.write_bytes(content)
    read_or_fail(mutated, lambda: open_dataset(mutated, "test"))


# --- validation -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=2, max_size=80), st.data())
def test_split_validation(labels, data):
    """Two disjoint parts; each class gives its share, rounded up or down, and keeps something."""
    labels = np.array(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    most = len(labels) - len(classes)
    if most == 0:
        return
    count, seed = data.draw(st.integers(1, most)), data.draw(st.integers(0, 3))
    training, validation = split_validation(labels, count=count, seed=seed)
    assert len(validation) == count
    assert np.array_equal(np.sort(np.concatenate([training, validation])), np.arange(len(labels)))
    assert (np.diff(training) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert set(labels[training]) == set(classes)
    taken = np.array([(labels[validation] == label).sum() for label in classes])
    share = count * sizes / len(labels)
    assert (taken >= np.floor(share)).all()
    if (np.ceil(share) < sizes).all():
        assert (taken <= np.ceil(share)).all()
    again = split_validation(labels, fraction=count / len(labels), seed=seed)
    assert np.array_equal(again[1], validation)


def test_split_validation_follows_the_seed():
    labels = np.repeat(np.arange(10), 100)
    first, second, same = (split_validation(labels, count=50, seed=seed)[1] for seed in (0, 1, 0))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, second)
    assert np.bincount(labels[first]).tolist() == [5] * 10


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"count": 1, "fraction": 0.5},
        {"count": 0},
        {"count": 9},
        {"fraction": 0.0},
        {"fraction": 1.0},
        {"count": -1},
    ],
)
def test_split_validation_needs_sense(wanted):
    with pytest.raises(ConfigError, match=r"found .*expected"):
        split_validation(np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]), **wanted)


# --- preprocessing of arrays ------------------------------------------------------------------------------------------


SIDES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@given(SIDES, st.integers(0, 8), SIDES, st.booleans(), st.integers(0, 3))
def test_preprocess_batch_is_preprocess(image_size, margin, size, has_resized_size, count):
    config = types.SimpleNamespace(image_size=image_size, resize_size=max(image_size) + margin)
    if has_resized_size:  # the fast path
        size = tuple(round(config.resize_size * side / max(image_size)) for side in image_size)
    images = np.stack([pixels(i, *size) for i in range(max(1, count))])[:count]
    found = preprocess_batch(images, config)
    assert found.shape == (count, *image_size, 3)
    assert found.dtype == np.float32
    for i in range(count):
        assert np.array_equal(found[i], preprocess(images[i], config))


def test_preprocess_batch_resizes_nothing_of_the_right_size(monkeypatch):
    monkeypatch.setattr(image, "resize_image", None)
    config = types.SimpleNamespace(image_size=(6, 6), resize_size=8)
    assert preprocess_batch(np.zeros((5, 8, 8, 3), np.uint8), config).shape == (5, 6, 6, 3)
    with pytest.raises(TypeError):
        preprocess_batch(np.zeros((5, 8, 7, 3), np.uint8), config)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3)),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 0, 8, 3), np.uint8),
        [np.zeros((8, 8, 3), np.uint8)],
    ],
    ids=["floats", "one image", "alpha", "empty", "list"],
)
def test_preprocess_batch_takes_uint8_arrays_alone(images):
    with pytest.raises(ShapeError, match=r"^images: found .*, expected "):
        preprocess_batch(images, types.SimpleNamespace(image_size=(8, 8), resize_size=8))
