"""Cells of the tables that evaluations print."""

from __future__ import annotations

from ..errors import printable

LONGEST_LABEL = 30  # characters in a table


def shortened(label: str) -> str:
    """A label that fits in a table, and that a terminal can show."""
    label = printable(label)
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 3] + "..."
