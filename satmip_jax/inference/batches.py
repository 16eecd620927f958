"""Rows of batches: padding to one shape, progress, and scaling to length 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

T = TypeVar("T")


def padded(x: np.ndarray, size: int) -> np.ndarray:
    """Repeat the first row of an array until there are `size` rows.

    Args:
        x: at least one row, at most `size`.
        size: number of rows of the result.

    Example:
        >>> from satmip_jax.inference.batches import padded
        >>> padded(np.array([[1], [2]]), 4).tolist()
        [[1], [2], [1], [1]]
    """
    x = np.asarray(x)
    return np.concatenate([x, np.repeat(x[:1], size - len(x), axis=0)])


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return the rows scaled to length 1, float32; a row of zeros stays.

    Example:
        >>> from satmip_jax.inference.batches import unit_rows
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).round(1).tolist()
        [[0.6..., 0.8...], [0.0, 0.0]]
    """
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)


def with_bar(batches: Iterable[T], total: int, unit: str, progress: bool, size: int) -> Iterator[T]:
    """Yield the batches with a progress bar over their rows.

    Args:
        batches: of `size` rows, the last one of fewer.
        total: number of rows of all batches.
        unit: what a row is, such as "images".
        progress: show the bar.
        size: rows of a batch.
    """
    with tqdm(
        total=total, desc="embedding", unit=f" {unit}", leave=False, disable=not progress
    ) as bar:
        for batch in batches:
            yield batch
            bar.update(min(size, total - bar.n))


def is_features(inputs: Any) -> bool:
    """Whether inputs are an array of features instead of images or records."""
    floats = isinstance(inputs, np.ndarray) and np.issubdtype(inputs.dtype, np.floating)
    return bool(floats and inputs.ndim == 2)
