"""The metadata of one image: `Metadata`, how it is read, and how it follows a crop and resize.

A bad value never stops a reader: the field becomes missing, and `Problems` counts it by field and
reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np

from satmip_jax.metadata.fields import FIELDS, Field
from satmip_jax.metadata.kinds import MAX_TEXT, BadValueError, Value
from satmip_jax.metadata.kinds.location import wrap_longitude

METRES_PER_DEGREE = 111_320.0  # of latitude, everywhere; of longitude, at the equator
# Near the poles a metre is ever more degrees of longitude, without bound: stop at 89.4 degrees.
MIN_COS_LATITUDE = 0.01

_MAX_KEYS = 256  # unknown names that a Problems tells apart; untrusted files may have any number
_OTHERS = "(others)"
_MAX_EXAMPLES = 3  # different values shown per field and reason
_MAX_SHOWN = 40  # characters of a text in an example


class Problems:
    """Counts of values that could not be used or were converted, by field and reason.

    Attributes:
        counts: (field, reason) -> number of values that could not be used.
        examples: (field, reason) -> the first few different values, in words.
        notes: (field, note) -> number of values that were read by another convention.

    Example:
        >>> from satmip_jax.metadata.record import Metadata, Problems
        >>> problems = Problems()
        >>> _ = Metadata.parse({"cloud_cover": 140}, problems)
        >>> problems.to_json()["cloud_cover"]
        {'out of range': 1}
    """

    def __init__(self) -> None:
        """Start without any."""
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: dict[tuple[str, str], list[str]] = {}
        self.notes: Counter[tuple[str, str]] = Counter()
        self._names = {f.name for f in FIELDS}

    def add(self, field: object, reason: str, n: int = 1, example: str = "") -> None:
        """Count `n` more of (field, reason).

        Unprintable characters of a name are replaced, and names beyond the first few hundred
        unknown ones are counted together.

        Args:
            field: Name of the field.
            reason: Why the value could not be used.
            n: How many there are.
            example: The value in words, see `describe`; "" for none.
        """
        name = _printable(field)
        if name not in self._names:
            name = name if len(self._names) < len(FIELDS) + _MAX_KEYS else _OTHERS
            self._names.add(name)
        self.counts[name, reason] += n
        if example:
            known = self.examples.setdefault((name, reason), [])
            if len(known) < _MAX_EXAMPLES and example not in known:
                known.append(example)

    def note(self, field: str, note: str, n: int = 1) -> None:
        """Count `n` more values of a field that were converted, as the note says."""
        self.notes[field, note] += n

    def merge(self, other: Problems) -> None:
        """Add the counts of another, such as that of a parallel worker."""
        for (name, reason), n in other.counts.items():
            self.add(name, reason, n)
            for example in other.examples.get((name, reason), ()):
                self.add(name, reason, 0, example)
        self.notes.update(other.notes)

    def count(self, field: str, reason: str | None = None) -> int:
        """Return how often the field had that problem, or any problem."""
        return sum(n for (f, r), n in self.counts.items() if f == field and reason in (None, r))

    def rows(self) -> list[tuple[str, str, int]]:
        """Return (field, reason, count), fields in the order of `FIELDS` and others after them."""
        return _in_order(self.counts)

    def note_rows(self) -> list[tuple[str, str, int]]:
        """Return (field, note, count) of the converted values, in the order of `rows`."""
        return _in_order(self.notes)

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return {field: {reason: count}}."""
        out: dict[str, dict[str, int]] = {}
        for name, reason, n in self.rows():
            out.setdefault(name, {})[reason] = n
        return out

    def details_to_json(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return {"examples": {field: {reason: texts}}, "notes": {field: {note: count}}}."""
        examples: dict[str, dict[str, Any]] = {}
        notes: dict[str, dict[str, Any]] = {}
        for name, reason, _ in self.rows():
            if texts := self.examples.get((name, reason)):
                examples.setdefault(name, {})[reason] = list(texts)
        for name, note, n in _in_order(self.notes):
            notes.setdefault(name, {})[note] = n
        return {"examples": examples, "notes": notes}

    @classmethod
    def from_json(
        cls,
        data: Mapping[str, Mapping[str, int]],
        details: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    ) -> Problems:
        """Invert `to_json` and `details_to_json`."""
        problems = cls()
        details = details or {}
        examples = details.get("examples", {})
        for name, reasons in data.items():
            for reason, n in reasons.items():
                problems.add(name, reason, n)
                for example in examples.get(name, {}).get(reason, ()):
                    problems.add(name, reason, 0, example)
        for name, notes in details.get("notes", {}).items():
            for note, n in notes.items():
                problems.note(name, note, n)
        return problems

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Problems)
            and self.counts == other.counts
            and self.notes == other.notes
        )

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Problems({self.to_json()})"


def _in_order(counts: Mapping[tuple[str, str], int]) -> list[tuple[str, str, int]]:
    order = {f.name: i for i, f in enumerate(FIELDS)}
    items = [(name, text, n) for (name, text), n in counts.items()]
    return sorted(items, key=lambda row: (order.get(row[0], len(order)), row[0], row[1]))


@dataclass(frozen=True)
class Absent:
    """A missing value with a reason of its own.

    Attributes:
        reason: The reason under which `Problems` counts it, such as "no GeoTIFF".
    """

    reason: str


@dataclass(frozen=True)
class Metadata:
    """The metadata of one image.

    Attributes:
        values: Field name -> value; a field without an entry is missing. Numbers are tuples, even
            of one number; categories are strings; times are aware datetimes in UTC. Do not modify
            it. `parse` is the way to make one: it validates.
    """

    values: Mapping[str, Value]

    @classmethod
    def parse(cls, raw: object, problems: Problems | None = None) -> Metadata:
        """Read raw values; never raises.

        Args:
            raw: A mapping from field names to values, as from JSON or a table; anything else counts
                as all missing. Numbers may be numeric strings; `gsd` and `pixel_size` may be one
                number for both axes; a time is ISO 8601 text (UTC if it has no offset), a datetime
                or a date; a country may be an alpha-2 code; an azimuth of 360 degrees becomes 0. An
                `Absent` counts as missing for its reason. Values of some other conventions are
                converted, see `Kind.convert` of each kind: negative azimuths, longitudes above 180
                degrees, epochs, withdrawn country codes and others.
            problems: Counts what could not be used, with examples, and what was converted. The
                reasons are "missing" (absent, None or empty), "wrong type", "wrong length", "not
                finite", "out of range", "unknown category" and "ambiguous date"; a key that is not
                a field counts as "unknown field".

        Example:
            >>> from satmip_jax.metadata.record import Metadata
            >>> Metadata.parse({"gsd": 0.5}).values
            {'gsd': (0.5, 0.5)}
        """
        problems = Problems() if problems is None else problems
        items: Mapping[Any, Any] = {}
        if isinstance(raw, Mapping):
            items = raw
        else:
            problems.add("(record)", "wrong type")
        values: dict[str, Value] = {}
        names = set()
        for f in FIELDS:
            names.add(f.name)
            raw_value = None
            try:
                raw_value = items.get(f.name)
                if isinstance(raw_value, Absent):
                    raise BadValueError(raw_value.reason)
                values[f.name] = _read(f, raw_value, problems)
            except BadValueError as bad:
                example = "" if bad.reason == "missing" else describe(raw_value)
                problems.add(f.name, bad.reason, example=example)
            except Exception:  # an object of an unknown class may fail in any way
                problems.add(f.name, "wrong type", example=describe(raw_value))
        for key in items:
            if not (isinstance(key, str) and key in names):
                problems.add(key, "unknown field")
        return cls(values)

    def to_json(self) -> dict[str, object]:
        """Return plain numbers, lists and strings, in the order of `FIELDS`."""
        return {
            f.name: f.kind.to_json(value)
            for f in FIELDS
            if (value := self.values.get(f.name)) is not None
        }

    @classmethod
    def from_json(cls, data: object, problems: Problems | None = None) -> Metadata:
        """Invert `to_json`; validates like `parse`."""
        return cls.parse(data, problems)

    def crop_resize(
        self,
        box: tuple[float, float, float, float],
        size: tuple[int, int],
        out: int,
        problems: Problems | None = None,
    ) -> Metadata:
        """Return the metadata of the image cropped to `box` and resized to a square.

        `gsd` and `pixel_size` scale by (box width, box height) / out. `multispectral_gsd` scales by
        the mean of the two factors, weighted by `gsd` where that is present: their ratio belongs to
        the sensor and stays. `location` moves from the image's centre to the box's, by
        `pixel_size`, else by `gsd` (image rows run southwards), else not at all; longitudes wrap
        around, latitudes stop at the poles.

        Args:
            box: x, y, width, height in pixels of the image.
            size: Width and height of the image in pixels.
            out: Side of the square in pixels.
            problems: Counts scales that leave their valid range, and so become missing.

        Raises:
            ValueError: A side of the box, the image or the square is not above zero and finite.

        Example:
            >>> from satmip_jax.metadata.record import Metadata
            >>> record = Metadata.parse({"gsd": 0.5})
            >>> record.crop_resize((0, 0, 448, 224), (1000, 1000), 224).values
            {'gsd': (1.0, 0.5)}
        """
        x, y, width, height = map(float, box)
        finite = all(map(math.isfinite, (x, y, width, height)))
        if not finite or min(width, height, *size, out) <= 0:
            raise ValueError(
                f"cannot crop a {size[0]}x{size[1]} image to the box {box} (x, y, width, height) "
                f"and resize it to {out} pixels: every side must be above zero and finite"
            )
        factors = (width / out, height / out)
        values = dict(self.values)
        for f in FIELDS:
            value = self.values.get(f.name)
            if f.kind.scales_with is None or not isinstance(value, tuple):
                continue
            if f.kind.scales_with == "axes":
                scaled = tuple(v * s for v, s in zip(value, factors, strict=True))
            else:
                weights = self.numbers("gsd") or (1.0, 1.0)
                scaled = (value[0] * (_dot(weights, factors) / sum(weights)),)
            try:
                values[f.name] = f.kind.parse(scaled)
            except BadValueError:
                del values[f.name]
                if problems is not None:
                    problems.add(f.name, "out of range")
        location = self.numbers("location")
        if location:
            dx, dy = x + width / 2 - size[0] / 2, y + height / 2 - size[1] / 2
            values["location"] = self._moved(location, dx, dy)
        return Metadata(values)

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """Return the numbers of a field, or None if it is missing or is not made of numbers."""
        value = self.values.get(name)
        return value if isinstance(value, tuple) else None

    def _moved(self, location: tuple[float, ...], dx: float, dy: float) -> tuple[float, float]:
        """Return the (longitude, latitude) that lies (dx, dy) pixels to the right and below."""
        longitude, latitude = location
        pixel_size, gsd = self.numbers("pixel_size"), self.numbers("gsd")
        if pixel_size:
            longitude += dx * pixel_size[0]
            latitude -= dy * pixel_size[1]
        elif gsd:
            cosine = max(math.cos(math.radians(latitude)), MIN_COS_LATITUDE)
            longitude += dx * gsd[0] / (METRES_PER_DEGREE * cosine)
            latitude -= dy * gsd[1] / METRES_PER_DEGREE
        return wrap_longitude(longitude), min(max(latitude, -90.0), 90.0)


def _read(f: Field, raw: object, problems: Problems) -> Value:
    """Return the value of a field, if need be converted."""
    try:
        value: Value = f.kind.parse(raw)
    except BadValueError as bad:
        if bad.reason == "missing" or (converted := f.kind.convert(raw)) is None:
            raise
        value = f.kind.parse(converted[0])
        if converted[1]:
            problems.note(f.name, converted[1])
    return value


def describe(raw: object) -> str:
    """Return a raw value as a short printable text, for reports; "" for a missing one.

    Example:
        >>> from satmip_jax.metadata.record import describe
        >>> describe("13/06/2017"), describe([1, None]), describe({"a": 1}), describe(None)
        ("'13/06/2017'", '[1, None]', '(dict)', '')
    """
    if raw is None or (isinstance(raw, str) and not raw.strip()) or isinstance(raw, Absent):
        return ""
    return _words(raw)[:MAX_TEXT]


def _words(raw: object) -> str:
    # by exact type: the methods of other classes may fail in any way
    kind = type(raw)
    if isinstance(raw, str) and kind is str:
        text = raw if len(raw) <= _MAX_SHOWN else f"{raw[:_MAX_SHOWN]}..."
        return f"'{_printable(text)}'"
    if isinstance(raw, np.generic):
        return _words(raw.item())
    if kind in (bool, float, type(None)) or (type(raw) is int and abs(raw) < 10**20):
        return repr(raw)
    if type(raw) is datetime or type(raw) is date:
        return raw.isoformat()
    if isinstance(raw, list | tuple) and kind in (list, tuple) and len(raw) <= 4:
        return f"[{', '.join(map(_words, raw))}]" if not _nested(raw) else f"({kind.__name__})"
    return _printable(f"({kind.__name__})")


def _nested(raw: list[Any] | tuple[Any, ...]) -> bool:
    return any(isinstance(part, list | tuple) for part in raw)


def _dot(a: Iterable[float], b: Iterable[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _printable(name: object) -> str:
    """Return a short name without control characters, for tables and logs."""
    if not isinstance(name, str):
        name = f"({type(name).__name__})"
    return "".join(c if c.isprintable() else "?" for c in name[:MAX_TEXT])
