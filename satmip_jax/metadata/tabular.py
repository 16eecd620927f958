"""Metadata as arrays: records -> raw numbers on the host -> network inputs on the device.

The host stores raw units (`encode`), so that the device can still follow a crop of the image
(`follow_crop`) before it standardises (`featurize`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from satmip_jax.metadata.fields import FIELDS, Field
from satmip_jax.metadata.record import METRES_PER_DEGREE, MIN_COS_LATITUDE, Metadata
from satmip_jax.metadata.schema import Schema, SchemaError
from satmip_jax.metadata.statistics import FieldStats, StatsAccumulator

__all__ = [
    "FieldStats",
    "Schema",
    "SchemaError",
    "StatsAccumulator",
    "category_index",
    "encode",
    "featurize",
    "field_index",
    "follow_crop",
    "locations",
    "only",
    "raw_features",
    "value_slices",
]

Arrays = dict[str, jax.Array]
_DAY = 86_400_000_000  # microseconds


# --- where a field lies in the arrays -------------------------------------------------------------


def value_slices() -> dict[str, slice]:
    """The columns of "values" that hold each field made of numbers, in the order of `FIELDS`."""
    slices, start = {}, 0
    for f in FIELDS:
        if f.size:
            slices[f.name] = slice(start, start + f.size)
            start += f.size
    return slices


def category_index() -> dict[str, int]:
    """The column of "categories" that holds each category field."""
    return {f.name: i for i, f in enumerate(f for f in FIELDS if f.kind == "category")}


def field_index() -> dict[str, int]:
    """The column of "present" of each field, which is its place in `FIELDS`."""
    return {f.name: i for i, f in enumerate(FIELDS)}


# --- records -> arrays (host) ---------------------------------------------------------------------


def encode(records: Sequence[Metadata], schema: Schema) -> dict[str, np.ndarray]:
    """Records as arrays in raw units.

    Returns:
      "values": float32 (n, V), the numbers of all fields side by side (see `value_slices`); a time
        is its year, the fraction of the year and the fraction of the day gone by, in UTC.
      "categories": int32 (n, C), ids in the schema's vocabularies (see `category_index`).
      "present": bool (n, F), which of `FIELDS` are known; a category that is not in the vocabulary
        is not. What is missing is 0 in "values" and "categories".
    """
    slices, columns = value_slices(), category_index()
    values = np.zeros((len(records), sum(f.size for f in FIELDS)), np.float32)
    categories = np.zeros((len(records), len(columns)), np.int32)
    present = np.zeros((len(records), len(FIELDS)), np.bool_)
    for i, f in enumerate(FIELDS):
        known: list[Any] = [record.values.get(f.name) for record in records]
        if f.kind == "category":
            ids = schema.category_ids[f.name]
            known = [ids.get(value) for value in known]
        elif f.kind == "time":
            known = [value and _clock(value) for value in known]
        rows = [row for row, value in enumerate(known) if value is not None]
        if rows:  # a field at a time: an assignment to an array takes as long as all else
            array, column = (
                (categories, columns[f.name]) if f.kind == "category" else (values, slices[f.name])
            )
            array[rows, column] = [known[row] for row in rows]
            present[rows, i] = True
    return {"values": values, "categories": categories, "present": present}


def _clock(moment: datetime) -> tuple[float, float, float]:
    """A time as (year, fraction of the year, fraction of the day); fractions stay below 1."""
    second = 3600 * moment.hour + 60 * moment.minute + moment.second
    micro = 1_000_000 * second + moment.microsecond
    january, next_january = (date(moment.year + y, 1, 1).toordinal() for y in (0, 1))
    since = (moment.toordinal() - january) * _DAY + micro
    below_one = 1 - 2.0**-24  # the last float32 before 1
    year = since / ((next_january - january) * _DAY)
    return float(moment.year), min(year, below_one), min(micro / _DAY, below_one)


def only(meta: dict[str, np.ndarray], fields: Sequence[Field]) -> dict[str, np.ndarray]:
    """Arrays of `encode` in which all but `fields` are missing, in captions too."""
    chosen = np.array([f in fields for f in FIELDS])
    new = meta | {"present": meta["present"] & chosen}
    if "caption" in meta:
        new["caption"] = np.where(chosen[:, None], meta["caption"], 0).astype(meta["caption"].dtype)
    return new


def locations(meta: dict[str, np.ndarray]) -> np.ndarray:
    """Longitude and latitude in degrees, float32 (n, 2), of `encode`'s arrays; NaN if missing."""
    here = meta["present"][:, field_index()["location"]]
    return np.where(here[:, None], meta["values"][:, value_slices()["location"]], np.nan)


