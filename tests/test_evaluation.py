"""minidat.evaluation and `minidat evaluate`: figures that can be counted by hand, and the picture of the mistakes."""

import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import minidat
from minidat import classification, commands
from minidat.data import ArrayDataset, preprocess
from minidat.data.datasets import Dataset
from minidat.data.image import resize_image
from minidat.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    ImageError,
    MinidatError,
    SessionError,
    ShapeError,
)
from minidat.evaluation import accuracy, draw_confusion_matrix, evaluate, format_evaluation, save_picture
from minidat.models import get_config

PETS = ["cat", "dog", "eel", "fox", "gnu", "hen", "owl"]


class Listed(Dataset):
    """Pictures in a list; an ImageError stands for one that cannot be read."""

    def __init__(self, images, labels, classes):
        self.images, self.labels, self.classes, self.name = images, np.array(labels), tuple(classes), "pets"

    def load_many(self, indices, size=None):
        images = [self.images[i] for i in indices]
        return [x if size is None or isinstance(x, ImageError) else resize_image(x, size) for x in images]


class Reader:
    """A model that finds its logits in the pictures: the k-th from the red of the pixel (0, k)."""

    def __init__(self, labels=PETS, size=(1, 8)):
        self.labels = list(labels)
        self.config = get_config("dat_tiny").replace(
            image_size=size, resize_size=max(size), num_classes=len(self.labels)
        )
        self.batches = []

    def __call__(self, images):
        self.batches.append(len(images))
        return images[:, 0, : len(self.labels), 0]


def picture(scores):
    image = np.zeros((1, 8, 3), np.uint8)
    image[0, : len(scores), 0] = scores
    return image


def answering(label, labels=PETS):
    """A picture that Reader takes for `label`."""
    return picture([200 if other == label else 10 for other in labels])


# --- figures ----------------------------------------------------------------------------------------------------------


def test_evaluate_by_hand():
    truth = ["cat", "cat", "cat", "dog", "owl"]
    answers = ["cat", "dog", "dog", "dog", "cat"]
    dataset = Listed([answering(label) for label in answers], [0, 0, 0, 1, 2], ["cat", "dog", "owl"])
    found = evaluate(Reader(), dataset, batch=2)
    expected = np.zeros((7, 7), int)
    for true, answer in zip(truth, answers, strict=True):
        expected[PETS.index(true), PETS.index(answer)] += 1
    assert found.confusion.dtype == np.int64
    assert np.array_equal(found.confusion, expected)
    assert (found.images, found.skipped, found.top1) == (5, 0, 2 / 5)
    assert found.labels == tuple(PETS)
    cat, dog, owl = found.classes
    assert (cat.label, cat.images, cat.correct, cat.predicted) == ("cat", 3, 1, 2)
    assert (cat.accuracy, cat.precision, cat.confused_with, cat.confused) == (1 / 3, 1 / 2, "dog", 2)
    assert (dog.accuracy, dog.precision, dog.confused_with, dog.confused) == (1, 1 / 3, None, 0)
    assert (owl.accuracy, owl.precision, owl.confused_with) == (0, None, "cat")
    matrix, labels = found.occurring()
    assert labels == ["cat", "dog", "owl"]
    assert matrix.tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]


def test_top_5():
    """The right class is first, fifth, sixth and last of seven."""
    orders = [
        [70, 60, 50, 40, 30, 20, 10],
        [30, 70, 60, 50, 40, 20, 10],
        [20, 70, 60, 50, 40, 30, 10],
        [1, 70, 60, 50, 40, 30, 10],
    ]
    found = evaluate(Reader(), Listed([picture(scores) for scores in orders], [0] * 4, ["cat"]))
    assert (found.top1, found.top5, found.in_top5) == (1 / 4, 2 / 4, 2)


def test_equal_logits_count_for_the_first_class():
    for true, first, in_five in [(0, 1, 1), (1, 0, 1), (4, 0, 1), (5, 0, 0)]:
        found = evaluate(Reader(), Listed([picture([50] * 7)], [true], PETS))
        assert (found.top1, found.top5) == (first, in_five)


def test_fewer_than_five_classes():
    found = evaluate(Reader(["cat", "dog"]), Listed([picture([1, 2])], [0], ["cat", "dog"]))
    assert (found.top1, found.top5) == (0, 1)
    assert "top-2 100.00%" in format_evaluation(found)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 50), st.integers(0, 99))
