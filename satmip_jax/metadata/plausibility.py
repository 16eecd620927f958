"""Plausibility of records: fields that must agree with each other, and what explains it if not.

Three checks compare the location with other fields of the same record:

sun           sun elevation and azimuth, given and computed from time and place
utm_zone      number of the UTM zone with the longitude, and its band with the latitude
country_code  country with the cells of one degree that it touches or borders on

A value of a single record may be wrong in any way. If an error of the whole table explains most of
the disagreements, such as exchanged coordinates or a wrong time zone, the finding says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from satmip_jax.metadata.countries import country_cells, country_lines, in_cells
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.solar import solar_clock, solar_positions

# Degrees on the sky. Real records differ by less than 1; a chip of a large scene that carries the
# angles of the scene's centre by about 1 more. An hour is 14 degrees.
SUN_TOLERANCE = 5.0
ZONE_MARGIN = 1.5  # degrees at the equator that an image in a UTM zone may reach over its edge
BAND_MARGIN = 1.0  # degrees of latitude
EXPLAINED = 0.8  # share of the disagreements that an explanation must remove
_MIN_SHIFTED = 3  # records; a single wrong hour can nearly always be explained by some shift
_BATCH = 1024  # records that are checked at once
_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_ZONE = re.compile(r"([0-9]+)([A-Z]?)", re.ASCII)

# Explanation -> its words. The order decides between explanations that remove equally many.
EXPLANATIONS = {
    "exchanged": "latitude and longitude look exchanged",
    "west": "longitudes look positive towards the west",
    "zenith": "sun_elevation_angle looks like the zenith angle, 90 degrees minus the elevation",
    "south": "sun_azimuth_angle looks counted from the south",
    "hemisphere": "the letters of utm_zone look like hemispheres (N, S), not latitude bands",
    "midnight": "the times look like dates without the time of day",
    "local": "the times look like local times instead of UTC",
}
_SHIFT = "shift "  # with the hours to subtract, as in "shift +2"


@dataclass(frozen=True)
class Finding:
    """Result of one check over a data set.

    Attributes:
        check: Name of the check: "sun", "utm_zone" or "country_code".
        checked: Number of records that have the fields of the check.
        disagree: How many of them disagree.
        explanation: Words for an error that explains most of them; "" if none does.
        explained: How many of `disagree` agree once that error is removed.
        example: The first record that disagrees, with both values.
    """

    check: str
    checked: int
    disagree: int
    explanation: str
    explained: int
    example: str

    def __str__(self) -> str:
        """Return a sentence for people."""
        what = {
            "sun": "sun angles against time and place",
            "utm_zone": "UTM zone against location",
            "country_code": "country against location",
        }[self.check]
        text = f"{what}: {self.disagree:,} of {self.checked:,} records disagree"
        if self.explanation:
            text += f": {self.explanation} (for {self.explained:,} of them)"
        return f"{text}; first: {self.example}" if self.example else text


class PlausibilityCheck:
    """Counts of records that disagree with themselves; partial counts merge in any order.

    Attributes:
        counts: (check, "checked", "disagree" or an explanation) -> number of records.
        examples: Check -> the first record that disagrees, in words.

    Example:
        >>> from satmip_jax.metadata.plausibility import PlausibilityCheck
        >>> from satmip_jax.metadata.record import Metadata
        >>> check = PlausibilityCheck()
        >>> for i in range(4):
        ...     record = {"location": [48.0 + i, 9.0], "country_code": "DEU"}
        ...     check.add(f"{i}.png", Metadata.parse(record))
        >>> print(check.findings()[0].explanation)
        latitude and longitude look exchanged
    """

    def __init__(self) -> None:
        """Start without records."""
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: dict[str, str] = {}
        self._waiting: list[tuple[str, Metadata]] = []

    def add(self, identity: str, metadata: Metadata) -> None:
        """Check one record.

        Args:
            identity: Name of the record, for examples.
            metadata: Its metadata.
        """
        if "location" in metadata.values:
            self._waiting.append((identity, metadata))
            if len(self._waiting) == _BATCH:
                self._flush()

    def merge(self, other: PlausibilityCheck) -> None:
        """Add the counts of another, whose records come later."""
        self._flush()
        other._flush()
        self.counts.update(other.counts)
        self.examples = {**other.examples, **self.examples}

    def to_json(self) -> dict[str, Any]:
        """Return {check: {"checked": n, "disagree": n, ..., "example": text}}."""
        self._flush()
        out: dict[str, Any] = {}
        for (check, key), n in sorted(self.counts.items()):
            out.setdefault(check, {})[key] = n
        for check, text in self.examples.items():
            out[check]["example"] = text
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, Any]]) -> PlausibilityCheck:
        """Invert `to_json`."""
        new = cls()
        for check, counts in data.items():
            for key, n in counts.items():
                if key == "example":
                    new.examples[check] = str(n)
                else:
                    new.counts[check, key] += int(n)
        return new

    def findings(self) -> list[Finding]:
        """Return the checks that found a record that disagrees."""
        self._flush()
        found = []
        for check in ("sun", "utm_zone", "country_code"):
            if disagree := self.counts[check, "disagree"]:
                words, explained = self._explanation(check, disagree)
                example = self.examples.get(check, "")
                checked = self.counts[check, "checked"]
                found.append(Finding(check, checked, disagree, words, explained, example))
        return found

    def _explanation(self, check: str, disagree: int) -> tuple[str, int]:
        """Return the words of the best explanation and its count; ("", 0) if none is good."""
        names = list(EXPLANATIONS)
        shifts = [key for name, key in self.counts if name == check and key.startswith(_SHIFT)]
        names[-1:-1] = sorted(shifts) if disagree >= _MIN_SHIFTED else []
        best = max(names, key=lambda name: self.counts[check, name])
        n = self.counts[check, best]
        if n < EXPLAINED * disagree:
            return "", 0
        if best.startswith(_SHIFT):
            hours = float(best.removeprefix(_SHIFT))
            where = "ahead of" if hours > 0 else "behind"
            return f"the times look {abs(hours):g} h {where} UTC: a wrong time zone", n
        return EXPLANATIONS[best], n

    # --- the checks -------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Check the records that wait."""
        if self._waiting:
            names = [name for name, _ in self._waiting]
            records = [metadata for _, metadata in self._waiting]
            self._waiting = []
            place = np.array([m.values["location"] for m in records], np.float64)
            self._check_sun(names, records, place)
            self._check_zone(names, records, place)
            self._check_country(names, records, place)

    def _count(
        self,
        check: str,
        agree: np.ndarray,
        explanations: Mapping[str, np.ndarray],
        example: Callable[[int], str],
    ) -> None:
        """Count records; `explanations` say which of the disagreeing then agree."""
        wrong = np.flatnonzero(~agree)
        self.counts[check, "checked"] += len(agree)
        if not len(wrong):
            return
        self.counts[check, "disagree"] += len(wrong)
        for name, then in explanations.items():
            if n := int(np.count_nonzero(then)):
                self.counts[check, name] += n
        if check not in self.examples:
            self.examples[check] = example(int(wrong[0]))

    def _check_sun(
        self, names: Sequence[str], records: Sequence[Metadata], place: np.ndarray
    ) -> None:
        rows = [
            i
            for i, m in enumerate(records)
            if "timestamp" in m.values
            and ("sun_elevation_angle" in m.values or "sun_azimuth_angle" in m.values)
        ]
        if not rows:
            return
        clock = np.array([solar_clock(records[i].values["timestamp"]) for i in rows])  # type: ignore[arg-type]
        given = np.array(
            [
                [
                    (records[i].numbers(name) or (np.nan,))[0]
                    for name in ("sun_azimuth_angle", "sun_elevation_angle")
                ]
                for i in rows
            ]
        )
        sun = _Sun(*place[rows].T, *clock.T, *given.T)
        computed = sun.computed()
        agree = sun.separation(computed) <= SUN_TOLERANCE
        wrong = sun.at(np.flatnonzero(~agree))

        def example(row: int) -> str:
            text = ", ".join(
                f"{name} {given[row, i]:.1f} given, {computed[i][row]:.1f} computed"
                for i, name in enumerate(("sun azimuth", "sun elevation"))
                if not np.isnan(given[row, i])
            )
            return f"{_short(names[rows[row]])}: {text}"

        explanations = wrong.explanations() if len(wrong.hour) else {}
        self._count("sun", agree, explanations, example)

    def _check_zone(
        self, names: Sequence[str], records: Sequence[Metadata], place: np.ndarray
    ) -> None:
        rows, numbers, bands = [], [], []
        for i, m in enumerate(records):
            if match := _ZONE.fullmatch(str(m.values.get("utm_zone", ""))):
                rows.append(i)
                numbers.append(int(match[1]))
                bands.append(_BANDS.find(match[2]) if match[2] else -1)
        if not rows:
            return
        number, band, (longitude, latitude) = np.array(numbers), np.array(bands), place[rows].T
        zone = _in_zone(number, longitude, latitude)
        agree = zone & _in_band(band, latitude)
        w = ~agree
        number, band, longitude, latitude = number[w], band[w], longitude[w], latitude[w]
        explanations = {
            "exchanged": _in_zone(number, latitude, longitude) & _in_band(band, longitude),
            "west": _in_zone(number, -longitude, latitude) & _in_band(band, latitude),
            "hemisphere": zone[w]
            & (
                ((band == _BANDS.index("N")) & (latitude >= -BAND_MARGIN))
                | ((band == _BANDS.index("S")) & (latitude <= BAND_MARGIN))
            ),
        }
        self._count(
            "utm_zone",
            agree,
            explanations,
            lambda row: (
                f"{_short(names[rows[row]])}: UTM zone {records[rows[row]].values['utm_zone']} at "
                f"{_degrees(place[rows[row]])}"
            ),
        )

    def _check_country(
        self, names: Sequence[str], records: Sequence[Metadata], place: np.ndarray
    ) -> None:
        lines = country_lines()
        by_country: dict[str, list[int]] = {}
        for i, m in enumerate(records):
            if (code := str(m.values.get("country_code", ""))) in lines:
                by_country.setdefault(code, []).append(i)
        for code, rows in by_country.items():
            cells, (longitude, latitude) = country_cells(code), place[rows].T
            agree = in_cells(cells, longitude, latitude)
            x, y = longitude[~agree], latitude[~agree]
            explanations = {
                "exchanged": in_cells(cells, y, x) & (np.abs(x) <= 90),
                "west": in_cells(cells, -x, y),
            }

            def example(row: int, code: str = code, rows: list[int] = rows) -> str:
                return f"{_short(names[rows[row]])}: country {code} at {_degrees(place[rows[row]])}"

            self._count("country_code", agree, explanations, example)


