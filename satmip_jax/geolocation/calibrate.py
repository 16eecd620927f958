"""The fit of a calibration on one half of a split, and its scores on the other half."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.evaluation.baselines import BASELINES, extract_baseline
from satmip_jax.evaluation.features import Features, extract
from satmip_jax.evaluation.spatial_blocks import cells, folds
from satmip_jax.geography.grid import Grid, great_circle, region_of, unit
from satmip_jax.geolocation.calibration import Calibration, Choice, bin_centres, bin_places
from satmip_jax.geolocation.candidates import (
    Embedder,
    GeolocationError,
    choice_candidates,
    choice_vectors,
    place_candidates,
    train_density,
)
from satmip_jax.geolocation.estimate import distances, likeliest_places, probability_within
from satmip_jax.geolocation.locate import CELL, MARGIN, MONTHS, Locator, Search
from satmip_jax.geolocation.posterior import Candidates, fit, log_posterior
from satmip_jax.geolocation.scores import (
    STATED,
    best_k,
    distance_scores,
    knn_places,
    median_place,
    reliability,
)

log = logging.getLogger(__name__)

BANDWIDTHS = (25.0, 50.0, 100.0, 200.0, 400.0)  # km, to choose from
BLOCK = 1.0  # degrees: images of one cell are in the same half
MAX_BANK = 50_000  # train images
MAX_IMAGES = 6_000  # of the split
MAX_EXAMPLES = 8  # timestamps that stand for a month
MIN_IMAGES = 20  # in each half
SEED = 0


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram of a statement.

    Attributes:
        statement: such as "within 200 km".
        points: mean stated probability, frequency and number of images of each bin.
    """

    statement: str
    points: Sequence[tuple[float, float, int]]


@dataclass(frozen=True)
class _Examples:
    """The located examples of a split.

    Attributes:
        dataset: the split.
        features: of its located examples.
        vectors: unit vectors of their images in the shared space.
    """

    dataset: ShardDataset
    features: Features
    vectors: Float[np.ndarray, "n e"]

    @property
    def places(self) -> Float[np.ndarray, "n 2"]:
        """Longitude and latitude, degrees."""
        return self.features.locations.astype(np.float64)

    @classmethod
    def read(cls, embedder: Embedder, data: str, split: str, limit: int) -> _Examples:
        dataset = ShardDataset(data, split)
        features = extract(embedder.model, dataset, limit=limit)
        located = np.isfinite(features.locations).all(axis=1)
        image = features.by_kind["image"][located]
        kept = Features(
            {"image": image},
            features.labels[located],
            features.locations[located],
            features.indices[located],
        )
        return cls(dataset, kept, embedder.joint_space.images(image))

    def values(self, name: str) -> list[Any]:
        """Return the values of a field, None where it is missing."""
        records = (self.dataset[int(i)]["metadata"] for i in self.features.indices)
        return [record.values.get(name) for record in records]

    def colour(self) -> Float[np.ndarray, "n 6"]:
        """Return the colour statistics."""
        found = extract_baseline(BASELINES["colour"], self.dataset)
        return found.by_kind["image"][np.isin(found.indices, self.features.indices)]


def calibrate(
    embedder: Embedder, data: str, *, split: str = "val", progress: bool = True
) -> tuple[Calibration, list[Reliability]]:
    """Fit a calibration on one half of a split, and score it on the other half.

    All images of a cell of one degree are in the same half.

    Args:
        embedder: the model.
        data: folder written by `satmip prepare`.
        split: to fit and score on; it must not be the train split.
        progress: show progress bars.

    Returns:
        The calibration with its scores, and the diagrams of what it states.

    Raises:
        GeolocationError: the model takes in no locations, the split was trained on, or too few
            of its images have a location.
    """
    trained = embedder.model.config.data.train_split
    if split == trained:
        raise GeolocationError(
            f"the model was trained on {split!r}, where its probabilities would look too good: "
            "choose another --split"
        )
    locator = Locator(embedder, None)
    val = _Examples.read(embedder, data, split, MAX_IMAGES)
    train = _Examples.read(embedder, data, trained, MAX_BANK)
    block = cells(val.features.locations, BLOCK)
    halves = folds(block, block, 2)
    if (
        len(halves) < 2
        or min(len(rows) for _, rows in halves) < MIN_IMAGES
        or not len(train.places)
    ):
        raise GeolocationError(
            f"{data}: {len(val.places)} images of {split} and {len(train.places)} of {trained} "
            f"have a location: a calibration needs {MIN_IMAGES} in each half of {split}, in "
            f"several cells of {BLOCK:g} degree"
        )
    fitted, scored = (rows for _, rows in halves)
    places = _fit_places(locator, val, fitted, train.places, progress)
    calibration = Calibration(
        model=embedder.model.name,
        step=embedder.model.step,
        data=val.dataset.schema.name,
        split=split,
        images=len(val.places),
        gsd=_gsd_range(train.values("gsd")),
        **places,
    )
    months = _fit_choice(embedder, "timestamp", val, train, fitted, scored)
    sensors = _fit_choice(embedder, "sensor_platform", val, train, fitted, scored)
    calibration = replace(calibration, month=months[0], sensor=sensors[0])
    locator.calibration = calibration
    rows, diagrams = _score_places(locator, val, scored, train.places, progress)
    rows += _score_baselines(val, train, fitted, scored)
    rows += [*months[1], *sensors[1]]
    return replace(calibration, scores=tuple(rows)), diagrams


