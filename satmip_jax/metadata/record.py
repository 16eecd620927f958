"""What is known of one image: `Metadata`, how it is read, and how it follows a crop and resize.

A bad value never stops a reader: the field becomes missing, and `Problems` counts it by field and
reason.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np

from satmip_jax.metadata.fields import FIELDS, MAX_TEXT, Field

Value = tuple[float, ...] | str | datetime  # numbers; a category; a time (aware, UTC)

METRES_PER_DEGREE = 111_320.0  # of latitude, everywhere; of longitude, at the equator
# Near the poles a metre is ever more degrees of longitude, without bound: stop at 89.4 degrees.
MIN_COS_LATITUDE = 0.01

_MAX_KEYS = 256  # distinct names a Problems holds apart; what a stranger's file sends has no bound
_OTHERS = "(others)"


class Problems:
    """Counts of what was wrong, by field and reason.

    Example:
      problems = Problems()
      Metadata.parse({"cloud_cover": 140}, problems)
      problems.to_json()["cloud_cover"] == {"out of range": 1}
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._names = {f.name for f in FIELDS}

    def add(self, field: object, reason: str, n: int = 1) -> None:
        """Counts `n` more of (field, reason). Odd or too many field names are made harmless."""
        name = _printable(field)
        if name not in self._names:
            name = name if len(self._names) < len(FIELDS) + _MAX_KEYS else _OTHERS
            self._names.add(name)
        self.counts[name, reason] += n

    def merge(self, other: Problems) -> None:
        """Adds the counts of another, such as a parallel worker's."""
        for (name, reason), n in other.counts.items():
            self.add(name, reason, n)

    def count(self, field: str, reason: str | None = None) -> int:
        """How often the field had that problem, or any."""
        return sum(n for (f, r), n in self.counts.items() if f == field and reason in (None, r))

    def rows(self) -> list[tuple[str, str, int]]:
        """(field, reason, count), fields in the order of `FIELDS` and others after them."""
        order = {f.name: i for i, f in enumerate(FIELDS)}
        items = [(name, reason, n) for (name, reason), n in self.counts.items()]
        return sorted(items, key=lambda row: (order.get(row[0], len(order)), row[0], row[1]))

    def to_json(self) -> dict[str, dict[str, int]]:
        """{field: {reason: count}}."""
        out: dict[str, dict[str, int]] = {}
        for name, reason, n in self.rows():
            out.setdefault(name, {})[reason] = n
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, int]]) -> Problems:
        """The inverse of `to_json`."""
        problems = cls()
        for name, reasons in data.items():
            for reason, n in reasons.items():
                problems.add(name, reason, n)
        return problems

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problems) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Problems({self.to_json()})"


@dataclass(frozen=True)
class Absent:
    """Stands for a value that is missing for a reason of its own, which is counted."""

    reason: str


