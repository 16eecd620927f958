"""Writer of the file of embeddings: one GeoParquet file with metadata and vectors.

A row is an image or a tile of one. Columns, in this order:

    id          unique text: the path, with "#x,y" for a tile
    path        the file as a user opens it; a member of a zip is "archive.zip/member"
    x, y, width, height   the tile in pixels of the file; null for a whole image
    label       name of the class; null where there is none
    geometry    WKB in longitude and latitude (OGC:CRS84): a footprint, else the location; or null
    (fields)    one column per metadata field that a row has, named as in `metadata.fields`
    image       vector of the image encoder, float32
    metadata    vector of the metadata encoder, float32; null where no field is known, and absent
                if the model has none

Vectors are stored uncompressed: they do not shrink, and their size is known before they are read.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from satmip_jax.metadata.fields import FIELDS, Field
from satmip_jax.metadata.kinds import Timestamp, Value
from satmip_jax.runtime.files import atomic_path

FORMAT = 1
INFO_KEY = b"satmip"  # of the description in the file's metadata
ROWS = 16_384  # of a row group: what a reader decodes at once

FIXED = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("path", pa.string(), nullable=False),
    *(pa.field(name, pa.int32()) for name in ("x", "y", "width", "height")),
    pa.field("label", pa.string()),
    pa.field("geometry", pa.binary()),
)
VECTORS = ("image", "metadata")


@dataclass(frozen=True)
class Row:
    """One image or tile, without its vectors.

    Attributes:
        id: unique in the file.
        path: file of the image.
        window: x, y, width and height of a tile, in pixels of the file.
        label: name of its class.
        geometry: WKB, see `geometry`.
        values: values of its metadata, as in `Metadata.values`.
    """

    id: str
    path: str
    window: Sequence[int] | None = None
    label: str | None = None
    geometry: bytes | None = None
    values: Mapping[str, Value] = field(default_factory=dict)


def to_table(
    rows: Sequence[Row],
    images: Float32[np.ndarray, "n d"],
    metadata: Float32[np.ndarray, "n m"] | None = None,
) -> pa.Table:
    """Return rows with their vectors, with a column for each of `FIELDS`.

    Args:
        rows: n rows.
        images: their features of the image encoder.
        metadata: of the metadata encoder, rows of NaN where there are none; None without encoder.

    Example:
        >>> from satmip_jax.inference.embed.writer import Row, to_table
        >>> table = to_table([Row("a.jpg", "a.jpg")], np.zeros((1, 4), np.float32))
        >>> table.num_rows, str(table.schema.field("image").type)
        (1, 'fixed_size_list<item: float>[4]')
    """
    windows = [row.window or (None,) * 4 for row in rows]
    columns: list[list[Any]] = [
        [row.id for row in rows],
        [row.path for row in rows],
        *([window[i] for window in windows] for i in range(4)),
        [row.label for row in rows],
        [row.geometry for row in rows],
    ]
    arrays = [pa.array(column, f.type) for column, f in zip(columns, FIXED, strict=True)]
    for f in FIELDS:
        values = [_cell(f, row.values.get(f.name)) for row in rows]
        arrays.append(pa.array(values, field_type(f)))
    vectors = {"image": images} | ({} if metadata is None else {"metadata": metadata})
    arrays += [_vector_array(x) for x in vectors.values()]
    fields = [*FIXED, *(pa.field(f.name, field_type(f)) for f in FIELDS)]
    fields += [
        pa.field(name, array.type, nullable=name != "image")
        for name, array in zip(vectors, arrays[len(fields) :], strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def write_table(
    path: str | os.PathLike[str],
    tables: Iterable[pa.Table],
    info: Mapping[str, Any],
    *,
    geometry_types: Iterable[str] = (),
) -> int:
    """Write a file of embeddings, at once or not at all.

    Args:
        path: the file.
        tables: of `to_table`, all of the same model; at least one. Fields that the first one lacks
            are left out: drop those that no row has.
        info: the description, see `EmbeddingTable.info`, without "format".
        geometry_types: types that occur, such as "Point"; unknown by default.

    Returns:
        The number of rows.

    Raises:
        OSError: the file cannot be written, for example on a full disk.

    Example:
        >>> from satmip_jax.inference.embed.writer import Row, to_table, write_table
        >>> table = to_table([Row("a.jpg", "a.jpg")], np.zeros((1, 4), np.float32))
        >>> info = dict(version="1", model="m", step=None, parameters="", image_size=64, fields=[])
        >>> write_table("a.parquet", [table], info | {"rendering": {}, "inputs": {}})
        1
    """
    remaining = iter(tables)
    first = next(remaining)
    description = json.dumps({"format": FORMAT, **info}, allow_nan=False)
    # without "crs" coordinates are in OGC:CRS84
    column = {"encoding": "WKB", "geometry_types": sorted(geometry_types)}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    schema = first.schema.with_metadata({"geo": json.dumps(geo), INFO_KEY: description})
    count = 0
    with atomic_path(path, durable=True) as temporary, open_writer(temporary, schema) as writer:
        for table in itertools.chain([first], remaining):
            count += table.num_rows
            writer.write_table(table.select(schema.names).cast(schema), ROWS)
    return count


@contextmanager
def open_writer(path: str | os.PathLike[str], schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of a Parquet file whose vectors are uncompressed.

    Args:
        path: the file.
        schema: of the tables of `to_table`.
    """
    leaves = [
        f"{f.name}.list.element" if pa.types.is_nested(f.type) else f.name
        for f in schema
        if f.name not in VECTORS
    ]
    with (
        open(path, "wb") as file,
        pq.ParquetWriter(
            file, schema, use_dictionary=leaves, compression=dict.fromkeys(leaves, "zstd")
        ) as writer,
    ):
        yield writer


def field_type(f: Field) -> pa.DataType:
    """Return the type of the column of a field."""
    if f.kind.has_vocabulary:
        return pa.string()
    if isinstance(f.kind, Timestamp):
        return pa.timestamp("us", "UTC")
    return pa.float64() if f.kind.components == 1 else pa.list_(pa.float64())


def _cell(f: Field, value: Value | None) -> object:
    return value[0] if isinstance(value, tuple) and f.kind.components == 1 else value


def _vector_array(x: np.ndarray) -> pa.Array:
    """Return rows as fixed-size lists; rows of NaN become null."""
    x = np.ascontiguousarray(x, np.float32)
    missing = np.isnan(x).all(axis=1)
    values = pa.array(x.reshape(-1))
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(values, x.shape[1], mask=mask)
