"""Nearest-neighbour classification of features, on the device.

Two norms of the field, and they differ: state which one a number used.

* `vote="majority"`: the k = 5 nearest by cosine, one vote each. The practice of the SatMIP authors;
  equal to scikit-learn's `KNeighborsClassifier(k, metric="cosine", algorithm="brute")`.
* `vote="weighted"`: DINO's (Caron et al. 2021), votes of weight exp(cosine / 0.07), usually with
  k = 10, 20, 100 or 200.

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

from satmip_jax.errors import SatmipError

Vote = Literal["majority", "weighted"]
QUERY_CHUNK = 1024
BANK_CHUNK = 16384  # 64 MiB of similarities at a time

log = logging.getLogger(__name__)


class FeaturesError(SatmipError, ValueError):
    """Features, labels or options that kNN cannot work with; the message says which and why."""


def knn_predict(
    bank: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    *,
    k: int = 5,
    num_classes: int,
    vote: Vote = "majority",
    temperature: float = 0.07,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
) -> Array:
    """The class of each query by a vote of its k nearest in the bank.

    Features are cast to float32 and L2-normalised here (a zero vector is at cosine 0 from all).
    Of equally near neighbours the first of the bank is taken, of equal votes the smallest class.

    Args:
      bank: (n, d) features that have labels.
      labels: (n,) integers; -1 is unlabelled: such rows do not vote, and their number is logged.
      queries: (m, d) features to classify. Bank and queries may be sharded over devices.
      k: neighbours that vote.
      num_classes: labels are 0 to num_classes - 1.
      vote: "majority", one vote each, or "weighted", exp(cosine / temperature) each.
      temperature: of the weighted vote.
      groups: int (n,) and (m,), the groups of bank and queries: a neighbour is of another group.
        `(np.arange(n), np.arange(n))` leaves one out of a bank that is its own queries.

    Returns:
      int32 (m,).

    Raises:
      FeaturesError: shapes that do not fit, labels out of range, features that are not finite,
        fewer labelled rows than k.

    Example:
      >>> predicted = knn_predict(train, train_labels, test, k=5, num_classes=10)
      >>> accuracy(test_labels, predicted)
    """
    if vote not in ("majority", "weighted"):
        raise FeaturesError(f"vote is {vote!r}: 'majority' or 'weighted'")
    if not temperature > 0:
        raise FeaturesError(f"temperature is {temperature}: needs to be above 0")
    bank, queries = check_features("bank", bank), check_features("queries", queries)
    usable = check_labels(labels, len(bank), num_classes)
    similarity, index = nearest(bank, queries, k, usable=usable, groups=groups)
    if not len(queries):
        return jnp.zeros(0, jnp.int32)
    weighted_by = jnp.float32(temperature) if vote == "weighted" else None
    labels = jnp.asarray(np.asarray(labels), jnp.int32)
    return _vote(similarity, labels[index], weighted_by, num_classes)


def knn_classify(
    bank: np.ndarray,
    queries: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    num_classes: int,
    *,
    k: int,
    vote: Vote,
    temperature: float = 0.07,
) -> np.ndarray:
    """Classify as a protocol, see `Protocol.classify`; k is cut to the number of labelled rows."""
    del held_out  # nothing is chosen
    k = min(k, int((labels >= 0).sum()))
    options: dict[str, Any] = {"k": k, "vote": vote, "temperature": temperature}
    return np.asarray(knn_predict(bank, labels, queries, num_classes=num_classes, **options))


def nearest(
    bank: ArrayLike,
    queries: ArrayLike,
    k: int,
    *,
    usable: ArrayLike | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    query_chunk: int = QUERY_CHUNK,
    bank_chunk: int = BANK_CHUNK,
) -> tuple[Array, Array]:
    """The k rows of the bank of highest cosine with each query, nearest first.

    Args:
      bank: (n, d); queries: (m, d).
      k: how many.
      usable: bool (n,), the rows that may be neighbours; all of them by default.
      groups: int (n,) and (m,): rows of a query's own group are no neighbours of it.
      query_chunk, bank_chunk: rows compared at a time; query_chunk * bank_chunk numbers are held.

    Returns:
      cosine float32 (m, k) and row of the bank int32 (m, k).

    Raises:
      FeaturesError: shapes that do not fit, features that are not finite, too few rows for k.
    """
    bank, queries = check_features("bank", bank), check_features("queries", queries)
    n, m = len(bank), len(queries)
    if bank.shape[1] != queries.shape[1]:
        raise FeaturesError(
            f"bank has {bank.shape[1]} features a row and queries {queries.shape[1]}: "
            "take both from the same encoder"
        )
    if min(query_chunk, bank_chunk) < 1:
        raise FeaturesError(f"chunks of {query_chunk} and {bank_chunk} rows: needs 1 or more")
    usable = np.ones(n, bool) if usable is None else np.asarray(usable)
    if usable.shape != (n,) or usable.dtype != bool:
        raise FeaturesError(f"usable is {usable.dtype} {usable.shape}: expected bool ({n},)")
    available = int(usable.sum())
    if groups is not None:
        groups = _check_groups(groups, n, m)
        available -= _largest(groups, usable)
    if not 1 <= k <= available:
        advice = f"choose k from 1 to {available}" if available > 0 else "it needs labelled rows"
        raise FeaturesError(
            f"k is {k}, and {max(available, 0)} of the bank's {n} rows can be neighbours: {advice}"
        )
    if m == 0:
        return jnp.zeros((0, k), jnp.float32), jnp.zeros((0, k), jnp.int32)
    return _nearest(
        bank,
        jnp.asarray(usable),
        queries,
        groups,
        k=k,
        query_chunk=min(query_chunk, m),
        bank_chunk=min(bank_chunk, n),
    )


@partial(jax.jit, static_argnames=("k", "query_chunk", "bank_chunk"))
def _nearest(
    bank: Array,
    usable: Array,
    queries: Array,
    groups: tuple[Array, Array] | None,
    *,
    k: int,
    query_chunk: int,
    bank_chunk: int,
) -> tuple[Array, Array]:
    n, m = len(bank), len(queries)
    bank_chunks, query_chunks = -(-n // bank_chunk), -(-m // query_chunk)

    def search(chunk: Array) -> tuple[Array, Array]:
        # The last chunk begins early, to be of the same size; what is seen twice is dropped.
        first_query = jnp.minimum(chunk * query_chunk, m - query_chunk)
        some = _normalise(lax.dynamic_slice_in_dim(queries, first_query, query_chunk))
        if groups is not None:
            own = lax.dynamic_slice_in_dim(groups[1], first_query, query_chunk)

        def merge(best: tuple[Array, Array], chunk: Array) -> tuple[tuple[Array, Array], None]:
            first = jnp.minimum(chunk * bank_chunk, n - bank_chunk)
            rows = _normalise(lax.dynamic_slice_in_dim(bank, first, bank_chunk))
            # (q, d) . (r, d) -> (q, r)
            cosine = jnp.einsum("qd,rd->qr", some, rows, precision=lax.Precision.HIGHEST)
            index = first + jnp.arange(bank_chunk, dtype=jnp.int32)[None]
            allowed = lax.dynamic_slice_in_dim(usable, first, bank_chunk)[None]
            allowed &= index >= chunk * bank_chunk
            if groups is not None:
                theirs = lax.dynamic_slice_in_dim(groups[0], first, bank_chunk)
                allowed = allowed & (theirs[None] != own[:, None])
            cosine = jnp.where(allowed, cosine, -jnp.inf)
            # The best so far come first and top_k is stable: equals are taken in the bank's order.
            cosine = jnp.concatenate([best[0], cosine], axis=1)
            index = jnp.broadcast_to(index, (query_chunk, bank_chunk))
            index = jnp.concatenate([best[1], index], axis=1)
            cosine, place = lax.top_k(cosine, k)
            return (cosine, jnp.take_along_axis(index, place, axis=1)), None

        none = jnp.full((query_chunk, k), -jnp.inf), jnp.zeros((query_chunk, k), jnp.int32)
        return lax.scan(merge, none, jnp.arange(bank_chunks, dtype=jnp.int32))[0]

    found = lax.map(search, jnp.arange(query_chunks, dtype=jnp.int32))
    seen_twice = query_chunks * query_chunk - m

    def join(chunks: Array) -> Array:
        return jnp.concatenate([chunks[:-1].reshape(-1, k), chunks[-1, seen_twice:]])

    return join(found[0]), join(found[1])


@partial(jax.jit, static_argnames="num_classes")
def _vote(similarity: Array, labels: Array, temperature: Array | None, num_classes: int) -> Array:
    if temperature is None:
        weight = jnp.ones_like(similarity)
    else:
        # relative to the nearest: the same winner, and no overflow at any temperature
        weight = jnp.exp((similarity - similarity[:, :1]) / temperature)
    is_class = labels[:, :, None] == jnp.arange(num_classes, dtype=jnp.int32)[None, None]
    votes = jnp.sum(jnp.where(is_class, weight[:, :, None], 0), axis=1)  # (m, classes)
    return jnp.argmax(votes, axis=1).astype(jnp.int32)


def _normalise(rows: Array) -> Array:
    """Rows of length 1 in float32; zero rows stay zero, and squares neither over- nor underflow."""
    rows = rows.astype(jnp.float32)
    largest = jnp.max(jnp.abs(rows), axis=1, keepdims=True)
    rows = rows / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(jnp.square(rows), axis=1, keepdims=True))
    return rows / jnp.where(length > 0, length, 1)


def check_features(name: str, features: ArrayLike) -> Array:
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


def check_labels(labels: ArrayLike, n: int, num_classes: int) -> np.ndarray:
    """Which rows are labelled; says how many are not."""
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
    usable = labels >= 0
    if not usable.all():
        log.info("%d of %d rows of the bank have no label", int((~usable).sum()), n)
    return usable


def _check_groups(groups: tuple[ArrayLike, ArrayLike], n: int, m: int) -> tuple[Array, Array]:
    """Both as small numbers, which an int32 holds whatever the groups are called."""
    bank, queries = (np.asarray(g) for g in groups)
    if bank.shape != (n,) or queries.shape != (m,):
        raise FeaturesError(
            f"groups are of shapes {bank.shape} and {queries.shape}: expected ({n},) of the bank "
            f"and ({m},) of the queries"
        )
    names = np.unique(np.concatenate([bank, queries]))
    small = [jnp.asarray(np.searchsorted(names, g), jnp.int32) for g in (bank, queries)]
    return small[0], small[1]


def _largest(groups: tuple[Array, Array], usable: np.ndarray) -> int:
    """How many neighbours a query loses at most to its own group."""
    bank, queries = (np.asarray(g) for g in groups)
    names = 1 + max(bank.max(initial=0), queries.max(initial=0))
    return int(np.bincount(bank[usable], minlength=names)[queries].max(initial=0))
