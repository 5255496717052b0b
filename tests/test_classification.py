"""minidat.classification and the command line around it."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import minidat
import minidat.checkpoints
from minidat import classification, commands
from minidat.checkpoints import published
from minidat.classification import Prediction, classify, format_predictions
from minidat.data import preprocess
from minidat.errors import CheckpointError, ConfigError, MinidatError, ShapeError
from minidat.models.config import get_config

REPOSITORY = Path(__file__).parents[1]


class FixedModel:
    """Answers every image with the same logits, and remembers the images."""

    def __init__(self, logits, labels=None, image_size=(32, 32), resize_size=32):
        self.logits = np.asarray(logits, np.float32)
        self.labels = labels
        self.config = get_config("dat_tiny").replace(
            image_size=image_size, resize_size=resize_size, num_classes=len(self.logits)
        )
        self.images = []

    def __call__(self, images):
        self.images.append(images)
        return np.repeat(self.logits[None], len(images), axis=0)


IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


# --- classify ---------------------------------------------------------------------------------------------------------


def test_best_first():
    model = FixedModel(np.log([0.1, 0.6, 0.05, 0.25]), ["a", "b", "c", "d"])
    found = classify(model, IMAGE, top=3)
    assert [(p.label, p.index) for p in found] == [("b", 1), ("d", 3), ("a", 0)]
    np.testing.assert_allclose([p.probability for p in found], [0.6, 0.25, 0.1], rtol=1e-6)
    assert all(type(p.probability) is float and type(p.index) is int for p in found)


def test_the_model_is_given_one_preprocessed_image():
    model = FixedModel(np.zeros(4))
    classify(model, IMAGE)
    (batch,) = model.images
    assert batch.shape == (1, 32, 32, 3)
    assert batch.dtype == np.float32
    assert np.array_equal(batch[0], preprocess(IMAGE, model.config))


def test_five_answers_unless_told_otherwise():
    assert len(classify(FixedModel(np.zeros(7)), IMAGE)) == 5
    assert len(classify(FixedModel(np.zeros(3)), IMAGE)) == 3
    assert len(classify(FixedModel(np.zeros(3)), IMAGE, top=100)) == 3


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30))
def test_probabilities_are_the_softmax(logits):
    """All of them add up to 1, however large the logits; equal ones keep their order."""
    found = classify(FixedModel(logits), IMAGE, top=len(logits))
    exact = np.exp(np.float64(logits) - max(logits))
    exact /= exact.sum()
    np.testing.assert_allclose([p.probability for p in found], exact[[p.index for p in found]], rtol=1e-12)
    np.testing.assert_allclose(sum(p.probability for p in found), 1, rtol=1e-12)
    assert [p.index for p in found] == sorted(range(len(logits)), key=lambda i: (-exact[i], i))


def test_labels_where_the_model_has_none():
    assert classify(FixedModel([0, 9]), IMAGE, top=1)[0].label == "class 1"


@pytest.mark.parametrize("top", [0, -1])
def test_top_is_at_least_1(top):
    with pytest.raises(ConfigError, match=rf"^top: found {top}, expected at least 1$"):
        classify(FixedModel([1, 2]), IMAGE, top=top)


def test_labels_must_be_one_a_class():
    with pytest.raises(ConfigError, match="labels: found 2, expected 3"):
        classify(FixedModel([1, 2, 3], ["a", "b"]), IMAGE)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_must_be_finite(bad):
    with pytest.raises(CheckpointError, match="not finite"):
        classify(FixedModel([1, bad]), IMAGE)


def test_only_uint8_images():
    with pytest.raises(ShapeError):
        classify(FixedModel([1, 2]), IMAGE / 255)


def test_predictions_do_not_change():
    with pytest.raises(AttributeError):
        Prediction("cat", 0.5, 3).label = "dog"


# --- what a terminal shows --------------------------------------------------------------------------------------------

THREE = [Prediction("cat", 0.75, 3), Prediction("automobile", 0.25, 1), Prediction("dog", 0.0, 5)]


def test_bars():
    assert format_predictions("a.jpg", THREE, width=41).splitlines() == [
        "a.jpg",
        "  cat         75.0%  ███████████████",
        "  automobile  25.0%  █████",
        "  dog          0.0%",
    ]


def test_bars_are_drawn_to_an_eighth():
    sure, half, little = (format_predictions("x", [Prediction("cat", p, 0)], width=40) for p in (1.0, 0.5, 1 / 208))
    assert sure.splitlines()[1] == "  cat 100.0%  " + "█" * 26
    assert half.splitlines()[1] == "  cat  50.0%  " + "█" * 13
    assert little.splitlines()[1] == "  cat   0.5%  ▏"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_bars_without_block_characters(encoding):
    text = format_predictions("a.jpg", THREE, width=41, encoding=encoding)
    assert text.splitlines()[1:3] == ["  cat         75.0%  ###############", "  automobile  25.0%  #####"]


def test_nothing_unprintable_reaches_the_terminal():
    """Labels and file names may hold anything: no escape sequences, no line breaks, nothing unencodable."""
    text = format_predictions("a\x1b[2J\udcff.jpg", [Prediction("c\nat\x07é", 0.5, 0)], encoding="ascii")
    assert text.splitlines()[0] == "a?[2J?.jpg"
    assert text.splitlines()[1].startswith("  c?at??  50.0%")


def test_long_labels_and_narrow_terminals():
    long = [Prediction("a label of sixty characters, that is some twenty too many....", 1.0, 0)]
    assert format_predictions("x", long, width=60).splitlines()[1] == (
        "  a label of sixty characters, t 100.0%  ███████████████████"
    )
    for width in (0, 39, 40):
        assert format_predictions("x", long, width=width).splitlines()[1] == "  a label of sixty cha 100.0%  █████████"


@given(
    st.lists(st.tuples(st.text(max_size=60), st.floats(0, 1)), max_size=6),
    st.integers(0, 120),
    st.sampled_from(["utf-8", "ascii", "latin-1", "cp1252"]),
)
def test_lines_fit(predictions, width, encoding):
    predictions = [Prediction(label, probability, i) for i, (label, probability) in enumerate(predictions)]
    lines = format_predictions("x", predictions, width=width, encoding=encoding).split("\n")
    assert len(lines) == 1 + len(predictions)
    assert all(len(line) <= max(width, 40) for line in lines)
    "\n".join(lines).encode(encoding)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path):
    paths = [tmp_path / "one.png", tmp_path / "two.jpg"]
    for path in paths:
        Image.fromarray(IMAGE).save(path)
    return [str(path) for path in paths]


@pytest.fixture
def model(monkeypatch):
    """What minidat.checkpoints.load_model returns; `loaded` holds the paths it was asked for."""
    model = FixedModel(np.log([0.1, 0.6, 0.05, 0.25]), ["ant", "bee", "cow", "doe"])
    model.loaded = []
    monkeypatch.setattr(
        minidat.checkpoints, "load_model", lambda path: model.loaded.append(path) or model, raising=False
    )
    return model


def fails(capsys, *argv):
    """The command must exit with 2 and print one line, on stderr. Returns the line."""
    assert commands.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("minidat: error: ")
    assert err.count("\n") == 1
    return err


def test_classify_command(model, photographs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert commands.main(["classify", *photographs, "--weights", "w.npz", "--top", "2"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert model.loaded == ["w.npz"]
    assert [line[:12] for line in out.splitlines()] == [
        photographs[0][:12], "  bee  60.0%", "  doe  25.0%", "", photographs[1][:12], "  bee  60.0%", "  doe  25.0%",
    ]  # fmt: skip
    assert max(map(len, out.splitlines()[1:3])) < 60


def test_json(model, photographs, capsys):
    assert commands.main(["classify", *photographs, "--weights", "w.npz", "--top", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [image["image"] for image in found] == photographs
    for image in found:
        (prediction,) = image["predictions"]
        assert list(prediction) == ["label", "probability", "index"]
        assert (prediction["label"], prediction["index"]) == ("bee", 1)
        assert abs(prediction["probability"] - 0.6) < 1e-6


def test_default_weights_say_what_they_know(model, photographs, capsys, monkeypatch):
    monkeypatch.setattr(classification, "default_weights", lambda: Path("shipped.npz"))
    assert commands.main(["classify", photographs[0]]) == 0
    out = capsys.readouterr().out
    assert model.loaded == [Path("shipped.npz")]
    assert "knows only ant, bee, cow, doe." in out
    assert "minidat download dat_tiny" in out
    assert commands.main(["classify", photographs[0], "--json"]) == 0
    json.loads(capsys.readouterr().out)


def test_one_bad_image_among_good_ones(model, photographs, capsys, tmp_path):
    """Nothing is half printed."""
    message = fails(capsys, "classify", photographs[0], str(tmp_path / "missing.jpg"), "--weights", "w.npz")
    assert "missing.jpg: no such file" in message


def test_bad_images(model, capsys, tmp_path):
    Path(tmp_path / "text.jpg").write_text("hello\n")
    Path(tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(IMAGE).save(tmp_path / "cut.png")
    os.truncate(tmp_path / "cut.png", 3000)
    for name in ("text.jpg", "empty.png", "cut.png", "."):
        fails(capsys, "classify", str(tmp_path / name), "--weights", "w.npz")


def test_top_must_be_positive(model, photographs, capsys):
    assert "top: found 0" in fails(capsys, "classify", photographs[0], "--weights", "w.npz", "--top", "0")


@pytest.mark.parametrize(
    ("argv", "program", "mistake"),
    [
        ([], "minidat", "the following arguments are required: COMMAND"),
        (["classify"], "minidat classify", "the following arguments are required: IMAGE"),
        (["paint"], "minidat", r"argument COMMAND: invalid choice: 'paint' \(choose from .*classify.*\)"),
        (["classify", "a.jpg", "--top", "many"], "minidat classify", "argument --top: invalid int value: 'many'"),
        (["convert", "a"], "minidat convert", "the following arguments are required: DST"),
        (["train", "--resume"], "minidat train", "the following arguments are required: --data, --output"),
        (["info", "--no\nsuch"], "minidat", r"unrecognized arguments: --no\?such"),
    ],
)
def test_mistakes_in_the_command_line(argv, program, mistake, capsys):
    with pytest.raises(SystemExit) as caught:
        commands.main(argv)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(f"{program}: error: {mistake}; see {program} --help\n", output.err)


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        commands.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"minidat {minidat.__version__}\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "minidat: interrupted\n"),
        (
            OSError(28, "No space left on device"),
            2,
            "minidat: error: the standard output cannot be written: No space left on device\n",
        ),
        (MemoryError(), 2, "minidat: error: there is not enough memory for: minidat classify PHOTO --weights w.npz\n"),
        (MinidatError("first\nsecond"), 2, "minidat: error: first?second\n"),
    ],
)
def test_no_traceback(model, photographs, capsys, monkeypatch, error, status, line):
    def fail(path):
        raise error

    monkeypatch.setattr(minidat.checkpoints, "load_model", fail)
    assert commands.main(["classify", photographs[0], "--weights", "w.npz"]) == status
    assert capsys.readouterr() == ("", line.replace("PHOTO", photographs[0]))


def test_an_ascii_terminal(model, photographs, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    model.labels[1] = "bée"
    assert commands.main(["classify", photographs[0], "--weights", "w.npz"]) == 0
    assert b"  b?e  60.0%  ####" in sys.stdout.buffer.getvalue()


# --- the program, as a person starts it -------------------------------------------------------------------------------


def run(*command, **options):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("program", [["-m", "minidat", "classify"], [REPOSITORY / "examples" / "classify.py"]])
def test_the_program(program, tiny, photographs):
    done = run(*program, *photographs, "--weights", tiny, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    model = minidat.load_model(tiny)
    for path, image in zip(photographs, found, strict=True):
        expected = classify(model, minidat.load_image(path))
        assert [p["label"] for p in image["predictions"]] == [p.label for p in expected]
        np.testing.assert_allclose(
            [p["probability"] for p in image["predictions"]], [p.probability for p in expected], rtol=1e-5
        )


def test_the_program_fails_with_one_line(tiny, tmp_path):
    done = run("-m", "minidat", "classify", tmp_path / "no\nsuch.jpg", "--weights", tiny)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"minidat: error: {tmp_path}/no?such.jpg: no such file; expected an image\n"


def test_a_closed_pipe_is_no_error(tiny, photographs):
    """As `minidat classify ... | head -0` does: nobody reads what is printed."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "minidat", "classify", photographs[0], "--weights", str(tiny)]
    try:
        done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_example_photographs(tiny, capsys):
    paths = sorted(str(path) for path in (REPOSITORY / "examples" / "images").glob("*.jpg"))
    assert [Path(path).stem for path in paths] == ["blood_cells", "cat", "dog", "horse", "street"]
    assert all(Path(path).stat().st_size < 150_000 for path in paths)
    assert commands.main(["classify", *paths, "--weights", str(tiny), "--top", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3 * len(paths) - 1  # two lines each, and one between them


def test_convert_gives_labels_and_halves_the_size(tiny, tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("x\ny\nz\n")
    half = tmp_path / "half.npz"
    assert commands.main(["convert", str(tiny), str(half), "--labels", str(tmp_path / "labels.txt"), "--half"]) == 0
    assert capsys.readouterr().out.startswith(f"{half}: tiny, 3 classes, images of 32 x 32 pixels, ")
    assert minidat.load_model(half).labels == ["x", "y", "z"]
    assert half.stat().st_size < 0.8 * tiny.stat().st_size
    assert commands.main(["convert", str(half), str(tmp_path / "again.npz")]) == 0
    assert minidat.load_model(tmp_path / "again.npz").labels == ["x", "y", "z"]
    capsys.readouterr()
    fails(capsys, "convert", str(tiny), str(half), "--labels", "cifar10")  # ten names for three classes
    fails(capsys, "convert", str(tmp_path / "missing.pth"), str(half))


def test_a_file_name_the_terminal_cannot_show(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run("-m", "minidat", "convert", tiny, tmp_path / "été.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe9t\\xe9.npz: tiny" in done.stdout


def test_weights_without_labels(tiny, tmp_path, photographs, capsys):
    model = minidat.load_model(tiny)
    path = tmp_path / "nameless.npz"
    minidat.save_npz(path, model.state_dict(), model.config)
    assert commands.main(["classify", photographs[0], "--weights", str(path)]) == 0
    out = capsys.readouterr().out
    assert "  class 0 " in out
    assert "--labels FILE" in out


@pytest.mark.parametrize(("on_terminal", "shown"), [(True, "\r0.5 MB\r1.0 of 2.0 MB\n"), (False, "")])
def test_download_command(monkeypatch, tmp_path, capsys, on_terminal, shown):
    """The default file is NAME.npz; progress is for people alone."""

    def download(name, destination, *, progress):
        if progress is not None:
            progress(500_000, None)
            progress(1_000_000, 2_000_000)
        Path(destination).write_bytes(b"0" * 2_000_000)
        return Path(destination)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(published, "download", download)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    for argv, path in ((["dat_tiny"], "dat_tiny.npz"), (["dat_tiny", "other.pth"], "other.pth")):
        assert commands.main(["download", *argv]) == 0
        assert capsys.readouterr() == (f"{path}: dat_tiny, 2.0 MB\n", shown)


def test_download_of_an_unknown_model(capsys):
    assert "dat_tiny" in fails(capsys, "download", "resnet50")
