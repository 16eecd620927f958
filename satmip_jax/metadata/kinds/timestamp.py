"""Times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from satmip_jax.metadata.field_stats import FieldStats
from satmip_jax.metadata.kinds.base import (
    MAX_TEXT,
    BadValueError,
    Kind,
    is_empty,
    sine_cosine,
    standardize,
)
from satmip_jax.metadata.kinds.time_formats import convert_time

if TYPE_CHECKING:
    from jax import Array

_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Timestamp(Kind[datetime]):
    """A time in UTC; in arrays the year and the elapsed fractions of the year and of the day.

    Networks get the year standardized, and sine and cosine of both fractions.

    Attributes:
        first_year: The first valid year. A time outside the valid years counts as missing.
        last_year: The last valid year.

    Example:
        >>> from satmip_jax.metadata.kinds import Timestamp
        >>> Timestamp(1957, 2100).parse("2015-09-21 17:30:08+02:00").isoformat()
        '2015-09-21T15:30:08+00:00'
    """

    first_year: int
    last_year: int

    size = 3
    stored_as_text = True

    @property
    def n_standardized(self) -> int:
        """Number of means and standard deviations: those of the year."""
        return 1

    def parse(self, raw: object) -> datetime:
        """Return the time of ISO 8601 text, a datetime or a date; without an offset it is UTC."""
        if is_empty(raw):
            raise BadValueError("missing")
        if isinstance(raw, str) and len(raw) <= MAX_TEXT:
            text = raw.strip()
            # "2010010140000", milliseconds of 2033, would be 2010-01-01, "4" as in "T", 00:00
            if text.isdecimal() and len(text) != 8:
                raise BadValueError("wrong type")
            try:
                raw = datetime.fromisoformat(text)
            except ValueError:
                raise BadValueError("wrong type") from None
        elif isinstance(raw, date) and not isinstance(raw, datetime):
            raw = datetime(raw.year, raw.month, raw.day)
        if not isinstance(raw, datetime):
            raise BadValueError("wrong type")
        try:
            # rebuilt: a subclass such as pandas.Timestamp may compare and pickle differently
            moment = raw.replace(tzinfo=UTC) if raw.tzinfo is None else raw.astimezone(UTC)
            moment = datetime(*moment.timetuple()[:6], moment.microsecond, tzinfo=UTC)
        except OverflowError:  # the offset leads out of the years 1 to 9999
            raise BadValueError("out of range") from None
        if not self.first_year <= moment.year <= self.last_year:
            raise BadValueError("out of range")
        return moment

    def convert(self, raw: object) -> tuple[object, str] | None:
        """Read EXIF and other formats, and epochs, see `time_formats.convert_time`."""
        return convert_time(raw)

    def dump(self, value: datetime) -> str:
        """Return ISO 8601 text with "Z" for UTC."""
        return value.isoformat().replace("+00:00", "Z")

    def recognize(self, stored: str) -> datetime | None:
        """Return the time of ISO 8601 text in UTC. Few times are equal: a cache would not help."""
        try:
            moment = datetime.fromisoformat(stored)
        except ValueError:
            return None
        valid = moment.tzinfo is UTC and self.first_year <= moment.year <= self.last_year
        return moment if valid else None

    def standardized(self, value: datetime) -> tuple[float, ...]:
        """Return the year."""
        return (float(value.year),)

    def to_numbers(self, values: Sequence[datetime]) -> Sequence[tuple[float, float, float]]:
        """Return (year, fraction of the year, fraction of the day) of each time."""
        return [_clock(value) for value in values]

    def n_features(self, stats: FieldStats, frequencies: int) -> int:
        """Return 5: the year, and two sines and cosines."""
        return 5

    def features(self, x: Array, present: Array, stats: FieldStats, frequencies: int) -> Array:
        """Return the year standardized, sine and cosine of the season, and of the hour in UTC."""
        import jax.numpy as jnp

        year, season, hour = jnp.split(x, 3, 1)
        parts = [standardize(year, stats), sine_cosine(season), sine_cosine(hour)]
        return jnp.concatenate(parts, 1)


def _clock(moment: datetime) -> tuple[float, float, float]:
    """Return (year, fraction of the year, fraction of the day); fractions stay below 1."""
    second = 3600 * moment.hour + 60 * moment.minute + moment.second
    micro = 1_000_000 * second + moment.microsecond
    january, next_january = (date(moment.year + y, 1, 1).toordinal() for y in (0, 1))
    since = (moment.toordinal() - january) * _DAY + micro
    below_one = 1 - 2.0**-24  # the last float32 before 1
    year = since / ((next_january - january) * _DAY)
    return float(moment.year), min(year, below_one), min(micro / _DAY, below_one)