def _gsd_range(values: Sequence[Any]) -> tuple[float, float] | None:
    """Return the 5 % and 95 % quantiles of metres per pixel; None if fewer than half are known."""
    known = [math.sqrt(x * y) for x, y in (value for value in values if value is not None)]
    if 2 * len(known) < len(values):
        return None
    low, high = np.quantile(known, (0.05, 0.95))
    return float(low), float(high)


def _fit_places(
    locator: Locator,
    val: _Examples,
    rows: Int[np.ndarray, " r"],
    train_places: Float[np.ndarray, "m 2"],
    progress: bool,
) -> dict[str, Any]:
    """Return the fields of a calibration that concern places, those of the highest likelihood."""
    region = region_of(train_places, MARGIN)
    bins = bin_places(train_places)
    centres, counts = bin_centres(bins)
    choices = ["location"]
    if "country_code" in locator.embedder.fields:
        choices.append("location+country_code")
    best: tuple[float, dict[str, Any]] | None = None
    for fields in choices:
        grid, vectors = locator.grid_vectors(region, CELL, fields, progress=progress)
        inside, true = _true_cells(grid, val.places[rows])
        images = val.vectors[rows][inside]
        uniform, _, _ = fit(images, place_candidates(vectors, grid, None), true, weight=0.0)
        for bandwidth in BANDWIDTHS:
            density = train_density(grid, centres, counts, bandwidth)
            scale, weight, loss = fit(images, place_candidates(vectors, grid, density), true)
            log.debug(f"{fields}, {bandwidth:g} km: {loss:.3f}")
            if best is None or loss < best[0]:
                best = (
                    loss,
                    {
                        "fields": fields,
                        "train_scale": scale,
                        "train_weight": weight,
                        "bandwidth": bandwidth,
                        "uniform_scale": uniform,
                    },
                )
    assert best is not None
    return {**best[1], "region": region, "bins": bins}


