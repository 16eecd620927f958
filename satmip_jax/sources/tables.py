"""Tables of metadata: CSV, JSON Lines and Parquet, read as strangers' files.

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
SPECIAL = ("path", "label", "split", "id")  # what a column can be, besides a field
MAX_ROWS = 20_000_000
MAX_LINE = 1 << 20  # bytes of a header, or of a line of JSON
MAX_LIST = 16  # elements; our longest field has 3

# Taken where `columns` does not say otherwise; the first that the table has.
_USUAL: dict[str, tuple[tuple[str, ...], ...]] = {
    "path": (("path",), ("file_name",), ("filename",), ("file",), ("image",)),
    "label": (("label",),),
    "split": (("split",),),
    "location": (("location",), ("longitude", "latitude"), ("lon", "lat")),
    **{f.name: ((f.name,),) for f in FIELDS if f.name != "location"},
}

Columns = dict[str, tuple[str, ...]]  # our name -> the column, or one for each component


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table; CSV and JSON Lines may be gzipped (.gz)."""
    return _format(path) is not None


def columns(path: Path) -> list[str]:
    """Names of the columns in order; of JSON Lines, the keys of all lines.

    Raises:
      SourceError: The file cannot be read as a table.
    """
    kind = _format(path)
    if kind is None:
        raise SourceError(f"{path}: not a table: its name should end in {', '.join(SUFFIXES)}")
    with _readable(path):
        if kind == "csv":
            return next(_csv_reader(path), [])
        if kind == "parquet":
            with pa.parquet.ParquetFile(path) as file:
                return list(file.schema_arrow.names)
        return list(dict.fromkeys(key for row in _json_rows(path, Counter()) for key in row))


def rows(path: Path, wanted: Sequence[str], skipped: Counter[str]) -> Iterator[dict[str, Cell]]:
    """Reads the rows of a table; what a cell lacks or cannot say is None.

    Args:
      path: CSV, whose cells all come as text; JSON Lines; or Parquet.
      wanted: Columns to read, all of them among `columns(path)`.
      skipped: Counts, by reason, the rows that cannot be parsed.

    Raises:
      SourceError: The file cannot be read, or is too long.
    """
    wanted = list(dict.fromkeys(wanted))
    for name in wanted:
        if _format(path) != "json" and columns(path).count(name) > 1:
            raise SourceError(f"{path} has several columns {name!r}: rename all but one")
    read = {"csv": _csv_rows, "json": _json_rows, "parquet": _parquet_rows}[_format(path) or "csv"]
    with _readable(path):
        for number, row in enumerate(read(path, skipped, wanted)):
            if number >= MAX_ROWS:
                raise SourceError(f"{path}: more than {MAX_ROWS:,} rows: cut it into several")
            yield {name: _plain(row.get(name)) for name in wanted}


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
    """Lines of a text file; one of more than `MAX_LINE` bytes comes in pieces."""
    with _open(path) as file:
        start = file.read(3)
        start = b"" if start == b"\xef\xbb\xbf" else start  # a byte order mark
        while line := start + file.readline(MAX_LINE):
            yield line.decode("utf-8", "replace")
            start = b""


def _csv_reader(path: Path) -> Any:
    """A reader, with the commonest of the usual characters between the columns of line one."""
    delimiter = max(",;\t", key=next(_lines(path), "").count)
    return csv.reader(_lines(path), delimiter=delimiter)


def _csv_rows(
    path: Path, skipped: Counter[str], wanted: Sequence[str]
) -> Iterator[dict[str, object]]:
    # Not with pyarrow.csv, which guesses types (1 for an id of 001), and neither counts nor
    # survives rows with broken characters.
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
    path: Path, skipped: Counter[str], wanted: Sequence[str] = ()
) -> Iterator[dict[str, object]]:
    # Line by line rather than with pyarrow.json, which gives up a whole file for one bad line or
    # one value of another type, and reads text that looks like a date as a date.
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
    path: Path, skipped: Counter[str], wanted: Sequence[str]
) -> Iterator[dict[str, object]]:
    with pa.parquet.ParquetFile(path) as file:
        if file.metadata.num_rows > MAX_ROWS:
            raise SourceError(f"{path}: more than {MAX_ROWS:,} rows: cut it into several")
        for batch in file.iter_batches(batch_size=4096, columns=list(wanted)):
            cells = [_cells(batch.column(name)) for name in wanted]
            yield from (dict(zip(wanted, row, strict=True)) for row in zip(*cells, strict=True))


