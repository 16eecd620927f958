"""Results of a search: a table on the terminal, JSON, CSV and Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from satmip_jax.inference.search.query import QueryError
from satmip_jax.inference.search.run import Hit, Results
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.runtime.files import atomic_path, write_atomically
from satmip_jax.runtime.paths import AnyPath, as_path

MAX_FIELDS = 3  # in the table, beside location and time
MAX_TEXT = 80  # characters of a cell
# the others follow in their own order
FIRST = ("country_code", "sensor_platform", "gsd", "cloud_cover", "sun_elevation_angle")
SCORES = ("score", "image", "metadata")


def print_results(results: Results, console: Console | None = None) -> None:
    """Print what was searched, and a table of the rows that were found.

    Args:
        results: of `search`.
        console: to print on; the terminal by default.
    """
    console = console or Console()
    console.print(summary(results), markup=False, highlight=False, soft_wrap=True)
    if not results.hits:
        return
    hits = results.hits
    scores = [name for name in SCORES if _score(hits[0], name) is not None]
    scores = scores if len(scores) == len(SCORES) else ["score"]  # else it is the only cosine
    columns = {"rank": [str(hit.rank) for hit in hits]}
    columns |= {name: [f"{_score(hit, name):.3f}" for hit in hits] for name in scores}
    columns["id"] = [plain(hit.values["id"], 400) for hit in hits]
    columns["label"] = [plain(hit.values["label"]) for hit in hits]
    columns["location"] = [place(hit.values) for hit in hits]
    columns["time"] = [text(hit.values.get("timestamp")) for hit in hits]
    names = other_fields(results)
    columns |= {name: [text(hit.values.get(name)) for hit in hits] for name in names}
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    if not console.is_terminal:  # a log: lines of any length
        console.width = max(console.width, _width(columns))
    for name in reversed(names):  # ids matter more
        if _width(columns) > console.width:
            columns.pop(name)
    rest = {name: cells for name, cells in columns.items() if name != "id"}
    width = max(console.width - _width(rest) - _BORDER, _MIN_ID)
    columns["id"] = [_broken(name, width) for name in columns["id"]]
    table = Table()
    for name in columns:
        number = name in ("rank", *scores)
        table.add_column(
            _heading(name), justify="right" if number else "left", no_wrap=number or name == "id"
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(escape, cells))
    console.print(table)


_BORDER = 3  # columns of the terminal between two cells
_MIN_ID = 16
_UNITS = {"gsd": "m", "cloud_cover": "%", "off_nadir_angle": "degrees"}


def _heading(name: str) -> str:
    return name.replace("_", " ") + (f" ({_UNITS[name]})" if name in _UNITS else "")


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    """Return the width of a table without line breaks."""
    longest = [max(map(cell_len, (_heading(name), *cells))) for name, cells in columns.items()]
    return sum(longest) + _BORDER * len(longest) + 1


def _broken(name: str, width: int) -> str:
    """Return an id in lines of at most a width, broken at slashes where possible."""
    lines = [""]
    for part in re.findall("[^/]*/?", name):
        lines += [""] * (cell_len(lines[-1] + part) > width and lines[-1] != "")
        *full, last = chop_cells(part, width) or [""]
        lines[-1:] = [lines[-1] + full[0], *full[1:], last] if full else [lines[-1] + last]
    return "\n".join(lines)


def summary(results: Results) -> str:
    """Return in words what ranks the rows, what filtered them, and how many were left out."""
    by = []
    if given := len(results.images) + len(results.rows):
        by.append(f"similarity to {given} image{'s' if given > 1 else ''}")
    if results.sought:
        by.append(f"fit to {' '.join(map(str, results.sought))}")
        if not results.filters:
            filters = " and ".join(term.as_filter() for term in results.sought)
            by[-1] += f" (= describes; {filters} would filter)"
    lines = [f"{results.table.count:,} rows, ranked by {' and '.join(by)}"]
    if results.filters:
        lacking = ", ".join(
            f"{term} ({n:,} do not state it)" for term, n in results.filters.items()
        )
        lines.append(f"{results.passed:,} rows pass {lacking}")
    if results.unusable:
        lines.append(f"{results.unusable:,} rows have vectors that are not finite: left out")
    if not results.hits:
        lines.append("nothing found")
    return plain("; ".join(lines), 2000)


def write_results(results: Results, path: str | os.PathLike[str]) -> None:
    """Write the rows that were found to a file, in the format of its suffix.

    Args:
        results: of `search`.
        path: on a disk or in a bucket, ending in .json, .csv, or .parquet (GeoParquet with the
            columns of the embeddings file but the vectors).

    Raises:
        QueryError: another suffix.
        OSError: the file cannot be written.

    Example:
        >>> from satmip_jax.inference.search.run import search
        >>> from satmip_jax.inference.search.output import write_results
        >>> write_results(search(embeddings_file, ids=["scene-3"], count=2), "hits.csv")
        >>> Path("hits.csv").read_text().splitlines()[0]
        'rank,score,image,metadata,id,path,x,y,width,height,label,longitude,latitude,...'
    """
    write_of_suffix(path)(results, as_path(path))


def write_of_suffix(path: str | os.PathLike[str]) -> Callable[[Results, AnyPath], object]:
    """Return the function that writes results to a path; see `write_results`."""
    writers = {".json": _write_json, ".csv": _write_csv, ".parquet": _write_parquet}
    if (suffix := as_path(path).suffix.lower()) not in writers:
        raise QueryError(f"{path}: expected a file that ends in {', '.join(writers)}")
    return writers[suffix]


def to_json(results: Results) -> str:
    """Return the results as a JSON object: what was searched, and "hits"."""
    found = {
        "embeddings": str(results.table.path),
        "model": results.table.info["model"],
        "rows": results.table.count,
        "ranked_by": {
            "images": [str(image) for image in results.images],
            "ids": [row["id"] for row in results.rows],
            "metadata": [str(term) for term in results.sought],
        },
        "filters": [{"term": term, "lacking": n} for term, n in results.filters.items()],
        "passed": results.passed,
        "unusable": results.unusable,
        "hits": [
            {"rank": hit.rank, **{name: _score(hit, name) for name in SCORES}}
            | {name: _jsonable(value) for name, value in hit.values.items() if name != "geometry"}
            for hit in results.hits
        ],
    }
    return json.dumps(found, indent=1)


def _write_json(results: Results, path: AnyPath) -> None:
    write_atomically(path, to_json(results) + "\n")


def _write_csv(results: Results, path: AnyPath) -> None:
    fields = [name for name in results.table.fields if name != "location"]
    names = ("id", "path", "x", "y", "width", "height", "label")
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["rank", *SCORES, *names, "longitude", "latitude", *fields])
    for hit in results.hits:
        longitude, latitude = hit.values.get("location") or (None, None)
        values = [_jsonable(hit.values[name]) for name in (*names, *fields)]
        cells = [" ".join(map(str, v)) if isinstance(v, list) else v for v in values]
        cells[len(names) : len(names)] = [longitude, latitude]
        writer.writerow([hit.rank, *(_score(hit, name) for name in SCORES), *cells])
    write_atomically(path, file.getvalue())


def _write_parquet(results: Results, path: AnyPath) -> None:
    schema = results.table.row_schema
    columns: dict[str, pa.Array] = {
        "rank": pa.array([hit.rank for hit in results.hits], pa.int32())
    }
    for name in SCORES:
        scores = [_score(hit, name) for hit in results.hits]
        # "image" and "metadata" are vectors in the file of embeddings
        column = name if name == "score" else f"{name}_cosine"
        columns[column] = pa.array(scores, pa.float64())
    columns |= {f.name: pa.array([h.values[f.name] for h in results.hits], f.type) for f in schema}
    table = pa.table(columns).replace_schema_metadata(schema.metadata)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


# --- values as text -------------------------------------------------------------------------------


def other_fields(results: Results) -> list[str]:
    """Return names of a few fields that a row states, beside location and time."""
    order = [*FIRST, *(f.name for f in FIELDS if f.name not in FIRST)]
    stated = [
        name
        for name in order
        if name not in ("location", "timestamp", "pixel_size")  # nobody reads degrees per pixel
        and any(hit.values.get(name) is not None for hit in results.hits)
    ]
    return stated[:MAX_FIELDS]


def place(values: Mapping[str, Any]) -> str:
    """Return the location of a row as people write it; "" if it is unknown.

    Example:
        >>> from satmip_jax.inference.search.output import place
        >>> place({"location": [-58.38, -34.6]})
        '34.6000° S, 58.3800° W'
    """
    location = values.get("location")
    if not isinstance(location, list) or len(location) != 2:
        return ""
    longitude, latitude = location
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.4f}° {north}, {abs(longitude):.4f}° {east}"


def text(value: Any) -> str:
    """Return a value of a field as a short text; "" for None.

    Example:
        >>> from satmip_jax.inference.search.output import text
        >>> text([0.5, 0.25]), text(0.51234567)
        ('0.5, 0.25', '0.5123')
    """
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return plain(", ".join(map(text, dict.fromkeys(value))))
    return plain(str(value))


def plain(value: str | None, limit: int = MAX_TEXT) -> str:
    """Return untrusted text without control characters, and not too long."""
    shown = "".join(c if c.isprintable() else "?" for c in (value or "")[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def _score(hit: Hit, name: str) -> float | None:
    score: float | None = getattr(hit, name)
    return score


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value if value == value else None  # NaN