def test_evaluate_agrees_with_a_loop(count, num_classes, batch, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 256, (count, 7))
    labels = rng.integers(0, num_classes, count)
    model = Reader()
    found = evaluate(model, Listed([picture(row) for row in scores], labels, PETS[:num_classes]), batch=batch)
    confusion = np.zeros((7, 7), int)
    in_five = 0
    for row, label in zip(scores.tolist(), labels, strict=True):
        order = sorted(range(7), key=lambda k, row=row: (-row[k], k))
        confusion[label, order[0]] += 1
        in_five += label in order[:5]
    assert np.array_equal(found.confusion, confusion)
    assert found.in_top5 == in_five
    assert sum(model.batches) == count
    assert max(model.batches) <= batch


def test_classes_are_matched_by_name():
    """Another order, and not all of them: index 0 of the data is index 6 of the model."""
    found = evaluate(Reader(), Listed([answering("owl"), answering("cat")], [0, 1], ["owl", "cat"]))
    assert found.top1 == 1
    assert np.flatnonzero(found.confusion.diagonal()).tolist() == [0, 6]


def test_classes_that_the_model_does_not_know():
    dataset = Listed([picture([1])] * 3, [0, 1, 2], ["cat", "unicorn\n", "yeti"])
    with pytest.raises(DatasetError) as caught:
        evaluate(Reader(), dataset)
    assert str(caught.value).startswith(
        "pets: 2 of its 3 classes are not among the model's labels: unicorn?, yeti; expected some of cat, dog, eel, "
    )


def test_imagenet_folders_are_in_the_order_of_the_logits():
    identifiers = [f"n{i:08}" for i in range(1000)]
    model = Reader([f"thing {i}" for i in range(1000)], size=(1, 1000))
    image = np.zeros((1, 1000, 3), np.uint8)
    image[0, 7] = 255
    assert evaluate(model, Listed([image], [7], identifiers)).top1 == 1
    with pytest.raises(DatasetError, match="999 of its 999 classes"):
        evaluate(model, Listed([image], [7], identifiers[:999]))


def test_models_whose_labels_do_not_do():
    model = Reader(["a", "b", "a"])
    with pytest.raises(ConfigError, match="labels: found 2 different ones, expected 3"):
        evaluate(model, Listed([picture([1])], [0], ["a"]))
    model.labels = None
    with pytest.raises(ConfigError, match=r"does not name its classes.*convert SRC DST --labels"):
        evaluate(model, Listed([picture([1])], [0], ["a"]))


@pytest.mark.parametrize("batch", [0, -1])
def test_batch_is_at_least_1(batch):
    with pytest.raises(ConfigError, match=r"^batch: found"):
        evaluate(Reader(), Listed([picture([1])], [0], PETS), batch=batch)


def test_no_pictures():
    with pytest.raises(DatasetError, match="has no pictures"):
        evaluate(Reader(), ArrayDataset(np.zeros((0, 1, 8, 3), np.uint8), np.zeros(0, int), PETS))


def test_logits_must_be_finite():
    model = Reader()
    model.__class__ = type("Broken", (Reader,), {"__call__": lambda self, images: np.full((len(images), 7), np.nan)})
    with pytest.raises(CheckpointError, match="not finite"):
        evaluate(model, Listed([picture([1])], [0], PETS))


def test_pictures_are_prepared_as_for_classify():
    """Of one size or of several."""
    seen = []

    class Watching(Reader):
        def __call__(self, images):
            seen.extend(images)
            return super().__call__(images)

    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(9, 8), (9, 8), (5, 20), (1, 8)]]
    model = Watching()
    evaluate(model, Listed(images, [0] * 4, PETS), batch=2)
    for image, found in zip(images, seen, strict=True):
        assert np.array_equal(found, preprocess(image, model.config))


def test_progress():
    done = []
    dataset = Listed([picture([1])] * 5, [0] * 5, PETS)
    evaluate(Reader(), dataset, batch=2, progress=lambda *counts: done.append(counts))
    assert done == [(2, 5), (4, 5), (5, 5)]