def _cells(column: pa.Array) -> list[object]:
    if pa.types.is_timestamp(column.type):  # python's times end at microseconds
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):  # a date that python does not have
        return [_cell(scalar) for scalar in column]


def _cell(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return "(unreadable)"


def _plain(value: object) -> Cell:
    """A value that JSON can hold; the missing values of other formats become None."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        # lone surrogates, which JSON can write, cannot be encoded again
        return value.strip().encode("utf-8", "replace").decode("utf-8") or None
    if isinstance(value, float | Decimal):
        return float(value) if value == value else None  # NaN: how pandas writes "missing"
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list) and len(value) <= MAX_LIST:
        return [_plain(element) for element in value]
    return f"({type(value).__name__})"  # no field takes it: to be counted as of a wrong type


# --- which column holds what ----------------------------------------------------------------------


def parse_columns(
    given: str | Mapping[str, str | Sequence[str]], there: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Reads "path=file,location=lon+lat": our name -> columns, () where it is left out on purpose.

    Raises:
      SourceError: It cannot be read.
    """
    if isinstance(given, str):
        pairs = [part.partition("=") for part in given.split(",") if part.strip()]
        for ours, equals, _ in pairs:
            if not equals:
                raise SourceError(
                    f"--columns: cannot read {ours.strip()!r}: write field=column, as in path=file"
                )
        named = [(ours.strip(), theirs.strip()) for ours, _, theirs in pairs]
        if len(dict(named)) < len(named):
            twice = Counter(ours for ours, _ in named).most_common(1)[0][0]
            raise SourceError(f"--columns: {twice!r} is given twice")
        given = dict(named)
    out: dict[str, tuple[str, ...]] = {}
    for ours, theirs in given.items():
        if not isinstance(theirs, str):
            out[ours] = tuple(theirs)
        elif theirs in there:  # a name with a "+" in it
            out[ours] = (theirs,)
        else:
            out[ours] = tuple(name.strip() for name in theirs.split("+")) if theirs else ()
    return out


def match(
    given: str | Mapping[str, str | Sequence[str]], there: Sequence[str], table: Path
) -> Columns:
    """Checks the columns asked for, and adds those that have our names.

    Args:
      given: See `parse_columns`.
      there: The table's columns.
      table: Its path, for messages.

    Raises:
      SourceError: A column or field does not exist, there are too many or too few for a field, or
        none holds the paths.
    """
    named = parse_columns(given, there)
    for ours, theirs in named.items():
        size = 1
        if ours not in SPECIAL:
            try:
                size = field(ours).kind.components
            except ValueError as error:
                raise SourceError(f"--columns: {error}; also {', '.join(SPECIAL)}") from None
        for name in theirs:
            if name not in there:
                raise SourceError(
                    f"--columns: {table} has no column {name!r} for {ours}; "
                    f"it has {', '.join(there[:50]) or 'none'}"
                )
        if len(theirs) not in (0, 1, size):
            wants = f"1 column or {size}" if size > 1 else "1 column"
            raise SourceError(f"--columns: {ours} takes {wants}, not {len(theirs)}")
    for ours, choices in _USUAL.items():
        fitting = [names for names in choices if set(names) <= set(there)]
        if ours not in named and fitting:
            named[ours] = fitting[0]
    if not named.get("path"):
        raise SourceError(
            f'{table}: which column holds the image\'s path? Say so with --columns "path=..."; '
            f"it has {', '.join(there[:50]) or 'none'}"
        )
    return {ours: theirs for ours, theirs in named.items() if theirs}
