"""Untrusted tables of metadata: CSV, JSON Lines, JSON arrays, GeoJSON and Parquet.

A row that cannot be parsed is counted and left out; a file that cannot be read is an error.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from satmip_jax.sources import json_rows, text_encoding
from satmip_jax.sources.base import SourceError

Cell = str | int | float | bool | list[Any] | dict[str, Any] | None

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".geojson": "json",
    ".parquet": "parquet",
}
MAX_ROWS = 20_000_000
MAX_LINE = 1 << 20  # characters of the part of a line that is decoded at once
MAX_LIST = 16  # elements; the longest field has 3
_SEPARATOR = re.compile(r"sep=([,;\t|])\r?\n?", re.IGNORECASE)


def is_table(path: Path) -> bool:
    """Whether a file has the suffix of a table; CSV and JSON may be gzipped (.gz).

    Example:
        >>> from satmip_jax.sources.tables import is_table
        >>> is_table(Path("metadata.csv.gz"))
        True
    """
    return _format(path) is not None


def _format(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz")
    kind = SUFFIXES.get(Path(name).suffix)
    return None if kind == "parquet" and path.suffix.lower() == ".gz" else kind


class Table:
    r"""An untrusted table.

    Args:
        path: CSV, whose cells are all read as text; JSON Lines, a JSON array of objects, or
            GeoJSON; or Parquet.
        format: "csv", "json" or "parquet"; that of the path's suffix by default.
        pad_rows: Whether rows of a CSV that are too short end with missing cells, and cells beyond
            the last column are ignored. By default such rows are counted and left out.

    Attributes:
        header: Names of the columns in order; for JSON, the keys of all rows.
        delimiter: The delimiter of a CSV; "" otherwise.

    Raises:
        SourceError: The file cannot be read as a table.

    Example:
        >>> from collections import Counter
        >>> from satmip_jax.sources.tables import Table
        >>> _ = Path("metadata.csv").write_text("path,label\na.png,barn\nb.png\n")
        >>> table = Table(Path("metadata.csv"))
        >>> table.header
        ['path', 'label']
        >>> skipped = Counter()
        >>> list(table.rows(["path", "label"], skipped))
        [{'path': 'a.png', 'label': 'barn'}]
        >>> skipped
        Counter({'row with too few or too many columns': 1})
    """

    def __init__(self, path: Path, format: str | None = None, pad_rows: bool = False) -> None:
        self.path = path
        self.pad_rows = pad_rows
        self.format = format or _format(path) or ""
        self.delimiter = ""
        self._before_header = 0  # lines of a CSV
        self._newline = "\n"
        self.header: list[str]
        if not self.format:
            raise SourceError(f"{path}: not a table: its name must end in {', '.join(SUFFIXES)}")
        with self._readable():
            if self.format == "parquet":
                with pa.parquet.ParquetFile(path) as file:
                    self.header = list(file.schema_arrow.names)
            elif self.format == "json":
                with self._open() as text:
                    self.header = json_rows.names(text, self._layout)
            else:
                if line := self._encoding.damaged_line:
                    raise text_encoding.unknown_encoding(path, line)
                with self._open() as text:
                    first = text.readline(MAX_LINE)
                if "\0" in first:
                    raise SourceError(
                        f"{path}: not text but binary: export the table as CSV in UTF-8"
                    )
                if "\r" in first and not first.endswith("\n"):  # of Mac OS 9, and Excel for it
                    self._newline = "\r"
                    first = first.partition("\r")[0]
                # the one that Excel's first line "sep=;" names, or the most frequent in line one
                declared = _SEPARATOR.fullmatch(first)
                self._before_header = 1 if declared else 0
                self.delimiter = declared[1] if declared else max(",;\t", key=first.count)
                with self._open() as text:
                    self.header = next(self._csv_reader(text), [])

    def rows(self, selected: Sequence[str], skipped: Counter[str]) -> Iterator[dict[str, Cell]]:
        """Yield the rows; missing cells are None, those that JSON cannot hold are {}.

        Args:
            selected: Columns to read, all of them in `header`.
            skipped: Counts the rows that cannot be parsed, by reason.

        Raises:
            SourceError: The file cannot be read, has too many rows, or two columns of one name.
        """
        selected = list(dict.fromkeys(selected))
        for name in selected:
            if self.format != "json" and self.header.count(name) > 1:
                raise SourceError(f"{self.path} has several columns {name!r}: rename all but one")
        read = {"csv": self._csv_rows, "json": self._json_rows, "parquet": self._parquet_rows}
        with self._readable():
            for number, row in enumerate(read[self.format](selected, skipped)):
                if number >= MAX_ROWS:
                    raise SourceError(f"{self.path}: more than {MAX_ROWS:,} rows: split the file")
                yield {name: _cell(row.get(name)) for name in selected}

    @property
    def notice(self) -> str:
        """A sentence for users about the encoding; "" if there is nothing to say."""
        return "" if self.format == "parquet" else self._encoding.notice

    @cached_property
    def _encoding(self) -> text_encoding.Encoding:
        return text_encoding.detect(self.path)

    @cached_property
    def _layout(self) -> json_rows.Layout:
        with self._open() as file:
            return json_rows.find_layout(file)

    def _open(self) -> IO[str]:
        return text_encoding.open_text(self.path, self._encoding, self._newline)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (
            *(pa.ArrowException, OSError, EOFError, csv.Error, ValueError),
            RecursionError,  # JSON that is nested too deeply
        ) as error:
            if isinstance(error, SourceError):
                raise
            reason = str(error).partition("\n")[0][:200] or type(error).__name__
            raise SourceError(f"{self.path}: cannot be read as {self.format}: {reason}") from error

    def _csv_reader(self, file: IO[str]) -> Any:
        """Return a reader; a line of more than `MAX_LINE` characters comes in pieces."""
        for _ in range(self._before_header):
            file.readline(MAX_LINE)
        return csv.reader(iter(lambda: file.readline(MAX_LINE), ""), delimiter=self.delimiter)

    def _csv_rows(
        self, selected: Sequence[str], skipped: Counter[str]
    ) -> Iterator[dict[str, object]]:
        # Not with pyarrow.csv, which guesses types (1 for an id of 001).
        with self._open() as file:
            reader = self._csv_reader(file)
            header: list[str] = next(reader, [])
            while True:
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error:  # a cell of more than 128 KiB, or a stray carriage return
                    row = []
                    skipped["row that is not CSV"] += 1
                if row and len(row) != len(header) and not self.pad_rows:
                    skipped["row with too few or too many columns"] += 1
                elif row:
                    yield dict(zip(header, row, strict=not self.pad_rows))

    def _json_rows(
        self, selected: Sequence[str], skipped: Counter[str]
    ) -> Iterator[dict[str, object]]:
        with self._open() as file:
            yield from json_rows.read_rows(file, self._layout, skipped)

    def _parquet_rows(
        self, selected: Sequence[str], skipped: Counter[str]
    ) -> Iterator[dict[str, object]]:
        with pa.parquet.ParquetFile(self.path) as file:
            if file.metadata.num_rows > MAX_ROWS:
                raise SourceError(f"{self.path}: more than {MAX_ROWS:,} rows: split the file")
            for batch in file.iter_batches(batch_size=4096, columns=list(selected)):
                cells = [_python_values(batch.column(name)) for name in selected]
                for row in zip(*cells, strict=True):
                    yield dict(zip(selected, row, strict=True))


def _python_values(column: pa.Array) -> list[object]:
    if pa.types.is_timestamp(column.type):  # the resolution of Python's datetime
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):  # a date outside Python's range
        return [_python_value(scalar) for scalar in column]


def _python_value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return {}


def _cell(value: object) -> Cell:
    """Return a value that JSON can hold; missing values of all formats become None.

    What cannot be used becomes {}, a wrong type for labels and all fields.
    """
    if type(value) is str and value.isascii():  # nearly all of them
        return value.strip() or None
    try:
        if isinstance(value, bytes):
            value = value.decode("utf-8")
        if isinstance(value, str):
            value.encode("utf-8")  # fails for lone surrogates, which JSON allows
            return value.strip() or None
    except UnicodeError:
        return {}
    if isinstance(value, float | Decimal):
        return float(value) if value == value else None  # NaN: missing, in pandas
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list) and len(value) <= MAX_LIST:
        # no field is a list of lists: a nested one is wrong, however deep it is
        return [{} if isinstance(element, list) else _cell(element) for element in value]
    return {}
