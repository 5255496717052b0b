"""Pictures: marks lie where the numbers say and have the colors that they should, and what does not fit is refused."""

from itertools import pairwise

import numpy as np
import pytest

from minidat import ops
from minidat.errors import ConfigError, ShapeError
from minidat.nn import AttentionRecord
from minidat.visualization import (
    GROUP_COLORS,
    draw_attention,
    draw_bilinear_weights,
    draw_learning_curve,
    draw_mask,
    draw_matrix,
    draw_sampling_points,
    draw_windows,
)
from minidat.visualization.canvas import COLORS, HEAT, INK, NOTHING, Canvas
from minidat.visualization.curves import LEFTS, MASKS, PANEL, TOP, TRAINING, VALIDATION, _running_mean, _ticks

BLACK = np.zeros((100, 200, 3), np.uint8)
GRAY = np.full((120, 160, 3), 128, np.uint8)


def near(picture, color, tolerance=40):
    """(y, x) of the pixels of about this color: two arrays."""
    return np.nonzero((np.abs(np.asarray(picture).astype(int) - color) < tolerance).all(axis=2))


# --- the canvas -------------------------------------------------------------------------------------------------------


def test_a_disc_is_round_and_at_its_place():
    canvas = Canvas((60, 100), (0, 0, 0))
    canvas.disc((20.5, 70.5), 8, (255, 255, 255))
    brightness = np.asarray(canvas.picture())[..., 0] / 255.0
    assert brightness.shape == (60, 100)
    y, x = np.indices(brightness.shape)
    # pixel i covers [i, i + 1)
    assert abs((y * brightness).sum() / brightness.sum() + 0.5 - 20.5) < 0.3
    assert abs((x * brightness).sum() / brightness.sum() + 0.5 - 70.5) < 0.3
    assert abs(brightness.sum() / (np.pi * 64) - 1) < 0.1
    assert ((brightness > 0.1) & (brightness < 0.9)).any()  # smooth edges


def test_pixels_are_pasted_where_they_are_told():
    canvas = Canvas((40, 60))
    canvas.paste(np.zeros((1, 1, 3), np.uint8), (10, 20), (5, 30))
    y, x = near(canvas.picture(), (0, 0, 0))
    assert (y.min(), y.max(), x.min(), x.max()) == (10, 14, 20, 49)


def test_letters_that_the_font_lacks():
    for text in ("caf\u00e9 \u2603", "a\nb"):
        canvas = Canvas((30, 80))
        canvas.text((15, 40), text)
        assert len(near(canvas.picture(), INK, 80)[0]) > 20


# --- sampling points --------------------------------------------------------------------------------------------------


def _record(position, reference):
    """One group, one head, one point on a 4 x 8 map."""
    return AttentionRecord(
        positions=np.array(position, float).reshape(1, 1, 1, 1, 2),
        reference=np.array(reference, float).reshape(1, 1, 2),
        attention=np.ones((1, 1, 1, 32)),
        map_size=(4, 8),
    )


@pytest.mark.parametrize(
    ("position", "expected"),
    [((-1, -1), (1 / 8, 1 / 16)), ((1, 1), (7 / 8, 15 / 16)), ((0, 0), (1 / 2, 1 / 2)), ((-1, 1), (1 / 8, 15 / 16))],
)
def test_a_point_is_drawn_at_the_center_of_its_cell(position, expected):
    """Corners are aligned: -1 and 1 are the centers of the first and last cell of the map."""
    picture = draw_sampling_points(BLACK, _record(position, position), side=400)
    assert picture.size == (400, 200)
    y, x = near(picture, GROUP_COLORS[0])
    assert abs(y.mean() / 200 - expected[0]) < 0.01
    assert abs(x.mean() / 400 - expected[1]) < 0.01


