"""`minidat visualize`: which token a query is, what a panel shows, and what the command answers."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import minidat
from minidat import commands
from minidat.data import preprocess_detection, preprocess_segmentation, seen_part
from minidat.detection import DetectorConfig
from minidat.errors import CheckpointError, ConfigError, ShapeError
from minidat.models import DeformableConfig, ModelConfig, StageConfig
from minidat.nn import Context, LocalAttentionRecord
from minidat.visualization import (
    arrange,
    attention_records,
    block_kinds,
    draw_sampling_points,
    sheet,
    visualize,
    without_mean_offset,
)
from minidat.visualization.canvas import fit
from tests.small_detectors import small_mask_rcnn, small_retinanet
from tests.small_segmentors import small_upernet

BLOCKS = ("window", "shifted_window", "neighborhood", "deformable")


def config(image_size=(32, 32), resize_size=32, blocks=BLOCKS):
    stages = tuple(StageConfig(8 * 2**i, 2, blocks, 2, 3, DeformableConfig(2, 3)) for i in range(4))
    return ModelConfig("tiny", image_size, 3, stages, resize_size=resize_size, patch_size=2)


@pytest.fixture(scope="module")
def model():
    return minidat.create_model(config())


@pytest.fixture(scope="module")
def photograph():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture
def panels(monkeypatch):
    """What is to be drawn: a list of (name of the function, picture, record or heat map, its other arguments)."""
    calls = []

    def stub(name):
        def record(picture, what, **settings):
            calls.append((name, picture, what, settings))
            return Image.new("RGB", fit(picture.shape, settings["side"])[::-1])

        return record

    for name in ("draw_sampling_points", "draw_attention"):
        monkeypatch.setattr(sheet, name, stub(name))
    return calls


def test_one_panel_for_each_deformable_block(model, photograph, panels):
    picture = visualize(model, photograph)
    assert [name for name, *_ in panels] == ["draw_sampling_points"] * 4
    assert [record.map_size for _, _, record, _ in panels] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert all(settings["query"] is settings["head"] is None for *_, settings in panels)
    assert all(np.array_equal(drawn, photograph) for _, drawn, *_ in panels)
    # two by two panels of 400 x 300 pixels
    assert picture.width == 3 * 16 + 2 * 400
    assert 600 < picture.height < 800


def test_panels_show_what_the_drawing_functions_draw(model, photograph):
    """Pixel by pixel: in the sheet's first panel, below its title."""
    sheet_pixels = np.asarray(visualize(model, photograph, blocks=["stages.1.blocks.3"], head=1, query=(0.5, 0.99)))
    context = Context(trace={})
    model.forward(minidat.preprocess(photograph, model.config)[np.newaxis], context)
    record = context.trace["stages.1.blocks.3.attention"]
    panel = np.asarray(draw_sampling_points(photograph, record, query=(4, 7), head=1, side=400))
    top = next(y for y in range(60) if np.array_equal(sheet_pixels[y, 16:416], panel[0]))
    np.testing.assert_array_equal(sheet_pixels[top : top + 300, 16:416], panel)


@pytest.mark.parametrize(
    ("query", "token"), [((0, 0), (0, 0)), ((1, 1), (15, 15)), ((0.5, 0.499), (8, 7)), ((0.06, 0.97), (0, 15))]
)
def test_the_query_is_the_token_around_the_point(model, photograph, panels, query, token):
    visualize(model, photograph, blocks=["stages.0.blocks.0", "stages.0.blocks.3"], query=query)
    assert [settings["query"] for *_, settings in panels] == [token] * 2


