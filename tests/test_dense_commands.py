"""`minidat detect` and `minidat segment`: what they print, draw and write, and what they refuse, in one line."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minidat import Detection, Segmentation, create_model, detect, load_image, load_model, save_npz, segment
from minidat.commands import main
from minidat.data import decode_rle
from minidat.data.labels import ade20k_labels, ade20k_palette, coco_category_ids, coco_labels
from minidat.errors import ConfigError, ShapeError
from minidat.files import shipped
from minidat.visualization import draw_detections, draw_segmentation, label_picture
from minidat.visualization.canvas import COLORS, PAPER
from minidat.visualization.legend import LARGEST_SIDE, SMALLEST_SIDE, class_colors
from tests.small_detectors import small_backbone, small_mask_rcnn, small_retinanet
from tests.small_segmentors import small_upernet

DETECTOR_LABELS, SEGMENTOR_LABELS = ["square", "disk"], ["sky", "road", "tree"]
SIZES = {"139.png": (48, 64), "000000000285.jpg": (70, 40)}  # as COCO calls its pictures


def saved(path: Path, config: Any, labels: list[str] | None = None) -> Path:
    model = create_model(config)
    save_npz(path, model.state_dict(), model.config, labels)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Weights and pictures, which nothing may be written beside."""
    folder = tmp_path_factory.mktemp("files")
    saved(folder / "retinanet.npz", small_retinanet(), DETECTOR_LABELS)
    saved(folder / "mask_rcnn.npz", small_mask_rcnn(), DETECTOR_LABELS)
    saved(folder / "upernet.npz", small_upernet(), SEGMENTOR_LABELS)
    saved(folder / "classifier.npz", small_backbone())
    rng = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / name)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def images(folder) -> list[str]:
    return [str(folder / name) for name in SIZES]


def printed(capsys, *arguments: object) -> Any:
    assert main(list(map(str, arguments))) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


# --- detect -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "threshold"), [("retinanet.npz", 0.0095), ("mask_rcnn.npz", 0.34)])
def test_detections_as_json(weights, threshold, folder, images, here, capsys) -> None:
    text = printed(capsys, "detect", *images, "--weights", folder / weights, "--threshold", threshold, "--json")
    model = load_model(folder / weights)
    answers = json.loads(text)
    assert [answer["image"] for answer in answers] == images
    assert any(answer["detections"] for answer in answers)
    for answer, path in zip(answers, images, strict=True):
        expected = [
            {"label": d.label, "score": d.score, "bbox": [*d.box[:2], d.box[2] - d.box[0], d.box[3] - d.box[1]]}
            for d in detect(model, load_image(path), threshold)
        ]
        assert answer == {"image": path, "detections": expected}
    assert list(here.iterdir()) == []  # no picture was asked for


