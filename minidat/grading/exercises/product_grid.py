"""Chapter 10: bilinear samples of a table on product grids, with hat matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ..exercise import Exercise, Function, Hints, Mistake, Numbers


def case(
    numbers: Numbers, *, table_rows: int, table_columns: int, keys: int, query_rows: int, query_columns: int
) -> dict[str, Any]:
    return {
        "table": numbers.normal(table_rows, table_columns),
        "rows": numbers.pixels(keys * query_rows, table_rows).reshape(keys, query_rows),
        "columns": numbers.pixels(keys * query_columns, table_columns).reshape(keys, query_columns),
    }


def reference(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return ops.sample_product_grid(table[None], rows[None, None], columns[None, None])[0][0, 0]


def distances(t: np.ndarray, size: int) -> np.ndarray:
    return np.abs(t[..., None] - np.arange(size))


def combine(row_weights: np.ndarray, table: np.ndarray, column_weights: np.ndarray) -> np.ndarray:
    """(K, Qy, R), (R, C), (K, Qx, C) -> (K, Qy, Qx)."""
    return np.einsum("kir,rc,kjc->kij", row_weights, table, column_weights)


def unclipped(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return combine(1 - distances(rows, len(table)), table, 1 - distances(columns, table.shape[1]))


def half_clipped(clipped: str) -> Callable[..., np.ndarray]:
    """max(0, ...) for "rows" or "columns" alone."""

    def result(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        row_hats, column_hats = 1 - distances(rows, len(table)), 1 - distances(columns, table.shape[1])
        if clipped == "rows":
            return combine(row_hats.clip(0), table, column_hats)
        return combine(row_hats, table, column_hats.clip(0))

    return result


def without_one_minus(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return combine(np.maximum(0, distances(rows, len(table))), table, np.maximum(0, distances(columns, table.shape[1])))


def nearest(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return combine(distances(rows, len(table)) < 0.5, table, distances(columns, table.shape[1]) < 0.5)


EXERCISE = Exercise(
    chapter="10-position-bias",
    functions=(
        Function(
            name="sample_product_grid",
            hints=Hints(
                where="For one key: how much does each of the R rows of the table count for the query in row i? That "
                "is a matrix of its own, and so is that of the columns.",
                idea="rows[..., None] - np.arange(R) has the distance of every row to every entry, (K, Qy, R). The sum "
                "is then a product of three matrices for each key; `@` treats the first axis, the keys, as separate "
                "problems. The max(0, ...) leaves two entries a row with a weight, and makes zeros outside.",
                formula="row_hats = np.maximum(0, 1 - np.abs(rows[..., None] - np.arange(R))), column_hats alike with "
                "C; then\n"
                "    output = row_hats @ table @ column_hats.swapaxes(1, 2)",
            ),
            sizes={
                "table_rows": (1, 2, 3), "table_columns": (1, 2, 3), "keys": (1, 2), "query_rows": (1, 2, 3),
                "query_columns": (1, 2, 3),
            },
            case=case,
            reference=reference,
            fixed=frozenset({"rows", "columns"}),
            mistakes=(
                Mistake(
                    "output", "max(0, ...) is missing: 1 - |t - r| becomes negative for all but the two nearest rows",
                    unclipped,
                ),
                Mistake(
                    "output", "max(0, ...) is missing in the row hats: 1 - |t - r| becomes negative for all but the "
                    "two nearest rows",
                    half_clipped("columns"),
                ),
                Mistake(
                    "output", "max(0, ...) is missing in the column hats: 1 - |t - c| becomes negative for all but the "
                    "two nearest columns",
                    half_clipped("rows"),
                ),
                Mistake("output", "the weights grow with the distance: it should be 1 - |t - r|", without_one_minus),
                Mistake(
                    "output", "rows and columns are swapped",
                    lambda table, rows, columns: reference(table, columns, rows),
                ),
                Mistake(
                    "output", "the table is transposed: its first axis belongs to the rows",
                    lambda table, rows, columns: reference(table.T, rows, columns),
                ),
                Mistake(
                    "output", "only the nearest entry of the table is read: two rows and two columns have a weight",
                    nearest,
                ),
            ),
        ),
    ),
)  # fmt: skip
