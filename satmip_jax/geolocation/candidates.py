"""Candidates of places, months and sensors, encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.model import Model
from satmip_jax.geography.grid import RADIUS, Grid
from satmip_jax.geolocation.posterior import Candidates

FLOOR = 0.02  # share of the prior that is uniform: no place is impossible
MAX_CELLS = 500_000


class GeolocationError(SatmipError, ValueError):
    """A request that cannot be answered; the message says why and what to do."""


class Space(Protocol):
    """The space that images and metadata share, see `inference.joint_space.JointSpace`."""

    def images(self, features: Any) -> Any:
        """Return unit vectors of image features."""

    def metadata(self, features: Any) -> Any:
        """Return unit vectors of metadata features."""


class Embedder(Protocol):
    """What is used of `inference.embedding.EmbeddingModel`."""

    model: Model
    problems: Any
    image_sizes: Any

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the metadata fields that the model takes in."""

    @property
    def joint_space(self) -> Any:
        """The `Space`."""

    def embed_images(self, images: Any, *, progress: bool = True) -> Any:
        """Return image features."""

    def embed_metadata(self, records: Any, *, progress: bool = True) -> Any:
        """Return metadata features."""


def land_grid(region: tuple[float, float, float, float], cell: float) -> Grid:
    """Return the cells of land in a region.

    Raises:
        GeolocationError: the cells do not divide the Earth, are too many, or none is land.
    """
    if not 0 < cell <= 30 or abs(180 / cell - round(180 / cell)) > 1e-6:
        raise GeolocationError(
            f"cells of {cell:g} degrees do not divide 180 degrees: choose, for example, 0.25, 0.5 "
            "or 1"
        )
    west, south, east, north = region
    if (east - west) * (north - south) / cell**2 > 10 * MAX_CELLS:
        raise GeolocationError(
            f"cells of {cell:g} degrees are too many for {format_region(region)}: choose larger "
            "ones, or a smaller region"
        )
    grid = Grid.of_land(region, cell)
    if not 0 < len(grid) <= MAX_CELLS:
        raise GeolocationError(
            f"{format_region(region)} has {len(grid):,} cells of land of {cell:g} degrees, not "
            f"1 to {MAX_CELLS:,}"
        )
    return grid


def format_region(region: Sequence[float]) -> str:
    """Return a region in words, such as "22 W to 35 E, 26.5 N to 66.5 N"."""
    west, south, east, north = region
    x = [(v + 180) % 360 - 180 if v != 180 else v for v in (west, east)]
    ways = [f"{abs(v):g} {'W' if v < 0 else 'E'}" for v in x]
    return f"{ways[0]} to {ways[1]}, " + " to ".join(
        f"{abs(v):g} {'S' if v < 0 else 'N'}" for v in (south, north)
    )


def place_vectors(
    embedder: Embedder, grid: Grid, fields: str, *, progress: bool
) -> Float[np.ndarray, "n e"]:
    """Encode the centres of the cells.

    Args:
        embedder: the model.
        grid: the cells.
        fields: "location", or "location+country_code" for the country of each cell as well.
        progress: show a progress bar.
    """
    records: list[dict[str, Any]] = [{"location": place} for place in grid.places.tolist()]
    if fields == "location+country_code":
        for i, record in enumerate(records):
            if code := grid.country_of(i)[1]:
                record["country_code"] = code
    return encode(embedder, records, progress=progress)


def encode(
    embedder: Embedder, records: Sequence[dict[str, Any]], *, progress: bool
) -> Float[np.ndarray, "n e"]:
    """Return the unit vectors of records in the shared space."""
    features = embedder.embed_metadata(records, progress=progress)
    vectors: np.ndarray = embedder.joint_space.metadata(features)
    return vectors


def place_candidates(
    vectors: Float[np.ndarray, "n e"], grid: Grid, density: Float[np.ndarray, " n"] | None
) -> Candidates:
    """Return the cells as candidates; a density of None is uniform per km2."""
    flat = np.zeros(len(grid)) if density is None else density
    return Candidates(vectors, np.log(grid.areas), flat)


def train_density(
    grid: Grid, places: Float[np.ndarray, "m 2"], counts: Float[np.ndarray, " m"], bandwidth: float
) -> Float[np.ndarray, " n"]:
    """Return the logarithm of the smoothed density of places per km2, up to a constant.

    Args:
        grid: the cells.
        places: longitude and latitude, degrees.
        counts: weight of each place.
        bandwidth: standard deviation of the Gaussian, km.

    Returns:
        float64; `FLOOR` of the probability is uniform over the grid.
    """
    from sklearn.neighbors import KernelDensity

    def radians(points: np.ndarray) -> np.ndarray:
        return np.radians(points[:, ::-1])  # latitude first

    kernel = KernelDensity(
        bandwidth=bandwidth / RADIUS, metric="haversine", kernel="gaussian", rtol=1e-3
    ).fit(radians(places), sample_weight=counts)
    log_density = kernel.score_samples(radians(grid.places))
    density = np.exp(log_density - log_density.max())
    share = density * grid.areas
    total = share.sum()
    uniform = 1 / grid.areas.sum()
    return np.log((1 - FLOOR) * (density / total if total > 0 else uniform) + FLOOR * uniform)


def choice_vectors(
    embedder: Embedder, field: str, examples: Sequence[Sequence[str]]
) -> Float[np.ndarray, "n e"]:
    """Encode a choice: the mean of the unit vectors of each candidate's examples, of length 1.

    Args:
        embedder: the model.
        field: such as "timestamp".
        examples: its values for each candidate.
    """
    records = [{field: value} for values in examples for value in values]
    vectors = encode(embedder, records, progress=False)
    starts = np.cumsum([0, *(len(values) for values in examples)])[:-1]
    sums = np.add.reduceat(vectors.astype(np.float64), starts, axis=0)
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), np.float32)


def choice_candidates(vectors: Float[np.ndarray, "n e"], counts: Sequence[float]) -> Candidates:
    """Return months or sensors as candidates, with their frequency as prior."""
    share = np.asarray(counts, np.float64) + 1  # a candidate that was not seen is not impossible
    return Candidates(vectors, np.zeros(len(share)), np.log(share / share.sum()))
