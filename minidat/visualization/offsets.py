"""How much of the offsets depends on the picture: what a figure of sampling points shows, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ConfigError, ShapeError
from ..nn import AttentionRecord


@dataclass(frozen=True)
class OffsetShares:
    """The squared length of a block's offsets in three parts, shares in [0, 1] that add up to 1.

    constant: what one vector for each group explains, the same at all points of all pictures; place: what a vector for
    each point of each group explains beyond that, the same for all pictures; content: the rest, which depends on the
    picture. groups: (groups, 3), the same three of each group by itself, NaN where its offsets are 0. mean:
    (groups, 2), the constant vectors, (y, x) in tokens of the map; length: the offsets' root mean square, in tokens.
    """

    constant: float
    place: float
    content: float
    groups: np.ndarray
    mean: np.ndarray
    length: float


def offset_shares(records: Sequence[AttentionRecord]) -> OffsetShares:
    """How much of a block's offsets is the same for all pictures, and how much depends on each.

    With o the offset of a point, in tokens, m its mean over pictures and points of a group, and p its mean over
    pictures alone, sum o^2 = sum m^2 + sum (p - m)^2 + sum (o - p)^2: constant, place and content, divided by sum o^2.
    Of N pictures the means are estimates, which take about 1/N of the content's part to that of the place.

    records: what one deformable block left in the traces of runs on maps of one size, of one picture or many. Raises
    ConfigError for no records, and if all offsets are 0; ShapeError for maps or grids of several sizes.
    """
    offsets = _all_offsets(records)  # (N, groups, Hk, Wk, 2)
    mean = offsets.mean(axis=(0, 2, 3), keepdims=True)  # (1, groups, 1, 1, 2)
    at_point = offsets.mean(axis=0, keepdims=True)  # (1, groups, Hk, Wk, 2)
    parts = (mean, at_point - mean, offsets - at_point)
    squares = np.array([(np.broadcast_to(part, offsets.shape) ** 2).sum(axis=(0, 2, 3, 4)) for part in parts])
    totals = squares.sum(axis=0)  # (groups,)
    if totals.sum() == 0:
        raise ConfigError("records: found offsets that are all 0, expected some that are not")
    constant, place, content = (squares.sum(axis=1) / totals.sum()).tolist()
    groups = np.divide(squares, totals, out=np.full_like(squares, np.nan), where=totals > 0).T
    length = float((totals.sum() / (offsets.size / 2)) ** 0.5)
    return OffsetShares(constant, place, content, groups, mean[0, :, 0, 0], length)


def without_mean_offset(record: AttentionRecord, records: Sequence[AttentionRecord] | None = None) -> AttentionRecord:
    """The record with the mean offset of each group subtracted from its points, for pictures of what is left.

    records: whose offsets to take the means of, over all pictures and points, such as a data set's; None: those of
    `record` itself. The attention stays what it was. Raises ShapeError for maps or grids of several sizes.
    """
    mean = _all_offsets(records or [record]).mean(axis=(0, 2, 3)) / _tokens_per_unit(record)  # (groups, 2)
    return replace(record, positions=record.positions - mean[:, None, None].astype(record.positions.dtype))


def _all_offsets(records: Sequence[AttentionRecord]) -> np.ndarray:
    """Offsets in tokens of the map, (N, groups, Hk, Wk, 2), of the pictures of all records together."""
    if not records:
        raise ConfigError("records: found none, expected at least one")
    first = records[0]
    for record in records[1:]:
        if (record.map_size, record.positions.shape[1:]) != (first.map_size, first.positions.shape[1:]):
            raise ShapeError(
                f"records: found maps of {first.map_size} and {record.map_size} with positions of "
                f"{first.positions.shape[1:]} and {record.positions.shape[1:]}, expected one size"
            )
    offsets = np.concatenate([record.positions - record.reference for record in records]).astype(np.float64)
    return offsets * _tokens_per_unit(first)


def _tokens_per_unit(record: AttentionRecord) -> np.ndarray:
    """(2,): how many tokens the map has in a step of 1 of normalized coordinates (corners aligned)."""
    return np.maximum(np.array(record.map_size) - 1, 1) / 2
