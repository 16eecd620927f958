"""Exact scores of all rows of a file of embeddings, on the device, a batch at a time.

The file is read in batches, so memory is that of a batch and of one score per row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32
from tqdm import tqdm

from satmip_jax.evaluation.joint_space import JointSpace
from satmip_jax.evaluation.row_batches import unit_rows
from satmip_jax.inference.embed.table import EmbeddingTable
from satmip_jax.inference.embed.writer import ROWS


@dataclass(frozen=True)
class Standardization:
    """Mean and deviation of each image feature over a file.

    The encoder's output has a few features that vary much more than the others, and a mean that all
    images share: without both removed, the cosine is about them.

    Attributes:
        mean: of each feature.
        deviation: of each feature; 1 for a constant one.
    """

    mean: Float32[np.ndarray, " d"]
    deviation: Float32[np.ndarray, " d"]

    @classmethod
    def of(cls, table: EmbeddingTable, *, progress: bool = False) -> Standardization:
        """Return that of the image vectors of a file; vectors that are not finite are left out."""
        count, mean, squares = 0, np.zeros(table.image_width), np.zeros(table.image_width)
        for _, rows in _batches(table, "image", "statistics", progress):
            finite = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
            if not len(finite):
                continue
            # the sums of squares around the mean, joined as by Chan et al. (1979)
            total, part = count + len(finite), finite.mean(axis=0)
            squares += np.square(finite - part).sum(axis=0)
            squares += np.square(part - mean) * (count * len(finite) / total)
            mean += (part - mean) * (len(finite) / total)
            count = total
        deviation = np.sqrt(squares / max(count, 1))
        # rounding gives a constant feature a deviation of about 1e-8 of its size
        deviation = np.where(deviation > 1e-6 * np.abs(mean), deviation, 1)
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def directions(self, rows: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
        """Return the standardized rows, scaled to length 1."""
        return unit_rows((rows - self.mean) / self.deviation)


def mean_direction(directions: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, " d"]:
    """Return the mean of unit vectors, scaled to length 1.

    Example:
        >>> from satmip_jax.inference.search.ranking import mean_direction
        >>> mean_direction(np.eye(2, dtype=np.float32)).round(3).tolist()
        [0.707..., 0.707...]
    """
    return unit_rows(directions.mean(axis=0, keepdims=True))[0]


def image_scores(
    table: EmbeddingTable,
    query: Float32[np.ndarray, " d"],
    standardization: Standardization,
    *,
    progress: bool = False,
) -> Float32[np.ndarray, " n"]:
    """Return the cosine of the standardized image features of each row with a direction.

    Args:
        table: file of n rows.
        query: of length 1, from `Standardization.directions`.
        standardization: that of the file.
        progress: show a progress bar.

    Returns:
        NaN for rows that are not finite.

    Example:
        >>> from satmip_jax.inference.embed.table import EmbeddingTable
        >>> from satmip_jax.inference.search.ranking import Standardization, image_scores
        >>> table = EmbeddingTable.open(embeddings_file)
        >>> standardization = Standardization.of(table)
        >>> query = standardization.directions(table.images()[:1])[0]
        >>> int(image_scores(table, query, standardization).argmax())
        0
    """
    size = min(ROWS, table.count)
    mean, scale = jnp.asarray(standardization.mean), jnp.asarray(1 / standardization.deviation)
    direction = jnp.asarray(query)

    def score(rows: np.ndarray) -> np.ndarray:
        batch = np.zeros((size, rows.shape[1]), np.float32)  # one shape: compiled once
        batch[: len(rows)] = rows
        return np.asarray(_cosines(batch, mean, scale, direction))[: len(rows)]

    return _scores(table, score, progress)


def joint_scores(
    table: EmbeddingTable,
    query: Float32[np.ndarray, " e"],
    space: JointSpace,
    *,
    progress: bool = False,
) -> Float32[np.ndarray, " n"]:
    """Return the cosine of the projected image features of each row with a direction.

    Args:
        table: file of n rows.
        query: of length 1, in the joint space of images and metadata.
        space: that of the model of the file.
        progress: show a progress bar.

    Returns:
        NaN for rows that are not finite.
    """
    return _scores(table, lambda rows: space.images(rows) @ query, progress)


@jax.jit
def _cosines(rows: Any, mean: jax.Array, scale: jax.Array, query: jax.Array) -> jax.Array:
    rows = (rows - mean[None]) * scale[None]
    length = jnp.sqrt(jnp.sum(jnp.square(rows), axis=1))
    # (n, d) . (d,) -> (n,)
    products = jnp.einsum("nd,d->n", rows, query, precision=jax.lax.Precision.HIGHEST)
    return products / jnp.where(length > 0, length, 1)


def _scores(
    table: EmbeddingTable, score: Callable[[np.ndarray], np.ndarray], progress: bool
) -> np.ndarray:
    scores = np.full(table.count, np.nan, np.float32)
    for start, rows in _batches(table, "image", "searching", progress):
        scores[start : start + len(rows)] = score(rows)
    scores[~np.isfinite(scores)] = np.nan
    return scores


def _batches(
    table: EmbeddingTable, column: str, doing: str, progress: bool
) -> Iterator[tuple[int, np.ndarray]]:
    with tqdm(
        total=table.count, desc=doing, unit=" rows", leave=False, disable=not progress
    ) as bar:
        for start, rows in table.batches(column):
            yield start, rows
            bar.update(len(rows))


def best_rows(scores: Float[np.ndarray, " n"], allowed: Bool[np.ndarray, " n"], count: int) -> Any:
    """Return the numbers of the rows with the highest scores, the best first.

    Args:
        scores: of n rows; NaN is never among the best. Of equal ones the first rows are.
        allowed: rows to choose from.
        count: number of rows; fewer where there are not as many.

    Example:
        >>> from satmip_jax.inference.search.ranking import best_rows
        >>> best_rows(np.array([0.1, 0.9, np.nan, 0.9]), np.ones(4, bool), 3).tolist()
        [1, 3, 0]
    """
    rows = np.flatnonzero(allowed & np.isfinite(scores))
    chosen = scores[rows]
    if len(rows) > count:
        lowest = np.partition(chosen, len(rows) - count)[len(rows) - count]
        rows = rows[chosen >= lowest]
        chosen = scores[rows]
    return rows[np.argsort(-chosen, kind="stable")[:count]]
