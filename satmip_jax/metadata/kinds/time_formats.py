"""Formats of times other than ISO 8601: EXIF, slashes, " UTC", 24:00:00, leap seconds, epochs.

Every format is read by itself, or refused: "06/07/2017" is a day in June or in July, which only a
whole column can tell (see `metadata.conventions`).
"""

from __future__ import annotations

import contextlib
import math
import numbers
import re
from datetime import UTC, datetime, timedelta

from satmip_jax.metadata.kinds.base import MAX_TEXT, BadValueError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Seconds since 1970 of the years 1973 to 2100. Smaller numbers are 20170613 or no times.
_FIRST, _LAST = 100_000_000, 4_133_980_800
_UNITS = (
    (1, "epoch seconds"),
    (1_000, "epoch milliseconds"),
    (1_000_000, "epoch microseconds"),
    (1_000_000_000, "epoch nanoseconds"),
)
_DATE = r"(\d{1,4})([-:/.])(\d{1,2})\2(\d{1,4})"
_CLOCK = r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s*([AP]M)?"
_ZONE = r"(Z|UTC|GMT|[-+]\d{2}:?\d{2})"
_TIME = re.compile(rf"{_DATE}(?:[T ]\s*{_CLOCK})?\s*{_ZONE}?", re.ASCII | re.IGNORECASE)
_UTC = re.compile(r"(.*\d)\s*(?:Z|UTC|GMT)", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"(\d{8,19})(?:\.(\d{0,9}))?", re.ASCII)
_COMPACT = {14: "%Y%m%d%H%M%S", 12: "%Y%m%d%H%M", 10: "%Y%m%d%H"}


def convert_time(raw: object) -> tuple[datetime, str] | None:
    """Return the time of a text or number that is not ISO 8601, and a note; None if it is none.

    Args:
        raw: A text of at most `MAX_TEXT` characters or a number; anything else gives None.

    Returns:
        The time, aware except where the text has no offset. The note is "" for other spellings, and
        names the format where the text alone does not tell the time: epochs, 24:00:00, leap
        seconds.

    Raises:
        BadValueError: The date is "ambiguous date".

    Example:
        >>> from satmip_jax.metadata.kinds.time_formats import convert_time
        >>> convert_time("2017:06:13 10:10:31")[0].isoformat()
        '2017-06-13T10:10:31'
        >>> convert_time(1497348631)
        (datetime.datetime(2017, 6, 13, 10, 10, 31, tzinfo=datetime.timezone.utc), 'epoch seconds')
    """
    if isinstance(raw, str):
        text = raw.strip()
        if len(text) > MAX_TEXT:
            return None
        if match := _NUMBER.fullmatch(text):
            return _digits(match[1], match[2] or "")
        if match := _TIME.fullmatch(text):
            return _separated(match)
        if (match := _UTC.fullmatch(text)) and (when := _iso(match[1])):
            return (when.replace(tzinfo=UTC), "") if when.tzinfo is None else None
        return None
    if isinstance(raw, bool):
        return None
    if isinstance(raw, numbers.Integral):
        return _digits(str(int(raw)), "") if 0 < int(raw) < 10**19 else None
    if isinstance(raw, numbers.Real):
        try:
            number = float(raw)
        except OverflowError:
            return None
        if not (math.isfinite(number) and 0 < number < 1e19):
            return None
        if number.is_integer():
            return _digits(str(int(number)), "")
        return _epoch(number)
    return None


def reorder(text: str, day_first: bool) -> str:
    """Return a time with its date as year-month-day; any other text as it is.

    Args:
        text: A time such as "13/06/2017 10:10:31".
        day_first: Whether the day comes before the month.
    """
    match = _TIME.fullmatch(text.strip())
    if not match or not _ends_in_year(match):
        return text
    a, b, year = match[1], match[3], match[4]
    day, month = (a, b) if day_first else (b, a)
    return f"{year}-{month:0>2}-{day:0>2}{match.string[match.end(4) :]}"


def possible_orders(text: object) -> tuple[bool, bool] | None:
    """Return whether a date that ends in the year may be (day first, month first); else None."""
    match = _TIME.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 64 else None
    if not match or not _ends_in_year(match):
        return None
    a, b = int(match[1]), int(match[3])
    return a <= 31 and b <= 12, a <= 12 and b <= 31


def _ends_in_year(match: re.Match[str]) -> bool:
    return len(match[1]) <= 2 and len(match[4]) == 4 and match[2] != ":"


def _iso(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _separated(match: re.Match[str]) -> tuple[datetime, str] | None:
    """Read a date with separators, and a clock if it has one."""
    if _ends_in_year(match):
        raise BadValueError("ambiguous date")
    if len(match[1]) != 4 or len(match[4]) > 2:
        return None
    hour, minute, second = (int(match[i] or 0) for i in (5, 6, 7))
    if match[9]:  # AM or PM
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match[9].upper() == "PM" else 0)
    note, later = "", timedelta(0)
    if (hour, minute, second) == (24, 0, 0):
        note, later, hour = "24:00:00: read as 00:00:00 of the next day", timedelta(days=1), 0
    elif second == 60:
        note, later, second = "leap second: read as the next second", timedelta(seconds=1), 59
    micro = int((match[8] or "")[:6].ljust(6, "0"))
    try:
        when = datetime(int(match[1]), int(match[3]), int(match[4]), hour, minute, second, micro)
        zone = match[10] or ""
        if zone[:1] in ("+", "-"):
            when = datetime.fromisoformat(f"{when.isoformat()}{zone}")
        elif zone:
            when = when.replace(tzinfo=UTC)
        return when + later, note
    except (ValueError, OverflowError):
        return None


def _digits(digits: str, fraction: str) -> tuple[datetime, str] | None:
    """Read 20170613, 20170613101031, or an epoch."""
    fraction = fraction.rstrip("0")
    if len(digits) == 8 and not fraction:
        when = _iso(digits)
        return (when, "number read as year, month, day") if when else None
    if not fraction and len(digits) in _COMPACT:
        with contextlib.suppress(ValueError):
            when = datetime.strptime(digits, _COMPACT[len(digits)])
            if 1957 <= when.year <= 2100:
                if len(digits) == 14:
                    return when, ""
                raise BadValueError("ambiguous date")  # or epoch seconds, or milliseconds
    for unit, note in _UNITS:
        if _FIRST * unit <= int(digits) < _LAST * unit:
            micros = int(f"{digits}{fraction[:9].ljust(9, '0')}") // (unit * 1000)
            return _EPOCH + timedelta(microseconds=micros), note
    return None


def _epoch(number: float) -> tuple[datetime, str] | None:
    for unit, note in _UNITS:
        if _FIRST * unit <= number < _LAST * unit:
            return _EPOCH + timedelta(microseconds=round(number * 1e6 / unit)), note
    return None