@pytest.mark.parametrize("block", [0, 1, 2])
def test_the_heat_of_a_query_and_its_mean_over_all(model, photograph, panels, block):
    """A heat map is a distribution over tokens, zero outside the window; the mean of all queries' maps is the other."""
    name = f"stages.2.blocks.{block}"
    visualize(model, photograph, blocks=[name])
    visualize(model, photograph, blocks=[name], head=0)
    for y, x in np.ndindex(4, 4):
        visualize(model, photograph, blocks=[name], head=0, query=((y + 0.5) / 4, (x + 0.5) / 4))
    mean, mean_of_head, *heats = [heat for _, _, heat, _ in panels]
    for heat in (mean, mean_of_head, *heats):
        assert heat.shape == (4, 4)
        assert heat.sum() == pytest.approx(1, abs=1e-5)
    assert not np.allclose(mean, mean_of_head, rtol=1e-4)
    np.testing.assert_allclose(np.mean(heats, axis=0), mean_of_head, atol=1e-6)
    seen = np.argwhere(heats[2 * 4 + 2] > 1e-6)
    expected = {0: [(2, 2), (3, 3)], 1: [(1, 1), (2, 2)], 2: [(1, 1), (3, 3)]}[block]
    assert [tuple(seen.min(axis=0)), tuple(seen.max(axis=0))] == expected


def test_padding_gets_no_heat():
    tokens = np.array([[[0, 0], [0, 1], [0, 2], [1, 0]]])
    record = LocalAttentionRecord(tokens, np.array([0.1, 0.2, 0.3, 0.4]).reshape(1, 1, 4, 1), (1, 2))
    tokens = tokens.repeat(2, axis=0)
    record = dataclasses.replace(record, tokens=tokens, attention=record.attention.repeat(2, axis=3))
    np.testing.assert_allclose(sheet._heat(record, (0, 1), None), [[0.1, 0.2]])
    np.testing.assert_allclose(sheet._heat(record, None, 0), [[0.1, 0.2]])


def test_the_part_that_the_model_sees(photograph, panels):
    """224 of 256 pixels, here 28 of 32: 1/16 less at each border."""
    model = minidat.create_model(config((28, 28), 32))
    visualize(model, photograph, blocks=["stages.0.blocks.3"])
    np.testing.assert_array_equal(panels[0][1], photograph[4:56, 5:75])
    for size, resized in (((28, 28), 32), ((20, 32), 36), ((32, 32), 32), ((31, 29), 34)):
        cut = config(size, resized)
        image = np.zeros((320, 640, 3), np.uint8)
        seen_part(image, cut)[:] = 255  # a view: what is left dark is what preprocess leaves out
        model_input = minidat.preprocess(image, cut)
        assert model_input[3:-3, 3:-3].min() > 2
        assert seen_part(np.zeros((1, 1, 3), np.uint8), cut).shape == (1, 1, 3)


def test_where_a_map_reaches_beyond_the_image(photograph, panels):
    """27 x 20 pixels are 14 x 10 tokens of 2 pixels, then 7 x 5, 4 x 3 and 2 x 2, which are 32 x 32 pixels."""
    model = minidat.create_model(config((27, 20), 27))
    blocks = [f"stages.{s}.blocks.3" for s in range(4)]
    visualize(model, photograph, blocks=blocks, query=(1, 1))
    sizes = [drawn.shape[:2] for _, drawn, *_ in panels]
    assert sizes == [(62, 80), (62, 80), (71, 96), (71, 128)]
    assert [settings["query"] for *_, settings in panels] == [(13, 9), (6, 4), (3, 2), (1, 1)]
    assert not panels[3][1][60:].any()
    np.testing.assert_array_equal(panels[3][1][:60, :80], photograph)


def test_many_panels(model, photograph):
    picture = visualize(model, photograph, blocks=list(block_kinds(model.config)))
    assert 1000 < picture.width < 1600
    assert list(block_kinds(model.config).items())[:2] == [
        ("stages.0.blocks.0", "window"),
        ("stages.0.blocks.1", "shifted_window"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"blocks": ["stages.4.blocks.0"]},
            r"block: found 'stages.4.blocks.0', expected one of stages.0.blocks.0 \(win",
        ),
        ({"blocks": ["a\nb"]}, r"block: found 'a\?b', expected"),
        ({"head": 2}, "head: found 2, expected 0 ... 1, the heads of stages.0.blocks.3"),
        ({"head": -1}, "head: found -1"),
        ({"query": (0.5, 1.1)}, r"query: found \(0.5, 1.1\), expected \(y, x\) as shares"),
        ({"query": (np.nan, 0.5)}, "query: found"),
    ],
)
def test_settings_that_do_not_fit(model, photograph, settings, message):
    with pytest.raises(ConfigError, match=message):
        visualize(model, photograph, **settings)


