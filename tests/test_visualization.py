"""Pictures of sampling points: dots and marks lie where the numbers say."""

import numpy as np
import pytest

from minidat.errors import ConfigError
from minidat.nn import AttentionRecord
from minidat.visualization import GROUP_COLORS, draw_sampling_points


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
def test_a_point_is_drawn_at_the_centre_of_its_cell(position, expected):
    """Corners are aligned: -1 and 1 are the centres of the first and last cell of the map."""
    picture = np.asarray(draw_sampling_points(np.zeros((100, 200, 3), np.uint8), _record(position, position), side=400))
    assert picture.shape == (200, 400, 3)
    y, x = np.nonzero((np.abs(picture.astype(int) - GROUP_COLORS[0]) < 40).all(axis=2))
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