def test_the_query_is_framed_and_must_be_on_the_map():
    image = np.zeros((64, 128, 3), np.uint8)
    record = _record((0.9, 0.9), (0.9, 0.9))
    picture = np.asarray(draw_sampling_points(image, record, query=(1, 2), side=256))
    y, x = np.nonzero((picture > 200).all(axis=2))
    assert (y.min() // 8, x.min() // 8) == (32 // 8, 64 // 8)
    with pytest.raises(ConfigError, match=r"query: found \(4, 0\), expected \(row, column\) on the map of 4 x 8"):
        draw_sampling_points(image, record, query=(4, 0))


def test_more_attention_is_a_larger_disc_in_the_color_of_its_group():
    """Two groups of two heads, two points each; group 1's second point gets 0.9 from the query (0, 1) alone."""
    attention = np.full((1, 4, 2, 4), 0.5)
    attention[0, 2:, :, 1] = [0.1, 0.9]
    positions = np.array([[[[-1, -1], [-1, 1]]], [[[1, -1], [1, 1]]]], float)[np.newaxis]  # (1, 2, 1, 2, 2)
    record = AttentionRecord(positions, positions[0, 0], attention, (2, 2))

    def areas(query):
        picture = np.asarray(draw_sampling_points(np.zeros((80, 80, 3), np.uint8), record, query=query))
        rows, columns = near(picture, GROUP_COLORS[1], 20)
        columns = columns[rows > 320]  # the discs, at 336, without the lines that come down from the reference points
        return np.array([(columns < 224).sum(), (columns > 224).sum()])

    equal, unequal = areas((1, 1)), areas((0, 1))
    assert equal[0] == pytest.approx(equal[1], rel=0.1)
    assert unequal[1] == pytest.approx(equal[1] * 1.8, rel=0.5)
    assert unequal[0] < 0.3 * unequal[1]


def test_one_head_shows_the_points_of_its_group():
    """Two groups of two heads: heads 2 and 3 look at the points of group 1."""
    positions = np.array([[[[-0.5, -1]]], [[[0.5, 1]]]], float)[np.newaxis]  # (1, 2, 1, 1, 2)
    record = AttentionRecord(positions, positions[0, 0] * 0, np.ones((1, 4, 1, 4)), (2, 2))
    for head, group in enumerate((0, 0, 1, 1)):
        picture = draw_sampling_points(BLACK, record, head=head)
        assert len(near(picture, GROUP_COLORS[group])[0]) > 100
        assert not len(near(picture, GROUP_COLORS[1 - group])[0])
    for head in (-1, 4):
        with pytest.raises(ConfigError, match=f"head: found {head}, expected 0 ... 3"):
            draw_sampling_points(BLACK, record, head=head)


# --- windows ----------------------------------------------------------------------------------------------------------


def _tint(picture, y, x):
    return np.asarray(picture)[int(y), int(x)].astype(int)


def test_tokens_of_one_window_have_one_color():
    picture = draw_windows(GRAY, window=2, grid=(4, 8))
    assert picture.size == (400, 300)
    cell_y, cell_x = 300 / 4, 400 / 8
    colors = {(i, j): tuple(_tint(picture, (i + 0.5) * cell_y, (j + 0.5) * cell_x)) for i in range(4) for j in range(8)}
    for (i, j), color in colors.items():
        assert color == colors[i // 2 * 2, j // 2 * 2]
        if j < 6:
            assert color != colors[i, j + 2]
        if i < 2:
            assert color != colors[i + 2, j]
    assert colors[0, 0] == tuple(np.round(0.58 * 128 + 0.42 * np.array(COLORS[0])).astype(int))


def test_a_shift_moves_the_windows_on_the_map_and_the_picture_under_them():
    """Left: the first window starts at token (1, 1). Right: what was at token (1, 1) is at (0, 0)."""
    image = GRAY.copy()
    image[30:60, 40:80] = 255  # token (1, 1) of a 4 x 4 grid
    picture = draw_windows(image, window=2, grid=(4, 4), shift=1)
    cell_y, cell_x, top, right = 75, 100, picture.height - 300, picture.width - 400

    def left_color(i, j):
        return tuple(_tint(picture, top + (i + 0.5) * cell_y, (j + 0.5) * cell_x))

    def right_color(i, j):
        return tuple(_tint(picture, top + (i + 0.5) * cell_y, right + (j + 0.5) * cell_x))

    assert left_color(1, 2) == left_color(2, 2) == left_color(2, 1) != left_color(1, 3)
    assert left_color(0, 0) == left_color(0, 3) == left_color(3, 0) == left_color(3, 3)  # put together by the roll
    for i, j in np.ndindex(4, 4):
        assert right_color(i, j) == left_color((i + 1) % 4, (j + 1) % 4)
    assert min(right_color(0, 0)) > 140
    # the seams of the roll, one token before the end
    assert _tint(picture, top + 3 * cell_y, right + 150).tolist() == pytest.approx(INK, abs=40)


def test_windows_by_default_and_of_many_tokens():
    assert draw_windows(GRAY, window=7).size == (28 * 14, 28 * 11)
    assert draw_windows(GRAY, window=7, grid=(56, 56)).size == (56 * 7, 56 * 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "window: found 0"),
        ({"window": 3, "grid": (6, 8)}, r"grid: found \(6, 8\), expected multiples of the window, 3"),
        ({"window": 3, "grid": (0, 3)}, r"grid: found \(0, 3\)"),
        ({"window": 3, "shift": 3}, r"shift: found 3, expected 0 ... 2"),
        ({"window": 3, "shift": -1}, "shift: found -1"),
    ],
)
def test_windows_that_do_not_fit(arguments, message):
    with pytest.raises(ConfigError, match=message):
        draw_windows(GRAY, **arguments)


