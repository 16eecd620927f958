"""Baselines: features that need no training, which a learned representation has to beat.

On EuroSAT (RGB, 64 pixels, standardized, kNN with k = 5 by cosine), accuracy in percent on val of
the random split | of the spatial split: colour statistics 73.8 | 68.9, patch projections
80.5 | 73.9.

A new baseline is one entry in `BASELINES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, UInt8

from satmip_jax.data.bad_records import BadRecords
from satmip_jax.data.batch_reader import Batch, ReadBatch, read_in_order
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.evaluation.features import Features, select_valid
from satmip_jax.metadata import tabular
from satmip_jax.metadata.schema import Schema

PATCH = 8  # pixels
FILTERS = 256
CHUNK = 512  # images decoded and described at a time


@dataclass(frozen=True)
class Baseline:
    """A way to describe records without training.

    Attributes:
        kinds: of `features.KINDS`, those that are scored.
        describe: `(batch, schema, fields)` -> features by kind, float32 (b, d) each. The batch is
            that of `ReadBatch`; `fields` is a selection for `Schema.select_fields`.
    """

    kinds: tuple[str, ...]
    describe: Callable[[Batch, Schema, str], dict[str, np.ndarray]]


def extract_baseline(baseline: Baseline, dataset: ShardDataset, *, fields: str = "all") -> Features:
    """Describe a split, in the order of its records; unreadable records are left out.

    Images are decoded and described `CHUNK` at a time, so host memory is bounded whatever the size
    of the split.

    Args:
        baseline: one of `BASELINES`.
        dataset: the split.
        fields: metadata fields that may be used, see `Schema.select_fields`.

    Raises:
        BadRecordsError: more than 100 records are unreadable.

    Example:
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> from satmip_jax.evaluation.baselines import BASELINES, extract_baseline
        >>> features = extract_baseline(BASELINES["colour"], ShardDataset(shards, "val"))
        >>> features.by_kind["image"].shape
        (24, 6)
    """
    numbers = np.arange(len(dataset))
    size = min(CHUNK, len(dataset))
    reader = ReadBatch(dataset, dataset.schema)
    bad = BadRecords(dataset.split, outcome="is left out of the evaluation")
    parts = []
    for batch in read_in_order(reader, numbers.tolist(), size=size, bad_records=bad):
        rows = len(batch["index"])
        part = baseline.describe(
            jax.tree.map(lambda x: _pad_rows(x, size), batch), dataset.schema, fields
        )
        part |= {name: batch[name] for name in ("label", "index", "valid")}
        part |= {"location": tabular.locations(batch["metadata"])}
        parts.append({name: column[:rows] for name, column in part.items()})
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return select_valid(table, numbers)


def _pad_rows(x: np.ndarray, rows: int) -> np.ndarray:
    """Append rows of zeros, so that every batch has one shape and one shape is compiled."""
    return np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))


# --- descriptions of images -----------------------------------------------------------------------


def colour_statistics(images: UInt8[np.ndarray, "n side side 3"]) -> Float[np.ndarray, "n 6"]:
    """Return mean and standard deviation of each channel, in [0, 1], as float32.

    Example:
        >>> from satmip_jax.evaluation.baselines import colour_statistics
        >>> colour_statistics(np.full((1, 8, 8, 3), 51, np.uint8)).round(2)
        array([[0.2, 0.2, 0.2, 0. , 0. , 0. ]], dtype=float32)
    """
    return _in_chunks(_colour_statistics, images)


def image_statistics(images: UInt8[np.ndarray, "n side side 3"]) -> Float[np.ndarray, "n 12"]:
    """Return mean, standard deviation, maximum and minimum of each channel, 0 to 255, as float32.

    Source: "imagestats" of torchgeo-bench. NOTE[DIFF] The standard deviation there divides by the
    number of pixels minus 1, and images are first resized to 224 pixels.
    """
    return _in_chunks(_image_statistics, images)


def patch_projections(
    images: UInt8[np.ndarray, "n side side 3"], seed: int = 0
) -> Float[np.ndarray, "n 512"]:
    """Return pooled random projections of 8x8 patches with ReLU: a random one-layer network.

    Patches do not overlap, and pixels left over at the border are ignored.

    Args:
        images: of 8 pixels or more a side.
        seed: of the 256 random filters.

    Returns:
        float32: the mean over the patches of the 256 projections, then their standard deviations.

    Example:
        >>> from satmip_jax.evaluation.baselines import patch_projections
        >>> patch_projections(np.zeros((2, 16, 16, 3), np.uint8)).shape
        (2, 512)
    """
    shape = (PATCH, PATCH, 3, FILTERS)
    filters = jax.random.normal(jax.random.key(seed), shape, jnp.float32) / np.sqrt(PATCH**2 * 3)
    return _in_chunks(partial(_patch_projections, filters), images)


@jax.jit
def _colour_statistics(images: Array) -> Array:
    pixels = images.astype(jnp.float32) / 255
    return _pool(pixels)


@jax.jit
def _image_statistics(images: Array) -> Array:
    pixels = images.astype(jnp.float32)
    ends = [function(pixels, axis=(1, 2)) for function in (jnp.max, jnp.min)]
    return jnp.concatenate([_pool(pixels), *ends], axis=1)


@jax.jit
def _patch_projections(filters: Array, images: Array) -> Array:
    # Centred by no statistics of the data: a plain patch then has projections of both signs.
    pixels = images.astype(jnp.float32) / 255 - 0.5
    # (b, s, s, 3) . (8, 8, 3, f) -> (b, s/8, s/8, f)
    projections = lax.conv_general_dilated(
        pixels,
        filters,
        window_strides=(PATCH, PATCH),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return _pool(jax.nn.relu(projections))


def _pool(values: Array) -> Array:
    """Return mean and standard deviation over the image, (b, h, w, c) -> (b, 2c)."""
    return jnp.concatenate([jnp.mean(values, axis=(1, 2)), jnp.std(values, axis=(1, 2))], axis=1)


def _in_chunks(function: Callable[[Array], Array], images: np.ndarray) -> np.ndarray:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype} {images.shape}: expected uint8 (n, s, s, 3)")
    if min(images.shape[1:3]) < PATCH:
        raise ValueError(f"images of {images.shape[1:3]} pixels: expected {PATCH} or more a side")
    size = min(CHUNK, max(len(images), 1))
    parts = []
    for start in range(0, max(len(images), 1), size):
        chunk = images[start : start + size]
        described = function(jnp.asarray(_pad_rows(chunk, size)))
        parts.append(np.asarray(described)[: len(chunk)])
    return np.concatenate(parts)


# --- the baselines --------------------------------------------------------------------------------


def _colour(batch: Batch, schema: Schema, fields: str) -> dict[str, Any]:
    """Return mean and standard deviation of each channel."""
    return {"image": colour_statistics(batch["image"])}


def _statistics(batch: Batch, schema: Schema, fields: str) -> dict[str, Any]:
    """Return four statistics of each channel."""
    return {"image": image_statistics(batch["image"])}


def _patches(batch: Batch, schema: Schema, fields: str) -> dict[str, Any]:
    """Return pooled random projections of patches."""
    return {"image": patch_projections(batch["image"])}


def _fields(batch: Batch, schema: Schema, fields: str) -> dict[str, Any]:
    """Return the metadata fields themselves; for "both", also colour statistics."""
    raw = tabular.raw_features(batch["metadata"], schema, schema.select_fields(fields))
    return _colour(batch, schema, fields) | {"metadata": np.asarray(raw)}


def _numbers(batch: Batch, schema: Schema, fields: str) -> dict[str, Any]:
    """Return the metadata fields as plain numbers, the least that can be done with them."""
    selected = schema.select_fields(fields)
    return {"metadata": tabular.raw_numbers(batch["metadata"], selected)}


BASELINES: dict[str, Baseline] = {
    "colour": Baseline(("image",), _colour),
    "imagestats": Baseline(("image",), _statistics),
    "patches": Baseline(("image",), _patches),
    "fields": Baseline(("metadata", "both"), _fields),
    "numbers": Baseline(("metadata",), _numbers),
}
