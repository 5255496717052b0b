"""How much of the offsets depends on the picture: offsets made of known parts, and what cannot be measured."""

import numpy as np
import pytest

from minidat.errors import ConfigError, ShapeError
from minidat.nn import AttentionRecord
from minidat.visualization import offset_shares, without_mean_offset

MAP = (5, 9)  # so that a step of 1 is 2 tokens down, 4 tokens across


def record(offsets):
    """offsets: (B, groups, Hk, Wk, 2), in tokens."""
    batch, groups, *grid, _ = offsets.shape
    lines = [np.linspace(-0.5, 0.5, n) for n in grid]
    reference = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
    attention = np.full((batch, groups, grid[0] * grid[1], MAP[0] * MAP[1]), 1 / (grid[0] * grid[1]))
    return AttentionRecord(reference + offsets / [2, 4], reference, attention, MAP)


def parts():
    """What is the same at all points, at each point of all pictures, and what is left: they add up to offsets."""
    rng = np.random.default_rng(0)
    constant = rng.standard_normal((1, 3, 1, 1, 2))
    place = rng.standard_normal((1, 3, 2, 4, 2))
    content = rng.standard_normal((5, 3, 2, 4, 2))
    place -= place.mean(axis=(2, 3), keepdims=True)
    content -= content.mean(axis=0, keepdims=True)
    return constant, place, content


def test_offsets_made_of_three_parts():
    constant, place, content = parts()
    offsets = constant + place + content
    squares = [5 * 8 * (constant**2).sum(), 5 * (place**2).sum(), (content**2).sum()]
    one_batch = offset_shares([record(offsets)])
    one_by_one = offset_shares([record(offsets[i : i + 1]) for i in range(5)])
    for shares in (one_batch, one_by_one):
        np.testing.assert_allclose(
            [shares.constant, shares.place, shares.content], np.array(squares) / sum(squares), rtol=1e-12
        )
        np.testing.assert_allclose(shares.mean, constant[0, :, 0, 0], rtol=1e-12)
        for group in range(3):
            alone = offset_shares([record(offsets[:, group : group + 1])])
            expected = [alone.constant, alone.place, alone.content]
            np.testing.assert_allclose(shares.groups[group], expected, rtol=1e-12)
        assert shares.length == pytest.approx(np.sqrt((offsets**2).sum(axis=-1).mean()), rel=1e-12)


@pytest.mark.parametrize("kept", range(3))
def test_one_part_alone_is_all_there_is(kept):
    shares = offset_shares([record(parts()[kept] + np.zeros((5, 3, 2, 4, 2)))])
    np.testing.assert_allclose([shares.constant, shares.place, shares.content], np.eye(3)[kept], atol=1e-12)


def test_a_group_without_offsets_has_no_shares():
    offsets = sum(parts()) * np.array([1, 0, 1]).reshape(3, 1, 1, 1)
    shares = offset_shares([record(offsets)])
    np.testing.assert_array_equal(np.isnan(shares.groups), [[False] * 3, [True] * 3, [False] * 3])


def test_of_one_picture_nothing_is_content():
    shares = offset_shares([record(sum(parts())[:1])])
    assert shares.content == pytest.approx(0, abs=1e-12)
    assert shares.constant + shares.place == pytest.approx(1, rel=1e-12)


def test_the_mean_offset_is_taken_off():
    constant, place, content = parts()
    whole = record(constant + place + content)
    rest = without_mean_offset(whole)
    np.testing.assert_allclose(rest.positions, record(place + content).positions, rtol=1e-12)
    assert rest.attention is whole.attention
    # of other pictures
    rest = without_mean_offset(whole, [record(np.ones((2, 3, 2, 4, 2)))])
    np.testing.assert_allclose(rest.positions, record(constant + place + content - 1).positions, rtol=1e-12)

    still = record(np.zeros((1, 1, 2, 2, 2)))
    np.testing.assert_array_equal(without_mean_offset(still).positions, still.positions)


def test_positions_keep_their_dtype():
    whole = record(sum(parts()))
    single = AttentionRecord(
        whole.positions.astype(np.float32), whole.reference.astype(np.float32), whole.attention, whole.map_size
    )
    assert without_mean_offset(single).positions.dtype == np.float32
    assert offset_shares([single]).content == pytest.approx(offset_shares([whole]).content, rel=1e-5)


def test_a_map_of_one_token():
    """It has no room for offsets in tokens; they are told as they are in normalized coordinates, halved."""
    offsets = np.full((1, 1, 1, 1, 2), 0.6)
    single = AttentionRecord(offsets, np.zeros((1, 1, 2)), np.ones((1, 1, 1, 1)), (1, 1))
    shares = offset_shares([single])
    assert (shares.constant, shares.length) == (1, pytest.approx(0.3 * 2**0.5))


def test_what_cannot_be_measured():
    whole = record(sum(parts()))
    with pytest.raises(ConfigError, match="records: found none, expected at least one"):
        offset_shares([])
    with pytest.raises(ConfigError, match="offsets that are all 0, expected some that are not"):
        offset_shares([record(np.zeros((1, 1, 2, 2, 2)))])
    with pytest.raises(ShapeError, match=r"\(3, 2, 4, 2\) and \(3, 2, 3, 2\), expected one size"):
        offset_shares([whole, record(np.ones((1, 3, 2, 3, 2)))])
    with pytest.raises(ShapeError, match=r"maps of \(5, 9\) and \(5, 8\)"):
        offset_shares([whole, AttentionRecord(whole.positions, whole.reference, whole.attention, (5, 8))])