def test_models_and_pictures_that_do_not_fit(model, photograph):
    with pytest.raises(ShapeError, match="image: found"):
        visualize(model, photograph[..., 0])
    plain = minidat.create_model(config(blocks=("window",)))
    with pytest.raises(ConfigError, match="tiny: found no deformable block, expected the choice of another: stages"):
        visualize(plain, photograph)
    plain.stages[0].blocks[0].attention.qkv.weight.value[:] = np.nan
    with pytest.raises(CheckpointError, match="tiny: the attention is not finite numbers"):
        visualize(plain, photograph, blocks=["stages.0.blocks.0"])


# --- detectors and segmentors -----------------------------------------------------------------------------------------


def test_a_detector_sees_the_whole_photograph_and_its_padding(photograph, panels):
    """60 x 80 pixels are resized to 48 x 64 and padded to 64 x 64: the map of the last stage is 2 x 2."""
    detector = minidat.create_model(small_retinanet())
    blocks = ["stages.2.blocks.0", "stages.3.blocks.0"]
    visualize(detector, photograph, blocks=blocks, query=(0.99, 0.5))
    for _, drawn, *_ in panels:
        np.testing.assert_array_equal(drawn[:60], photograph)
        assert not drawn[60:].any()
        assert drawn.shape == (80, 80, 3)
    assert [settings["query"] for *_, settings in panels] == [(2, 2), (1, 1)]


@pytest.mark.parametrize(
    "dense", [small_retinanet(), small_mask_rcnn(), small_upernet()], ids=lambda config: config.name
)
@pytest.mark.parametrize("query", [(0.3, 0.6), None])
def test_what_the_backbone_of_a_dense_model_attends_to(dense, query, photograph, panels):
    network = minidat.create_model(dense)
    name = next(name for name, kind in block_kinds(dense.backbone).items() if kind == "deformable")
    visualize(network, photograph, blocks=[name], query=query)
    (_, _, record, settings), *_ = panels
    prepared = preprocess_segmentation(photograph, scale=dense.resize_size)
    if isinstance(dense, DetectorConfig):
        prepared = preprocess_detection(photograph, scale=dense.resize_size).pixels
    context = Context(trace={})
    network.backbone.forward(prepared[np.newaxis], context)
    expected = context.trace[f"backbone.{name}.attention"]
    np.testing.assert_array_equal(record.positions, expected.positions)
    if query is None:
        np.testing.assert_allclose(record.attention.mean(axis=-1), expected.attention.mean(axis=-1), rtol=1e-5)
    else:
        row, column = settings["query"]
        number = row * expected.map_size[1] + column
        np.testing.assert_array_equal(record.attention[..., number], expected.attention[..., number])


def test_the_queries_in_a_box_attend_together(photograph, panels):
    """Of 60 x 80 pixels, resized to 48 x 64, the map of stage 2 has 4 x 4 tokens of 20 pixels, one row in padding."""
    network = minidat.create_model(small_retinanet())
    name = "stages.2.blocks.1"
    visualize(network, photograph, blocks=[name], box=(25, 5, 79, 35), points=7)
    (_, _, record, settings), *_ = panels
    assert settings["box"] == pytest.approx((5 / 80, 25 / 80, 35 / 80, 79 / 80))
    assert (settings["query"], settings["points"]) == (None, 7)
    context = Context(trace={})
    prepared = preprocess_detection(photograph, scale=network.config.resize_size).pixels
    network.backbone.forward(prepared[np.newaxis], context)
    attention = context.trace[f"backbone.{name}.attention"].attention
    expected = attention[..., [1, 2, 3, 5, 6, 7]].mean(axis=-1)  # rows 0 and 1, columns 1 to 3
    np.testing.assert_allclose(record.attention[..., 0], expected, rtol=1e-6)


