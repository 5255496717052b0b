"""Cells of the tables that evaluations print."""

from __future__ import annotations

from ..errors import printable

LONGEST_LABEL = 30  # characters in a table


def counted(number: int, noun: str) -> str:
    """How many there are: "1 image", "1,024 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(label: str) -> str:
    """A label that fits in a table, and that a terminal can show."""
    label = printable(label)
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 3] + "..."