@pytest.mark.parametrize("image", [GRAY[..., 0], GRAY.astype(float), GRAY[:0], "horse.jpg"])
def test_images_of_another_kind(image):
    record = _record((0, 0), (0, 0))
    for draw in (
        lambda: draw_windows(image, window=2),
        lambda: draw_attention(image, np.ones((2, 2))),
        lambda: draw_sampling_points(image, record),
    ):
        with pytest.raises(ShapeError, match="image: found "):
            draw()


# --- masks ------------------------------------------------------------------------------------------------------------


def test_masks_are_black_where_tokens_do_not_meet():
    mask = ops.shifted_window_mask(4, 4, window=2, shift=1)  # (4, 4, 4)
    picture = np.asarray(draw_mask(mask))
    y, x = near(picture, INK, 30)
    dark = np.zeros(picture.shape[:2], bool)
    dark[y, x] = True
    side, left, first = 24 * 4, 16, 8 + 22  # of the first tile
    for window, i, j in np.ndindex(mask.shape):
        top = first + window // 2 * (side + 22 + 16) + (i + 0.5) * 24
        across = left + window % 2 * (side + 16) + (j + 0.5) * 24
        assert dark[int(top), int(across)] == (mask[window, i, j] != 0), (window, i, j)


def test_masks_of_many_windows():
    assert max(draw_mask(ops.shifted_window_mask(56, 56, window=7, shift=4)).size) < 900
    with pytest.raises(ShapeError, match=r"mask: found shape \(4, 4\)"):
        draw_mask(np.zeros((4, 4)))
    with pytest.raises(ShapeError, match=r"mask: found shape \(1, 4, 5\)"):
        draw_mask(np.zeros((1, 4, 5)))


# --- bilinear weights -------------------------------------------------------------------------------------------------


