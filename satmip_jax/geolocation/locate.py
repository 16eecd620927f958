"""Images to probabilities of the places, months and sensors that they may be of."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from satmip_jax.evaluation.model import Model
from satmip_jax.geography.grid import WORLD, Grid, Region
from satmip_jax.geolocation.calibration import FILE, Calibration, Choice
from satmip_jax.geolocation.candidates import (
    Embedder,
    GeolocationError,
    choice_candidates,
    choice_vectors,
    format_region,
    land_grid,
    place_candidates,
    place_vectors,
    train_density,
)
from satmip_jax.geolocation.estimate import (
    Place,
    distances,
    likeliest_places,
    probability_within,
    radius_of,
)
from satmip_jax.geolocation.posterior import Candidates, log_posterior
from satmip_jax.geolocation.scope import Scope, warnings
from satmip_jax.geolocation.scores import STATED

log = logging.getLogger(__name__)

CELL = 0.5  # degrees
MARGIN = 1.0  # degrees around the places of the training
PRIORS = ("train", "uniform")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SHARES = (0.5, 0.9)  # of the probability, whose radius is given


@dataclass(frozen=True)
class Search:
    """Candidates of a place, with what makes their cosines probabilities.

    Attributes:
        grid: the cells.
        candidates: one per cell.
        scale: of the cosine.
        weight: of the prior.
        prior: "train" or "uniform".
        fields: that the candidates have.
        scope: what the calibrated probabilities hold for; None if they are not calibrated.
    """

    grid: Grid
    candidates: Candidates
    scale: float
    weight: float
    prior: str
    fields: str
    scope: Scope | None = None

    @property
    def calibrated(self) -> bool:
        """Whether `satmip calibrate` fitted scale and weight, for places of the region."""
        return self.scope is not None

    def posterior(self, vectors: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n m"]:
        """Return the probability of each cell for unit vectors of images."""
        return np.exp(log_posterior(vectors, self.candidates, self.scale, self.weight))

    def __str__(self) -> str:
        kind = {"train": "density of the training's places", "uniform": "uniform per km2"}
        calibrated = "" if self.calibrated else "; the probabilities are not calibrated"
        return (
            f"{len(self.grid):,} cells of land of {self.grid.cell:g} degrees, "
            f"{format_region(self.grid.region)}; prior: {kind[self.prior]}{calibrated}"
        )


@dataclass(frozen=True)
class ImageLocation:
    """Where an image may be from.

    Attributes:
        name: path of the image, or its position in words.
        search: the candidates.
        probabilities: of the cells of `search.grid`, float32.
        places: the likeliest places, discs of 200 km; the first is the estimate.
        within: radius in km -> probability that the image is that close to the estimate.
        radius: share -> radius in km around the estimate that holds this share of the probability.
        months: month -> probability; empty if the model takes in no timestamps.
        sensors: sensor -> probability; empty if the model takes in no sensors.
        true_place: longitude and latitude that the file itself states; None if it states none.
        differences: from the images of the calibration, see `Scope.differences`.
    """

    name: str
    search: Search
    probabilities: Float[np.ndarray, " m"] = field(repr=False)
    places: tuple[Place, ...]
    within: dict[int, float]
    radius: dict[float, float]
    months: dict[str, float] = field(default_factory=dict)
    sensors: dict[str, float] = field(default_factory=dict)
    true_place: tuple[float, float] | None = None
    differences: dict[str, str] = field(default_factory=dict)

    @property
    def calibrated(self) -> bool:
        """Whether the probabilities are calibrated, and the image is like those they hold for."""
        return self.search.calibrated and not self.differences

    @property
    def place(self) -> tuple[float, float]:
        """Longitude and latitude of the estimate, degrees."""
        return self.places[0].longitude, self.places[0].latitude


class Locator:
    """Finds where images were taken; the candidates are encoded once and kept.

    Args:
        embedder: the model.
        calibration: of it; without one, probabilities are not calibrated.
    """

    def __init__(self, embedder: Embedder, calibration: Calibration | None) -> None:
        if "location" not in embedder.fields:
            raise GeolocationError(
                f"{embedder.model.name} takes in no locations: use a model that was trained with "
                "the field location"
            )
        self.embedder = embedder
        self.space = embedder.joint_space
        self.calibration = calibration
        self._vectors: dict[tuple[Region, float, str], tuple[Grid, np.ndarray]] = {}

    @property
    def scale(self) -> float:
        """Inverse temperature that the model learned, for use without a calibration."""
        return float(np.exp(np.asarray(self.embedder.model.params["log_scale"], np.float64)))

    def grid_vectors(
        self, region: Region, cell: float, fields: str, *, progress: bool = True
    ) -> tuple[Grid, Float[np.ndarray, "m e"]]:
        """Return the cells of a region and their unit vectors, encoded at the first call."""
        key = region, cell, fields
        if key not in self._vectors:
            grid = land_grid(region, cell)
            vectors = place_vectors(self.embedder, grid, fields, progress=progress)
            self._vectors[key] = grid, vectors
        return self._vectors[key]

    def search(
        self,
        *,
        region: Region | None = None,
        cell: float = CELL,
        prior: str | None = None,
        progress: bool = True,
    ) -> Search:
        """Return the candidates of a place; arguments as those of `locate`.

        Raises:
            GeolocationError: unknown prior, or one that needs a calibration; cells that do not fit.
        """
        known = self.calibration
        inside = region is None or (known is not None and _holds(region, known.train_places()[0]))
        if known and not inside:
            log.warning(
                f"{format_region(region or WORLD)}: no place of the training lies there, so the "
                "model knows nothing of it, and its probabilities are not calibrated"
            )
        prior = prior or ("train" if known and inside else "uniform")
        if prior not in PRIORS:
            raise GeolocationError(f"no prior {prior!r}: choose one of {', '.join(PRIORS)}")
        if prior == "train" and known is None:
            raise GeolocationError(
                "the model has no calibration, which holds the places of its training: run `satmip "
                "calibrate` first, or choose the prior uniform"
            )
        fields = known.fields if known else "location"
        scope = Scope.of(known, self.embedder.model.schema) if known and inside else None
        where = region or (known.region if known else WORLD)
        grid, vectors = self.grid_vectors(where, cell, fields, progress=progress)
        if known is None or prior == "uniform":
            scale = known.uniform_scale if known else self.scale
            candidates = place_candidates(vectors, grid, None)
            return Search(grid, candidates, scale, 0.0, prior, fields, scope)
        density = train_density(grid, *known.train_places(), known.bandwidth)
        candidates = place_candidates(vectors, grid, density)
        return Search(grid, candidates, known.train_scale, known.train_weight, prior, fields, scope)

    def locate(
        self,
        images: Sequence[Any],
        *,
        region: Region | None = None,
        cell: float = CELL,
        prior: str | None = None,
        top: int = 5,
        progress: bool = True,
    ) -> list[ImageLocation | None]:
        """Return where each image may be from; None for one that cannot be used.

        Args:
            images: as for `EmbeddingModel.embed_images`.
            region: west, south, east and north in degrees, by default that of the training's
                places, or without a calibration all land but Antarctica.
            cell: side of the cells, degrees.
            prior: "train", the smoothed density of the training's places, or "uniform" per km2; by
                default "train" if there is a calibration.
            top: number of places.
            progress: show progress bars.

        Raises:
            GeolocationError: see `search`.
        """
        search = self.search(region=region, cell=cell, prior=prior, progress=progress)
        choices = self.choices()
        features = self.embedder.embed_images(images, progress=progress)
        sizes = self.embedder.image_sizes
        vectors = self.space.images(features)
        located: list[ImageLocation | None] = []
        for number, (image, vector) in enumerate(zip(images, vectors, strict=True)):
            if not np.isfinite(vector).all():
                located.append(None)
                continue
            is_path = isinstance(image, str | os.PathLike)
            name = os.fspath(image) if is_path else f"image {number}"
            probabilities = search.posterior(vector[None])[0]
            drawn = {
                kind: _probabilities(labels, candidates, vector, scale, weight)
                for kind, (labels, candidates, scale, weight) in choices.items()
            }
            places = tuple(likeliest_places(search.grid, probabilities, top))
            true, gsd = stated_facts(image) if is_path else (None, None)
            scope = search.scope
            differences = scope.differences(sizes[number], gsd, true) if scope else {}
            located.append(describe(name, search, probabilities, places, drawn, true, differences))
        for line in warnings([(one.name, one.differences) for one in located if one]):
            log.warning(line)
        return located

    @functools.cached_property
    def _choices(self) -> dict[str, tuple[tuple[str, ...], Candidates, float, float]]:
        fields = {"months": ("timestamp", "month"), "sensors": ("sensor_platform", "sensor")}
        found = {}
        for kind, (name, attribute) in fields.items():
            choice = getattr(self.calibration, attribute) if self.calibration else None
            if choice is None and name in self.embedder.fields:
                choice = self.default_choice(name)
            if choice is not None and name in self.embedder.fields:
                vectors = choice_vectors(self.embedder, name, choice.examples)
                candidates = choice_candidates(vectors, choice.counts)
                found[kind] = choice.labels, candidates, choice.scale, choice.weight
        return found

    def choices(self) -> dict[str, tuple[tuple[str, ...], Candidates, float, float]]:
        """Return labels, candidates, scale and weight of months and sensors, if there are any."""
        return self._choices

    def default_choice(self, name: str) -> Choice | None:
        """Return the months or the sensors of a model without a calibration.

        A month is represented by the middle of it, at 10:30 UTC in the mean year of the training.
        """
        stats = self.embedder.model.schema.fields[name]
        if name == "timestamp":
            if not stats.count:
                return None
            year = round(stats.mean[0])
            examples = tuple((f"{year:04}-{m:02}-15T10:30:00Z",) for m in range(1, 13))
            return Choice(self.scale, 0.0, MONTHS, (0,) * 12, examples)
        labels = stats.vocabulary
        if len(labels) < 2:
            return None
        return Choice(self.scale, 0.0, labels, (0,) * len(labels), tuple((x,) for x in labels))


def read_calibration(model: Model) -> Calibration | None:
    """Return the calibration in the folder of a model; None if there is none of its checkpoint.

    Raises:
        CalibrationError: the file holds no calibration.
    """
    if model.folder is None or not (model.folder / FILE).is_file():
        return None
    calibration = Calibration.load(model.folder / FILE)
    if calibration.is_of(model):
        return calibration
    log.warning(
        f"{model.folder / FILE} is of {calibration.model}, step {calibration.step}, and "
        f"the model is {model.name} of step {model.step}: it is not used; run `satmip calibrate`"
    )
    return None


def describe(
    name: str,
    search: Search,
    probabilities: Float[np.ndarray, " m"],
    places: tuple[Place, ...],
    choices: dict[str, dict[str, float]] | None = None,
    true_place: tuple[float, float] | None = None,
    differences: dict[str, str] | None = None,
) -> ImageLocation:
    """Return the location of an image with the probabilities around its estimate."""
    distance = distances(search.grid, places[0].longitude, places[0].latitude)
    within = {r: probability_within(probabilities, distance, r) for r in STATED}
    radius = {share: radius_of(probabilities, distance, share) for share in SHARES}
    return ImageLocation(
        name,
        search,
        probabilities.astype(np.float32),
        places,
        within,
        radius,
        **(choices or {}),
        true_place=true_place,
        differences=differences or {},
    )


def stated_place(path: str | os.PathLike[str]) -> tuple[float, float] | None:
    """Return longitude and latitude of the centre of a GeoTIFF; None for any other file."""
    return stated_facts(path)[0]


def stated_facts(
    path: str | os.PathLike[str],
) -> tuple[tuple[float, float] | None, float | None]:
    """Return the place of the centre of a GeoTIFF and its metres per pixel; None for other files.

    The place is longitude and latitude; metres per pixel are the mean of both axes.
    """
    from satmip_jax.sources.base import UnreadableExample
    from satmip_jax.sources.geotiff_fields import centre, metres_per_pixel

    try:
        with open(path, "rb") as file:
            if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return None, None
            file.seek(0)
            data = file.read()
        return centre(data), metres_per_pixel(data)
    except (OSError, UnreadableExample):
        return None, None


def _probabilities(
    labels: Sequence[str],
    candidates: Candidates,
    vector: Float[np.ndarray, " e"],
    scale: float,
    weight: float,
) -> dict[str, float]:
    p = np.exp(log_posterior(vector[None], candidates, scale, weight))[0]
    return dict(zip(labels, map(float, p), strict=True))


def _holds(region: Region, places: Float[np.ndarray, "n 2"]) -> bool:
    """Whether a region holds any of some places."""
    west, south, east, north = region
    across = (places[:, 0] - west) % 360 <= east - west
    return bool((across & (south <= places[:, 1]) & (places[:, 1] <= north)).any())
