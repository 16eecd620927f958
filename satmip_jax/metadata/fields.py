"""The metadata fields of an image: what each means, its unit, valid range and group.

A new field is one entry in `FIELDS`: parsing, statistics, shards, network inputs, captions and
ablations derive from it. A new kind of value is one class in `metadata.kinds`.

Source: the 15 fields and their groups are those of SatMIP (Bourcier et al., ECCV 2024); the ranges
are physical.
"""

from __future__ import annotations

import contextlib
import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from satmip_jax.errors import SatmipError
from satmip_jax.metadata.countries import convert_country, country_code
from satmip_jax.metadata.kinds import Angle, Category, Kind, Location, Numeric, Timestamp

Group = Literal["GSD", "Time", "Location", "Angles", "Other"]


class FieldError(SatmipError, ValueError):
    """An unknown field or group, or an empty selection; the message lists the valid names."""


@dataclass(frozen=True)
class Field:
    """One metadata field of an image.

    Attributes:
        name: Key in `Metadata.values`.
        kind: How its values are read, stored and encoded, with their valid range.
        group: Group in the paper's ablation.
        unit: Unit of the components, for people.
        phrase: Its part of a caption, a format string over the components.
    """

    name: str
    kind: Kind[Any]
    group: Group
    unit: str
    phrase: str

    @property
    def leak(self) -> bool:
        """Whether the field reveals the ground size of the tile, and with it fMoW's class.

        A labelled region is cut out and resized to a fixed square, so every scale of the stored
        image is (scale of the sensor) x (ground width of the region) / (a constant): whatever
        follows the resize reveals how large an airport or a fountain is.
        """
        return self.kind.scales_with is not None


# --- canonical spellings of categories ------------------------------------------------------------


_UTM = re.compile(r"0?([1-9]|[1-5][0-9]|60)([C-HJ-NP-X]?)", re.ASCII)


def utm_zone(text: str) -> str | None:
    """Return a UTM zone 1-60 with or without its latitude band, spelled like "18M".

    Bands are C-X without I and O; anything else gives None. A letter is always the band, as in
    fMoW: "18N" is between 0 and 8 degrees north, and "18S" between 32 and 40 degrees north. Where
    N and S are hemispheres instead, `metadata.conventions` and `metadata.plausibility` notice it by
    the latitudes.

    Example:
        >>> from satmip_jax.metadata.fields import utm_zone
        >>> utm_zone("08m"), utm_zone("61A")
        ('8M', None)
    """
    match = _UTM.fullmatch(text.upper())
    return "".join(match.groups()) if match else None


_UTM_OTHER = re.compile(
    r"(?:ZONE|UTM|UTM ZONE)?\s*0?([1-9]|[1-5][0-9]|60)(?:\.0*)?\s*([C-HJ-NP-X]|NORTH|SOUTH)?",
    re.ASCII,
)
_UTM_EPSG = re.compile(r"(?:EPSG:)?32[67]([0-9]{2})(?:\.0*)?", re.ASCII)


def convert_utm_zone(raw: object) -> tuple[object, str] | None:
    """Return the UTM zone of a number, an EPSG code or a longer spelling, and a note.

    Words for the hemisphere are left out, because the letters N and S are latitude bands.

    Example:
        >>> from satmip_jax.metadata.fields import convert_utm_zone
        >>> convert_utm_zone(18.0), convert_utm_zone("18 North")
        (('18', ''), ('18', 'North or South: the hemisphere was left out'))
    """
    if isinstance(raw, bool):
        return None
    text = raw.strip().upper() if isinstance(raw, str) else ""
    if isinstance(raw, numbers.Real):
        with contextlib.suppress(OverflowError):
            number = float(raw)
            text = str(int(number)) if number.is_integer() and 0 < number < 1e5 else ""
    if match := _UTM_EPSG.fullmatch(text):
        return match[1], "EPSG code: read as its zone"
    if not (match := _UTM_OTHER.fullmatch(text)):
        return None
    if match[2] in ("NORTH", "SOUTH"):
        return match[1], "North or South: the hemisphere was left out"
    return match[1] + (match[2] or ""), ""


def scan_direction(text: str) -> str | None:
    """Return "Forward" or "Reverse" for these words in any case; None for anything else."""
    return {"forward": "Forward", "reverse": "Reverse"}.get(text.lower())


def printable(text: str) -> str | None:
    """Return the text itself if every character is printable; an open vocabulary."""
    return text if text.isprintable() else None


# --- the fields -----------------------------------------------------------------------------------

