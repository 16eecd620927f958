"""Reader of the file of embeddings, which may be untrusted; `writer` has its columns."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from satmip_jax.data.remote_cache import mirror
from satmip_jax.errors import SatmipError
from satmip_jax.inference.embed.writer import (
    FIXED,
    FORMAT,
    INFO_KEY,
    ROWS,
    VECTORS,
    field_type,
)
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import AnyPath, as_path, file_size, is_remote
from satmip_jax.runtime.stores import check_access

MAX_WIDTH = 1 << 16  # numbers of a vector
MAX_INFO = 4 << 20  # bytes of the description
MAX_GROUP = 8 << 30  # bytes of a row group
_ROWS_AT_ONCE = 1024  # decoded to look some up
_NULL_SHARE = 16  # metadata vectors, most of them null, are at most this times the file

_INFO = {  # keys of the description and their types
    "version": str,
    "model": str,
    "step": int | None,
    "parameters": str,
    "image_size": int,
    "fields": list,
    "rendering": dict,
    "inputs": dict,
}


class EmbeddingTableError(SatmipError, ValueError):
    """A file that holds no embeddings, or is damaged; the message names it."""


class EmbeddingTable:
    """A file of embeddings, which may be untrusted: sizes are checked before memory is allocated.

    Attributes:
        path: the file.
        local: where it is read: the file, or the copy in the cache of one in a bucket.
        count: number of rows.
        info: how the vectors were made. "version" of satmip_jax, name of the "model", its "step"
            or None, a fingerprint of its "parameters", side of the squares ("image_size"), names of
            the metadata "fields" shown to it, "rendering" (bands and scale), and "inputs": counts
            of what was left out, by reason.
        image_width: numbers of an image vector.
        metadata_width: numbers of a metadata vector; None if there are none.
        fields: names of the metadata fields with a column.
    """

    def __init__(self, path: AnyPath, local: AnyPath, file: pq.ParquetFile) -> None:
        self.path, self.local, self._file = path, local, file
        schema = file.schema_arrow
        self.count: int = file.metadata.num_rows
        self.info = _read_info(path, file.metadata.metadata or {})
        self.image_width = schema.field("image").type.list_size
        self.metadata_width: int | None = (
            schema.field("metadata").type.list_size if "metadata" in schema.names else None
        )
        self.fields = tuple(f.name for f in FIELDS if f.name in schema.names)
        groups = range(file.metadata.num_row_groups)
        lengths = [file.metadata.row_group(i).num_rows for i in groups]
        self._starts = np.cumsum([0, *lengths])

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, copy: bool = True) -> EmbeddingTable:
        """Open a file written by `satmip embed`.

        Args:
            path: of the file, on a disk or in a bucket.
            copy: copy one in a bucket to the cache, see `data.remote_cache`. Otherwise it is read
                through the network, which suits its description only.

        Raises:
            EmbeddingTableError: it is no such file, or it is damaged.
            OSError: it cannot be read, or it is in a bucket that cannot be accessed.

        Example:
            >>> from satmip_jax.inference.embed.table import EmbeddingTable
            >>> from satmip_jax.inference.embed.writer import Row, to_table, write_table
            >>> table = to_table([Row("a", "a.jpg", label="barn")], np.ones((1, 4), np.float32))
            >>> info = dict(version="1", model="m", step=9, parameters="", image_size=64, fields=[])
            >>> _ = write_table("b.parquet", [table], info | {"rendering": {}, "inputs": {}})
            >>> embeddings = EmbeddingTable.open("b.parquet")
            >>> embeddings.count, embeddings.info["step"], embeddings.images().shape
            (1, 9, (1, 4))
            >>> embeddings.rows([0])[0]["label"]
            'barn'
        """
        path = as_path(path)
        check_access(path)
        local = path
        if is_remote(path) and copy:
            local = mirror(path.parent, [path.name], b"embeddings") / path.name
        with stores.store_errors(path):
            with local.open("rb") as data:
                start = data.read(4)
            if start != b"PAR1":
                raise EmbeddingTableError(f"{path} is no Parquet file: give one of `satmip embed`")
            with _damage_explained(path):
                file = pq.ParquetFile(
                    local.open("rb") if is_remote(local) else local,
                    thrift_string_size_limit=8 * MAX_INFO,
                    thrift_container_size_limit=1_000_000,
                )
                _check(path, file_size(local), file)
                return cls(path, local, file)

    def images(self) -> Float32[np.ndarray, "n d"]:
        """Return all image vectors."""
        return self._read("image", self.image_width)

    def metadata(self) -> Float32[np.ndarray, "n m"]:
        """Return all metadata vectors, rows of NaN where a record has none.

        Raises:
            EmbeddingTableError: the model has no metadata encoder.
        """
        if self.metadata_width is None:
            raise EmbeddingTableError(
                f"{self.path}: no metadata vectors, because {self.info['model']} does not embed "
                "metadata"
            )
        return self._read("metadata", self.metadata_width)

    def batches(self, column: str) -> Iterator[tuple[int, Float32[np.ndarray, "k _"]]]:
        """Yield a column of vectors piece by piece, each with the number of its first row.

        Args:
            column: "image" or "metadata".
        """
        width = self.image_width if column == "image" else self.metadata_width
        if column not in VECTORS or width is None:
            raise EmbeddingTableError(f"{self.path}: no column of vectors {column!r}")
        start = 0
        with _damage_explained(self.path):
            for batch in self._file.iter_batches(ROWS, columns=[column]):
                array = batch.column(0)
                values = array.values.slice(array.offset * width, len(array) * width)
                part = values.to_numpy(zero_copy_only=False).reshape(-1, width)
                if array.null_count:
                    part = np.where(array.is_valid().to_numpy(False)[:, None], part, np.nan)
                yield start, np.asarray(part, np.float32)
                start += len(array)

    @property
    def row_schema(self) -> pa.Schema:
        """Types of the columns but the vectors, with the metadata of GeoParquet."""
        schema = self._file.schema_arrow
        kept = [f for f in schema if f.name not in VECTORS]
        geo = {b"geo": text} if (text := (schema.metadata or {}).get(b"geo")) else None
        return pa.schema(kept, geo)

    def vectors(self, column: str, indices: Iterable[int]) -> Float32[np.ndarray, "k _"]:
        """Return some vectors of a column, in the order given; the file is read up to the last.

        Args:
            column: "image" or "metadata".
            indices: numbers of rows from 0.

        Raises:
            IndexError: there is no such row.
        """
        wanted = self._numbers(indices)
        found: np.ndarray | None = None
        for start, part in self.batches(column):
            here = (wanted >= start) & (wanted < start + len(part))
            found = np.zeros((len(wanted), part.shape[1]), np.float32) if found is None else found
            found[here] = part[wanted[here] - start]
            if start + len(part) > wanted.max(initial=-1):
                return found
        if len(wanted):
            raise EmbeddingTableError(f"{self.path} is damaged: no vector of row {wanted.max()}")
        width = self.image_width if column == "image" else self.metadata_width or 0
        return np.zeros((0, width), np.float32)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column other than the vectors, such as "id" or the name of a field."""
        if name in VECTORS or name not in self._file.schema_arrow.names:
            raise EmbeddingTableError(f"{self.path}: no column {name!r} other than the vectors")
        with _damage_explained(self.path):
            return self._file.read(columns=[name]).column(0)

    def rows(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """Return some rows as dictionaries of all columns but the vectors, in the order given.

        Args:
            indices: numbers of rows from 0.

        Raises:
            IndexError: there is no such row.
        """
        wanted = self._numbers(indices).tolist()
        names = [name for name in self._file.schema_arrow.names if name not in VECTORS]
        found: dict[int, dict[str, Any]] = {}
        ordered = np.unique(np.asarray(wanted, np.int64))
        groups = np.searchsorted(self._starts, ordered, side="right") - 1
        with _damage_explained(self.path):
            for group in np.unique(groups):
                start = int(self._starts[group])
                batches = self._file.iter_batches(
                    _ROWS_AT_ONCE, row_groups=[int(group)], columns=names
                )
                for batch in batches:
                    end = start + batch.num_rows
                    here = ordered[(ordered >= start) & (ordered < end)]
                    found.update(
                        zip(here.tolist(), batch.take(here - start).to_pylist(), strict=True)
                    )
                    start = end
        if missing := set(wanted) - set(found):
            raise EmbeddingTableError(f"{self.path} is damaged: it has no row {min(missing)}")
        return [found[index] for index in wanted]

    def _numbers(self, indices: Iterable[int]) -> np.ndarray:
        wanted = [int(index) for index in indices]
        if bad := [index for index in wanted if not 0 <= index < self.count]:
            raise IndexError(f"no row {bad[0]} of {self.count:,} in {self.path}")
        return np.asarray(wanted, np.int64)

    def _read(self, column: str, width: int) -> np.ndarray:
        rows = np.empty((self.count, width), np.float32)
        end = 0
        for start, part in self.batches(column):
            end = start + len(part)
            rows[start:end] = part
        if end != self.count:
            raise EmbeddingTableError(f"{self.path} is damaged: {end} of {self.count} vectors")
        return rows


@contextmanager
def _damage_explained(path: AnyPath) -> Iterator[None]:
    try:
        yield
    except (EmbeddingTableError, MemoryError):
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # not of pyarrow
        reason = " ".join(str(error).split())[:120]
        raise EmbeddingTableError(
            f"{path} is damaged: write it again by `satmip embed` ({reason})"
        ) from error


def _check(path: AnyPath, size: int, file: pq.ParquetFile) -> None:
    """Raise `EmbeddingTableError` for a file of other columns, or of impossible sizes."""
    schema, metadata = file.schema_arrow, file.metadata
    expected = {f.name: f.type for f in FIXED} | {f.name: field_type(f) for f in FIELDS}
    names = schema.names
    missing = [f.name for f in (*FIXED, pa.field("image", pa.null())) if f.name not in names]
    if missing or len(set(names)) < len(names):
        problem = f"no column {missing[0]!r}" if missing else "two columns of one name"
        raise EmbeddingTableError(f"{path} has {problem}: give a file of `satmip embed`")
    for f in schema:
        if f.name in VECTORS:
            fits = pa.types.is_fixed_size_list(f.type) and f.type.value_type == pa.float32()
            fits = fits and 0 < f.type.list_size <= MAX_WIDTH
        else:
            fits = f.name in expected and f.type.equals(expected[f.name])
        if not fits:
            raise EmbeddingTableError(
                f"{path}: the column {f.name[:40]!r} is {str(f.type)[:40]}, which `satmip embed` "
                "does not write"
            )
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise EmbeddingTableError(f"{path} is damaged: its row groups have other numbers of rows")
    for f in schema:
        share = {"image": 1, "metadata": _NULL_SHARE}.get(f.name)  # image vectors are never null
        if share and not 0 <= 4 * f.type.list_size * metadata.num_rows <= share * size:
            raise EmbeddingTableError(
                f"{path} is damaged: it is too short for {metadata.num_rows:,} vectors"
            )
    for group in groups:
        # not the sum over its columns: pyarrow ends the process for some damaged ones
        if not 0 <= group.total_byte_size <= MAX_GROUP:
            raise EmbeddingTableError(
                f"{path}: a row group takes {group.total_byte_size:,} bytes, more than the limit "
                f"of {MAX_GROUP:,}"
            )


def _read_info(path: AnyPath, metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return the description of a file."""
    text = metadata.get(INFO_KEY, b"")
    if not text or len(text) > MAX_INFO:
        raise EmbeddingTableError(f"{path} has no description: give a file of `satmip embed`")
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        found = info.get("format") if isinstance(info, dict) else None
        raise EmbeddingTableError(
            f"{path} is of format {found!r:.40}: this version reads {FORMAT}, write it again by "
            "`satmip embed`"
        )
    for key, kind in _INFO.items():
        if not isinstance(info.get(key), kind) or (kind is not dict and info.get(key) is True):
            raise EmbeddingTableError(f"{path}: {key} of its description is {info.get(key)!r:.40}")
    if not all(isinstance(name, str) for name in info["fields"]):
        raise EmbeddingTableError(f"{path}: fields of its description are no names")
    return info