def some_unreadable():
    images = [answering("cat"), ImageError("a.png: bad"), answering("dog"), ImageError("b.png: bad"), answering("cat")]
    return Listed(images, [0, 1, 1, 0, 1], ["cat", "dog"])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_unreadable_pictures_are_one_error(batch):
    model = Reader()
    with pytest.raises(DatasetError, match=r"^pets: 2 of 5 pictures cannot be read; .*\(a\.png: bad; b\.png: bad\)$"):
        evaluate(model, some_unreadable(), batch=batch)
    assert sum(model.batches) <= 1  # what cannot succeed is not gone on with


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_unreadable_pictures_may_be_skipped(batch):
    errors = []
    found = evaluate(Reader(), some_unreadable(), batch=batch, on_error=errors.append)
    assert [str(error) for error in errors] == ["a.png: bad", "b.png: bad"]
    assert (found.images, found.skipped, found.top1) == (3, 2, 2 / 3)
    assert found.confusion[:2, :2].tolist() == [[1, 0], [1, 1]]
    assert "3 images (2 more could not be read), " in format_evaluation(found)


def test_nothing_readable():
    dataset = Listed([ImageError("a.png: bad")], [0], ["cat"])
    with pytest.raises(DatasetError, match="1 of 1 pictures"):
        evaluate(Reader(), dataset, on_error=lambda error: None)


def test_format_and_dict():
    answers = ["cat", "dog", "dog", "dog", "cat"]
    dataset = Listed([answering(label) for label in answers], [0, 0, 0, 1, 2], ["cat", "dog", "owl"])
    found = evaluate(Reader(), dataset)
    lines = format_evaluation(found).splitlines()
    assert lines[0].startswith("5 images, ")
    assert lines[0].endswith(" images/s")
    assert lines[1:] == [
        "top-1 40.00%   top-5 80.00%",  # the owl is the last of seven
        "",
        "class  images   top-1  precision  most often taken for",
        "cat         3   33.3%      50.0%  dog (2)",
        "dog         1  100.0%      33.3%",
        "owl         1    0.0%          -  cat (1)",
    ]
    content = json.loads(json.dumps(found.to_dict()))
    assert (content["images"], content["top1"], content["skipped"]) == (5, 0.4, 0)
    assert content["classes"][0] == {
        "label": "cat", "images": 3, "top1": 1 / 3, "precision": 1 / 2, "confused_with": "dog", "confused": 2,
    }  # fmt: skip
    assert np.array_equal(content["confusion"], found.confusion)


def test_labels_in_the_table_are_printable_and_not_endless():
    labels = ["c\x1b[2J\nat" + "x" * 100, *PETS[1:]]
    text = format_evaluation(evaluate(Reader(labels), Listed([picture([1])], [0], labels)))
    assert text.splitlines()[4].startswith("c?[2J?atxxxxxxxxxxxxxxxxxxx...       1")


# --- the confusion matrix ---------------------------------------------------------------------------------------------


def frame(image):
    """(left, top, side) of the matrix in the picture: below and right of the first long line of ink."""
    is_ink = (np.asarray(image) == (30, 34, 42)).all(axis=2)
    for y, row in enumerate(is_ink):
        gaps = np.flatnonzero(~np.concatenate([[False], row, [False]]))
        longest = np.diff(gaps).argmax()
        if (length := gaps[longest + 1] - gaps[longest] - 1) > 60:
            return gaps[longest] + 1, y + 1, length - 2
    raise AssertionError("no frame")


