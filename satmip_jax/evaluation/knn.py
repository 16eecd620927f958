"""Nearest-neighbour classification of features, on the device.

Two conventions are common and give different numbers; report which one you used.

* `vote="majority"`: the k = 5 nearest by cosine, one vote each. The practice of the SatMIP authors;
  equal to scikit-learn's `KNeighborsClassifier(k, metric="cosine", algorithm="brute")`.
* `vote="weighted"`: DINO's (Caron et al. 2021), votes of weight exp(cosine / 0.07), usually with
  k = 10, 20, 100 or 200.

Neighbours are the nearest by cosine; with `metric="euclidean"` by distance, as in torchgeo-bench,
which equals `KNeighborsClassifier(k)`.

Similarities are computed in chunks of queries and of bank, so memory does not grow with either.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Float32, Int, Int32

from satmip_jax.errors import SatmipError

Vote = Literal["majority", "weighted"]
Metric = Literal["cosine", "euclidean"]
QUERY_CHUNK = 1024
BANK_CHUNK = 16384  # 64 MiB of similarities at a time

log = logging.getLogger(__name__)


class FeaturesError(SatmipError, ValueError):
    """Features, labels or options that cannot be used; the message says which and why."""


def knn_predict(
    bank: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    queries: Float[ArrayLike, "m d"],
    *,
    k: int = 5,
    num_classes: int,
    vote: Vote = "majority",
    temperature: float = 0.07,
    groups: tuple[Int[ArrayLike, " n"], Int[ArrayLike, " m"]] | None = None,
    metric: Metric = "cosine",
) -> Int32[Array, " m"]:
    """Return the class of each query by a vote of its k nearest neighbours in the bank.

    Features are cast to float32, and for the cosine normalized to unit length (a zero vector has
    cosine 0 with all). Ties between neighbours go to the first in the bank, ties between classes to
    the smallest.

    Args:
        bank: features that have labels; may be sharded over devices.
        labels: of the bank; -1 is unlabelled: such rows do not vote.
        queries: features to classify; may be sharded over devices.
        k: number of neighbours that vote.
        num_classes: labels are 0 to num_classes - 1.
        vote: "majority", one vote each, or "weighted", exp(cosine / temperature) each; it needs
            the cosine.
        temperature: of the weighted vote.
        groups: of bank and queries; neighbours from the query's own group do not vote.
            `(np.arange(n), np.arange(n))` is leave-one-out for a bank that is its own queries.
        metric: see `nearest`.

    Raises:
        FeaturesError: shapes do not match, labels are out of range, features are not finite, or
            there are fewer labelled rows than k.

    Example:
        >>> from satmip_jax.evaluation.knn import knn_predict
        >>> bank, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
        >>> queries = np.array([[0.1, 0.9, 0.0], [0.0, 0.2, 0.8]], np.float32)
        >>> np.asarray(knn_predict(bank, labels, queries, k=1, num_classes=3))
        array([1, 2], dtype=int32)
    """
    if vote not in ("majority", "weighted"):
        raise FeaturesError(f"vote is {vote!r}: expected 'majority' or 'weighted'")
    if vote == "weighted" and metric != "cosine":
        raise FeaturesError(f"metric is {metric!r}: the weighted vote needs the cosine")
    if not temperature > 0:
        raise FeaturesError(f"temperature is {temperature}: expected a number above 0")
    bank, queries = check_features("bank", bank), check_features("queries", queries)
    labelled = check_labels(labels, len(bank), num_classes)
    similarity, index = nearest(bank, queries, k, usable=labelled, groups=groups, metric=metric)
    if not len(queries):
        return jnp.zeros(0, jnp.int32)
    weighted_by = jnp.float32(temperature) if vote == "weighted" else None
    labels = jnp.asarray(np.asarray(labels), jnp.int32)
    return vote_by(similarity, labels[index], weighted_by, num_classes)


def knn_classify(
    bank: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, " n"],
    held_out: Bool[np.ndarray, " n"],
    num_classes: int,
    *,
    k: int,
    vote: Vote,
    temperature: float = 0.07,
    metric: Metric = "cosine",
) -> Int32[np.ndarray, " m"]:
    """Classify as a protocol, see `Protocol.classify`; k is cut to the number of labelled rows."""
    del held_out  # nothing is chosen
    k = min(k, int((labels >= 0).sum()))
    options: dict[str, Any] = {"k": k, "vote": vote, "temperature": temperature, "metric": metric}
    return np.asarray(knn_predict(bank, labels, queries, num_classes=num_classes, **options))


def nearest(
    bank: Float[ArrayLike, "n d"],
    queries: Float[ArrayLike, "m d"],
    k: int,
    *,
    usable: Bool[ArrayLike, " n"] | None = None,
    groups: tuple[Int[ArrayLike, " n"], Int[ArrayLike, " m"]] | None = None,
    query_chunk: int = QUERY_CHUNK,
    bank_chunk: int = BANK_CHUNK,
    metric: Metric = "cosine",
) -> tuple[Float32[Array, "m k"], Int32[Array, "m k"]]:
    """Return the k nearest rows of the bank for each query, nearest first.

    Args:
        bank: rows to search.
        queries: rows to search for.
        k: number of neighbours.
        usable: rows that may be neighbours; all by default.
        groups: of bank and queries; rows of a query's own group are not its neighbours.
        query_chunk: queries compared at a time.
        bank_chunk: rows compared at a time; memory is that of query_chunk * bank_chunk cosines.
        metric: "cosine", or "euclidean" for the distance of the features as they are.

    Returns:
        The cosines, or minus half the squared distances, up to a factor and an addend that are the
        same for all rows of the bank; and the rows of the bank.

    Raises:
        FeaturesError: shapes do not match, features are not finite, or there are fewer rows than k.

    Example:
        >>> from satmip_jax.evaluation.knn import nearest
        >>> cosine, row = nearest(np.eye(3, dtype=np.float32), np.ones((1, 3), np.float32), 2)
        >>> np.asarray(cosine).round(3), np.asarray(row)
        (array([[0.577, 0.577]], dtype=float32), array([[0, 1]], dtype=int32))
    """
    bank, queries = check_features("bank", bank), check_features("queries", queries)
    n, m = len(bank), len(queries)
    if bank.shape[1] != queries.shape[1]:
        raise FeaturesError(
            f"bank has {bank.shape[1]} features a row and queries {queries.shape[1]}: "
            "take both from the same encoder"
        )
    if metric not in ("cosine", "euclidean"):
        raise FeaturesError(f"metric is {metric!r}: expected 'cosine' or 'euclidean'")
    if min(query_chunk, bank_chunk) < 1:
        raise FeaturesError(f"chunks of {query_chunk} and {bank_chunk} rows: expected 1 or more")
    usable = np.ones(n, bool) if usable is None else np.asarray(usable)
    if usable.shape != (n,) or usable.dtype != bool:
        raise FeaturesError(f"usable is {usable.dtype} {usable.shape}: expected bool ({n},)")
    available = int(usable.sum())
    numbered = None if groups is None else _number_groups(groups, n, m)
    if numbered is not None:
        available -= _largest_own_group(numbered, usable)
    if not 1 <= k <= available:
        advice = (
            f"choose k from 1 to {available}" if available > 0 else "the bank needs labelled rows"
        )
        raise FeaturesError(
            f"k is {k}, and {max(available, 0)} of the bank's {n} rows can be neighbours: {advice}"
        )
    if m == 0:
        return jnp.zeros((0, k), jnp.float32), jnp.zeros((0, k), jnp.int32)
    return _nearest(
        bank,
        jnp.asarray(usable),
        queries,
        numbered,
        k=k,
        query_chunk=_even_chunk(m, query_chunk),
        bank_chunk=_even_chunk(n, bank_chunk),
        metric=metric,
    )


def _even_chunk(rows: int, largest: int) -> int:
    """Return the size of the fewest chunks that cover the rows, as equal as possible."""
    return -(-rows // -(-rows // largest))


@partial(jax.jit, static_argnames=("k", "query_chunk", "bank_chunk", "metric"))
def _nearest(
    bank: Array,
    usable: Array,
    queries: Array,
    groups: tuple[Array, Array] | None,
    *,
    k: int,
    query_chunk: int,
    bank_chunk: int,
    metric: Metric = "cosine",
) -> tuple[Array, Array]:
    n, m = len(bank), len(queries)
    bank_chunks, query_chunks = -(-n // bank_chunk), -(-m // query_chunk)
    if metric == "cosine":
        bank, queries = _normalize(bank), _normalize(queries)
        addend = jnp.zeros(n)
    else:
        bank, queries = _centre(bank, queries)
        # minus half the squared distance, without the square of the query, is the same order
        addend = -jnp.sum(jnp.square(bank), axis=1) / 2

    def search(chunk: Array) -> tuple[Array, Array]:
        # The last chunk starts early, to have the same size; rows compared twice are dropped.
        first_query = jnp.minimum(chunk * query_chunk, m - query_chunk)
        rows_of_chunk = lax.dynamic_slice_in_dim(queries, first_query, query_chunk)
        if groups is not None:
            query_groups = lax.dynamic_slice_in_dim(groups[1], first_query, query_chunk)

        def merge(best: tuple[Array, Array], chunk: Array) -> tuple[tuple[Array, Array], None]:
            first = jnp.minimum(chunk * bank_chunk, n - bank_chunk)
            rows = lax.dynamic_slice_in_dim(bank, first, bank_chunk)
            # (q, d) . (r, d) -> (q, r)
            near = jnp.einsum("qd,rd->qr", rows_of_chunk, rows, precision=lax.Precision.HIGHEST)
            near += lax.dynamic_slice_in_dim(addend, first, bank_chunk)[None]
            index = first + jnp.arange(bank_chunk, dtype=jnp.int32)[None]
            allowed = lax.dynamic_slice_in_dim(usable, first, bank_chunk)[None]
            allowed &= index >= chunk * bank_chunk
            if groups is not None:
                bank_groups = lax.dynamic_slice_in_dim(groups[0], first, bank_chunk)
                allowed = allowed & (bank_groups[None] != query_groups[:, None])
            near, place = lax.top_k(jnp.where(allowed, near, -jnp.inf), min(k, bank_chunk))
            # The best so far come first and top_k is stable: ties keep the order of the bank.
            near = jnp.concatenate([best[0], near], axis=1)
            index = jnp.concatenate([best[1], first + place], axis=1)
            near, place = lax.top_k(near, k)
            return (near, jnp.take_along_axis(index, place, axis=1)), None

        none = jnp.full((query_chunk, k), -jnp.inf), jnp.zeros((query_chunk, k), jnp.int32)
        return lax.scan(merge, none, jnp.arange(bank_chunks, dtype=jnp.int32))[0]

    chunks = lax.map(search, jnp.arange(query_chunks, dtype=jnp.int32))
    repeated = query_chunks * query_chunk - m

    def join(parts: Array) -> Array:
        return jnp.concatenate([parts[:-1].reshape(-1, k), parts[-1, repeated:]])

    return join(chunks[0]), join(chunks[1])


@partial(jax.jit, static_argnames="num_classes")
def vote_by(similarity: Array, labels: Array, temperature: Array | None, num_classes: int) -> Array:
    """Return the class that neighbours (m, k) vote for; one vote each without a temperature."""
    if temperature is None:
        weight = jnp.ones_like(similarity)
    else:
        # relative to the nearest: the same winner, without overflow at any temperature
        weight = jnp.exp((similarity - similarity[:, :1]) / temperature)
    is_class = labels[:, :, None] == jnp.arange(num_classes, dtype=jnp.int32)[None, None]
    votes = jnp.sum(jnp.where(is_class, weight[:, :, None], 0), axis=1)  # (m, classes)
    return jnp.argmax(votes, axis=1).astype(jnp.int32)


def _normalize(rows: Array) -> Array:
    """Scale rows to unit length in float32; zero rows stay zero, no square over- or underflows.

    `losses.contrastive.normalize` is simpler; features of any scale are scored here.
    """
    rows = rows.astype(jnp.float32)
    largest = jnp.max(jnp.abs(rows), axis=1, keepdims=True)
    rows = rows / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(jnp.square(rows), axis=1, keepdims=True))
    return rows / jnp.where(length > 0, length, 1)


def _centre(bank: Array, queries: Array) -> tuple[Array, Array]:
    """Move both by the mean of the bank and scale both by its largest value, in float32.

    The order of the distances stays; their squares lose fewer digits, and none over- or underflows.
    """
    bank, queries = bank.astype(jnp.float32), queries.astype(jnp.float32)
    largest = jnp.max(jnp.abs(bank))
    unit = jnp.where(largest > 0, largest, 1)
    bank, queries = bank / unit, queries / unit
    centre = jnp.mean(bank, axis=0, keepdims=True)
    return bank - centre, queries - centre


def check_features(name: str, features: ArrayLike) -> Float[Array, "n d"]:
    """Return features as a device array, or raise FeaturesError unless they are finite rows."""
    features = jnp.asarray(features)
    if features.ndim != 2 or features.shape[1] == 0:
        raise FeaturesError(f"{name} is of shape {features.shape}: expected (rows, features)")
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise FeaturesError(f"{name} is {features.dtype}: expected floating point features")
    bad = ~np.asarray(jnp.isfinite(features).all(axis=1))
    if bad.any():
        raise FeaturesError(
            f"{name} has NaN or infinity in {int(bad.sum())} of {len(bad)} rows, the first is row "
            f"{int(bad.argmax())}: the encoder or its input is broken there"
        )
    return features


def check_labels(labels: ArrayLike, n: int, num_classes: int) -> Bool[np.ndarray, " n"]:
    """Return which rows are labelled, or raise FeaturesError unless labels are -1 or classes."""
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise FeaturesError(
            f"labels are {labels.dtype} {labels.shape}: expected integers ({n},), one for each "
            "row of the bank"
        )
    outside = (labels < -1) | (labels >= num_classes)
    if outside.any():
        raise FeaturesError(
            f"label {labels[outside][0]} of row {int(outside.argmax())}: expected 0 to "
            f"{num_classes - 1}, or -1 for unlabelled ({int(outside.sum())} rows are outside)"
        )
    labelled = labels >= 0
    if not labelled.all():
        log.debug("%d of %d rows of the bank have no label", int((~labelled).sum()), n)
    return labelled


def _number_groups(groups: tuple[ArrayLike, ArrayLike], n: int, m: int) -> tuple[Array, Array]:
    """Replace group names, integers of any size, by int32 numbers from 0."""
    bank, queries = (np.asarray(g) for g in groups)
    if bank.shape != (n,) or queries.shape != (m,):
        raise FeaturesError(
            f"groups are of shapes {bank.shape} and {queries.shape}: expected ({n},) of the bank "
            f"and ({m},) of the queries"
        )
    names = np.unique(np.concatenate([bank, queries]))
    numbered = [jnp.asarray(np.searchsorted(names, g), jnp.int32) for g in (bank, queries)]
    return numbered[0], numbered[1]


def _largest_own_group(groups: tuple[Array, Array], usable: np.ndarray) -> int:
    """Return the largest number of neighbours that a query loses to its own group."""
    bank, queries = (np.asarray(g) for g in groups)
    names = 1 + max(bank.max(initial=0), queries.max(initial=0))
    return int(np.bincount(bank[usable], minlength=names)[queries].max(initial=0))
