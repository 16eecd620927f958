"""Batches of inputs: progress, and features given instead of inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

T = TypeVar("T")


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