@dataclass(frozen=True)
class _Sun:
    """Times, places and given angles of the sun: float64 arrays of one length, NaN if missing."""

    longitude: np.ndarray
    latitude: np.ndarray
    day: np.ndarray
    hour: np.ndarray
    azimuth: np.ndarray
    elevation: np.ndarray

    def at(self, rows: np.ndarray) -> _Sun:
        return _Sun(*(array[rows] for array in vars(self).values()))

    def but(self, **changes: np.ndarray) -> _Sun:
        return _Sun(**{**vars(self), **changes})

    def computed(self) -> tuple[np.ndarray, np.ndarray]:
        return solar_positions(self.longitude, self.latitude, self.day, self.hour)

    def separation(self, computed: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
        """Return the angle between given and computed sun, degrees, by what is given."""
        azimuth, elevation = map(np.radians, computed or self.computed())
        turn = np.where(np.isnan(self.azimuth), 0.0, np.radians(self.azimuth) - azimuth)
        given = np.where(np.isnan(self.elevation), elevation, np.radians(self.elevation))
        # the haversine formula, accurate for small angles
        sine = np.sin((given - elevation) / 2) ** 2
        sine = sine + np.cos(given) * np.cos(elevation) * np.sin(turn / 2) ** 2
        return np.degrees(2 * np.asin(np.sqrt(np.clip(sine, 0.0, 1.0))))

    def agrees(self) -> np.ndarray:
        return self.separation() <= SUN_TOLERANCE

    def explanations(self) -> dict[str, np.ndarray]:
        """Return explanation -> which records agree once that error is removed."""
        out = {
            "exchanged": self.but(longitude=self.latitude, latitude=self.longitude).agrees()
            & (np.abs(self.longitude) <= 90),
            "west": self.but(longitude=-self.longitude).agrees(),
            "zenith": self.but(elevation=90 - self.elevation).agrees() & ~np.isnan(self.elevation),
            "south": self.but(azimuth=self.azimuth + 180).agrees() & ~np.isnan(self.azimuth),
            "midnight": self.hour == 0,
        }
        ahead = np.round(self._hours_ahead() * 2) / 2  # NaN where an angle is missing
        shifted = self.but(hour=self.hour - np.nan_to_num(ahead)).agrees() & ~np.isnan(ahead)
        shifted &= ahead != 0
        out["local"] = shifted & (np.abs(ahead - self.longitude / 15) <= 1.5) & (self.hour != 0)
        for hours in np.unique(ahead[shifted]):
            out[f"{_SHIFT}{hours:+g}"] = shifted & (ahead == hours) & (self.hour != 0)
        return out

    def _hours_ahead(self) -> np.ndarray:
        """Return by how many hours the time is ahead of that of the given sun, in [-12, 12)."""
        hours = []
        for azimuth, elevation in ((self.azimuth, self.elevation), self.computed()):
            a, h, phi = np.radians(azimuth), np.radians(elevation), np.radians(self.latitude)
            angle = np.atan2(
                -np.sin(a) * np.cos(h),
                np.sin(h) * np.cos(phi) - np.cos(h) * np.cos(a) * np.sin(phi),
            )
            hours.append(np.degrees(angle) / 15)
        given, computed = hours
        return (computed - given + 12) % 24 - 12


# --- UTM zones ------------------------------------------------------------------------------------


def _in_zone(number: np.ndarray, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return whether places lie in or near UTM zones, with the wide ones of Norway."""
    off = np.abs((longitude - (6 * number - 183) + 180) % 360 - 180)
    cosine = np.maximum(np.cos(np.radians(np.clip(latitude, -90, 90))), 0.05)
    wide = np.where((latitude >= 55) & (number >= 31) & (number <= 37), 3.0, 0.0)
    # a "latitude" beyond 90 is a longitude in the place of a latitude
    return (off <= 3 + wide + ZONE_MARGIN / cosine) & (np.abs(latitude) <= 90)


def _in_band(band: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return whether latitudes lie in or near bands, positions among `_BANDS`; -1 is any."""
    south = 8.0 * band - 80
    north = np.where(band == len(_BANDS) - 1, 84.0, south + 8)
    near = (latitude >= south - BAND_MARGIN) & (latitude <= north + BAND_MARGIN)
    return near | (band < 0)


def _degrees(place: np.ndarray) -> str:
    return f"longitude {place[0]:.2f}, latitude {place[1]:.2f}"


def _short(text: str) -> str:
    """Return a name without control characters and of moderate length."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 60 else f"...{text[-57:]}"
