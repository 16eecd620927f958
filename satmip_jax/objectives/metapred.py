"""Direct prediction: the image must tell its metadata, field by field.

The older way that SatMIP is set against.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from satmip_jax.errors import ConfigError
from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import Field, select_fields
from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives.base import Array, Forward


class MetaPred:
    """One linear head per field of `config.metadata.fields` on the representation of one view.

    The location is classified among the centres of places (`Schema.geo_centres`), a category among
    its vocabulary; every other field is regressed as the tabular encoder sees it: standardised, or
    the sine and cosine of an angle, of the time of year and of the time of day. What the train
    split never tells, or tells with a single value of a category, is no target.

    The loss is the mean, over the fields that the global batch knows, of each field's mean over
    the rows that know it: plain sums over global arrays, the same on any number of devices.

    With `config.metadata.follow_crop` the targets are those of the view, not of the stored image:
    a crop that is blown up to the same square shows a finer gsd, and asking for that of the whole
    would be asking for what cannot be seen.

    Source: Ayush et al. 2021, "Geography-Aware Self-Supervised Learning": the cluster of the
    location, of 100. NOTE[DIFF] All fields, not the location alone; no contrastive loss beside it;
    the clusters are those of points on the sphere.

    Raises:
        ConfigError: no field is left to be predicted.
    """

    views = 1
    metadata_view = 0

    def __init__(self, config: ConfigDict) -> None:
        self.selection = config.metadata.fields

    def heads(self, schema: Schema) -> dict[str, tuple[Any, ...]]:
        targets = self.targets(schema)
        if not targets:
            raise ConfigError(
                f"method 'metapred' has nothing to predict: the train split of {schema.name!r} "
                f"tells nothing about config.metadata.fields={self.selection!r}"
            )
        return {head_name(f): ("affine", n) for f, n in targets.items()}

    def targets(self, schema: Schema) -> dict[Field, int]:
        """The fields to be predicted, each with the number of its head's outputs."""
        return {f: n for f in schema.select_fields(self.selection) if (n := outputs(f, schema))}

    def negatives(self, batch_size: int) -> dict[str, int]:
        return {}

    def losses(
        self, forward: Forward, batch: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        features, metadata = forward.images(batch["image"], [0]), batch["metadata"]
        targets = tuple(self.targets(forward.schema))
        numbers = tabular.featurize(metadata, forward.schema, targets, location_frequencies=0)
        total, fields, metrics = jnp.float32(0), jnp.float32(0), {}
        for f in targets:
            name = head_name(f)
            (out,) = forward.head(name, features)
            known = metadata["present"][:, tabular.field_index()[f.name]].astype(jnp.float32)
            count = jnp.maximum(jnp.sum(known), 1.0)
            if f.kind.has_vocabulary:
                x = metadata["categories"][:, tabular.category_index()[f.name]]
            else:
                x = numbers[f.name]
            truth = f.kind.target(x, forward.schema.geo_centres)
            if f.kind.is_classified:
                each = cross_entropy(out, truth)
                right = (jnp.argmax(out, axis=1) == truth).astype(jnp.float32)
                metrics[f"{name}_accuracy"] = jnp.sum(known * right) / count
            else:
                each = jnp.mean(huber(out - truth), axis=1)
            metrics[f"{name}_loss"] = jnp.sum(known * each) / count
            total += metrics[f"{name}_loss"]
            fields += jnp.max(known)
        return {"metapred": total / jnp.maximum(fields, 1.0)}, metrics


def predicts_places(config: ConfigDict) -> bool:
    """Whether the method of a config needs `Schema.geo_centres`."""
    chosen = select_fields(config.metadata.fields)
    return config.method.name == "metapred" and any(f.kind.needs_geo_centres for f in chosen)


def outputs(f: Field, schema: Schema) -> int:
    """How many numbers a head gives for a field; 0 where the train split tells nothing of it."""
    return f.kind.n_outputs(schema.fields[f.name], schema.geo_centres)


def head_name(f: Field) -> str:
    """The head of a field, which its metrics are named after, too."""
    return f.kind.head_name(f.name)


def cross_entropy(logits: Array, truth: Array) -> Array:
    """Of each row, (B, k) at classes (B,) -> (B,)."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), truth[:, None], axis=1)[:, 0]


def huber(error: Array) -> Array:
    """Half the square up to an error of 1, a standard deviation, and linear beyond.

    So that a few absurd values of a noisy field do not lead the encoder.
    """
    size = jnp.abs(error)
    return jnp.where(size <= 1.0, 0.5 * jnp.square(error), size - 0.5)
