"""The metadata fields of an image: what each is, its unit, its valid range and its group.

Everything else (parsing, statistics, network inputs, captions, ablations) derives from `FIELDS`:
adding a field is one entry there.

Source: the 15 fields and their groups are those of SatMIP (Bourcier et al., ECCV 2024); the ranges
are physical.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from satmip_jax.errors import SatmipError

Kind = Literal["numeric", "angle", "time", "location", "category"]
Group = Literal["GSD", "Time", "Location", "Angles", "Other"]

MAX_TEXT = 64  # characters of a category; longer is not a category but an accident


class FieldError(SatmipError, ValueError):
    """There is no such field or group, or nothing is left of a selection; the message lists all."""


@dataclass(frozen=True)
class Field:
    """One kind of knowledge about an image.

    Attributes:
      name: the key in `Metadata.values`.
      kind: "numeric" and "angle" (degrees) are tuples of `size` numbers, "location" is (longitude,
        latitude) in degrees, "time" an aware datetime in UTC, "category" a string.
      group: the group it belongs to in the paper's ablation.
      unit: of every component, for people.
      phrase: how a caption says it: a format string over the components.
      size: how many numbers stand for it in an array (a time: 3, see `tabular.encode`; a
        category: none, it has an id instead).
      low, high: the valid range, both ends included, per component where they differ; of a time,
        years. A value outside counts as missing.
      log: standardise the logarithm, as for scales.
      period: an angle is given to networks as the sine and cosine of 2 pi x / period.
      validator: for a category, text -> its canonical spelling, or None where it is unknown.
      scales_with: how it follows a resize: "axes" (a component per axis, x then y) or "mean".
    """

    name: str
    kind: Kind
    group: Group
    unit: str
    phrase: str
    size: int = 1
    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None
    log: bool = False
    period: float | None = None
    validator: Callable[[str], str | None] | None = None
    scales_with: Literal["axes", "mean"] | None = None

    @property
    def leak(self) -> bool:
        """Whether the field tells the tile's size, and with it fMoW's class.

        A labelled region is cut out and resized to a fixed square, so every scale of the stored
        image is (scale of the sensor) x (ground width of the region) / (a constant): whatever
        follows the resize says how large an airport or a fountain is.
        """
        return self.scales_with is not None

    @functools.cached_property
    def cyclic(self) -> bool:
        """Whether the valid range is one whole turn, so that its end is its beginning."""
        return (
            self.period is not None
            and isinstance(self.low, int | float)
            and isinstance(self.high, int | float)
            and self.high - self.low == self.period
        )

    @functools.cached_property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The valid range per component: ((low, ...), (high, ...)), `size` numbers each."""

        def per_component(bound: float | tuple[float, ...] | None, default: float):
            if isinstance(bound, tuple):
                return bound
            return (default if bound is None else float(bound),) * self.size

        return per_component(self.low, float("-inf")), per_component(self.high, float("inf"))


# --- the spelling of categories -------------------------------------------------------------------


@functools.cache
def _countries() -> dict[str, str]:
    """ISO 3166 alpha-3 and alpha-2 codes -> alpha-3."""
    import pycountry  # lazily: it reads its data base when first asked

    codes = {"XKX": "XKX", "XK": "XKX"}  # Kosovo: user-assigned, used by the World Bank and others
    for country in pycountry.countries:
        codes[country.alpha_3] = codes[country.alpha_2] = country.alpha_3
    return codes


def country_code(text: str) -> str | None:
    """ISO 3166 alpha-3 code of an alpha-3 or alpha-2 code; None where there is no such country.

    Example: country_code("pe") == "PER"; country_code("ZZZ") is None.
    """
    return _countries().get(text.upper())


_UTM = re.compile(r"0?([1-9]|[1-5][0-9]|60)([C-HJ-NP-X]?)", re.ASCII)


def utm_zone(text: str) -> str | None:
    """UTM zone 1-60 with or without its latitude band (C-X without I and O), spelt like "18M".

    Example: utm_zone("08m") == "8M"; utm_zone("61A") is None.
    """
    match = _UTM.fullmatch(text.upper())
    return "".join(match.groups()) if match else None


def scan_direction(text: str) -> str | None:
    """Spells "Forward" and "Reverse", whatever the case; None for anything else."""
    return {"forward": "Forward", "reverse": "Reverse"}.get(text.lower())


def printable(text: str) -> str | None:
    """The text itself where every character can be printed; an open vocabulary."""
    return text if text.isprintable() else None


# --- the fields -----------------------------------------------------------------------------------

