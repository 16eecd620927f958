"""Locations on the Earth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from satmip_jax.metadata.field_stats import FieldStats
from satmip_jax.metadata.kinds.base import BadValueError
from satmip_jax.metadata.kinds.numeric import ROUNDING, Numbers

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class Location(Numbers):
    """Longitude in [-180, 180) and latitude in [-90, 90], in degrees.

    Networks get the point p on the unit sphere, then sin(pi 2^k p) and cos(pi 2^k p) for every
    frequency k (as in NeRF, Mildenhall et al., 2020). Direct prediction classifies the location
    among `Schema.geo_centres`.

    Example:
        >>> from satmip_jax.metadata.kinds import Location
        >>> Location().parse([180, 10])
        (-180.0, 10.0)
    """

    size = 2
    low = (-180.0, -90.0)
    high = (180.0, 90.0)
    is_classified = True
    needs_geo_centres = True

    def canonical(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Return the location with its longitude in [-180, 180)."""
        return wrap_longitude(values[0]), values[1]

    def convert(self, raw: object) -> tuple[object, str] | None:
        """Wrap longitudes of 180 to 360 degrees, and those slightly beyond an end."""
        try:
            longitude, latitude = self._numbers(raw)
        except BadValueError:
            return None
        if not -90 <= latitude <= 90:
            return None
        if 180 < longitude <= 360:
            return (longitude - 360, latitude), "longitude in 180..360: wrapped to -180..180"
        if -180 - ROUNDING <= longitude < -180 or 360 < longitude <= 360 + ROUNDING:
            note = "longitude slightly beyond -180 or 360: wrapped"
            return (wrap_longitude(longitude), latitude), note
        return None

    def n_features(self, stats: FieldStats, frequencies: int) -> int:
        """Return 3 for the point, and 6 per frequency."""
        return 3 + 6 * frequencies

    def features(self, x: Array, present: Array, stats: FieldStats, frequencies: int) -> Array:
        """Return the point on the unit sphere, its sines, then its cosines."""
        import jax.numpy as jnp

        longitude, latitude = jnp.split(jnp.radians(x), 2, 1)
        point = jnp.concatenate(
            [
                jnp.cos(latitude) * jnp.cos(longitude),
                jnp.cos(latitude) * jnp.sin(longitude),
                jnp.sin(latitude),
            ],
            1,
        )
        waves = [point * (math.pi * 2.0**k) for k in range(frequencies)]
        return jnp.concatenate([point, *map(jnp.sin, waves), *map(jnp.cos, waves)], 1)

    def n_outputs(self, stats: FieldStats, geo_centres: Sequence[Sequence[float]]) -> int:
        """Return the number of centres, or 0 if there is no choice between them."""
        return len(geo_centres) if len(geo_centres) > 1 else 0

    def target(self, x: Array, geo_centres: Sequence[Sequence[float]]) -> Array:
        """Return the position of the nearest centre, int32 (b,)."""
        import jax.numpy as jnp

        return nearest_centre(x, jnp.asarray(geo_centres, jnp.float32))

    def head_name(self, field: str) -> str:
        """Return "geo_cluster": the head chooses among clusters of locations."""
        return "geo_cluster"


def wrap_longitude(longitude: float) -> float:
    """Return the same meridian in [-180, 180); longitudes already there are not touched."""
    if -180.0 <= longitude < 180.0:
        return longitude
    return (longitude + 180.0) % 360.0 - 180.0


def nearest_centre(points: Array, centres: Array) -> Array:
    """Return the position of the nearest of (k, 3) centres to each of (b, 3) points, int32 (b,).

    By the distance rather than the scalar product: in float32 the products of close points are
    all 1, and on an accelerator they would be rounded further.
    """
    import jax.numpy as jnp

    distance = jnp.sum(jnp.square(points[:, None, :] - centres[None, :, :]), axis=2)  # (b, k)
    return jnp.argmin(distance, axis=1).astype(jnp.int32)
