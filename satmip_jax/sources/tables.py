"""Untrusted tables of metadata: CSV, JSON Lines and Parquet.

A row that cannot be parsed is counted and left out; a file that cannot be read is an error.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from satmip_jax.metadata.fields import FIELDS, field
from satmip_jax.sources.base import SourceError

Cell = str | int | float | bool | list[Any] | None

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
SPECIAL = ("path", "label", "split", "id")  # roles of a column besides the metadata fields
MAX_ROWS = 20_000_000
MAX_LINE = 1 << 20  # bytes of a header, or of a line of JSON
MAX_LIST = 16  # elements; the longest field has 3

# Default columns of each role and field: the first that the table has.
_USUAL: dict[str, tuple[tuple[str, ...], ...]] = {
    "path": (("path",), ("file_name",), ("filename",), ("file",), ("image",)),
    "label": (("label",),),
    "split": (("split",),),
    "location": (("location",), ("longitude", "latitude"), ("lon", "lat")),
    **{f.name: ((f.name,),) for f in FIELDS if f.name != "location"},
}

Columns = dict[str, tuple[str, ...]]  # our name -> the column, or one per component


def is_table(path: Path) -> bool:
    """Whether a file has the suffix of a table; CSV and JSON Lines may be gzipped (.gz).

    Example:
        >>> from satmip_jax.sources.tables import is_table
        >>> is_table(Path("metadata.csv.gz"))
        True
    """
    return _format(path) is not None


def columns(path: Path) -> list[str]:
    r"""Return the names of the columns in order; for JSON Lines, the keys of all lines.

    Raises:
        SourceError: The file cannot be read as a table.

    Example:
        >>> from satmip_jax.sources.tables import columns
        >>> _ = Path("metadata.csv").write_text("path;label\na.png;barn\n")
        >>> columns(Path("metadata.csv"))
        ['path', 'label']
    """
    kind = _format(path)
    if kind is None:
        raise SourceError(f"{path}: not a table: its name must end in {', '.join(SUFFIXES)}")
    with _readable(path):
        if kind == "csv":
            return next(_csv_reader(path), [])
        if kind == "parquet":
            with pa.parquet.ParquetFile(path) as file:
                return list(file.schema_arrow.names)
        return list(dict.fromkeys(key for row in _json_rows(path, Counter()) for key in row))


def rows(path: Path, selected: Sequence[str], skipped: Counter[str]) -> Iterator[dict[str, Cell]]:
    r"""Yield the rows of a table; missing cells are None.

    Args:
        path: CSV, whose cells are all read as text; JSON Lines; or Parquet.
        selected: Columns to read, all of them in `columns(path)`.
        skipped: Counts the rows that cannot be parsed, by reason.

    Raises:
        SourceError: The file cannot be read, or has too many rows.

    Example:
        >>> from collections import Counter
        >>> from satmip_jax.sources.tables import rows
        >>> _ = Path("metadata.csv").write_text("path,label\na.png,barn\nb.png\n")
        >>> skipped = Counter()
        >>> list(rows(Path("metadata.csv"), ["path", "label"], skipped))
        [{'path': 'a.png', 'label': 'barn'}]
        >>> skipped
        Counter({'row with too few or too many columns': 1})
    """
    selected = list(dict.fromkeys(selected))
    for name in selected:
        if _format(path) != "json" and columns(path).count(name) > 1:
            raise SourceError(f"{path} has several columns {name!r}: rename all but one")
    read = {"csv": _csv_rows, "json": _json_rows, "parquet": _parquet_rows}[_format(path) or "csv"]
    with _readable(path):
        for number, row in enumerate(read(path, skipped, selected)):
            if number >= MAX_ROWS:
                raise SourceError(f"{path}: more than {MAX_ROWS:,} rows: split the file")
            yield {name: _json_value(row.get(name)) for name in selected}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeError, csv.Error, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise SourceError(f"{path}: cannot be read as {_format(path)}: {reason}") from error


def _format(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz")
    kind = SUFFIXES.get(Path(name).suffix)
    return None if kind == "parquet" and path.suffix.lower() == ".gz" else kind


def _open(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file; one of more than `MAX_LINE` bytes comes in pieces."""
    with _open(path) as file:
        start = file.read(3)
        start = b"" if start == b"\xef\xbb\xbf" else start  # a byte order mark
        while line := start + file.readline(MAX_LINE):
            yield line.decode("utf-8", "replace")
            start = b""


def _csv_reader(path: Path) -> Any:
    """Return a reader whose delimiter is the most frequent of ",", ";" and tab in line one."""
    delimiter = max(",;\t", key=next(_lines(path), "").count)
    return csv.reader(_lines(path), delimiter=delimiter)


def _csv_rows(
    path: Path, skipped: Counter[str], selected: Sequence[str]
) -> Iterator[dict[str, object]]:
    # Not with pyarrow.csv, which guesses types (1 for an id of 001) and fails at rows with invalid
    # characters.
    reader = _csv_reader(path)
    header: list[str] = next(reader, [])
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:  # a cell of more than 128 KiB, or a stray carriage return
            row = []
            skipped["row that is not CSV"] += 1
        if row and len(row) != len(header):
            skipped["row with too few or too many columns"] += 1
        elif row:
            yield dict(zip(header, row, strict=True))