def test_deformable_blocks_once_more_without_the_mean_offset(model, photograph, panels):
    blocks = ["stages.1.blocks.3", "stages.0.blocks.0"]
    visualize(model, photograph, blocks=blocks, head=1, without_mean=True)
    assert [name for name, *_ in panels] == ["draw_sampling_points", "draw_sampling_points", "draw_attention"]
    (_, picture, record, settings), (_, again, rest, same_settings), _ = panels
    assert np.array_equal(picture, again)
    assert settings == same_settings
    np.testing.assert_array_equal(rest.positions, without_mean_offset(record).positions)
    assert not np.allclose(rest.positions, record.positions, atol=1e-4)


def test_only_the_points_with_most_attention_are_drawn(photograph):
    network = minidat.create_model(small_retinanet())
    colors = []
    for points in (1, 5, 1000):
        drawn = visualize(network, np.zeros_like(photograph), blocks=["stages.2.blocks.1"], points=points)
        pixels = np.asarray(drawn)
        colors.append(np.ptp(pixels.astype(int), axis=-1) > 60)
    assert 0 < colors[0].sum() < colors[1].sum() < colors[2].sum()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 0}, "points: found 0, expected at least 1"),
        ({"box": (0, 0, 9, 9), "query": (0, 0)}, "box: found one with a query"),
        ({"box": (0, 0, 9, 9), "blocks": ["stages.0.blocks.0"]}, "box: found it with a block that is not deformable"),
        ({"box": (90, 0, 99, 9)}, r"box: found \(90, 0, 99, 9\), expected \(x1, y1, x2, y2\) in a picture of 60 x 80"),
    ],
)
def test_boxes_and_points_that_do_not_fit(settings, message, photograph):
    with pytest.raises(ConfigError, match=message):
        visualize(minidat.create_model(small_retinanet()), photograph, **settings)


def test_a_single_panel_of_a_dense_model_is_large(panels):
    for size, side in (((1000, 900), 1000), ((300, 100), 400), ((900, 2000), 1600)):
        visualize(minidat.create_model(small_retinanet()), np.zeros((*size, 3), np.uint8), blocks=["stages.3.blocks.0"])
        assert panels[-1][3]["side"] == side


@pytest.mark.parametrize("network", [None, small_retinanet, small_upernet])
def test_the_records_of_all_deformable_blocks(network, model, photograph, panels):
    """The same pictures and records that are drawn."""
    network = model if network is None else minidat.create_model(network())
    found = attention_records(network, photograph)
    visualize(network, photograph, blocks=list(found))
    assert list(found) == [name for name, kind in _kinds(network).items() if kind == "deformable"]
    for (picture, record), (_, drawn, drawn_record, _) in zip(found.values(), panels, strict=True):
        np.testing.assert_array_equal(picture, drawn)
        np.testing.assert_array_equal(record.positions, drawn_record.positions)
        mean = record.attention.mean(axis=-1)
        np.testing.assert_allclose(mean, drawn_record.attention[..., 0], rtol=1e-5)


def _kinds(network):
    return block_kinds(getattr(network.config, "backbone", network.config))