def test_detections_are_drawn_here_or_there(folder, images, here, capsys) -> None:
    command = ["detect", *images, "--weights", folder / "mask_rcnn.npz"]
    text = printed(capsys, *command)
    names = ["000000000285_detections.png", "139_detections.png"]
    assert sorted(path.name for path in here.iterdir()) == names
    assert all(name in text for name in names + images)
    printed(capsys, *command, "--output", here / "a" / "b", "--json")
    for name in names:
        assert (here / "a" / "b" / name).read_bytes() == (here / name).read_bytes()
    with Image.open(here / names[0]) as picture:
        assert picture.mode == "RGB"
        assert picture.height > SMALLEST_SIDE > picture.width  # a small picture is enlarged; a legend is below


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@pytest.mark.parametrize("weights", ["retinanet.npz", "mask_rcnn.npz"])
def test_coco_tools_read_the_results(weights, folder, images, here, capsys) -> None:
    coco, evaluation, mask_tools = (pytest.importorskip(f"pycocotools.{name}") for name in ("coco", "cocoeval", "mask"))
    command = ["detect", *images, "--weights", folder / weights, "--threshold", 0.005, "--coco"]
    results = json.loads(printed(capsys, *command))
    assert list(here.iterdir()) == []
    assert json.loads(printed(capsys, *command, "--output", here / "out")) == results
    file = here / "out" / "coco_results.json"
    assert json.loads(file.read_text()) == results

    annotations = [
        {"id": i, "image_id": r["image_id"], "category_id": r["category_id"], "bbox": r["bbox"], "iscrowd": 0}
        | {"area": r["bbox"][2] * r["bbox"][3], "segmentation": r.get("segmentation", [])}
        for i, r in enumerate(results, 1)
    ]
    document = {
        "images": [{"id": 139, "height": 48, "width": 64}, {"id": 285, "height": 70, "width": 40}],
        "categories": [{"id": 1, "name": "square"}, {"id": 2, "name": "disk"}],
        "annotations": annotations,
    }
    (here / "annotations.json").write_text(json.dumps(document))
    with contextlib.redirect_stdout(None):
        truth = coco.COCO(str(here / "annotations.json"))
        found = truth.loadRes(str(file))
        kinds = ["bbox", "segm"] if weights == "mask_rcnn.npz" else ["bbox"]
        for kind in kinds:
            run = evaluation.COCOeval(truth, found, kind)
            run.evaluate()
            run.accumulate()
            run.summarize()
            assert run.stats[0] > 0.9  # each is found where it is, but for empty masks
    assert {result["image_id"] for result in results} == {139, 285}
    model = load_model(folder / weights)
    objects = [d for path in images for d in detect(model, load_image(path), 0.005)]
    boxes = np.array([d.box for d in objects])
    np.testing.assert_allclose([r["bbox"] for r in results], np.c_[boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    assert [(r["score"], r["category_id"]) for r in results] == [(d.score, d.index + 1) for d in objects]
    if kinds == ["bbox"]:
        assert not any("segmentation" in result for result in results)
        return
    for mask, result in zip([d.mask for d in objects], results, strict=True):
        np.testing.assert_array_equal(decode_rle(result["segmentation"]), mask)
        np.testing.assert_array_equal(mask_tools.decode(result["segmentation"]), mask)


def test_coco_ids(folder, images, here, capsys) -> None:
    weights = saved(here / "coco.npz", small_retinanet(num_classes=80), list(coco_labels()))
    other = here / "photo.png"
    other.write_bytes((folder / "139.png").read_bytes())
    command = [images[1], other, "--weights", weights, "--threshold", 0.005]
    results = json.loads(printed(capsys, "detect", *command, "--coco"))
    names = [
        d["label"] for answer in json.loads(printed(capsys, "detect", *command, "--json")) for d in answer["detections"]
    ]
    of_label = dict(zip(coco_labels(), coco_category_ids(), strict=True))
    assert [result["category_id"] for result in results] == [of_label[name] for name in names]
    assert {result["image_id"] for result in results} == {1, 2}  # "photo" is no number


# --- segment ----------------------------------------------------------------------------------------------------------


def test_label_maps_are_the_class_numbers(folder, images, here, capsys) -> None:
    printed(capsys, "segment", *images, "--weights", folder / "upernet.npz", "--labels", here / "maps")
    model = load_model(folder / "upernet.npz")
    assert sorted(path.name for path in here.rglob("*.png")) == ["000000000285.png", "139.png"]  # nor an overlay
    for path in images:
        found = segment(model, load_image(path))
        with Image.open(here / "maps" / f"{Path(path).stem}.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.asarray(picture), found.labels)
            np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), np.array(class_colors(3))[found.labels])


def test_label_maps_are_a_data_set(folder, images, here, capsys) -> None:
    (here / "images").mkdir()
    for path in images:
        (here / "images" / Path(path).name).write_bytes(Path(path).read_bytes())
    (here / "classes.txt").write_text("\n".join(SEGMENTOR_LABELS))
    printed(capsys, "segment", *images, "--weights", folder / "upernet.npz", "--labels", here / "labels")
    text = printed(capsys, "evaluate", "--weights", folder / "upernet.npz", "--data", here, "--json")
    assert json.loads(text)["mIoU"] == 1


def test_segmentation_as_json(folder, images, here, capsys) -> None:
    answers = json.loads(printed(capsys, "segment", *images, "--weights", folder / "upernet.npz", "--json"))
    model = load_model(folder / "upernet.npz")
    for answer, path in zip(answers, images, strict=True):
        largest = segment(model, load_image(path)).largest()
        assert answer == {"image": path, "classes": [{"label": name, "share": share} for name, share in largest]}
    assert list(here.iterdir()) == []


def test_overlays_and_their_opacity(folder, images, here, capsys) -> None:
    command = ["segment", images[0], "--weights", folder / "upernet.npz"]
    text = printed(capsys, *command)
    assert images[0] in text
    assert [path.name for path in here.iterdir()] == ["139_segmentation.png"]
    for name, opacity in (("none", 0), ("all", 1)):
        printed(capsys, *command, "--opacity", opacity, "--output", here / name, "--labels", here / name)
        assert (here / name / "139.png").exists()
    pictures = [np.asarray(Image.open(here / name / "139_segmentation.png"))[:480, :640] for name in ("none", "all")]
    found = segment(load_model(folder / "upernet.npz"), load_image(images[0]))
    most = COLORS[int(found.shares.argmax())]
    assert (pictures[1] == most).all(axis=-1).mean() > 0.5 * found.shares.max()
    assert not (pictures[0] == most).all(axis=-1).any()


def test_the_detector_that_comes_with_minidat_finds_cells(here, capsys) -> None:
    picture = Path(__file__).parents[1] / "examples" / "images" / "blood_cells.jpg"
    assert main(["detect", str(picture), "--threshold", "0.5"]) == 0
    text = capsys.readouterr().out
    assert "WBC" in text
    assert "knows only blood cells: RBC, WBC, Platelets" in text
    assert text.count("RBC") > 5
    assert (here / "blood_cells_detections.png").exists()


# --- mistakes ---------------------------------------------------------------------------------------------------------

PICTURE = "{files}/139.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect", PICTURE, "--weights", "{files}/upernet.npz"], "the segmentor small_upernet; use `minidat segment`"),
        (["detect", PICTURE, "--weights", "{files}/classifier.npz"], "classifier small_backbone; use `minidat clas"),
        (["segment", PICTURE, "--weights", "{files}/retinanet.npz"], "detector small_retinanet; use `minidat detect`"),
        (["classify", PICTURE, "--weights", "{files}/mask_rcnn.npz"], "detector small_mask_rcnn; use `minidat d"),
        (["detect", PICTURE, "--weights", "nowhere.npz"], "nowhere.npz"),
        (["detect", PICTURE, "--weights", PICTURE], "139.png"),
        (["detect", PICTURE, "nowhere.png", "--weights", "{files}/retinanet.npz"], "nowhere.png"),
        (["segment", PICTURE, "{files}/upernet.npz", "--weights", "{files}/upernet.npz"], "upernet.npz"),
        (["detect", PICTURE, "--weights", "{files}/retinanet.npz", "--threshold", "2"], "--threshold: found 2.0, expe"),
        (["detect", PICTURE, "--weights", "{files}/retinanet.npz", "--threshold", "nan"], "--threshold: found nan"),
        (["segment", PICTURE, "--weights", "{files}/upernet.npz", "--opacity", "-1"], "--opacity: found -1.0, expec"),
        (["detect", PICTURE, "--weights", "{files}/retinanet.npz", "--output", PICTURE], "139.png is no folder"),
        (["segment", PICTURE, "--weights", "{files}/upernet.npz", "--labels", "{files}"], "this is the image itself"),
        (["detect", PICTURE, "other/139.jpg", "--weights", "{files}/retinanet.npz"], "would be written there"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_line(arguments, message, folder, here, capsys) -> None:
    before = sorted(folder.iterdir())
    assert main([argument.format(files=folder) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("minidat: error: ")
    assert message in output.err
    assert output.err.count("\n") == 1
    assert (list(here.iterdir()), sorted(folder.iterdir())) == ([], before)


def test_segment_without_weights(here, capsys, monkeypatch) -> None:
    """The segmentor that comes along; one line where it does not."""
    image = shipped.shipped_file(shipped.IMAGES, "street", ".jpg")
    assert main(["segment", str(image), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    shares = {each["label"]: each["share"] for each in found["classes"]}
    assert shares["road"] + shares["building"] > 0.3
    monkeypatch.setattr(shipped, "PACKAGE", here / "minidat")  # nothing comes with it
    assert main(["segment", str(image)]) == 2
    assert "dat_mini_camvid: no .npz file of this name comes with minidat" in capsys.readouterr().err


def test_json_or_coco(folder, images, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["detect", images[0], "--weights", str(folder / "retinanet.npz"), "--json", "--coco"])
    assert "not allowed with" in capsys.readouterr().err


# --- drawing ----------------------------------------------------------------------------------------------------------

GRAY = np.full((640, 800, 3), 128, np.uint8)


def marked(picture: Any, color: tuple[int, int, int]) -> np.ndarray:
    """Where about this color is: (H, W) of bool."""
    return (np.abs(np.asarray(picture).astype(int) - color) < 30).all(axis=2)


def test_boxes_have_their_place_and_class_color() -> None:
    first = Detection("cat", 0.9, (100.0, 200.0, 300.0, 500.0), 0)
    second = Detection("dog", 0.5, (500.0, 300.0, 700.0, 400.0), 1)
    picture = draw_detections(GRAY, [first, second])
    assert picture.width == 800
    assert picture.height > 640
    for found in (first, second):
        there = marked(picture, COLORS[found.index])[:640]
        y, x = np.nonzero(there)
        x1, y1, x2, y2 = found.box
        assert abs(x.min() - x1) <= 1
        assert abs(x.max() - x2) <= 2
        assert abs(y.max() - y2) <= 2
        assert y1 - 30 < y.min() < y1 - 10  # the label is above the box
        assert there[int(y1) : int(y2), int(x1) + 1].mean() > 0.95
        assert not there[int(y1) + 5 : int(y2) - 5, int(x1) + 5 : int(x2) - 5].any()  # the object is to be seen
        assert marked(picture, COLORS[found.index])[640:].sum() > 100  # in the legend


def test_masks_tint_their_pixels_alone() -> None:
    mask = np.zeros((640, 800), bool)
    mask[250:350, 150:250] = True
    found = Detection("cat", 0.9, (100.0, 200.0, 300.0, 500.0), 0, mask)
    plain, tinted = (
        np.asarray(draw_detections(GRAY, [d])).astype(int)
        for d in (Detection(found.label, found.score, found.box, 0), found)
    )
    changed = (plain != tinted).any(axis=2)[:640]
    np.testing.assert_array_equal(changed[255:345, 155:245], True)
    changed[247:353, 147:253] = False
    assert not changed.any()
    with pytest.raises(ShapeError, match="mask of cat: found shape"):
        draw_detections(GRAY[1:], [found])


def test_labels_do_not_cover_each_other() -> None:
    boxes = [(100.0, 200.0, 300.0, 400.0)] * 3
    picture = draw_detections(GRAY, [Detection("cat", 0.9, box, i) for i, box in enumerate(boxes)])
    for index in range(3):
        assert marked(picture, COLORS[index])[:640].sum() > 600  # of each ground, whatever box lies on top


def test_scores_are_left_out_of_annotations() -> None:
    found = [Detection("cat", score, (100.0, 200.0, 300.0, 400.0), 0) for score in (1.0, 0.25)]
    scored, bare = ([np.asarray(draw_detections(GRAY, [d], scores=scores)) for d in found] for scores in (True, False))
    assert not np.array_equal(*scored)
    np.testing.assert_array_equal(*bare)
    grounds = [marked(picture[:190], COLORS[0]).any(axis=0).sum() for picture in (scored[0], bare[0])]
    assert grounds[0] > grounds[1] + 20  # the label is shorter


def test_pictures_of_any_size_and_nothing_found() -> None:
    for shape in ((1, 1, 3), (2, 3000, 3), (3000, 2, 3), (40, 30, 3)):
        picture = draw_detections(np.zeros(shape, np.uint8), [])
        assert picture.width >= 320
        assert max(picture.size) <= LARGEST_SIDE + 100
        everything = Detection("a name that is longer than the picture is wide" * 3, 1.0, (-5.0, -5.0, 9e3, 9e3), 100)
        assert draw_detections(np.zeros(shape, np.uint8), [everything]).width >= 320


def test_segmentation_in_ade20k_colors() -> None:
    labels = np.zeros((640, 800), np.uint8)
    labels[:, 400:] = 7
    found = Segmentation(labels, ade20k_labels(), np.bincount(labels.ravel(), minlength=150) / labels.size)
    picture = draw_segmentation(GRAY, found, opacity=0.5)
    half = np.round((GRAY[0, 0] + ade20k_palette()[[0, 7]].astype(float)) / 2)
    np.testing.assert_allclose(np.asarray(picture)[100, [100, 700]], half, atol=1)
    assert picture.getpixel((2, picture.height - 2)) == PAPER
    palette = np.array(label_picture(found).getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(palette[:150], ade20k_palette())
    with pytest.raises(ShapeError, match="labels: found shape"):
        draw_segmentation(GRAY[1:], found)
    with pytest.raises(ConfigError, match="opacity: found 2, expected 0 to 1"):
        draw_segmentation(GRAY, found, opacity=2)
    with pytest.raises(ConfigError, match="labels: found 300 classes, expected at most 256"):
        label_picture(Segmentation(labels, tuple(map(str, range(300))), np.zeros(300)))


def test_class_colors_differ() -> None:
    colors = np.array(class_colors(80))
    assert len(np.unique(colors, axis=0)) == 80
    assert class_colors(5) == class_colors(80)[:5]
