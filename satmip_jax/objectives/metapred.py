"""Direct prediction of each metadata field from the image; the baseline SatMIP is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from satmip_jax.errors import ConfigError
from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import Field, select_fields
from satmip_jax.metadata.schema import MAX_CENTRES, Schema
from satmip_jax.models import Head
from satmip_jax.objectives.base import Forward, Method, Scalars
from satmip_jax.objectives.options import MethodOptions, option


@dataclass(frozen=True)
class MetaPredOptions(MethodOptions):
    """Options of `MetaPred`."""

    geo_clusters: int = option(
        100,
        "number of location clusters to classify among",
        at_least=2,
        at_most=MAX_CENTRES,
    )


class MetaPred(Method):
    """One affine head per field of `config.metadata.fields` on the features of one view.

    The location is classified among the centres of clusters (`Schema.geo_centres`), a category
    among its vocabulary. Every other field is regressed as the tabular encoder sees it:
    standardized, or the sine and cosine of an angle, of the time of year and of the time of day.
    A field that the train split never has, or a category with a single value, is no target.

    The loss is the mean over the fields present in the global batch of each field's mean over the
    rows that have it. These are plain sums over global arrays: the same on any number of devices.

    With `config.metadata.follow_crop` the targets are those of the view, not of the stored image:
    a crop resized to the full square has a finer gsd, and the image does not show that of the
    stored image.

    Source: Ayush et al. 2021, "Geography-Aware Self-Supervised Learning": the cluster of the
    location, out of 100. NOTE[DIFF] All fields, not the location alone; no contrastive loss beside
    it; clusters of points on the sphere.
    """

    title = "MetaPred"
    options_class = MetaPredOptions
    options: MetaPredOptions
    metadata_view = 0

    @property
    def needs_geo_clusters(self) -> bool:
        """Whether the location is among the fields."""
        return any(f.kind.needs_geo_centres for f in select_fields(self.fields))

    def planning_schema(self, schema: Schema) -> Schema:
        """Return the schema with `geo_clusters` equal centres, if the data has locations."""
        return (
            plan_centres(schema, self.options.geo_clusters) if self.needs_geo_clusters else schema
        )

    def heads(self, schema: Schema) -> dict[str, Head]:
        """Return a head per target.

        Raises:
            ConfigError: the data has no target.
        """
        targets = self.targets(schema)
        if not targets:
            raise ConfigError(
                f"method 'metapred' has nothing to predict: the train split of {schema.name!r} "
                f"has no values for config.metadata.fields={self.fields!r}; select other fields"
            )
        return {head_name(f): Head("image", "affine", out=n) for f, n in targets.items()}

    def targets(self, schema: Schema) -> dict[Field, int]:
        """Return the fields to be predicted, each with the number of its head's outputs."""
        return {f: n for f in schema.select_fields(self.fields) if (n := outputs(f, schema))}

    def losses(self, forward: Forward, batch: dict[str, Any]) -> tuple[Scalars, Scalars]:
        """Compute "metapred", the mean over fields, and the loss or accuracy of each field."""
        features, metadata = forward.images(batch["image"], [0]), batch["metadata"]
        targets = tuple(self.targets(forward.schema))
        numbers = tabular.featurize(metadata, forward.schema, targets, location_frequencies=0)
        total, fields, metrics = jnp.float32(0), jnp.float32(0), {}
        for f in targets:
            name = head_name(f)
            (out,) = forward.head(name, features)
            present = metadata["present"][:, tabular.field_index()[f.name]].astype(jnp.float32)
            count = jnp.maximum(jnp.sum(present), 1.0)
            if f.kind.has_vocabulary:
                x = metadata["categories"][:, tabular.category_index()[f.name]]
            else:
                x = numbers[f.name]
            truth = f.kind.target(x, forward.schema.geo_centres)
            if f.kind.is_classified:
                each = cross_entropy(out, truth)
                correct = (jnp.argmax(out, axis=1) == truth).astype(jnp.float32)
                metrics[f"{name}_accuracy"] = jnp.sum(present * correct) / count
            else:
                each = jnp.mean(huber(out - truth), axis=1)
            metrics[f"{name}_loss"] = jnp.sum(present * each) / count
            total += metrics[f"{name}_loss"]
            fields += jnp.max(present)
        return {"metapred": total / jnp.maximum(fields, 1.0)}, metrics


def plan_centres(schema: Schema, count: int) -> Schema:
    """Return the schema with `count` equal centres, if the data has locations and no centres."""
    located = any(
        f.kind.needs_geo_centres and schema.fields[f.name].count
        for f in schema.select_fields("all")
    )
    if schema.geo_centres or not located:
        return schema
    return replace(schema, geo_centres=((1.0, 0.0, 0.0),) * count)


def outputs(f: Field, schema: Schema) -> int:
    """Return the width of a field's head; 0 if the train split has nothing to learn from."""
    return f.kind.n_outputs(schema.fields[f.name], schema.geo_centres)


def head_name(f: Field) -> str:
    """Return the name of a field's head, which also names its metrics."""
    return f.kind.head_name(f.name)


def cross_entropy(
    logits: Float[Array, "batch classes"], truth: Int32[Array, " batch"]
) -> Float[Array, " batch"]:
    """Return the cross-entropy of each row."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), truth[:, None], axis=1)[:, 0]


def huber(error: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return half the square up to an error of 1 standard deviation, and linear beyond.

    A few outliers in a noisy field then do not dominate the gradient.
    """
    size = jnp.abs(error)
    return jnp.where(size <= 1.0, 0.5 * jnp.square(error), size - 0.5)