# A scale must be positive, and large enough for its logarithm to exist: the lower ends below (a
# micrometre, its like in degrees) stand for "above zero". Every end is a float32, so that a value
# that was stored as one is still inside.
FIELDS: tuple[Field, ...] = (
    Field(
        "gsd",
        "numeric",
        "GSD",
        "m per pixel, x and y",
        phrase="gsd {0:.3g} x {1:.3g} m",
        size=2,
        low=2.0**-20,
        high=10_000.0,
        log=True,
        scales_with="axes",
    ),
    Field(
        "multispectral_gsd",
        "numeric",
        "GSD",
        "m per pixel",
        phrase="multispectral gsd {0:.3g} m",
        low=2.0**-20,
        high=10_000.0,
        log=True,
        scales_with="mean",
    ),
    Field(
        "pixel_size",
        "numeric",
        "GSD",
        "degrees per pixel, x and y",
        phrase="pixel size {0:.3g} x {1:.3g} degrees",
        size=2,
        low=2.0**-40,
        high=1.0,
        log=True,
        scales_with="axes",
    ),
    Field(
        "timestamp",
        "time",
        "Time",
        "UTC",
        phrase="taken {0:%Y-%m-%d} at {0:%H:%M} UTC",
        size=3,
        low=1957,  # Sputnik
        high=2100,
    ),
    Field(
        "location",
        "location",
        "Location",
        "degrees, longitude and latitude",
        phrase="longitude {0:.4f}, latitude {1:.4f}",
        size=2,
        low=(-180.0, -90.0),
        high=(180.0, 90.0),
    ),
    Field(
        "utm_zone",
        "category",
        "Location",
        "UTM zone and latitude band",
        phrase="UTM zone {0}",
        size=0,
        validator=utm_zone,
    ),
    Field(
        "country_code",
        "category",
        "Location",
        "ISO 3166 alpha-3",
        phrase="country {0}",
        size=0,
        validator=country_code,
    ),
    Field(
        "cloud_cover",
        "numeric",
        "Other",
        "percent",
        phrase="cloud cover {0:.3g} percent",
        low=0.0,
        high=100.0,
    ),
    Field(
        "scan_direction",
        "category",
        "Other",
        "Forward or Reverse",
        phrase="scan direction {0}",
        size=0,
        validator=scan_direction,
    ),
    Field(
        "wavelengths",
        "numeric",
        "Other",
        "nm, red, green and blue",
        phrase="wavelengths {0:.4g}, {1:.4g}, {2:.4g} nm",
        size=3,
        low=300.0,
        high=2500.0,
    ),
    Field(
        "target_azimuth_angle",
        "angle",
        "Angles",
        "degrees",
        phrase="target azimuth {0:.1f} degrees",
        low=0.0,
        high=360.0,
        period=360.0,
    ),
    Field(
        "sun_azimuth_angle",
        "angle",
        "Angles",
        "degrees",
        phrase="sun azimuth {0:.1f} degrees",
        low=0.0,
        high=360.0,
        period=360.0,
    ),
    Field(
        "sun_elevation_angle",
        "angle",
        "Angles",
        "degrees above the horizon",
        phrase="sun elevation {0:.1f} degrees",
        low=-90.0,
        high=90.0,
        period=360.0,
    ),
    Field(
        "off_nadir_angle",
        "angle",
        "Angles",
        "degrees",
        phrase="off nadir {0:.1f} degrees",
        low=0.0,
        high=90.0,
        period=360.0,
    ),
    Field(
        "sensor_platform",
        "category",
        "Other",
        "name of the satellite",
        phrase="sensor {0}",
        size=0,
        validator=printable,
    ),
)

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(f.group for f in FIELDS))
_BY_NAME = {f.name: f for f in FIELDS}


def field(name: str) -> Field:
    """The field of that name.

    Raises:
      FieldError: there is no such field; the message lists those there are.
    """
    try:
        return _BY_NAME[name]
    except (KeyError, TypeError):
        raise FieldError(f"no metadata field {name!r}; there are: {', '.join(_BY_NAME)}") from None


def select_fields(spec: str | Sequence[str]) -> tuple[Field, ...]:
    """The fields a specification names, in the order of `FIELDS`, each once.

    Args:
      spec: "all", a group ("Location"), a field ("gsd"), sums and differences of these
        ("GSD+Time+Location", "all-leak", "all-Location-leak", where "leak" stands for the fields
        that tell the tile's size), or a sequence of such specifications: their union.

    Raises:
      FieldError: an unknown name (the message lists what exists), or nothing is left.

    Example: [f.name for f in select_fields("Time+cloud_cover")] == ["timestamp", "cloud_cover"]
    """
    chosen: set[str] = set()
    for text in [spec] if isinstance(spec, str) else list(spec):
        # the capture keeps the signs: "a+b-c" -> ["a", "+", "b", "-", "c"]
        first, *rest = re.split(r"([+-])", text)
        part = _named(first, text)
        for sign, term in zip(rest[::2], rest[1::2], strict=True):
            part = part | _named(term, text) if sign == "+" else part - _named(term, text)
        chosen |= part
    if not chosen:
        raise FieldError(f"the field selection {spec!r} leaves no field")
    return tuple(f for f in FIELDS if f.name in chosen)


def _named(term: str, spec: str) -> set[str]:
    term = term.strip()
    if term == "all":
        return set(_BY_NAME)
    if term == "leak":
        return {f.name for f in FIELDS if f.leak}
    if term in GROUPS:
        return {f.name for f in FIELDS if f.group == term}
    if term in _BY_NAME:
        return {term}
    raise FieldError(
        f"unknown field or group {term!r} in the field selection {spec!r}; there are: all, leak, "
        f"the groups {', '.join(GROUPS)}, and the fields {', '.join(_BY_NAME)}"
    )
