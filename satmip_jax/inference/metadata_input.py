"""Metadata as people have them (records, dictionaries, tables) to the arrays of the encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from satmip_jax.evaluation.model import Model
from satmip_jax.inference.image_input import InputProblem
from satmip_jax.metadata import caption, tabular
from satmip_jax.metadata.fields import Field
from satmip_jax.metadata.record import Metadata, Problems

# Methods by which pandas, polars and pyarrow return a table as a list of dictionaries.
_ROWS = {"to_dicts": (), "to_pylist": (), "to_dict": ("records",)}


def as_rows(records: Any) -> list[Any]:
    """Return records as a list: one record, a table, or any iterable of records.

    Cells of a table that are NaN, NaT or NA are missing.

    Args:
        records: `Metadata`, mappings from field names to values, or a table of pandas, polars or
            pyarrow with a column per field.

    Example:
        >>> from satmip_jax.inference.metadata_input import as_rows
        >>> as_rows({"gsd": 0.5})
        [{'gsd': 0.5}]
    """
    if isinstance(records, Metadata | Mapping | str | bytes):
        return [records]
    for method, arguments in _ROWS.items():
        if hasattr(records, method):
            rows = getattr(records, method)(*arguments)
            return [
                {name: value for name, value in row.items() if not _is_missing(value)}
                for row in rows
            ]
    return list(records)


def _is_missing(value: Any) -> bool:
    is_nan = isinstance(value, float | np.floating) and bool(np.isnan(value))
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def parse_rows(
    rows: Sequence[Any], field_problems: Problems
) -> tuple[list[Metadata], list[InputProblem]]:
    """Parse records; one that is no record becomes a problem and an empty record.

    Args:
        rows: see `as_rows`.
        field_problems: counts the values of fields that cannot be used.
    """
    records, problems = [], []
    for index, row in enumerate(rows):
        if isinstance(row, Metadata):
            records.append(row)
        elif isinstance(row, Mapping):
            records.append(Metadata.parse(row, field_problems))
        else:
            reason = f"is a {type(row).__name__}: expected a mapping from fields to values"
            problems.append(InputProblem(index, f"record {index}", reason))
            records.append(Metadata({}))
    return records, problems


def encode_records(
    records: Sequence[Metadata],
    sizes: Sequence[tuple[int, int]] | None,
    model: Model,
    fields: Sequence[Field],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the arrays of the metadata encoder, and which records have a field that it takes in.

    Args:
        records: of images of `sizes`.
        sizes: width and height of the images; None if they are squares of the size of the
            model's stored images.
        model: its schema has the vocabularies.
        fields: shown to the encoder; the others are missing to it, and so is what its training
            never saw.
    """
    stored = model.schema.image_size
    if sizes is not None:
        records = [
            record.crop_resize((0, 0, *size), size, stored)
            for record, size in zip(records, sizes, strict=True)
        ]
    arrays = tabular.encode(records, model.schema)
    if model.config.metadata.encoder == "text":
        arrays["caption"] = caption.fragments(records)
    seen = model.schema.seen_fields(model.config.metadata.fields)
    arrays = tabular.only(arrays, [field for field in fields if field in seen])
    column = tabular.field_index()
    chosen = [column[field.name] for field in seen]
    present: np.ndarray = arrays["present"][:, chosen]
    return arrays, np.asarray(present.any(axis=1))
