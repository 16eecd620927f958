"""Conditions of a search, as text or JSON: the grammar of `satmip search --where`.

    month=7 latitude=60 sun_elevation<20 sensor_platform!="WORLDVIEW03"

A term is a name, an operator and a value; terms are separated by spaces, and all of them hold.
Names are the fields, their parts (longitude and latitude of the location; year, month, day and hour
of the timestamp, in UTC) and "label"; a unique beginning of a name will do. Several numbers of a
field are separated by commas, and values with spaces stand in quotes. `=` describes what is sought,
and the other operators test what the rows state, see `record` and `row_filter`.

JSON, an object from names to values, has `=` terms only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from satmip_jax.errors import SatmipError
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.kinds import Timestamp, Value
from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.runtime.files import read_bounded

MAX_BYTES = 1 << 20  # of a file of conditions
MAX_TERMS = 100
LABEL = "label"
OPERATORS = ("==", "!=", "<=", ">=", "=", "<", ">")  # longer ones first

# part of a field -> the field, and the valid range of the part
PARTS: dict[str, tuple[str, float, float]] = {
    "longitude": ("location", -180.0, 360.0),
    "latitude": ("location", -90.0, 90.0),
    "year": ("timestamp", 1957, 2100),
    "month": ("timestamp", 1, 12),
    "day": ("timestamp", 1, 31),
    "hour": ("timestamp", 0, 24),
}
_WHOLE = ("year", "month", "day")  # parts that are whole numbers
_FIELDS = {field.name: field for field in FIELDS}
NAMES = (*_FIELDS, *PARTS, LABEL)

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_]+")
_OPERATOR = re.compile(r"\s*(" + "|".join(OPERATORS) + r")\s*")
_VALUE = re.compile(r'"([^"]*)"(?=\s|$)|\'([^\']*)\'(?=\s|$)|([^\s"\']\S*)')


class QueryError(SatmipError, ValueError):
    """A search that cannot be answered; the message names the term and the valid fields."""


@dataclass(frozen=True)
class Term:
    """One condition.

    Attributes:
        name: of a field, of one of `PARTS`, or `LABEL`.
        operator: one of `OPERATORS`.
        value: as in `Metadata.values`; a float for a part and for `<`, `<=`, `>` and `>=` of
            numbers, a text for the label.
    """

    name: str
    operator: str
    value: Value | float

    @property
    def field(self) -> str:
        """Name of the field that the term is about; `LABEL` for the label."""
        return PARTS[self.name][0] if self.name in PARTS else self.name

    def __str__(self) -> str:
        value: Any = self.value
        if isinstance(value, tuple):
            value = ",".join(f"{number:g}" for number in value)
        elif isinstance(value, datetime):
            value = value.isoformat().replace("+00:00", "Z")
        elif isinstance(value, float):
            value = f"{value:g}"
        return f"{self.name}{self.operator}{value}"

    def as_filter(self) -> str:
        """Return terms that filter rows by what this one describes.

        Example:
            >>> from satmip_jax.inference.search.query import parse
            >>> [term.as_filter() for term in parse(["latitude=50 country_code=FRA"])]
            ['latitude>=50 or latitude<=50', 'country_code==FRA']
        """
        value = str(self).removeprefix(f"{self.name}{self.operator}")
        kind = None if self.name in (*PARTS, LABEL) else _FIELDS[self.name].kind
        if self.name in (LABEL, "location") or (kind and kind.has_vocabulary):
            return f"{self.name}=={value}"
        value = value.split(",")[0]  # of several numbers, each is compared with one
        return f"{self.name}>={value} or {self.name}<={value}"


def parse(texts: Sequence[str]) -> tuple[Term, ...]:
    """Read conditions.

    Args:
        texts: terms, a JSON object, or "@" and the path of a file with either.

    Raises:
        QueryError: a term cannot be read, or its name, operator or value is not valid.
        OSError: the file cannot be read.
        FileContentError: the file is larger than `MAX_BYTES`.

    Example:
        >>> from satmip_jax.inference.search.query import parse
        >>> [str(term) for term in parse(["month=7 sun_elev < 20"])]
        ['month=7', 'sun_elevation_angle<20']
        >>> str(parse(['{"location": [12.5, 41.9]}'])[0])
        'location=12.5,41.9'
        >>> parse(["cloud_cover=140"])
        Traceback (most recent call last):
        satmip_jax.inference.search.query.QueryError: cloud_cover=140: the value is out of range ...
    """
    terms: list[Term] = []
    for text in texts:
        if text.startswith("@"):
            path = Path(text[1:])
            try:
                text = read_bounded(path, MAX_BYTES).decode()
            except UnicodeDecodeError:
                raise QueryError(f"{path} is not UTF-8 text: expected terms or JSON") from None
        terms += _from_json(text) if text.lstrip().startswith("{") else _from_text(text)
        if len(terms) > MAX_TERMS:
            raise QueryError(f"more than {MAX_TERMS} terms: give fewer")
    return tuple(terms)


def _from_text(text: str) -> list[Term]:
    terms = []
    position = _end(_SPACE.match(text))
    while position < len(text):
        start = position
        parts = []
        for pattern in (_NAME, _OPERATOR, _VALUE):
            match = pattern.match(text, position)
            if match is None:
                shown = _shown(text[start:].split()[0])
                raise QueryError(
                    f"{shown}: expected a field, one of {' '.join(OPERATORS)}, and a value in "
                    f"quotes if it has spaces; {_choices()}"
                )
            parts.append(next(g for g in (*match.groups(), match[0]) if g is not None))
            position = match.end()
        terms.append(_term(*parts))
        position = _end(_SPACE.match(text, position))
    return terms


def _from_json(text: str) -> list[Term]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QueryError(f"{_shown(text)}: is no JSON ({str(error)[:80]})") from None
    return [_term(name, "=", value) for name, value in data.items()]


def _term(given: str, operator: str, raw: Any) -> Term:
    """Return a term with its name completed and its value read, or raise `QueryError`."""
    shown = _shown(f"{given}{operator}{raw}")
    name = _complete(given, shown)
    if name == LABEL:
        if operator not in ("=", "==", "!="):
            raise QueryError(f"{shown}: a label is a name, which only =, == and != test")
        if not isinstance(raw, str) or not raw:
            raise QueryError(f"{shown}: a label is a text")
        return Term(name, operator, raw)
    ordered = operator not in ("=", "==", "!=")
    if name in PARTS:
        _, low, high = PARTS[name]
        number = _number(raw, shown)
        whole = ordered or name not in _WHOLE or number.is_integer()
        if not low <= number <= high or not whole:
            kind = "a whole number" if name in _WHOLE else "a number"
            raise QueryError(f"{shown}: expected {kind} from {low:g} to {high:g}")
        return Term(name, operator, number)
    field = _FIELDS[name]
    if ordered and not isinstance(field.kind, Timestamp):
        if field.kind.has_vocabulary:
            raise QueryError(f"{shown}: {name} is a name, which only =, == and != test")
        if name == "location":
            raise QueryError(f"{shown}: compare longitude or latitude instead")
        return Term(name, operator, _number(raw, shown))
    if isinstance(raw, str) and field.kind.size > 1 and not field.kind.stored_as_text:
        raw = raw.split(",") if "," in raw else raw
    problems = Problems()
    record = Metadata.parse({name: raw}, problems)
    if name not in record.values:
        reason = next(reason for f, reason in problems.counts if f == name)
        raise QueryError(
            f"{shown}: the value is {_REASONS.get(reason, f'of no use: {reason}')} ({field.unit})"
        )
    return Term(name, operator, record.values[name])


_REASONS = {
    "missing": "missing",
    "out of range": "out of range",
    "unknown category": "unknown",
    "wrong type": "of the wrong type",
    "wrong length": "of the wrong length",
    "not finite": "not finite",
    "ambiguous date": "an ambiguous date",
}


def _complete(given: str, shown: str) -> str:
    """Return the name that is given, or that has a unique beginning of it."""
    lowered = given.lower()
    found = [name for name in NAMES if name == lowered]
    found = found or [name for name in NAMES if lowered and name.startswith(lowered)]
    if len(found) != 1:
        problem = f"is short for {' and '.join(found)}" if found else "is no field"
        raise QueryError(f"{shown}: {_shown(given)} {problem}; {_choices()}")
    return found[0]


def _number(raw: Any, shown: str) -> float:
    try:
        number = float("nan") if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise QueryError(f"{shown}: expected a number")
    return number


def _choices() -> str:
    return f"the fields are {', '.join(NAMES)}"


def _shown(text: str) -> str:
    """Return a text from the user as part of a message: short and printable."""
    text = "".join(c if c.isprintable() else "?" for c in text[:81])
    return text if len(text) <= 80 else f"{text[:77]}..."


def _end(match: re.Match[str] | None) -> int:
    return match.end() if match else 0