@dataclass(frozen=True)
class Metadata:
    """What is known of one image.

    Attributes:
      values: field name -> value, of the fields that are present; an absent field is missing.
        Numbers are tuples even where there is one, categories are strings, times aware datetimes
        in UTC. Do not change it. `parse` is the way in: it checks.
    """

    values: Mapping[str, Value]

    @classmethod
    def parse(cls, raw: Mapping[str, object], problems: Problems | None = None) -> Metadata:
        """Reads values keyed by field name; never raises.

        Args:
          raw: as from JSON or a table. Numbers may be numeric strings; `gsd` and `pixel_size` may
            be one number for both axes; a time is ISO 8601 text (without an offset: UTC), a
            datetime or a date; a country may have its alpha-2 code; 360 degrees become 0. An
            `Absent` counts as missing by its own reason.
          problems: where what is wrong is counted. The reasons are "missing" (absent, None or
            empty), "wrong type", "wrong length", "not finite", "out of range" and "unknown
            category"; a key that names no field counts as "unknown field".

        Example: Metadata.parse({"gsd": 0.5}).values == {"gsd": (0.5, 0.5)}
        """
        problems = Problems() if problems is None else problems
        if not isinstance(raw, Mapping):
            problems.add("(record)", "wrong type")
            raw = {}
        values: dict[str, Value] = {}
        known = set()
        for f in FIELDS:
            known.add(f.name)
            try:
                value = raw.get(f.name)
                if isinstance(value, Absent):
                    raise _BadValueError(value.reason)
                values[f.name] = _PARSERS[f.kind](f, value)
            except _BadValueError as bad:
                problems.add(f.name, bad.reason)
            except Exception:  # an object of a caller's own may fail in any way when looked at
                problems.add(f.name, "wrong type")
        for key in raw:
            if not (isinstance(key, str) and key in known):
                problems.add(key, "unknown field")
        return cls(values)

    def to_json(self) -> dict[str, object]:
        """Plain numbers, lists and strings, in the order of `FIELDS`; `from_json` inverts it."""
        out: dict[str, object] = {}
        for f in FIELDS:
            value = self.values.get(f.name)
            if isinstance(value, datetime):
                out[f.name] = value.isoformat().replace("+00:00", "Z")
            elif isinstance(value, tuple):
                out[f.name] = value[0] if f.size == 1 else list(value)
            elif value is not None:
                out[f.name] = value
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, object], problems: Problems | None = None) -> Metadata:
        """The inverse of `to_json`, as careful as `parse`."""
        return cls.parse(data, problems)

    def crop_resize(
        self,
        box: tuple[float, float, float, float],
        size: tuple[int, int],
        out: int,
        problems: Problems | None = None,
    ) -> Metadata:
        """The metadata of the image cut to `box` and resized to a square.

        `gsd` and `pixel_size` scale by (box width, box height) / out; `multispectral_gsd` by the
        mean of the two factors, weighted by `gsd` where it is known: their ratio is the sensor's
        and stays. `location` moves from the image's centre to the box's, by `pixel_size`, else by
        `gsd` (image rows run southwards), else not at all; longitudes wrap, latitudes stop at the
        poles.

        Args:
          box: x, y, width, height in pixels of the image.
          size: width and height of the image in pixels.
          out: side of the square in pixels.
          problems: counts scales that leave their valid range, and so become missing.

        Raises:
          ValueError: a side of the box, the image or the square is not above zero and finite.

        Example:
          Metadata.parse({"gsd": 0.5}).crop_resize((0, 0, 448, 224), (1000, 1000), 224).values
          == {"gsd": (1.0, 0.5)}
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
            if f.scales_with is None or not isinstance(value, tuple):
                continue
            if f.scales_with == "axes":
                scaled = tuple(v * s for v, s in zip(value, factors, strict=True))
            else:
                weights = self.numbers("gsd") or (1.0, 1.0)
                scaled = (value[0] * (_dot(weights, factors) / sum(weights)),)
            if _in_range(f, scaled):
                values[f.name] = scaled
            else:
                del values[f.name]
                if problems is not None:
                    problems.add(f.name, "out of range")
        location = self.numbers("location")
        if location:
            dx, dy = x + width / 2 - size[0] / 2, y + height / 2 - size[1] / 2
            values["location"] = self._moved(location, dx, dy)
        return Metadata(values)

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """The numbers of a field, or None where it is missing or is not made of numbers."""
        value = self.values.get(name)
        return value if isinstance(value, tuple) else None

    def _moved(self, location: tuple[float, ...], dx: float, dy: float) -> tuple[float, float]:
        """(longitude, latitude) that lies (dx, dy) pixels to the right of and below `location`."""
        longitude, latitude = location
        pixel_size, gsd = self.numbers("pixel_size"), self.numbers("gsd")
        if pixel_size:
            longitude += dx * pixel_size[0]
            latitude -= dy * pixel_size[1]
        elif gsd:
            cosine = max(math.cos(math.radians(latitude)), MIN_COS_LATITUDE)
            longitude += dx * gsd[0] / (METRES_PER_DEGREE * cosine)
            latitude -= dy * gsd[1] / METRES_PER_DEGREE
        return _wrap(longitude), min(max(latitude, -90.0), 90.0)


# --- reading one value ----------------------------------------------------------------------------


class _BadValueError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _empty(raw: object) -> bool:
    return raw is None or (isinstance(raw, str) and not raw.strip())


def _number(raw: object) -> float:
    """A finite float of a number or a numeric string."""
    if type(raw) is float and math.isfinite(raw):  # nearly all of them
        return raw
    if _empty(raw):
        raise _BadValueError("missing")
    if isinstance(raw, str):
        # float() also takes "1_0"; the bound keeps a megabyte of digits from being read
        if len(raw) > MAX_TEXT or "_" in raw:
            raise _BadValueError("wrong type")
    elif isinstance(raw, bool) or not isinstance(raw, numbers.Real):
        raise _BadValueError("wrong type")
    try:
        value = float(raw)
    except OverflowError:  # an int above 1e308
        raise _BadValueError("out of range") from None
    except ValueError:
        raise _BadValueError("wrong type") from None
    if not math.isfinite(value):
        raise _BadValueError("not finite")
    return value


def _numbers(f: Field, raw: object) -> tuple[float, ...]:
    if isinstance(raw, list | tuple | np.ndarray):
        if len(raw) != f.size:
            raise _BadValueError("wrong length")
        values = tuple(_number(v) for v in raw)
    else:
        values = (_number(raw),)
        if f.scales_with == "axes":
            values *= f.size  # one scale for both axes
        if len(values) != f.size:
            raise _BadValueError("wrong length")
    if not _in_range(f, values):
        raise _BadValueError("out of range")
    if f.kind == "location":
        return _wrap(values[0]), values[1]
    if f.cyclic and f.period:
        return tuple(v % f.period for v in values)
    return values


def _time(f: Field, raw: object) -> datetime:
    if _empty(raw):
        raise _BadValueError("missing")
    if isinstance(raw, str) and len(raw) <= MAX_TEXT:
        try:
            raw = datetime.fromisoformat(raw.strip())
        except ValueError:
            raise _BadValueError("wrong type") from None
    elif isinstance(raw, date) and not isinstance(raw, datetime):
        raw = datetime(raw.year, raw.month, raw.day)
    if not isinstance(raw, datetime):
        raise _BadValueError("wrong type")
    try:
        # rebuilt rather than kept: a subclass (pandas.Timestamp) may not compare or pickle alike
        moment = raw.replace(tzinfo=UTC) if raw.tzinfo is None else raw.astimezone(UTC)
        moment = datetime(*moment.timetuple()[:6], moment.microsecond, tzinfo=UTC)
    except OverflowError:  # an offset that leads out of the years 1 to 9999
        raise _BadValueError("out of range") from None
    if not _in_range(f, (moment.year,) * f.size):
        raise _BadValueError("out of range")
    return moment


def _category(f: Field, raw: object) -> str:
    if _empty(raw):
        raise _BadValueError("missing")
    if not isinstance(raw, str):
        raise _BadValueError("wrong type")
    if len(raw) > MAX_TEXT:
        raise _BadValueError("wrong length")
    text = str(raw).strip()
    known = f.validator(text) if f.validator else text
    if known is None:
        raise _BadValueError("unknown category")
    return known


_PARSERS: dict[str, Callable[[Field, object], Value]] = {
    "numeric": _numbers,
    "angle": _numbers,
    "location": _numbers,
    "time": _time,
    "category": _category,
}


# --- small parts ----------------------------------------------------------------------------------


def _in_range(f: Field, values: Sequence[float]) -> bool:
    low, high = f.bounds
    return all(map(operator.le, low, values)) and all(map(operator.le, values, high))


def _wrap(longitude: float) -> float:
    """The same meridian in [-180, 180); longitudes already there are not touched."""
    if -180.0 <= longitude < 180.0:
        return longitude
    return (longitude + 180.0) % 360.0 - 180.0


def _dot(a: Iterable[float], b: Iterable[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _printable(name: object) -> str:
    """A short name without control characters, for tables and logs."""
    if not isinstance(name, str):
        name = f"({type(name).__name__})"
    return "".join(c if c.isprintable() else "?" for c in name[:MAX_TEXT])
