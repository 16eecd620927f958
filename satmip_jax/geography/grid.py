"""Grids of cells on land, and distances on the Earth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Int16

from satmip_jax.geography.land import countries, rasterize

RADIUS = 6371.0088  # km, mean of the Earth (IUGG)

Region = tuple[float, float, float, float]  # west, south, east and north, degrees
WORLD: Region = (-180.0, -60.0, 180.0, 84.0)  # land without Antarctica


def great_circle(
    a: Float[np.ndarray, "*batch 2"], b: Float[np.ndarray, "*batch 2"]
) -> Float64[np.ndarray, ...]:
    """Return the great-circle distance between places, in km.

    By the chord, whose length is exact for close and nearly exact for opposite places.

    Args:
        a: longitude and latitude in degrees; shapes are broadcast.
        b: likewise.

    Example:
        >>> from satmip_jax.geography.grid import great_circle
        >>> great_circle(np.array([2.35, 48.86]), np.array([[12.5, 41.9], [2.35, 48.86]])).round()
        array([1106.,    0.])
    """
    chord = np.linalg.norm(unit(a) - unit(b), axis=-1)
    return chord_to_km(chord)


def unit(places: Float[np.ndarray, "*batch 2"]) -> Float64[np.ndarray, "*batch 3"]:
    """Return places in degrees as points on the unit sphere."""
    longitude, latitude = np.moveaxis(np.radians(np.asarray(places, np.float64)), -1, 0)
    level = np.cos(latitude)
    return np.stack(
        [level * np.cos(longitude), level * np.sin(longitude), np.sin(latitude)], axis=-1
    )


def chord_to_km(chord: Float[np.ndarray, ...]) -> Float64[np.ndarray, ...]:
    """Return the length along the Earth of a chord of the unit sphere."""
    return 2 * RADIUS * np.arcsin(np.clip(np.asarray(chord, np.float64) / 2, 0, 1))


@dataclass(frozen=True)
class Grid:
    """The cells of land in a region, of equal sides in degrees.

    Attributes:
        region: west, south, east and north; east may lie beyond 180.
        cell: side of a cell, degrees.
        shape: rows from north to south, and columns from west to east.
        index: position of each cell in the flattened rows and columns, sorted.
        country: position in `land.countries` of each cell.
        places: longitude in [-180, 180) and latitude of the centres, degrees.
        areas: km2.
    """

    region: Region
    cell: float
    shape: tuple[int, int]
    index: np.ndarray
    country: Int16[np.ndarray, " n"]
    places: Float64[np.ndarray, "n 2"]
    areas: Float64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def points(self) -> Float64[np.ndarray, "n 3"]:
        """The centres on the unit sphere."""
        return unit(self.places)

    @classmethod
    def of_land(cls, region: Region, cell: float) -> Grid:
        """Return the cells that land touches. Borders of the region move out to whole cells.

        Example:
            >>> from satmip_jax.geography.grid import Grid
            >>> grid = Grid.of_land((-10, 35, 5, 45), 5.0)
            >>> grid.shape, len(grid), grid.places[0].tolist()
            ((2, 3), 6, [-7.5, 42.5])
        """
        west, south = (np.floor(x / cell) * cell for x in region[:2])
        columns = int(np.ceil((region[2] - west) / cell - 1e-9))
        columns = min(columns, int(np.floor(360 / cell + 1e-9)))
        south = max(south, -90.0)
        rows = int(np.ceil((min(region[3], 90.0) - south) / cell - 1e-9))
        rows = min(rows, int(np.floor((90 - south) / cell + 1e-9)))
        north = south + rows * cell
        country = rasterize(west, north, cell, rows, columns).ravel()
        index = np.flatnonzero(country >= 0)
        row, column = np.divmod(index, columns)
        latitude = north - (row + 0.5) * cell
        longitude = west + (column + 0.5) * cell
        top, bottom = (np.sin(np.radians(latitude + side * cell / 2)) for side in (1, -1))
        return cls(
            (float(west), float(south), float(west + columns * cell), float(north)),
            cell,
            (rows, columns),
            index,
            country[index],
            np.stack([(longitude + 180) % 360 - 180, latitude], axis=1),
            RADIUS**2 * np.radians(cell) * (top - bottom),
        )

    def corners(self, i: int) -> Region:
        """Return west, south, east and north of a cell."""
        longitude, latitude = (float(x) for x in self.places[i])
        half = self.cell / 2
        return longitude - half, latitude - half, longitude + half, latitude + half

    def country_of(self, i: int) -> tuple[str, str]:
        """Return name and code of the country of a cell."""
        country = countries()[self.country[i]]
        return country.name, country.code

    def image(self, values: Float[np.ndarray, " n"]) -> Float64[np.ndarray, "rows columns"]:
        """Return values of the cells as rows and columns; NaN on water."""
        flat = np.full(self.shape[0] * self.shape[1], np.nan)
        flat[self.index] = values
        return flat.reshape(self.shape)


def region_of(places: Float[np.ndarray, "n 2"], margin: float) -> Region:
    """Return the smallest region that holds places, with a margin; it may cross the antimeridian.

    Args:
        places: longitude and latitude, degrees.
        margin: degrees.

    Example:
        >>> from satmip_jax.geography.grid import region_of
        >>> region_of(np.array([[178.0, -18.0], [-179.0, -17.0]]), 1.0)
        (177.0, -19.0, 182.0, -16.0)
    """
    longitude = np.sort(places[:, 0] % 360)
    gaps = np.diff(np.append(longitude, longitude[0] + 360))
    widest = int(gaps.argmax())
    width = 360 - float(gaps[widest])
    west = (float(longitude[(widest + 1) % len(longitude)]) + 180) % 360 - 180
    south, north = float(places[:, 1].min()), float(places[:, 1].max())
    if width + 2 * margin >= 360:
        west, width, margin_x = -180.0, 360.0, 0.0
    else:
        margin_x = margin
    return (
        west - margin_x,
        max(south - margin, -90.0),
        west + width + margin_x,
        min(north + margin, 90.0),
    )


def parse_region(text: str) -> Region:
    """Return the region of "west,south,east,north" in degrees; east below west crosses 180.

    Raises:
        ValueError: it is not one.

    Example:
        >>> from satmip_jax.geography.grid import parse_region
        >>> parse_region("170,-50,-175,-30")
        (170.0, -50.0, 185.0, -30.0)
    """
    numbers: Sequence[float] = [float(part) for part in text.split(",")]
    if len(numbers) != 4 or not np.isfinite(numbers).all():
        raise ValueError("expected four numbers")
    west, south, east, north = numbers
    if not (-180 <= west <= 180 and -180 <= east <= 360):
        raise ValueError("longitudes are not in -180..180")
    if not -90 <= south < north <= 90:
        raise ValueError("south and north are not in order, or not in -90..90")
    east += 360 * (east <= west)
    if east - west > 360:
        raise ValueError("it is wider than the Earth")
    return west, south, east, north
