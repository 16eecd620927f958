"""Metadata as arrays: records -> raw numbers on the host -> network inputs on the device.

The host stores raw units (`encode`), so that the device can still follow a crop of the image
(`follow_crop`) before it standardizes (`featurize`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from satmip_jax.metadata.fields import FIELDS, Field
from satmip_jax.metadata.record import METRES_PER_DEGREE, MIN_COS_LATITUDE, Metadata
from satmip_jax.metadata.schema import Schema

Arrays = dict[str, jax.Array]


# --- positions of the fields in the arrays --------------------------------------------------------


def value_slices() -> dict[str, slice]:
    """Return the columns of "values" that hold each field made of numbers, in order."""
    slices, start = {}, 0
    for f in FIELDS:
        if not f.kind.has_vocabulary:
            slices[f.name] = slice(start, start + f.kind.size)
            start += f.kind.size
    return slices


def category_index() -> dict[str, int]:
    """Return the column of "categories" that holds each field with a vocabulary."""
    return {f.name: i for i, f in enumerate(f for f in FIELDS if f.kind.has_vocabulary)}


def field_index() -> dict[str, int]:
    """Return the column of "present" of each field, which is its position in `FIELDS`."""
    return {f.name: i for i, f in enumerate(FIELDS)}


# --- records -> arrays (host) ---------------------------------------------------------------------


def encode(records: Sequence[Metadata], schema: Schema) -> dict[str, np.ndarray]:
    """Return records as arrays in raw units.

    Args:
        records: n records.
        schema: Schema with the vocabularies.

    Returns:
        "values": float32 (n, V), the numbers of all fields side by side (see `value_slices`); a
            time is its year and the elapsed fractions of the year and of the day, in UTC.
        "categories": int32 (n, C), ids in the schema's vocabularies (see `category_index`).
        "present": bool (n, F), which of `FIELDS` are present; a category outside the vocabulary
            counts as missing. What is missing is 0 in "values" and "categories".

    Example:
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> from satmip_jax.metadata.record import Metadata
        >>> from satmip_jax.metadata.tabular import encode, value_slices
        >>> schema = ShardDataset(shards, "train").schema
        >>> arrays = encode([Metadata.parse({"gsd": [0.5, 0.25]})], schema)
        >>> arrays["values"][:, value_slices()["gsd"]].tolist()
        [[0.5, 0.25]]
    """
    slices, columns = value_slices(), category_index()
    n_values = sum(s.stop - s.start for s in slices.values())
    values = np.zeros((len(records), n_values), np.float32)
    categories = np.zeros((len(records), len(columns)), np.int32)
    present = np.zeros((len(records), len(FIELDS)), np.bool_)
    for i, f in enumerate(FIELDS):  # a field at a time: assignments to arrays dominate the cost
        column: list[Any] = [record.values.get(f.name) for record in records]
        if f.kind.has_vocabulary:
            ids = schema.category_ids[f.name]
            column = [ids.get(value) for value in column]
        rows = [row for row, value in enumerate(column) if value is not None]
        if not rows:
            continue
        filled = [column[row] for row in rows]
        if f.kind.has_vocabulary:
            categories[rows, columns[f.name]] = filled
        else:
            values[rows, slices[f.name]] = f.kind.to_numbers(filled)
        present[rows, i] = True
    return {"values": values, "categories": categories, "present": present}


def only(meta: dict[str, np.ndarray], fields: Sequence[Field]) -> dict[str, np.ndarray]:
    """Return arrays of `encode` in which all but `fields` are missing, in captions too."""
    selected = np.array([f in fields for f in FIELDS])
    new = meta | {"present": meta["present"] & selected}
    if "caption" in meta:
        kept = np.where(selected[:, None], meta["caption"], 0)
        new["caption"] = kept.astype(meta["caption"].dtype)
    return new


def locations(meta: dict[str, np.ndarray]) -> np.ndarray:
    """Return longitude and latitude in degrees, float32 (n, 2); NaN where they are missing."""
    present = meta["present"][:, field_index()["location"]]
    return np.where(present[:, None], meta["values"][:, value_slices()["location"]], np.nan)


# --- arrays -> network inputs (device) ------------------------------------------------------------


def follow_crop(meta: Arrays, crop: jax.Array, stored_size: int, view_size: int) -> Arrays:
    """Return the metadata of a view cropped from the stored square and resized to a square.

    The rules of `Metadata.crop_resize`, in float32; what is missing stays missing and 0.

    Args:
        meta: As from `encode`, batched.
        crop: float32 (b, 4): y, x, height, width as fractions of the stored square.
        stored_size: Side of the stored square in pixels.
        view_size: Side of the view in pixels.

    Returns:
        `meta` with new "values".
    """
    values, present = jnp.asarray(meta["values"]), jnp.asarray(meta["present"])
    slices, column = value_slices(), field_index()

    def get(name: str) -> jax.Array:
        return values[:, slices[name]]

    def has(name: str) -> jax.Array:
        return present[:, column[name]][:, None]  # (b, 1)

    y, x, height, width = (crop[:, i : i + 1] for i in range(4))  # (b, 1) each
    factors = jnp.concatenate([width, height], 1) * (stored_size / view_size)  # (b, 2): x, y
    gsd = get("gsd")
    weights = jnp.where(has("gsd"), gsd, jnp.ones_like(gsd))
    mean_factor = (weights * factors).sum(1, keepdims=True) / weights.sum(1, keepdims=True)

    # pixels from the centre of the square, rightwards and upwards
    offset = jnp.concatenate([x + width / 2 - 0.5, 0.5 - y - height / 2], 1) * stored_size
    location = get("location")
    cosine = jnp.maximum(jnp.cos(jnp.radians(location[:, 1:])), MIN_COS_LATITUDE)
    metres = jnp.concatenate(
        [METRES_PER_DEGREE * cosine, jnp.full_like(cosine, METRES_PER_DEGREE)], 1
    )
    degrees = jnp.where(has("pixel_size"), get("pixel_size"), gsd / metres)  # gsd missing: 0
    longitude, latitude = jnp.split(location + offset * degrees, 2, 1)
    inside = (longitude >= -180.0) & (longitude < 180.0)
    longitude = jnp.where(inside, longitude, jnp.mod(longitude + 180.0, 360.0) - 180.0)
    moved = jnp.concatenate([longitude, jnp.clip(latitude, -90.0, 90.0)], 1)

    new = values
    for f in FIELDS:
        if f.kind.scales_with is not None:
            scale = factors if f.kind.scales_with == "axes" else mean_factor
            new = new.at[:, slices[f.name]].multiply(scale)
    new = new.at[:, slices["location"]].set(jnp.where(has("location"), moved, location))
    return {**meta, "values": new}


def featurize(
    meta: Arrays, schema: Schema, fields: Sequence[Field], location_frequencies: int = 6
) -> Arrays:
    """Return the network's input of each field that has no vocabulary.

    Args:
        meta: As from `encode` or `follow_crop`, batched.
        schema: Schema with the statistics that standardize.
        fields: Fields to return.
        location_frequencies: Number of octaves of sines and cosines that describe a location.

    Returns:
        Field name -> float32 (b, n), see `Kind.features`; 0 where the field is missing.
    """
    return {
        f.name: _features(meta, schema, f, location_frequencies)
        for f in fields
        if not f.kind.has_vocabulary
    }


def raw_features(meta: Arrays, schema: Schema, fields: Sequence[Field]) -> jax.Array:
    """Return all fields side by side without any learning, for kNN and linear probes on them.

    Args:
        meta: As from `encode` or `follow_crop`, batched.
        schema: Schema with the statistics and vocabularies.
        fields: Fields to return.

    Returns:
        float32 (b, D): `Kind.features` in the order of `fields`, of a location the unit vector
        alone, categories one-hot. A missing field is 0, the mean of a standardized number.
    """
    return jnp.concatenate([_features(meta, schema, f, 0) for f in fields], 1)


def raw_numbers(meta: dict[str, np.ndarray], fields: Sequence[Field]) -> np.ndarray:
    """Return all fields side by side as plain numbers, in the units they are stored in.

    Args:
        meta: As from `encode`.
        fields: Fields to return.

    Returns:
        float32 (n, D): the values in the order of `fields`, a location in degrees; of a category
            its number in the vocabulary, from 1. What is missing is 0.

    Example:
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> from satmip_jax.metadata.fields import select_fields
        >>> from satmip_jax.metadata.record import Metadata
        >>> from satmip_jax.metadata.tabular import encode, raw_numbers
        >>> records = [Metadata.parse({"location": [12, 48]}), Metadata.parse({})]
        >>> arrays = encode(records, ShardDataset(shards, "train").schema)
        >>> raw_numbers(arrays, select_fields("location")).tolist()
        [[12.0, 48.0], [0.0, 0.0]]
    """
    columns = []
    for f in fields:
        if f.kind.has_vocabulary:
            numbers = meta["categories"][:, category_index()[f.name]][:, None] + 1.0
        else:
            numbers = meta["values"][:, value_slices()[f.name]]
        columns.append(numbers * meta["present"][:, field_index()[f.name]][:, None])
    return np.concatenate(columns, 1, dtype=np.float32)


def _features(meta: Arrays, schema: Schema, f: Field, frequencies: int) -> jax.Array:
    """Return the features of one field, 0 where it is missing."""
    present = jnp.asarray(meta["present"])[:, field_index()[f.name]][:, None]  # (b, 1)
    if f.kind.has_vocabulary:
        x = jnp.asarray(meta["categories"])[:, category_index()[f.name]]  # (b,)
    else:
        x = jnp.asarray(meta["values"])[:, value_slices()[f.name]]  # (b, size)
    features = f.kind.features(x, present, schema.fields[f.name], frequencies)
    return jnp.where(present, features, jnp.zeros_like(features))
