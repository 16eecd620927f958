"""The images that the probabilities of a calibration hold for, and how others differ from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from satmip_jax.geolocation.calibration import Calibration
from satmip_jax.geolocation.candidates import format_region
from satmip_jax.geolocation.estimate import format_place
from satmip_jax.metadata.schema import Schema

FACTOR = 2.0  # of size or pixel size, beyond which an image is unlike those of the calibration


@dataclass(frozen=True)
class Scope:
    """What the images of a calibration have in common.

    Attributes:
        data: name of the data set.
        images: number of images of the calibration; 0 if it is not recorded.
        side: of the stored squares, pixels.
        cut: whether they were cut around boxes of any size, so that the size of an image says
            nothing.
        gsd: least and greatest metres per pixel of the stored squares; None if not recorded.
        region: of the training's places: west, south, east, north.
    """

    data: str
    images: int
    side: int
    cut: bool
    gsd: tuple[float, float] | None
    region: tuple[float, float, float, float]

    @classmethod
    def of(cls, calibration: Calibration, schema: Schema) -> Scope:
        """Return the scope of a calibration of a model with this schema."""
        return cls(
            calibration.data,
            calibration.images,
            int(schema.image_size),
            schema.provenance.get("context_ratio") is not None,
            calibration.gsd,
            calibration.region,
        )

    def __str__(self) -> str:
        count = f"{self.images:,} images of " if self.images else ""
        pixels = f" of {_metres(self.gsd)}" if self.gsd else ""
        return (
            f"calibrated on {count}{self.data}, {self.side} x {self.side} px{pixels}, "
            f"{self._region}: it holds for images like these"
        )

    def differences(
        self,
        size: tuple[int, int],
        gsd: float | None = None,
        place: tuple[float, float] | None = None,
    ) -> dict[str, str]:
        """Return how an image differs: what images of its kind do -> what this one has.

        Args:
            size: width and height of the image, pixels.
            gsd: metres per pixel, if the file states it.
            place: longitude and latitude, if the file states them.

        Example:
            >>> from satmip_jax.geolocation.scope import Scope
            >>> scope = Scope("eurosat", 4050, 64, False, (10, 10), (-22, 27, 35, 66))
            >>> scope.differences((100, 64), 10.0, (12.5, 41.9))
            {}
            >>> list(scope.differences((1024, 1024), 0.5, (-90.5, 14.6)).values())
            ['1024 x 1024 px', '14.60° N, 90.50° W']
        """
        apart = f"by more than a factor of {FACTOR:g}"
        found = {}
        if not self.cut and any(_differs(side, self.side, self.side) for side in size):
            found[f"differ from {self.side} x {self.side} px {apart}"] = f"{size[0]} x {size[1]} px"
        seen = None if gsd is None else gsd * math.sqrt(size[0] * size[1]) / self.side
        if seen is not None and self.gsd is not None and _differs(seen, *self.gsd):
            pixels = f"have, resized to {self.side} px, pixels that differ from"
            found[f"{pixels} {_metres(self.gsd)} {apart}"] = f"pixels of {seen:.3g} m"
        west, south, east, north = self.region
        if place is not None:
            inside = (place[0] - west) % 360 <= east - west and south <= place[1] <= north
            if not inside:
                found[f"state a place outside of {self._region}"] = format_place(*place)
        return found

    @property
    def _region(self) -> str:
        return format_region([round(x) for x in self.region])


def warnings(differences: Sequence[tuple[str, Mapping[str, str]]]) -> list[str]:
    """Return a sentence for each kind of difference, which counts the images and names the first.

    Args:
        differences: name and `Scope.differences` of each image.
    """
    found: dict[str, list[str]] = {}
    for name, by_kind in differences:
        for kind, value in by_kind.items():
            found.setdefault(kind, []).append(f"{name}, {value}")
    return [
        f"{len(images)} of {len(differences)} images {kind}, and their probabilities are not "
        f"calibrated; the first: {images[0]}"
        for kind, images in found.items()
    ]


def _differs(value: float, low: float, high: float) -> bool:
    return not low / FACTOR <= value <= high * FACTOR


def _metres(gsd: tuple[float, float]) -> str:
    low, high = (f"{x:.3g}" for x in gsd)
    return f"{low} m" if low == high else f"{low} to {high} m"
