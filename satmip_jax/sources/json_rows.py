"""Rows of untrusted JSON: JSON Lines, an array of objects, or a GeoJSON FeatureCollection.

Arrays are read element by element, so that memory is bounded whatever their length.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any, Literal

MAX_LINE = 1 << 20  # characters of a line, or of an element of an array
MAX_NAMES = 10_000  # different keys in all rows
_CHUNK = 1 << 16
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_FEATURES = re.compile(r'"type"\s*:\s*"FeatureCollection"|"features"\s*:\s*\[')
_DEGREES = re.compile(r"CRS:?84|EPSG:+4326|WGS ?84", re.IGNORECASE)

Layout = Literal["lines", "array", "features"]


def read_rows(file: IO[str], layout: Layout, skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file.

    The properties of a GeoJSON feature are the columns, beside its `id` and `geometry`: the
    longitude and latitude of a point, None without a geometry, {} for any other geometry.

    Args:
        file: Open text file, from its beginning.
        layout: See `find_layout`.
        skipped: Counts what is not an object, by reason.

    Raises:
        ValueError: An array is not valid JSON, or GeoJSON is not in degrees.
    """
    if layout == "lines":
        yield from _lines(file, skipped)
        return
    stream = _Stream(file)
    for row in _features(stream) if layout == "features" else _elements(stream):
        if not isinstance(row, dict):
            skipped["element that is not a JSON object"] += 1
        else:
            yield _properties(row) if layout == "features" else row
    if stream.peek():
        raise ValueError("text after the end of the JSON")


def find_layout(file: IO[str]) -> Layout:
    """Return the layout of an open JSON file from its first lines."""
    head = file.read(MAX_LINE + 1).lstrip()
    first, _, rest = head.partition("\n")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):  # an array or object of several lines, or a bad line
        if head.startswith("["):
            return "array"
        return "features" if head.startswith("{") and _FEATURES.search(head) else "lines"
    if rest.strip():
        return "lines"
    if isinstance(value, list):
        return "array"
    is_geojson = isinstance(value, dict) and value.get("type") == "FeatureCollection"
    return "features" if is_geojson and isinstance(value.get("features"), list) else "lines"


def names(file: IO[str], layout: Layout) -> list[str]:
    """Return the keys of all rows, in the order of their appearance.

    Raises:
        ValueError: See `read_rows`; there are more than `MAX_NAMES`; or one object holds all rows.
    """
    found: dict[str, None] = {}
    nested: list[bool] = []  # for each row, whether all its values are lists or objects
    for row in read_rows(file, layout, Counter()):
        if len(nested) < 2:
            nested.append(all(isinstance(value, dict | list) for value in row.values()))
        found.update(dict.fromkeys(row))
        if len(found) > MAX_NAMES:
            raise ValueError(f"more than {MAX_NAMES:,} columns")
    if layout == "lines" and found and nested == [True]:
        raise ValueError(
            "one object for the whole table: write one object per row, with pandas by "
            'to_json(path, orient="records", lines=True)'
        )
    return list(found)


def _lines(file: IO[str], skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    # Line by line, not with pyarrow.json, which fails for one bad line or one value of another
    # type, and parses text that looks like a date as a date.
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            skipped["row that is too long"] += 1
            while line and not line.endswith("\n"):
                line = file.readline(MAX_LINE)
            continue
        if not line.strip():
            continue
        try:
            line.encode("utf-8")  # fails for damaged bytes
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield row
        else:
            skipped["row that is not a JSON object on one line"] += 1


# --- arrays ---------------------------------------------------------------------------------------


class _Stream:
    """JSON values one after the other, in bounded memory."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.text = ""
        self.at = 0

    def more(self) -> bool:
        """Read on; return False at the end of the file."""
        chunk = self.file.read(_CHUNK)
        chunk.encode("utf-8")  # fails for damaged bytes
        self.text, self.at = self.text[self.at :] + chunk, 0
        return bool(chunk)

    def peek(self) -> str:
        """Return the next character that is not white space; "" at the end of the file."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, characters: str) -> str:
        """Return the next character, which must be one of these."""
        if self.peek() not in tuple(characters):
            raise ValueError(f"expected {' or '.join(characters)} and found {self.peek()!r}")
        self.at += 1
        return self.text[self.at - 1]

    def value(self) -> Any:
        """Return the next value, of at most about `MAX_LINE` characters."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except RecursionError:
                raise ValueError("nested too deeply") from None
            except ValueError:  # invalid, or incomplete
                if len(self.text) - self.at > MAX_LINE:
                    raise ValueError(
                        f"an element is invalid, or longer than {MAX_LINE:,} characters"
                    ) from None
                if not self.more():
                    raise
                continue
            if end == len(self.text) and self.more():  # a number may go on
                continue
            self.at = end
            return value


def _elements(stream: _Stream) -> Iterator[Any]:
    stream.take("[")
    if stream.peek() == "]":
        stream.take("]")
        return
    while True:
        yield stream.value()
        if stream.take(",]") == "]":
            return


def _features(stream: _Stream) -> Iterator[Any]:
    stream.take("{")
    while True:
        key = stream.value()
        stream.take(":")
        if key == "features":
            yield from _elements(stream)
        else:
            value = stream.value()
            if key == "crs" and value is not None and not _DEGREES.search(json.dumps(value)):
                raise ValueError(
                    f"GeoJSON in the coordinates {json.dumps(value)[:100]}: convert it to "
                    "longitude and latitude (EPSG:4326)"
                )
        if stream.take(",}") == "}":
            return


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties")
    row = dict(properties) if isinstance(properties, dict) else {}
    if "id" in feature:
        row.setdefault("id", feature["id"])
    geometry = feature.get("geometry")
    place: Any = None if geometry is None else {}
    if isinstance(geometry, dict) and geometry.get("type") == "Point":
        coordinates = geometry.get("coordinates")
        place = coordinates[:2] if isinstance(coordinates, list) else {}
    row.setdefault("geometry", place)
    return row