def test_the_four_areas_are_the_weights():
    """Colored areas in units of a pixel's: (1 - 0.25) (1 - 0.4), ..."""
    picture = draw_bilinear_weights((1.25, 1.4), (4, 4))
    cell = 110
    expected = {(1, 1): 0.75 * 0.6, (1, 2): 0.75 * 0.4, (2, 1): 0.25 * 0.6, (2, 2): 0.25 * 0.4}
    for ((y, x), weight), color in zip(expected.items(), COLORS, strict=False):
        rows, columns = near(picture, np.round(0.55 * np.array(color) + 0.45 * 255), 12)
        # the frame, the lines and dots take some of it
        assert len(rows) / cell**2 == pytest.approx(weight, abs=0.05)
        assert (((rows - 34) // cell == y) & ((columns - 34) // cell == x)).all()


def test_pixels_beside_the_map_are_gray():
    assert len(near(draw_bilinear_weights((0, 1), (2, 2)), NOTHING, 3)[0]) < 50  # of smooth edges
    rows, _ = near(draw_bilinear_weights((-0.5, 0), (2, 2)), NOTHING, 3)
    assert (rows < 34 + 110).sum() > 10000
    assert (rows > 34 + 110).sum() < 50  # only above


@pytest.mark.parametrize(
    ("position", "size", "message"),
    [
        ((-1, 0), (3, 4), r"position: found \(-1.0, 0.0\), expected \(y, x\) in pixels, between -1 and 3, -1 and 4"),
        ((0, 4), (3, 4), "position: found"),
        ((float("nan"), 0), (3, 4), "position: found"),
        ((0, 0), (0, 4), r"size: found \(0, 4\)"),
        ((0, 0), (4, 13), r"size: found \(4, 13\)"),
    ],
)
def test_points_that_are_not_on_the_map(position, size, message):
    with pytest.raises(ConfigError, match=message):
        draw_bilinear_weights(position, size)


# --- attention maps ---------------------------------------------------------------------------------------------------


def test_the_most_attended_token_is_the_lightest_and_the_query_is_framed():
    probabilities = np.zeros((3, 4))
    probabilities[2, 1], probabilities[0, 3] = 0.75, 0.25
    picture = np.asarray(draw_attention(GRAY, probabilities)).astype(int)
    assert picture.shape[0] == 300
    centers = picture[50:300:100, 50:400:100]  # (3, 4, 3)
    lightness = centers.sum(axis=-1)
    assert np.unravel_index(lightness.argmax(), (3, 4)) == (2, 1)
    assert lightness[2, 1] > lightness[0, 3] > lightness[0, 0] == lightness[1, 1]
    assert picture[0, 420].tolist() == pytest.approx(HEAT[-1], abs=8)  # the bar beside it
    assert picture[299, 420].tolist() == pytest.approx(HEAT[0], abs=8)

    framed = np.asarray(draw_attention(GRAY, probabilities, query=(1, 2))).astype(int)
    rows, columns = np.nonzero((framed != picture).any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (100, 199, 200, 299)
    with pytest.raises(ConfigError, match=r"query: found \(1, 4\)"):
        draw_attention(GRAY, probabilities, query=(1, 4))


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_attention_that_is_none(value):
    with pytest.raises(ConfigError, match="probabilities: found values that are negative or not finite"):
        draw_attention(GRAY, np.array([[0.5, value]]))
    with pytest.raises(ShapeError, match=r"probabilities: found shape \(1, 2, 2\)"):
        draw_attention(GRAY, np.ones((1, 2, 2)))
    draw_attention(GRAY, np.zeros((2, 2)))


# --- matrices ---------------------------------------------------------------------------------------------------------


def test_cells_have_the_colors_of_their_numbers():
    """Corners of the cells, where no letters are."""
    picture = np.asarray(draw_matrix(np.array([[0.0, 2.0], [-2.0, 1.0], [np.inf, np.nan]]))).astype(int)
    cell = (picture.shape[1] - 8) // 2
    corners = np.array([[picture[4 + i * 30 + 4, 4 + j * cell + 4] for j in (0, 1)] for i in (0, 1, 2)])
    assert corners[0, 0].tolist() == [255, 255, 255]
    red, _, blue = np.moveaxis(corners, -1, 0)
    assert blue[0, 1] > red[0, 1] + 50
    assert blue[1, 1] > red[1, 1] + 20
    assert red[1, 0] > blue[1, 0] + 50
    assert corners[2].tolist() == [list(NOTHING)] * 2

    picture = np.asarray(draw_matrix(np.arange(40 * 40).reshape(40, 40))).astype(int)
    assert picture[6, 6].sum() > 700 > 300 > picture[-8, -8].sum()


def test_labels_of_a_matrix():
    plain, labeled = draw_matrix(np.eye(2)), draw_matrix(np.eye(2), labels=(["query 0", "query 1"], ["a", "b"]))
    assert labeled.width > plain.width + 40
    assert labeled.height > plain.height + 10
    assert draw_matrix(np.ones((16, 16), int)).size != draw_matrix(np.ones((17, 17), int)).size
    with pytest.raises(ConfigError, match=r"labels: found \(2, 1\) names, expected 2 for the rows and 2 for the col"):
        draw_matrix(np.eye(2), labels=(["a", "b"], ["c"]))
    for array in (np.ones(3), np.ones((2, 0)), np.array([["a"]]), np.ones((1, 5000))):
        with pytest.raises(ShapeError, match="array: found shape"):
            draw_matrix(array)


# --- learning curves --------------------------------------------------------------------------------------------------


def _log(epochs=10, steps=20):
    records = []
    for step in range(1, epochs * steps + 1):
        records.append(
            {
                "step": step,
                "epoch": step / steps,
                "loss": 2.0 - step / (epochs * steps),
                "accuracy": 0.25 + 0.5 * step / (epochs * steps),
                "learning_rate": 1e-3,
            }
        )
        if step % steps == 0:
            validation = {"epoch": step // steps, "step": step, "validation_loss": 1.0, "validation_accuracy": 0.6}
            records.append(validation)
    return records


def test_curves_go_where_the_numbers_say():
    picture = draw_learning_curve(_log())
    assert picture.size == (1000, 450)
    rows, columns = near(picture, TRAINING, 30)
    loss = (rows > TOP) & (columns < LEFTS[1] - 60)
    assert columns[loss].min() == pytest.approx(LEFTS[0], abs=3)
    assert columns[loss].max() == pytest.approx(LEFTS[0] + PANEL[1], abs=3)
    # from 2 to 1, which are the ends of the axis
    assert rows[loss].min() == pytest.approx(TOP, abs=6)
    assert rows[loss].max() == pytest.approx(TOP + PANEL[0], abs=6)
    rows, columns = near(picture, VALIDATION, 30)
    line = rows > TOP
    assert columns[line].min() == pytest.approx(LEFTS[1] + 0.1 * PANEL[1], abs=3)  # after the first epoch
    assert rows[line].mean() == pytest.approx(TOP + PANEL[0] * (80 - 60) / (80 - 20), abs=3)  # 60 % between 20 and 80


def test_masks_have_a_curve_of_their_own():
    losses = [{"epoch": epoch, "loss": 1.0} for epoch in (0, 10)]
    boxes = [{"epoch": epoch, "validation_AP": 0.8} for epoch in (5, 10)]
    with_masks = [{**record, "validation_mask_AP": 0.2} for record in boxes]
    rows, columns = near(draw_learning_curve([*losses, *with_masks]), MASKS, 30)
    line = rows > TOP
    assert columns[line].min() == pytest.approx(LEFTS[1] + 0.5 * PANEL[1], abs=3)
    assert rows[line].mean() == pytest.approx(TOP + PANEL[0], abs=6)  # at the lower end of the axis, from 20 to 80
    rows, _ = near(draw_learning_curve([*losses, *boxes]), MASKS, 30)
    assert not len(rows)


def test_logs_that_have_only_begun():
    empty_accuracy = [{"epoch": 1, "validation_accuracy": 0.5}]
    for records in (_log()[:1], _log()[:3], empty_accuracy, [*_log()[:3], {"loss": np.nan, "epoch": 1, "accuracy": 0}]):
        assert draw_learning_curve(records).size == (1000, 450)


@pytest.mark.parametrize("field", ["epoch", "loss", "accuracy"])
def test_logs_with_an_integer_beyond_every_float(field):
    record = {"loss": 1.0, "epoch": 1, "accuracy": 0.5}
    huge, infinite = ([*_log(), {**record, field: value}] for value in (10**400, np.inf))
    assert draw_learning_curve(huge) == draw_learning_curve(infinite)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "records: found none"),
        ([{"step": 3}], "records: found none"),
        ([{"loss": 1.0, "epoch": 0.1}], r"records\[0\]: accuracy: found None, expected a number"),
        ([{"step": 1}, {"loss": "low", "epoch": 0.1, "accuracy": 0.5}], r"records\[1\]: loss: found 'low'"),
        ([{"validation_accuracy": 0.5}], r"records\[0\]: epoch: found None"),
    ],
)
def test_logs_that_cannot_be_drawn(records, message):
    with pytest.raises(ConfigError, match=message):
        draw_learning_curve(records)


def test_running_mean():
    values = np.random.default_rng(0).normal(size=200)
    found = _running_mean(values)  # of up to 2 + 1 + 2
    np.testing.assert_allclose(found[100], values[98:103].mean())
    np.testing.assert_allclose(found[[0, -1]], [values[:3].mean(), values[-3:].mean()])


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.3, 2.71), (97.1, 97.9), (2.0, 2.0), (0, 0), (-3, 1e6)])
def test_ticks_are_few_and_round_and_hold_the_values(low, high):
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert len({round(b - a, 9) for a, b in pairwise(ticks)}) == 1
