"""Conventions that only a whole table tells: order of dates, unit of cloud cover, UTM letters.

A single "06/07/2017", 0.3 or "18S" can be read in two ways. `TableScan` looks at every row and
decides for the table; `Conventions` then converts the rows, and `Problems` counts each conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from satmip_jax.metadata.fields import field
from satmip_jax.metadata.kinds import BadValueError
from satmip_jax.metadata.kinds.time_formats import possible_orders, reorder
from satmip_jax.metadata.record import Problems

CloudCover = Literal["auto", "percent", "fraction"]
Dates = Literal["auto", "day-first", "month-first"]

FRACTION = "read as a fraction of 1, multiplied by 100 (--cloud-cover percent keeps them)"
HEMISPHERE = "N or S is the hemisphere, by the latitudes of the table: left out"


@dataclass(frozen=True)
class Conventions:
    """Conventions of a table.

    Attributes:
        day_first: Whether dates such as 06/07/2017 begin with the day; None if that is not known,
            and such dates count as "ambiguous date".
        cloud_fraction: Whether cloud cover is a fraction of 1 instead of percent.
        utm_hemisphere: Whether the letters N and S of UTM zones are hemispheres, not bands.
    """

    day_first: bool | None = None
    cloud_fraction: bool = False
    utm_hemisphere: bool = False

    def to_json(self) -> dict[str, str]:
        """Return the conventions that differ from the usual ones, for `schema.json`."""
        out = {}
        if self.day_first is not None:
            out["timestamp"] = "day first" if self.day_first else "month first"
        if self.cloud_fraction:
            out["cloud_cover"] = "fraction"
        if self.utm_hemisphere:
            out["utm_zone"] = "hemisphere"
        return out

    def apply(self, raw: Mapping[str, Any], problems: Problems) -> Mapping[str, Any]:
        """Return raw values of one row as `Metadata.parse` reads them.

        Args:
            raw: Field -> raw value.
            problems: Counts the conversions.
        """
        if self == Conventions():
            return raw
        row = dict(raw)
        time = row.get("timestamp")
        if self.day_first is not None and isinstance(time, str) and len(time) <= 64:
            row["timestamp"] = reorder(time, self.day_first)
            if row["timestamp"] != time:
                order = "day" if self.day_first else "month"
                problems.note("timestamp", f"date read with the {order} first")
        cover = _cloud_cover(row.get("cloud_cover")) if self.cloud_fraction else None
        if cover is not None:
            row["cloud_cover"] = 100 * cover  # of more than 1, out of range
            if cover <= 1:
                problems.note("cloud_cover", FRACTION)
        zone = row.get("utm_zone")
        if self.utm_hemisphere and isinstance(zone, str) and _letter(zone) in ("N", "S"):
            row["utm_zone"] = zone.strip()[:-1].strip()
            problems.note("utm_zone", HEMISPHERE)
        return row


class TableScan:
    """Evidence for the conventions of a table, row by row.

    Example:
        >>> from satmip_jax.metadata.conventions import TableScan
        >>> scan = TableScan()
        >>> for text in ("06/07/2017", "23/07/2017"):
        ...     scan.add({"timestamp": text, "cloud_cover": "0.25"})
        >>> scan.decide()
        Conventions(day_first=True, cloud_fraction=True, utm_hemisphere=False)
    """

    def __init__(self) -> None:
        """Start without rows."""
        self._day_first = self._month_first = True  # whether every date may be read so
        self._dates = False
        self._fractions = False  # whether a cloud cover lies strictly between 0 and 1
        self._percent = False  # whether one is above 1
        self._bands = False  # whether a letter is certainly a band
        self._letters = self._beyond = (
            0  # letters N and S with a latitude, and those beyond the band
        )

    def add(self, raw: Mapping[str, Any]) -> None:
        """Look at the raw values of one row."""
        if orders := possible_orders(raw.get("timestamp")):
            self._dates = True
            self._day_first &= orders[0]
            self._month_first &= orders[1]
        if (cover := _cloud_cover(raw.get("cloud_cover"))) is not None:
            self._fractions |= 0 < cover < 1
            self._percent |= cover > 1
        if letter := _letter(raw.get("utm_zone")):
            self._add_letter(letter, raw.get("location"))

    def decide(self, cloud_cover: CloudCover = "auto", dates: Dates = "auto") -> Conventions:
        """Return the conventions of the table.

        Args:
            cloud_cover: The unit; "auto" decides for fractions if every value is in 0..1 and one is
                neither 0 nor 1.
            dates: The order of dates such as 06/07/2017; "auto" decides for the one order in which
                every such date of the table exists.
        """
        day_first: bool | None = dates == "day-first"
        if dates == "auto":
            known = self._dates and self._day_first != self._month_first
            day_first = self._day_first if known else None
        fraction = cloud_cover == "fraction"
        if cloud_cover == "auto":
            fraction = self._fractions and not self._percent
        # most of them, because a single location may be wrong
        hemisphere = not self._bands and self._letters < 2 * self._beyond
        return Conventions(day_first, fraction, hemisphere)

    def _add_letter(self, letter: str, location: object) -> None:
        if letter not in ("N", "S"):
            self._bands = True
            return
        try:
            latitude = field("location").kind.parse(location)[1]
        except BadValueError:
            return
        # one degree over the edge of a band or hemisphere says nothing
        band = -1 <= latitude <= 9 if letter == "N" else 31 <= latitude <= 41
        hemisphere = latitude >= -1 if letter == "N" else latitude <= 1
        self._bands |= not hemisphere
        self._letters += 1
        self._beyond += not band


def _cloud_cover(raw: object) -> float | None:
    """Return a valid cloud cover as it is given; None for anything else."""
    if raw is None:
        return None
    try:
        (value,) = field("cloud_cover").kind.parse(raw)
    except BadValueError:
        return None
    return float(value)


def _letter(zone: object) -> str:
    """Return the letter at the end of a UTM zone, in capitals; "" if there is none."""
    last = zone.strip()[-1:].upper() if isinstance(zone, str) and len(zone) <= 8 else ""
    return last if "A" <= last <= "Z" else ""