def _true_cells(
    grid: Grid, places: Float[np.ndarray, "n 2"]
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Return the rows of the places in the grid's region, and the nearest cell of each."""
    from scipy.spatial import KDTree

    distance, cell = KDTree(unit(grid.places)).query(unit(places))
    inside = np.flatnonzero(distance <= 2 * np.radians(grid.cell))
    return inside, np.asarray(cell[inside])


def _score_places(
    locator: Locator,
    val: _Examples,
    rows: Int[np.ndarray, " r"],
    train_places: Float[np.ndarray, "m 2"],
    progress: bool,
) -> tuple[list[dict[str, Any]], list[Reliability]]:
    """Return the scores of the model with both priors, and of the prior without the image."""
    train = locator.search(prior="train", progress=progress)
    uniform = locator.search(prior="uniform", progress=progress)
    inside, true = _true_cells(train.grid, val.places[rows])
    rows = rows[inside]
    table: list[dict[str, Any]] = []
    diagrams: list[Reliability] = []
    for method, search in (
        ("this model, prior: train", train),
        ("this model, prior: uniform", uniform),
        ("the train prior alone", replace(train, scale=0.0, weight=1.0)),
    ):
        row, reliabilities = _score_search(search, val, rows, true, method, progress)
        table.append({"method": method, **row})
        diagrams = diagrams or reliabilities
    generator = np.random.default_rng(SEED)
    places = val.places[rows]
    drawn = {
        "a random place of train": train_places[
            generator.integers(0, len(train_places), len(rows))
        ],
        "a random place on land": train.grid.places[
            generator.choice(
                len(train.grid), len(rows), p=train.grid.areas / train.grid.areas.sum()
            )
        ],
        "the median place of train": median_place(train_places)[None],
    }
    table += [
        {"method": method, **distance_scores(great_circle(estimate, places))}
        for method, estimate in drawn.items()
    ]
    return table, diagrams


def _score_search(
    search: Search,
    val: _Examples,
    rows: Int[np.ndarray, " r"],
    true: Int[np.ndarray, " r"],
    method: str,
    progress: bool,
) -> tuple[dict[str, float], list[Reliability]]:
    errors, likelihood = np.zeros(len(rows)), np.zeros(len(rows))
    stated = {radius: np.zeros(len(rows)) for radius in STATED}
    bar = tqdm(rows, desc=f"scoring {method}", unit=" images", leave=False, disable=not progress)
    for i, row in enumerate(bar):
        probabilities = search.posterior(val.vectors[row][None])[0]
        (place,) = likeliest_places(search.grid, probabilities, 1)
        estimate = place.longitude, place.latitude
        distance = distances(search.grid, *estimate)
        errors[i] = great_circle(np.array(estimate), val.places[row])
        likelihood[i] = np.log(probabilities[true[i]] / search.grid.areas[true[i]])
        for radius in STATED:
            stated[radius][i] = probability_within(probabilities, distance, radius)
    scores = distance_scores(errors) | {"log-likelihood": float(likelihood.mean())}
    diagrams = []
    for radius in STATED:
        error, points = reliability(stated[radius], errors <= radius)
        scores[f"ECE {radius} km"] = error
        diagrams.append(Reliability(f"within {radius} km", points))
    return scores | {"images": len(rows)}, diagrams


def _score_baselines(
    val: _Examples, train: _Examples, fitted: Int[np.ndarray, " r"], scored: Int[np.ndarray, " s"]
) -> list[dict[str, Any]]:
    """Return the scores of kNN, whose number of neighbours is chosen on the fitted half."""
    features = {
        "colour statistics": (train.colour(), val.colour()),
        "the image features": (train.features.by_kind["image"], val.features.by_kind["image"]),
    }
    table = []
    for name, (bank, queries) in features.items():
        estimates = knn_places(bank, train.places, queries)
        k = best_k(estimates, val.places, fitted)
        error = great_circle(estimates[k][scored], val.places[scored])
        table.append({"method": f"kNN on {name}, k={k}", **distance_scores(error)})
    return table


def _fit_choice(
    embedder: Embedder,
    name: str,
    val: _Examples,
    train: _Examples,
    fitted: Int[np.ndarray, " r"],
    scored: Int[np.ndarray, " s"],
) -> tuple[Choice | None, list[dict[str, Any]]]:
    """Fit months or sensors; None if the model does not take them in, or there is no choice."""
    if name not in embedder.fields:
        return None, []
    is_time = name == "timestamp"
    stats = embedder.model.schema.fields[name]
    labels = MONTHS if is_time else stats.vocabulary
    seen: list[list[str]] = [[] for _ in labels]
    for value in train.values(name):
        if (label := _label(value, labels)) >= 0:
            seen[label].append(value.isoformat() if is_time else value)
    kept = [i for i, values in enumerate(seen) if values]
    number = {label: position for position, label in enumerate(kept)}
    true = np.array([number.get(_label(value, labels), -1) for value in val.values(name)])
    first, second = (rows[true[rows] >= 0] for rows in (fitted, scored))
    if len(kept) < 2 or min(len(first), len(second)) < MIN_IMAGES:
        return None, []
    generator = np.random.default_rng(SEED)
    examples = tuple(
        tuple(generator.permutation(seen[i])[:MAX_EXAMPLES].tolist()) if is_time else (labels[i],)
        for i in kept
    )
    counts = tuple(len(seen[i]) for i in kept)
    candidates = choice_candidates(choice_vectors(embedder, name, examples), counts)
    scale, weight, _ = fit(val.vectors[first], candidates, true[first])
    choice = Choice(scale, weight, tuple(labels[i] for i in kept), counts, examples)
    what = "month" if is_time else "sensor"
    rows = [
        _choice_row(
            f"{what}: this model", val.vectors[second], candidates, scale, weight, true[second]
        ),
        _choice_row(
            f"{what}: the train prior alone",
            val.vectors[second],
            candidates,
            0.0,
            1.0,
            true[second],
        ),
    ]
    return choice, rows


def _choice_row(
    method: str,
    vectors: Float[np.ndarray, "n e"],
    candidates: Candidates,
    scale: float,
    weight: float,
    true: Int[np.ndarray, " n"],
) -> dict[str, Any]:
    logp = log_posterior(vectors, candidates, scale, weight)
    answer = logp.argmax(axis=1)
    error, _ = reliability(np.exp(logp.max(axis=1)), answer == true)
    return {
        "method": method,
        "accuracy": float(np.mean(answer == true)),
        "log-likelihood": float(logp[np.arange(len(true)), true].mean()),
        "ECE": error,
        "images": len(true),
    }


def _label(value: Any, labels: Sequence[str]) -> int:
    """Return the position of a month or a sensor; -1 if it is missing or unknown."""
    if value is None:
        return -1
    if isinstance(value, datetime):
        return value.month - 1
    return labels.index(value) if value in labels else -1