def _json_rows(
    path: Path, skipped: Counter[str], selected: Sequence[str] = ()
) -> Iterator[dict[str, object]]:
    # Line by line, not with pyarrow.json, which fails for one bad line or one value of another
    # type, and parses text that looks like a date as a date.
    with _open(path) as file:
        while line := file.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                skipped["row that is too long"] += 1
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE)
                continue
            if not line.strip():
                continue
            try:
                row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield row
            else:
                skipped["row that is not a JSON object on one line"] += 1


def _parquet_rows(
    path: Path, skipped: Counter[str], selected: Sequence[str]
) -> Iterator[dict[str, object]]:
    with pa.parquet.ParquetFile(path) as file:
        if file.metadata.num_rows > MAX_ROWS:
            raise SourceError(f"{path}: more than {MAX_ROWS:,} rows: split the file")
        for batch in file.iter_batches(batch_size=4096, columns=list(selected)):
            cells = [_cells(batch.column(name)) for name in selected]
            yield from (dict(zip(selected, row, strict=True)) for row in zip(*cells, strict=True))


def _cells(column: pa.Array) -> list[object]:
    if pa.types.is_timestamp(column.type):  # the resolution of Python's datetime
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):  # a date outside Python's range
        return [_cell(scalar) for scalar in column]


def _cell(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return "(unreadable)"


def _json_value(value: object) -> Cell:
    """Return a value that JSON can hold; missing values of all formats become None."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        # lone surrogates, which JSON allows, cannot be encoded
        return value.strip().encode("utf-8", "replace").decode("utf-8") or None
    if isinstance(value, float | Decimal):
        return float(value) if value == value else None  # NaN: missing, in pandas
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list) and len(value) <= MAX_LIST:
        return [_json_value(element) for element in value]
    return f"({type(value).__name__})"  # no field accepts it: counted as a wrong type


# --- roles of columns -----------------------------------------------------------------------------


def parse_columns(
    text: str | Mapping[str, str | Sequence[str]], header: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Parse "path=file,location=lon+lat".

    Args:
        text: The text, or a mapping of our names to columns.
        header: Columns of the table; one of their names may contain "+".

    Returns:
        Our name -> columns; () to ignore a column of that name.

    Raises:
        SourceError: The text cannot be parsed.

    Example:
        >>> from satmip_jax.sources.tables import parse_columns
        >>> parse_columns("path=file,location=lon+lat,gsd=")
        {'path': ('file',), 'location': ('lon', 'lat'), 'gsd': ()}
    """
    if isinstance(text, str):
        parts = [part.partition("=") for part in text.split(",") if part.strip()]
        for ours, equals, _ in parts:
            if not equals:
                raise SourceError(
                    f"--columns: cannot read {ours.strip()!r}: write field=column, as in path=file"
                )
        pairs = [(ours.strip(), theirs.strip()) for ours, _, theirs in parts]
        if len(dict(pairs)) < len(pairs):
            twice = Counter(ours for ours, _ in pairs).most_common(1)[0][0]
            raise SourceError(f"--columns: {twice!r} is given twice")
        text = dict(pairs)
    out: dict[str, tuple[str, ...]] = {}
    for ours, theirs in text.items():
        if not isinstance(theirs, str):
            out[ours] = tuple(theirs)
        elif theirs in header:  # a name that contains "+"
            out[ours] = (theirs,)
        else:
            out[ours] = tuple(name.strip() for name in theirs.split("+")) if theirs else ()
    return out


def match_columns(
    text: str | Mapping[str, str | Sequence[str]], header: Sequence[str], table: Path
) -> Columns:
    """Check the columns in `text`, and add those of the table that have our names.

    Args:
        text: See `parse_columns`.
        header: Columns of the table.
        table: Path of the table, for messages.

    Raises:
        SourceError: A column or field does not exist, a field has a wrong number of columns, or
            none holds the paths.

    Example:
        >>> from satmip_jax.sources.tables import match_columns
        >>> match_columns("path=file", ["file", "lon", "lat", "gsd"], Path("metadata.csv"))
        {'path': ('file',), 'location': ('lon', 'lat'), 'gsd': ('gsd',)}
    """
    names = parse_columns(text, header)
    for ours, theirs in names.items():
        size = 1
        if ours not in SPECIAL:
            try:
                size = field(ours).kind.components
            except ValueError as error:
                raise SourceError(f"--columns: {error}; also {', '.join(SPECIAL)}") from None
        for name in theirs:
            if name not in header:
                raise SourceError(
                    f"--columns: {table} has no column {name!r} for {ours}; "
                    f"it has {', '.join(header[:50]) or 'none'}"
                )
        if len(theirs) not in (0, 1, size):
            expected = f"1 column or {size}" if size > 1 else "1 column"
            raise SourceError(f"--columns: {ours} takes {expected}, not {len(theirs)}")
    for ours, choices in _USUAL.items():
        present = [columns for columns in choices if set(columns) <= set(header)]
        if ours not in names and present:
            names[ours] = present[0]
    if not names.get("path"):
        raise SourceError(
            f'{table}: no column of image paths: choose one with --columns "path=..."; '
            f"the table has {', '.join(header[:50]) or 'no columns'}"
        )
    return {ours: theirs for ours, theirs in names.items() if theirs}
