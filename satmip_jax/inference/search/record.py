"""The metadata that `=` terms describe, as records for the metadata encoder.

What a term leaves open is taken from the file: `month=7` is July of the years, days and hours that
its rows state, `latitude=60` is that parallel at the longitudes of its rows. The records of several
rows stand for the description together, by the mean of their directions in the joint space. Fields
without a term are missing to the encoder, as in training with missing fields.
"""

from __future__ import annotations

import calendar
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from jaxtyping import Bool

from satmip_jax.inference.embed.table import EmbeddingTable
from satmip_jax.inference.search.query import QueryError, Term
from satmip_jax.inference.search.row_filter import numbers
from satmip_jax.metadata.kinds.location import wrap_longitude

DONORS = 32  # rows that complete a description

Described = dict[str, dict[str, Any]]  # field -> name of a term -> its value


def split(terms: Sequence[Term], fields: Collection[str]) -> tuple[list[Term], list[Term]]:
    """Return the terms that describe what is sought, and those that filter rows.

    Args:
        terms: of a query.
        fields: that the model takes in. `=` terms on others filter, like `==`.
    """
    sought = [term for term in terms if term.operator == "=" and term.field in fields]
    return sought, [term for term in terms if term not in sought]


def describe(terms: Sequence[Term]) -> Described:
    """Return the described fields.

    Args:
        terms: `=` terms.

    Raises:
        QueryError: two terms describe the same.

    Example:
        >>> from satmip_jax.inference.search.query import parse
        >>> from satmip_jax.inference.search.record import describe
        >>> describe(parse(["month=7 hour=10 gsd=10"]))
        {'timestamp': {'month': 7.0, 'hour': 10.0}, 'gsd': {'gsd': (10.0, 10.0)}}
    """
    described: Described = {}
    for term in terms:
        given = described.setdefault(term.field, {})
        if given and (term.name in given or term.field in (term.name, *given)):
            raise QueryError(f"{term}: {term.field} is described twice")
        given[term.name] = term.value
    return described


def records(
    described: Described, table: EmbeddingTable, rows: Bool[np.ndarray, " n"]
) -> list[dict[str, Any]]:
    """Return records for `EmbeddingModel.embed_metadata`: one, or `DONORS` if something is open.

    Args:
        described: of `describe`.
        table: file of n rows.
        rows: those that may complete the description.

    Raises:
        QueryError: no such row states a field that has to be completed.

    Example:
        >>> from satmip_jax.inference.embed.table import EmbeddingTable
        >>> from satmip_jax.inference.search.record import records
        >>> table = EmbeddingTable.open(embeddings_file)
        >>> found = records({"location": {"latitude": 60.0}}, table, np.ones(table.count, bool))
        >>> len(found), {record["location"][1] for record in found}
        (23, {60.0})
    """
    whole = {name: given[name] for name, given in described.items() if name in given}
    parts = {name: given for name, given in described.items() if name not in given}
    if "location" in parts and len(parts["location"]) == 2:
        given = parts.pop("location")
        whole["location"] = wrap_longitude(given["longitude"]), given["latitude"]
    if not parts:
        return [whole]
    for name, given in parts.items():
        if name not in table.fields:
            rows = np.zeros(table.count, bool)
        else:
            column = table.column(name)
            usable = column.is_valid().to_numpy()
            if name == "location":
                usable = np.isfinite(numbers(column, 2)).all(axis=1)
            rows = rows & usable
        if not rows.any():
            example = {"location": "location=12.5,41.9", "timestamp": "timestamp=2018-07-15T10:30"}
            raise QueryError(
                f"{' '.join(given)} describes only a part of the {name}, and no row of "
                f"{table.path} states one to complete it: give all of it, such as {example[name]}"
            )
    able = np.flatnonzero(rows)
    chosen = able[np.unique(np.linspace(0, len(able) - 1, min(DONORS, len(able))).astype(int))]
    return [
        whole | {name: _completed(row[name], given) for name, given in parts.items()}
        for row in table.rows(chosen)
    ]


def _completed(value: Any, given: dict[str, float]) -> Any:
    """Return the value of a row with the parts that are given."""
    if not isinstance(value, datetime):
        longitude, latitude = value
        longitude, latitude = given.get("longitude", longitude), given.get("latitude", latitude)
        return wrap_longitude(longitude), latitude
    year, month = (int(given.get(part, getattr(value, part))) for part in ("year", "month"))
    day = int(given.get("day", value.day))
    moment = value.replace(
        year=year, month=month, day=min(day, calendar.monthrange(year, month)[1])
    )
    if "hour" not in given:
        return moment
    second = min(round(3600 * given["hour"]), 86_399)  # an hour of 24 ends the day
    return moment.replace(
        hour=second // 3600, minute=second // 60 % 60, second=second % 60, microsecond=0
    )
