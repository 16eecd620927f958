"""Targets that guide an image encoder: metadata fields, and what follows from them.

A guide is a field of `FIELDS`, or one of `DERIVED`: the country's region and sub-region, and the
year, the month and the hour of the time. Categories are classified, numbers are regressed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from satmip_jax.errors import ConfigError
from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import FIELDS, Field, field
from satmip_jax.metadata.regions import region, sub_region
from satmip_jax.metadata.schema import Schema

FIRST_YEAR, YEARS = 1972, 64  # from Landsat 1 on; years outside count as the nearest
_MONTH_STARTS = np.cumsum([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30]) / 365


@dataclass(frozen=True)
class Guide:
    """A target and the field that it is computed from.

    Attributes:
        name: "sub_region", "year", or the name of a field.
        field: the metadata field.
        outputs: classes, or numbers to regress; 0 if the train split has nothing to learn.
        classified: whether the target is a class.
        target: `(metadata, schema)` -> int32 (b,) classes or float32 (b, outputs) numbers; a class
            of -1 is missing.
    """

    name: str
    field: Field
    outputs: int
    classified: bool
    target: Callable[[tabular.Arrays, Schema], Array]

    def of(self, metadata: tabular.Arrays, schema: Schema) -> tuple[Array, Bool[Array, " batch"]]:
        """Return the targets of a batch, and which rows have one."""
        target = self.target(metadata, schema)
        present = metadata["present"][:, tabular.field_index()[self.field.name]]
        return target, present & (target >= 0) if self.classified else present


def guide(name: str, schema: Schema) -> Guide:
    """Return the guide of this name for data of this schema.

    Raises:
        ConfigError: there is no such guide.

    Example:
        >>> from satmip_jax.data.shard_dataset import ShardDataset
        >>> from satmip_jax.metadata.guides import guide
        >>> guide("month", ShardDataset(shards, "train").schema).outputs
        12
    """
    if name in DERIVED:
        return DERIVED[name](name, schema)
    if name not in {f.name for f in FIELDS}:
        names = ", ".join([*DERIVED, *(f.name for f in FIELDS)])
        raise ConfigError(f"there is no guide {name!r}: choose from {names}")
    f = field(name)
    outputs = f.kind.n_outputs(schema.fields[name], schema.geo_centres)
    return Guide(name, f, outputs, f.kind.is_classified, lambda m, s: _field_target(f, m, s))


def _field_target(f: Field, metadata: tabular.Arrays, schema: Schema) -> Shaped[Array, "batch ..."]:
    """Return the target of direct prediction."""
    if f.kind.has_vocabulary:
        x = metadata["categories"][:, tabular.category_index()[f.name]]
    else:
        x = tabular.featurize(metadata, schema, (f,), location_frequencies=0)[f.name]
    return f.kind.target(x, schema.geo_centres)


def _of_country(group_of: Callable[[str], str]) -> Callable[[str, Schema], Guide]:
    """Return the maker of a guide that classifies groups of countries."""

    def make(name: str, schema: Schema) -> Guide:
        f = field("country_code")
        groups = [group_of(country) for country in schema.fields[f.name].vocabulary]
        names = sorted(set(groups) - {""})
        classes = np.array([names.index(g) if g else -1 for g in groups] or [-1], np.int32)

        def target(metadata: tabular.Arrays, schema: Schema) -> Array:
            ids = metadata["categories"][:, tabular.category_index()[f.name]]
            return jnp.asarray(classes)[ids]

        return Guide(name, f, len(names) if len(names) > 1 else 0, True, target)

    return make


def _of_time(classes: int, number: Callable[[Array], Array]) -> Callable[[str, Schema], Guide]:
    """Return the maker of a guide that classifies times by (year, year's, day's fraction)."""

    def make(name: str, schema: Schema) -> Guide:
        f = field("timestamp")

        def target(metadata: tabular.Arrays, schema: Schema) -> Array:
            clock = metadata["values"][:, tabular.value_slices()[f.name]]
            return jnp.clip(number(clock).astype(jnp.int32), 0, classes - 1)

        return Guide(name, f, classes if schema.fields[f.name].count else 0, True, target)

    return make


def _country(name: str, schema: Schema) -> Guide:
    """Return the guide of the field country_code under a shorter name."""
    found = guide("country_code", schema)
    return Guide(name, found.field, found.outputs, found.classified, found.target)


def _month(clock: Array) -> Array:
    """Return the month from 0, exact to a day at the ends of months."""
    starts = jnp.asarray(_MONTH_STARTS, jnp.float32)
    return jnp.sum((clock[:, 1:2] >= starts[None]).astype(jnp.int32), axis=1)


DERIVED: Mapping[str, Callable[[str, Schema], Guide]] = {
    "region": _of_country(region),
    "sub_region": _of_country(sub_region),
    "country": _country,
    "year": _of_time(YEARS, lambda clock: clock[:, 0] - FIRST_YEAR),
    "month": _of_time(12, _month),
    "hour": _of_time(24, lambda clock: jnp.floor(clock[:, 2] * 24)),
}
