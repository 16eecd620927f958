"""Fusion of image and metadata features: concatenated, with a weight chosen on the bank.

At equal weights metadata count as much as the image, even where they are uninformative for a new
place. Their weight is therefore chosen like any other hyperparameter, on the bank alone: by kNN,
each example classified by those of other spatial cells where locations are known.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Float32, Int

from satmip_jax.evaluation.knn import vote_by
from satmip_jax.evaluation.metrics import accuracy

MAX_QUERIES = 10_000  # examples of the bank that are classified
SIMILARITIES = 2**23  # held at a time, of each modality
WEIGHTS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # of the metadata; the image has 1


def standardize(
    bank: Float[np.ndarray, "n d"],
    queries: Float[np.ndarray, "m d"],
    rows: Bool[np.ndarray, " n"] | None = None,
) -> tuple[Float32[np.ndarray, "n d"], Float32[np.ndarray, "m d"]]:
    """Standardize both by the mean and deviation of the bank; constant features become 0 there.

    Args:
        bank: labelled features.
        queries: features to classify.
        rows: of the bank, for the statistics; all by default.

    Raises:
        ValueError: shapes do not match, or no rows are used.

    Example:
        >>> from satmip_jax.evaluation.fusion import standardize
        >>> bank, queries = standardize(np.array([[1.0], [3.0]]), np.array([[4.0]]))
        >>> bank.tolist(), queries.tolist()
        ([[-1.0], [1.0]], [[2.0]])
    """
    bank, queries = np.asarray(bank, np.float64), np.asarray(queries, np.float64)
    used = bank if rows is None else bank[rows]
    if bank.ndim != 2 or bank.shape[1:] != queries.shape[1:] or not len(used):
        raise ValueError(
            f"features have shapes {bank.shape} and {queries.shape}, and {len(used)} rows are "
            "used: expected (n, d), (m, d), and rows above 0"
        )
    mean, std = used.mean(axis=0), used.std(axis=0)
    # rounding gives a constant feature a deviation of about 1e-17 of its size
    std = np.where(std > 1e-12 * np.abs(mean), std, 1)
    return ((bank - mean) / std).astype(np.float32), ((queries - mean) / std).astype(np.float32)


def fuse(
    image: Float[np.ndarray, "n d"], metadata: Float[np.ndarray, "n e"], weight: float
) -> Float32[np.ndarray, "n d_plus_e"]:
    """Concatenate standardized features, the metadata multiplied by a weight.

    Each modality is scaled first, so that its squares add up to 1 on average, however many features
    it has.

    Args:
        image: standardized features.
        metadata: standardized features of the same examples.
        weight: of the metadata.

    Example:
        >>> from satmip_jax.evaluation.fusion import fuse
        >>> fuse(np.ones((1, 4)), np.ones((1, 1)), 0.5)
        array([[0.5, 0.5, 0.5, 0.5, 0.5]], dtype=float32)
    """
    return np.concatenate(
        [image / np.sqrt(image.shape[1]), weight / np.sqrt(metadata.shape[1]) * metadata],
        axis=1,
        dtype=np.float32,
    )


def choose_weight(
    image: Float[np.ndarray, "n d"],
    metadata: Float[np.ndarray, "n e"],
    labels: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    queries: Bool[np.ndarray, " n"],
    *,
    num_classes: int,
    k: int = 5,
) -> float:
    """Return the weight of the metadata with which the bank's examples classify each other best.

    Args:
        image: standardized features of the bank.
        metadata: standardized features of the bank.
        labels: -1 where unknown.
        groups: an example is classified by those of other groups.
        queries: examples to classify; at most `MAX_QUERIES` of them are, evenly spread.
        num_classes: labels are 0 to num_classes - 1.
        k: number of neighbours that vote; fewer where there are not as many.

    Returns:
        One of `WEIGHTS`, of equally good ones the smallest; 1 if no example can be classified.
    """
    rows = np.flatnonzero(queries & (labels >= 0))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_QUERIES)).astype(int))]
    sizes = np.unique(groups[labels >= 0], return_counts=True)[1]
    k = min(k, int(sizes.sum() - sizes.max(initial=0)))
    if not len(rows) or not k:
        return 1.0
    numbered = np.unique(groups, return_inverse=True)[1]
    neighbours = _neighbours(
        jnp.asarray(image),
        jnp.asarray(metadata),
        jnp.asarray(labels >= 0),
        jnp.asarray(numbered.astype(np.int32)),
        jnp.asarray(rows.astype(np.int32)),
        k=k,
        chunk=max(1, min(SIMILARITIES // len(labels), len(rows))),
    )
    scores = [
        accuracy(
            labels[rows],
            vote_by(jnp.ones(index.shape), jnp.asarray(labels)[index], None, num_classes),
        )
        for index in neighbours
    ]
    return WEIGHTS[int(np.argmax(scores))]


@partial(jax.jit, static_argnames=("k", "chunk"))
def _neighbours(
    image: Array,
    metadata: Array,
    usable: Array,
    groups: Array,
    rows: Array,
    *,
    k: int,
    chunk: int,
) -> list[Array]:
    """Return, for each of `WEIGHTS`, the k nearest of other groups by cosine of fused features.

    Products of the features are computed once per modality, and combined by every weight.
    """
    parts = [x.astype(jnp.float32) / np.float32(np.sqrt(x.shape[1])) for x in (image, metadata)]
    squares = [jnp.sum(jnp.square(x), axis=1) for x in parts]
    chunks = -(-len(rows) // chunk)
    queries = jnp.pad(rows, (0, chunks * chunk - len(rows)))

    def search(chosen: Array) -> list[Array]:
        # (q, d) . (n, d) -> (q, n)
        products = [jnp.einsum("qd,nd->qn", x[chosen], x, precision="highest") for x in parts]
        allowed = usable[None] & (groups[chosen][:, None] != groups[None])
        found = []
        for weight in WEIGHTS:
            square = squares[0] + weight**2 * squares[1]
            inverse = jnp.where(square > 0, lax.rsqrt(square), 0)[None]
            # the length of the query does not change the order
            cosine = (products[0] + weight**2 * products[1]) * inverse
            found.append(lax.top_k(jnp.where(allowed, cosine, -jnp.inf), k)[1])
        return found

    found = lax.map(search, queries.reshape(chunks, chunk))
    return [index.reshape(-1, k)[: len(rows)] for index in found]
