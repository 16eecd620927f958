"""Conditions on what the rows of a file of embeddings state.

A row that lacks a field does not pass any condition on it, `!=` included; such rows are counted.
Numbers are equal if they are as float32, and of a field of several numbers each has to pass (for
`!=`, one). A date without a time is its midnight in UTC.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from satmip_jax.inference.embed.table import EmbeddingTable
from satmip_jax.inference.search.query import LABEL, PARTS, QueryError, Term
from satmip_jax.metadata.fields import field

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COMPARE: dict[str, Any] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def passing_rows(
    table: EmbeddingTable, terms: Sequence[Term]
) -> tuple[Bool[np.ndarray, " n"], dict[str, int]]:
    """Return which rows pass all terms, and how many lack the field of each.

    Args:
        table: file of n rows.
        terms: conditions; `=` counts as `==`.

    Raises:
        QueryError: no row of the file states a field.
        EmbeddingTableError: the file is damaged.

    Example:
        >>> from satmip_jax.inference.embed.table import EmbeddingTable
        >>> from satmip_jax.inference.search.row_filter import passing_rows
        >>> from satmip_jax.inference.search.query import parse
        >>> table = EmbeddingTable.open(embeddings_file)
        >>> mask, lacking = passing_rows(table, parse(["latitude>60"]))
        >>> mask.shape, lacking
        ((24,), {'latitude>60': 1})
    """
    mask, lacking = np.ones(table.count, bool), {}
    for term in terms:
        passes = known = np.zeros(table.count, bool)
        if term.field in (*table.fields, LABEL):
            passes, known = _test(table.column(term.field), term)
        if not known.any():
            names = [name for name in (*table.fields, LABEL) if name != term.field]
            raise QueryError(
                f"{term}: no row of {table.path} states {term.field}; it has {', '.join(names)}"
            )
        mask &= passes & known
        lacking[str(term)] = int(table.count - known.sum())
    return mask, lacking


def _test(column: pa.ChunkedArray, term: Term) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows pass a term, bool (n,), and which state its field, bool (n,)."""
    known = column.is_valid().to_numpy()
    if pa.types.is_string(column.type):
        same = pc.fill_null(pc.equal(column, str(term.value)), False).to_numpy()
        return (same if term.operator != "!=" else ~same), known
    if term.name in PARTS:
        values = part_values(column, term.name)[:, None]
    elif pa.types.is_timestamp(column.type):
        values = _microseconds(column)[:, None]
    else:
        values = numbers(column, field(term.field).kind.components)
    known = known & np.isfinite(values).all(axis=1)
    if term.operator in _COMPARE:
        wanted: Any = term.value
        wanted = _epoch(wanted) if isinstance(wanted, datetime) else wanted
        return _COMPARE[term.operator](values, wanted).all(axis=1), known
    if isinstance(term.value, datetime):
        same = values[:, 0] == _epoch(term.value)
    else:
        wanted = np.asarray(term.value, np.float32).reshape(-1)
        same = (values.astype(np.float32) == wanted).all(axis=1)
    return (same if term.operator != "!=" else ~same), known


def part_values(column: pa.ChunkedArray, part: str) -> np.ndarray:
    """Return a part of a field for each row, float64 (n,), NaN where it is missing.

    Args:
        column: of the field.
        part: one of `PARTS`; of an hour, minutes and seconds are its fraction.
    """
    if part in ("longitude", "latitude"):
        return numbers(column, 2)[:, int(part == "latitude")]
    naive = column.cast(pa.timestamp("us"))
    if part != "hour":
        return _to_floats(getattr(pc, part)(naive))
    hour, minute, second = (_to_floats(f(naive)) for f in (pc.hour, pc.minute, pc.second))
    return hour + minute / 60 + second / 3600


def numbers(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """Return the `size` numbers of a field for each row, float64, NaN where it is missing."""
    if not pa.types.is_list(column.type):
        return _to_floats(column)[:, None]
    lengths = _to_floats(pc.list_value_length(column))
    rows = np.full((len(column), size), np.nan)
    # rows of another length, which `satmip embed` does not write, count as missing
    complete = column.filter(pa.array(lengths == size))
    rows[lengths == size] = _to_floats(pc.list_flatten(complete)).reshape(-1, size)
    return rows


def _to_floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    # exact: microseconds of the years 1957 to 2100 are below 2**53
    return _to_floats(column.cast(pa.int64()))


def _epoch(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