def colors(image, size):
    """The colors of a drawn matrix of `size` classes, near the upper left corner of each cell, and the cells' side."""
    left, top, side = frame(image)
    cell = side // size
    at = np.arange(size) * cell + min(3, cell // 2)
    return np.asarray(image).astype(int)[np.ix_(top + at, left + at)], cell


def test_colors_show_shares_of_rows():
    """Rows are true classes. What matters is the share, so that a class of few images shows as well."""
    image = draw_confusion_matrix(np.array([[30, 10, 0], [0, 4, 0], [0, 0, 0]]), ["cat", "dog", "eel"])
    assert image.mode == "RGB"
    found, cell = colors(image, 3)
    assert cell == 64
    darkness = 255 - found.mean(axis=2)
    full, none = darkness[1, 1], darkness[0, 2]
    assert found[1, 1].tolist() == [8, 48, 107]
    assert none < darkness[0, 1] < darkness[0, 0] < full
    assert (found[2] == found[0, 2]).all()  # without images: nothing


@pytest.mark.parametrize("size", [1, 2, 10, 25, 40, 100, 300])
def test_any_number_of_classes(size):
    image = draw_confusion_matrix(np.eye(size, dtype=int), [f"class {i}" for i in range(size)])
    assert 200 < image.width < 1500
    assert 200 < image.height < 1500
    if size <= 100:
        found, _ = colors(image, size)
        dark = found.sum(axis=2) < 300
        assert np.array_equal(dark, np.eye(size, dtype=bool))


def test_labels_are_written_at_both_sides():
    """Another label of one class changes something left of its row and above its column, and nothing else.

    Above, labels are turned: even a long one stays in its column.
    """
    matrix = np.array([[5, 1], [2, 9]])
    pair = ("abcdefghijklmnopqrst", "tsrqponmlkjihgfedcba")
    first, second = (draw_confusion_matrix(matrix, [label, "W" * 20]) for label in pair)
    assert first.size == second.size
    left, top, side = frame(first)
    changed = (np.asarray(first) != np.asarray(second)).any(axis=2)
    assert changed[top:, :left].any()
    assert changed[:top, left:].any()
    assert not changed[:top, :left].any()
    assert not changed[top:, left:].any()
    assert not changed[top + side // 2 :].any()
    assert not changed[:, left + side // 2 :].any()


def test_numbers_are_written_where_there_is_room():
    matrix = np.array([[90, 10], [0, 100]])
    swapped = np.array([[910, 90], [0, 1000]])  # 9.0 instead of 10 percent: nearly the same color, another number
    first, second = (np.asarray(draw_confusion_matrix(m, ["a", "b"])).astype(int) for m in (matrix, swapped))
    assert (np.abs(first - second).max(axis=2) > 100).sum() > 10
    crowded = [np.kron(np.eye(15, dtype=int), m) for m in (matrix, swapped)]
    first, second = (np.asarray(draw_confusion_matrix(m, ["a"] * 30)).astype(int) for m in crowded)
    assert (np.abs(first - second).max(axis=2) > 100).sum() == 0


def test_strange_labels():
    draw_confusion_matrix(np.eye(3, dtype=int), ["", "x" * 500, "\n\x1b日本é"])


@pytest.mark.parametrize(
    ("matrix", "labels", "error"),
    [
        (np.zeros((2, 3), int), ["a", "b"], ShapeError),
        (np.zeros((2, 2)), ["a", "b"], ShapeError),
        (np.zeros((0, 0), int), [], ShapeError),
        (np.zeros(4, int), ["a", "b"], ShapeError),
        (np.zeros((2, 2), int), ["a"], ConfigError),
    ],
)
def test_what_is_no_confusion_matrix(matrix, labels, error):
    with pytest.raises(error, match=r"^(matrix|labels): found .*, expected "):
        draw_confusion_matrix(matrix, labels)


def test_save_picture(tmp_path):
    picture = draw_confusion_matrix(np.eye(2, dtype=int), ["a", "b"])
    save_picture(picture, tmp_path / "a.PNG")
    with Image.open(tmp_path / "a.PNG") as saved:
        assert saved.format == "PNG"
        assert np.array_equal(np.asarray(saved), np.asarray(picture))
    assert [path.name for path in tmp_path.iterdir()] == ["a.PNG"]


def test_save_picture_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"old")

    def fill_the_disk(self, file, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(MinidatError, match=r"a\.png: cannot be written: No space left"):
        save_picture(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"old")]


@pytest.mark.parametrize(
    ("name", "problem"), [("a.jpg", "expected .png"), ("a", "expected .png"), ("no/a.png", "no folder")]
)
def test_where_no_picture_can_be(tmp_path, name, problem):
    with pytest.raises(MinidatError, match=problem):
        save_picture(Image.new("RGB", (2, 2)), tmp_path / name)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def insects(tmp_path):
    """Two classes, two parts: four pictures to train with, six to test with."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 3)):
        for label in ("ant", "bee"):
            folder = tmp_path / "insects" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "insects"


def run(capsys, *argv):
    assert commands.main(["evaluate", *map(str, argv)]) == 0
    return capsys.readouterr()


def fails(capsys, *argv):
    assert commands.main(["evaluate", *map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("minidat: error: ")
    assert err.count("\n") == 1
    return err


def test_evaluate_command(tiny, insects, tmp_path, capsys):
    """The test part unless told otherwise; the same figures as the function's."""
    picture = tmp_path / "confusion.png"
    out, err = run(capsys, "--weights", tiny, "--data", insects, "--json", "--confusion", picture)
    assert err == ""
    found = json.loads(out)
    expected = evaluate(minidat.load_model(tiny), minidat.data.open_dataset(insects, "test"))
    assert (found["weights"], found["data"]) == (str(tiny), f"{insects} (test)")
    assert (found["images"], found["top1"], found["top5"]) == (6, expected.top1, expected.top5)
    assert found["confusion"] == expected.confusion.tolist()
    with Image.open(picture) as image:
        image.load()

    out, err = run(capsys, "--weights", tiny, "--data", insects, "--split", "train", "--batch", "3")
    assert err == ""
    assert out.startswith(f"{tiny} on {insects} (train)\n4 images, ")
    assert "\nant         2 " in out


@pytest.mark.parametrize("copies", [True, False])
def test_many_images_are_classified_by_a_session(tiny, insects, monkeypatch, copies):
    """And by the model itself if it cannot be copied, with the same result."""
    model, dataset = minidat.load_model(tiny), minidat.data.open_dataset(insects, "test")
    expected, sessions = evaluate(model, dataset), []

    class Noted(accuracy.Session):
        def __init__(self, model):
            sessions.append(self)
            super().__init__(model)

    monkeypatch.setattr(accuracy, "Session", Noted)
    monkeypatch.setattr(accuracy, "SESSION_PIXELS", 6 * 32 * 32)
    if not copies:
        model.note = lambda: None
    found = evaluate(model, dataset, batch=4)
    assert (found.confusion == expected.confusion).all()
    (session,) = sessions
    with pytest.raises(SessionError, match="it has ended" if copies else "it did not begin"):
        session(np.ones(3))
    monkeypatch.setattr(accuracy, "SESSION_PIXELS", 6 * 32 * 32 + 1)
    evaluate(model, dataset)
    assert len(sessions) == 1


def test_evaluate_with_the_weights_that_come_with_minidat(tiny, insects, capsys, monkeypatch):
    monkeypatch.setattr(classification, "default_weights", lambda: tiny)
    assert run(capsys, "--data", insects).out.startswith(f"{tiny} on ")


def test_evaluate_skips_unreadable_pictures_if_asked(tiny, insects, capsys):
    bad = insects / "test" / "ant" / "0.png"
    bad.write_bytes(b"\x1b[2J")
    assert "1 of 6 pictures cannot be read" in fails(capsys, "--weights", tiny, "--data", insects)
    out, err = run(capsys, "--weights", tiny, "--data", insects, "--skip-unreadable")
    assert "5 images (1 more could not be read), " in out
    assert err.startswith(f"minidat: skipped: {bad}: not a JPEG")
    assert err.count("\n") == 1


def test_evaluate_fails_with_one_line(tiny, insects, tmp_path, capsys):
    fails(capsys, "--weights", tmp_path / "none.npz", "--data", insects)
    fails(capsys, "--weights", tiny, "--data", tmp_path / "none")
    fails(capsys, "--weights", tiny, "--data", insects, "--split", "val")
    fails(capsys, "--weights", tiny, "--data", insects, "--batch", "0")
    (insects / "test" / "bee").rename(insects / "test" / "wasp")
    assert "wasp" in fails(capsys, "--weights", tiny, "--data", insects)


def test_a_picture_that_cannot_be_written_is_told_before_the_work(tiny, insects, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(minidat.checkpoints, "load_model", lambda path: pytest.fail("too late"))
    fails(capsys, "--weights", tiny, "--data", insects, "--confusion", tmp_path / "a.gif")
    fails(capsys, "--weights", tiny, "--data", insects, "--confusion", tmp_path / "none" / "a.png")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_for_people_alone(tiny, insects, capsys, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert commands.main(["evaluate", "--weights", str(tiny), "--data", str(insects)]) == 0
    assert "6/6" in terminal.getvalue()
    assert "6/6" not in capsys.readouterr().out