# A scale must be positive, and large enough for its logarithm to exist: the lower ends below (a
# micrometre, and its equivalent in degrees) stand for "above zero". Every end is a float32, so that
# a value stored as one is still inside.
FIELDS: tuple[Field, ...] = (
    Field(
        "gsd",
        Numeric(2, low=2.0**-20, high=10_000.0, log=True, scales_with="axes"),
        "GSD",
        "m per pixel, x and y",
        "gsd {0:.3g} x {1:.3g} m",
    ),
    Field(
        "multispectral_gsd",
        Numeric(low=2.0**-20, high=10_000.0, log=True, scales_with="mean"),
        "GSD",
        "m per pixel",
        "multispectral gsd {0:.3g} m",
    ),
    Field(
        "pixel_size",
        Numeric(2, low=2.0**-40, high=1.0, log=True, scales_with="axes"),
        "GSD",
        "degrees per pixel, x and y",
        "pixel size {0:.3g} x {1:.3g} degrees",
    ),
    Field(
        "timestamp",
        Timestamp(1957, 2100),  # from Sputnik on
        "Time",
        "UTC",
        "taken {0:%Y-%m-%d} at {0:%H:%M} UTC",
    ),
    Field(
        "location",
        Location(),
        "Location",
        "degrees, longitude and latitude",
        "longitude {0:.4f}, latitude {1:.4f}",
    ),
    Field(
        "utm_zone",
        Category(utm_zone, convert_utm_zone),
        "Location",
        "UTM zone and latitude band",
        "UTM zone {0}",
    ),
    Field(
        "country_code",
        Category(country_code, convert_country),
        "Location",
        "ISO 3166 alpha-3",
        "country {0}",
    ),
    Field(
        "cloud_cover",
        Numeric(low=0.0, high=100.0),
        "Other",
        "percent",
        "cloud cover {0:.3g} percent",
    ),
    Field(
        "scan_direction",
        Category(scan_direction),
        "Other",
        "Forward or Reverse",
        "scan direction {0}",
    ),
    Field(
        "wavelengths",
        Numeric(3, low=300.0, high=2500.0),
        "Other",
        "nm, red, green and blue",
        "wavelengths {0:.4g}, {1:.4g}, {2:.4g} nm",
    ),
    Field(
        "target_azimuth_angle",
        Angle(0.0, 360.0),
        "Angles",
        "degrees",
        "target azimuth {0:.1f} degrees",
    ),
    Field(
        "sun_azimuth_angle",
        Angle(0.0, 360.0),
        "Angles",
        "degrees",
        "sun azimuth {0:.1f} degrees",
    ),
    Field(
        "sun_elevation_angle",
        Angle(-90.0, 90.0),
        "Angles",
        "degrees above the horizon",
        "sun elevation {0:.1f} degrees",
    ),
    Field(
        "off_nadir_angle",
        Angle(0.0, 90.0, unsigned=True),
        "Angles",
        "degrees",
        "off nadir {0:.1f} degrees",
    ),
    Field(
        "sensor_platform",
        Category(printable),
        "Other",
        "name of the satellite",
        "sensor {0}",
    ),
)


def groups() -> tuple[str, ...]:
    """Return the groups, in the order of their first fields."""
    return tuple(dict.fromkeys(f.group for f in FIELDS))


def field(name: str) -> Field:
    """Return the field of that name.

    Raises:
        FieldError: There is no such field; the message lists all.

    Example:
        >>> from satmip_jax.metadata.fields import field
        >>> field("cloud_cover").unit
        'percent'
    """
    for f in FIELDS:
        if f.name == name:
            return f
    raise FieldError(f"no metadata field {name!r}; choose from {_names()}")


def select_fields(spec: str | Sequence[str]) -> tuple[Field, ...]:
    """Return the fields that a specification selects, in the order of `FIELDS`, each once.

    For the inputs of a model use `Schema.select_fields`, which leaves out fields that were added
    after its data were prepared.

    Args:
        spec: "all", a group ("Location"), a field ("gsd"), sums and differences of these
            ("GSD+Time+Location", "all-leak", "all-Location-leak", where "leak" stands for the
            fields that reveal the tile's size), or a sequence of such specifications: their union.

    Raises:
        FieldError: An unknown name (the message lists all), or an empty selection.

    Example:
        >>> from satmip_jax.metadata.fields import select_fields
        >>> [f.name for f in select_fields("Time+cloud_cover")]
        ['timestamp', 'cloud_cover']
    """
    selected: set[str] = set()
    for text in [spec] if isinstance(spec, str) else list(spec):
        # the capture keeps the signs: "a+b-c" -> ["a", "+", "b", "-", "c"]
        first, *rest = re.split(r"([+-])", text)
        part = _term(first, text)
        for sign, term in zip(rest[::2], rest[1::2], strict=True):
            part = part | _term(term, text) if sign == "+" else part - _term(term, text)
        selected |= part
    if not selected:
        raise FieldError(f"the field selection {spec!r} leaves no field")
    return tuple(f for f in FIELDS if f.name in selected)


def _term(term: str, spec: str) -> set[str]:
    """Return the names of the fields that one term of a specification stands for."""
    term = term.strip()
    if term == "all":
        return {f.name for f in FIELDS}
    if term == "leak":
        return {f.name for f in FIELDS if f.leak}
    if names := {f.name for f in FIELDS if term in (f.group, f.name)}:
        return names
    raise FieldError(
        f"unknown field or group {term!r} in the field selection {spec!r}; choose from all, leak, "
        f"the groups {', '.join(groups())}, and the fields {_names()}"
    )


def _names() -> str:
    return ", ".join(f.name for f in FIELDS)