def test_pictures_are_arranged_in_rows():
    colors = {"a": (250, 0, 0), "b": (0, 250, 0), "c": (0, 0, 250)}
    pictures = {name: Image.new("RGB", (100, 50), color) for name, color in colors.items()}
    for across, width in ((None, 3), (2, 2), (1, 1)):
        drawn = arrange(pictures, across=across)
        assert drawn.width == 16 + 116 * width
        pixels = np.asarray(drawn)
        corners = [np.argwhere((pixels == color).all(axis=2)).min(axis=0) for color in colors.values()]
        places = [tuple(corner // [79, 116]) for corner in corners]  # 50 pixels and 29 for the title; 100 and a gap
        assert places == [(i // width, i % width) for i in range(3)]
    assert arrange(pictures, ["a line"]).height > arrange(pictures).height
    assert arrange(pictures, letters=30).height > arrange(pictures).height
    with pytest.raises(ConfigError, match="panels: found none, expected at least one"):
        arrange({})


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, model, photograph, monkeypatch):
    monkeypatch.chdir(tmp_path)
    minidat.save_npz("tiny.npz", model.state_dict(), model.config)
    Image.fromarray(photograph).save("photo.png")
    return tmp_path


def test_the_command_draws_what_the_function_draws(folder, model, photograph, capsys):
    command = ["visualize", "photo.png", "--weights", "tiny.npz"]
    assert commands.main(command) == 0
    assert capsys.readouterr().out == "photo_attention.png\n"
    with Image.open("photo_attention.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(visualize(model, photograph)))

    chosen = ["--block", "stages.0.blocks.1", "--block", "stages.1.blocks.3", "--head", "1", "--query", "0.2", "0.9"]
    assert commands.main([*command, *chosen, "--output", "out.png"]) == 0
    blocks = ["stages.0.blocks.1", "stages.1.blocks.3"]
    with Image.open("out.png") as drawn:
        expected = visualize(model, photograph, blocks=blocks, head=1, query=(0.2, 0.9))
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))

    assert commands.main([*command, "--without-mean", "--output", "out.png"]) == 0
    with Image.open("out.png") as drawn:
        expected = visualize(model, photograph, without_mean=True)
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))


def test_the_command_and_a_detected_object(folder, photograph, capsys):
    network = minidat.create_model(small_retinanet())
    minidat.save_npz("retinanet.npz", network.state_dict(), network.config)
    command = ["visualize", "photo.png", "--weights", "retinanet.npz", "--output", "out.png"]
    assert commands.main([*command, "--object", "2", "--points", "9"]) == 0
    box = minidat.detect(network, photograph, 0)[1].box
    with Image.open("out.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(visualize(network, photograph, box=box, points=9)))
    capsys.readouterr()
    for weights, number, message in (
        ("retinanet.npz", "0", "--object: found 0, expected 1 to 100, the objects in the image"),
        ("tiny.npz", "1", "--object: tiny is no detector, which this is for"),
    ):
        assert commands.main(["visualize", "photo.png", "--weights", weights, "--object", number]) == 2
        assert capsys.readouterr().err == f"minidat: error: {message}\n"


def test_the_command_with_the_weights_that_come_along(folder, capsys):
    assert commands.main(["visualize", "photo.png", "--output", "out.png", "--query", "0.5", "0.5"]) == 0
    assert capsys.readouterr() == ("out.png\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.png", "--output", "photo.png"], "photo.png: this is the image itself"),
        (["photo.png", "--output", "photo.jpg"], "photo.jpg: found the suffix '.jpg', expected .png"),
        (["photo.png", "--output", "no/photo.png"], "no/photo.png: there is no folder no"),
        (["nowhere.png"], "nowhere.png: no such file; expected an image"),
        (["tiny.npz"], "tiny.npz: not a JPEG"),
        (["photo.png", "--weights", "photo.png"], "photo.png: "),
        (["photo.png", "--block", "stages.9.blocks.0"], "block: found 'stages.9.blocks.0', expected one of stages.0"),
        (["photo.png", "--query", "-1", "0.5"], "query: found (-1.0, 0.5), expected (y, x) as shares"),
        (["photo.png", "--head", "9"], "head: found 9, expected 0 ... 1"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(folder, arguments, message, capsys):
    weights = [] if "--weights" in arguments else ["--weights", "tiny.npz"]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert commands.main(["visualize", *arguments, *weights]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"minidat: error: {message}")
    assert output.err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
