"""Rendering of an image's values as 8-bit RGB: which bands are shown, and how values are scaled.

Without a rule, only 8-bit images whose bands are clear are accepted: nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from satmip_jax.data.image_errors import ImageError

PERCENTILE = "percentile"
LOWEST, HIGHEST = 2, 98  # of the percentiles
_SAMPLE = 1 << 20  # maximum number of pixels that percentiles are computed from
_CHUNK = 1 << 20  # values that are scaled at once
_MAX_BAND = 65_535


@dataclass(frozen=True)
class Values:
    """Decoded values of the bands that are shown.

    Attributes:
        array: (height, width, 3), blue, green, red; any real dtype.
        missing: The value that stands for missing ones (NoData of a GeoTIFF), if there is one.
        inverted: Whether zero is white.
        rendered: Whether they are 8-bit RGB already; otherwise they must be scaled.
    """

    array: np.ndarray
    missing: float | None = None
    inverted: bool = False
    rendered: bool = False

    def valid(self, part: np.ndarray) -> np.ndarray:
        """Return where values of `part`, a part of `array`, are finite and not missing."""
        valid = np.isfinite(part)
        return valid if self.missing is None else valid & (part != self.missing)


@dataclass(frozen=True)
class Rendering:
    """Bands and scale of the stored images.

    Attributes:
        bands: Numbers from 1 of the bands shown as red, green and blue, or of one shown as grey. By
            default 1, 2, 3, or the bands that a TIFF marks as red, green and blue.
        scale: How values that are not 8-bit become 8-bit, (low, high) or "percentile". Values from
            low to high become 0 to 255, rounded; others become the nearest of the two, and missing
            ones 0. "percentile" takes low and high from each image: its 2nd and 98th percentile, of
            all three bands together, so that hues are kept. 8-bit values are not scaled.

    Raises:
        ImageError: A value is not valid.

    Example:
        >>> from satmip_jax.data.rendering import Rendering
        >>> Rendering.parse("4,3,2", "0,3000")
        Rendering(bands=(4, 3, 2), scale=(0.0, 3000.0))
    """

    bands: tuple[int, ...] | None = None
    scale: tuple[float, float] | str | None = None

    def __post_init__(self) -> None:
        if self.bands is not None and (
            len(self.bands) not in (1, 3) or not all(1 <= band <= _MAX_BAND for band in self.bands)
        ):
            raise ImageError(
                f"--bands {','.join(map(str, self.bands))}: give three band numbers from 1 for "
                "red, green and blue, such as 4,3,2, or one for grey"
            )
        if isinstance(self.scale, tuple):
            low, high = self.scale
            if not _usable(low, high):
                raise ImageError(f"--scale {low:g},{high:g}: LOW must be below HIGH")

    @classmethod
    def parse(cls, bands: str | None, scale: str | None) -> Rendering:
        """Return the rendering for options of the command line.

        Args:
            bands: Such as "4,3,2", or "1".
            scale: "LOW,HIGH" or "percentile".

        Raises:
            ImageError: A text cannot be read.
        """
        numbers: tuple[int, ...] | None = None
        if bands is not None:
            try:
                numbers = tuple(int(part) for part in bands.split(","))
            except ValueError:
                raise ImageError(
                    f"--bands {bands!r}: give three band numbers from 1 for red, green and blue, "
                    "such as 4,3,2, or one for grey"
                ) from None
        if scale is None or scale == PERCENTILE:
            return cls(numbers, scale)
        try:
            low, high = (float(part) for part in scale.split(","))
        except ValueError:
            raise ImageError(
                f"--scale {scale!r}: give LOW,HIGH, the values that become 0 and 255, such as "
                f"0,3000, or {PERCENTILE}"
            ) from None
        return cls(numbers, (low, high))

    def to_json(self) -> dict[str, Any]:
        """Return the options that are given, as JSON."""
        given: dict[str, Any] = {}
        if self.bands is not None:
            given["bands"] = list(self.bands)
        if self.scale is not None:
            given["scale"] = self.scale if isinstance(self.scale, str) else list(self.scale)
        return given

    def choose(
        self, count: int, dtype: str, colours: Sequence[str] = (), *, palette: bool = False
    ) -> tuple[int, ...]:
        """Return the numbers of the bands to show: red, green, blue, or one for grey.

        Args:
            count: Number of bands of the image.
            dtype: Type of its values.
            colours: What the file says about each band, such as "red" or "alpha"; may be empty.
            palette: Whether the values of the only band are numbers of 8-bit colours.

        Raises:
            ImageError: An option is needed, or a band does not exist; the message says which.
        """
        needed = []
        usual = _usual_bands(count, dtype, colours)
        bands = self.bands or usual
        if not bands:
            needed.append("--bands R,G,B (such as --bands 4,3,2)")
        if dtype != "uint8" and not palette and self.scale is None:
            needed.append(f"--scale LOW,HIGH (or --scale {PERCENTILE})")
        plural = "" if count == 1 else "s"
        if needed:
            raise ImageError(f"{count} band{plural} of {dtype}: give {' and '.join(needed)}")
        if max(bands) > count:
            raise ImageError(
                f"{count} band{plural}, but --bands {','.join(map(str, bands))}: "
                f"{'leave --bands out, or ' if usual else ''}"
                f"{'give --bands 1' if count == 1 else f'choose from bands 1 to {count}'}"
            )
        return bands

    def limits(self, values: Values) -> tuple[float, float]:
        """Return the values that become 0 and 255 in this image.

        Raises:
            ImageError: It has no percentiles, because values are missing or all alike.
        """
        if isinstance(self.scale, tuple):
            return self.scale
        height, width = values.array.shape[:2]
        step = math.isqrt(max(height * width - 1, 0) // _SAMPLE) + 1
        sample = values.array[::step, ::step].astype(np.float64)
        sample = sample[values.valid(sample)]
        if not sample.size:
            raise ImageError("all values are missing")
        low, high = (float(x) for x in np.percentile(sample, [LOWEST, HIGHEST]))
        if not _usable(low, high):
            raise ImageError(f"nearly all values are {low:g}: give --scale LOW,HIGH")
        return low, high


DEFAULT = Rendering()


def to_uint8(
    values: Values, low: float, high: float
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Scale values linearly to 8 bits.

    Args:
        values: The image, or a part of it.
        low: Value that becomes 0.
        high: Value that becomes 255.

    Returns:
        uint8 of the same shape, and the smallest and largest value that is not missing.
    """
    array = values.array
    scaled = np.empty(array.shape, np.uint8)
    smallest, largest = math.inf, -math.inf
    rows = max(1, _CHUNK // max(1, array[:1].size))
    for start in range(0, len(array), rows):
        part = array[start : start + rows].astype(np.float64)
        valid = values.valid(part)
        if valid.any():
            smallest = min(smallest, float(part[valid].min()))
            largest = max(largest, float(part[valid].max()))
        part = np.where(valid, part, low).clip(low, high)
        part = np.rint((part - low) * (255 / (high - low)))
        if values.inverted:
            part = np.where(valid, 255 - part, 0)
        scaled[start : start + rows] = part
    return scaled, (smallest, largest) if smallest <= largest else None


def _usable(low: float, high: float) -> bool:
    return low < high and math.isfinite(high - low) and math.isfinite(255 / (high - low))


def _usual_bands(count: int, dtype: str, colours: Sequence[str]) -> tuple[int, ...]:
    """Return the bands to show if none are given; () if they are not clear."""
    if count == 1 or (count == 2 and list(colours[1:]) == ["alpha"]):
        return (1,)
    if count in (3, 4) and {"red", "green", "blue"} <= set(colours):
        return tuple(colours.index(name) + 1 for name in ("red", "green", "blue"))
    # the fourth of 8 bits is alpha or near infrared; of others the order varies
    return (1, 2, 3) if count == 3 or (count == 4 and dtype == "uint8") else ()