# --- arrays -> network inputs (device) ------------------------------------------------------------


def follow_crop(meta: Arrays, crop: jax.Array, stored_size: int, view_size: int) -> Arrays:
    """The metadata of a view cut out of the stored square and resized to a square.

    The rules of `Metadata.crop_resize`, in float32; what is missing stays missing and 0.

    Args:
      meta: as from `encode`, batched.
      crop: float32 (b, 4): y, x, height, width as fractions of the stored square.
      stored_size, view_size: sides of the stored square and of the view in pixels.

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
        if f.scales_with is not None:
            scale = factors if f.scales_with == "axes" else mean_factor
            new = new.at[:, slices[f.name]].multiply(scale)
    new = new.at[:, slices["location"]].set(jnp.where(has("location"), moved, location))
    return {**meta, "values": new}


def featurize(
    meta: Arrays, schema: Schema, fields: Sequence[Field], location_frequencies: int = 6
) -> Arrays:
    """The network's input of each field that is no category.

    Args:
      meta: as from `encode` or `follow_crop`, batched.
      location_frequencies: how many octaves of sines and cosines describe a location.

    Returns:
      Field name -> float32 (b, n), 0 where the field is missing:
        numeric: standardised (the logarithm where `Field.log`), n = size;
        angle: sine and cosine, n = 2;
        time: the year standardised, sine and cosine of the time of year, and of the time of day
          (UTC), n = 5;
        location: the unit vector p on the sphere, then sin(pi 2^k p) for every frequency k, then
          cos(pi 2^k p), n = 3 + 6 frequencies (frequencies as in NeRF, Mildenhall et al., 2020).
    """
    slices, column = value_slices(), field_index()
    values, present = jnp.asarray(meta["values"]), jnp.asarray(meta["present"])
    out = {}
    for f in fields:
        if f.kind == "category":
            continue
        here = present[:, column[f.name]][:, None]  # (b, 1)
        x = values[:, slices[f.name]]  # (b, size)
        stats = schema.fields[f.name]
        if f.kind == "numeric":
            if f.log:
                x = jnp.log(jnp.where(here, x, jnp.ones_like(x)))  # log 0 = -inf, even unused
            features = _standardize(x, stats)
        elif f.kind == "angle":
            features = _cycle(x / (f.period or 360.0))
        elif f.kind == "time":
            year, season, hour = jnp.split(x, 3, 1)
            features = jnp.concatenate([_standardize(year, stats), _cycle(season), _cycle(hour)], 1)
        else:
            features = _sphere(x, location_frequencies)
        out[f.name] = jnp.where(here, features, jnp.zeros_like(features))
    return out


def raw_features(meta: Arrays, schema: Schema, fields: Sequence[Field]) -> jax.Array:
    """All fields side by side without any learning, for kNN and linear probes on the metadata.

    Returns:
      float32 (b, D): `featurize` (of a location the unit vector alone), categories one-hot, in the
      order of `fields`; a missing field is 0, which is the mean of a standardised number.
    """
    numbers = featurize(meta, schema, fields, location_frequencies=0)
    columns, column = category_index(), field_index()
    parts = []
    for f in fields:
        if f.kind == "category":
            ids = meta["categories"][:, columns[f.name]]
            one_hot = jax.nn.one_hot(ids, len(schema.fields[f.name].vocabulary), dtype=jnp.float32)
            here = meta["present"][:, column[f.name]][:, None]
            parts.append(jnp.where(here, one_hot, jnp.zeros_like(one_hot)))
        else:
            parts.append(numbers[f.name])
    return jnp.concatenate(parts, 1)


def _standardize(x: jax.Array, stats: FieldStats) -> jax.Array:
    mean, std = (jnp.asarray(s, jnp.float32)[None, :] for s in (stats.mean, stats.std))
    return (x - mean) / std


def _cycle(turns: jax.Array) -> jax.Array:
    """Sine and cosine of turns, (b, n) -> (b, 2 n)."""
    angle = turns * (2 * math.pi)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], 1)


def _sphere(location: jax.Array, frequencies: int) -> jax.Array:
    """Longitude and latitude in degrees (b, 2) -> (b, 3 + 6 frequencies)."""
    longitude, latitude = jnp.split(jnp.radians(location), 2, 1)
    point = jnp.concatenate(
        [
            jnp.cos(latitude) * jnp.cos(longitude),
            jnp.cos(latitude) * jnp.sin(longitude),
            jnp.sin(latitude),
        ],
        1,
    )
    waves = [point * (math.pi * 2.0**k) for k in range(frequencies)]
    return jnp.concatenate([point, *map(jnp.sin, waves), *map(jnp.cos, waves)], 1)
