"""Guided SimCLR: metadata fields attract or repel the image encoder, each through a head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from satmip_jax.errors import ConfigError
from satmip_jax.metadata.fields import select_fields
from satmip_jax.metadata.guides import Guide, guide
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Head
from satmip_jax.objectives.base import Forward, Method, Scalars
from satmip_jax.objectives.metapred import MetaPredOptions, cross_entropy, huber, plan_centres
from satmip_jax.objectives.options import option
from satmip_jax.objectives.scores import Scores
from satmip_jax.objectives.simclr import SimCLR, SimCLROptions


@dataclass(frozen=True)
class GuidedOptions(SimCLROptions, MetaPredOptions):
    """Options of `Guided`: those of `SimCLR`, and its own."""

    guide_auxiliary: str = option("sub_region", "fields that the image must reveal, with commas")
    guide_adversarial: str = option("year", "fields that the image must not reveal, with commas")
    guide_weight: float = option(0.1, "weight of each guide's loss", at_least=0)
    guide_reversal: float = option(1.0, "factor of an adversarial guide's gradient", at_least=0)
    guide_equalize: bool = option(True, "give all guides the same norm of their gradients")
    guide_hidden: int = option(512, "width of the hidden layers of a guide's head", at_least=1)


class Guided(Method):
    """SimCLR, and a head per guide that predicts a metadata field from the features of one view.

    The encoder helps the head of an auxiliary guide, and hinders that of an adversarial one: there
    the gradient by the features is multiplied by `-guide_reversal`. Each guide's loss is the mean
    over the rows that have the field: cross-entropy of a class, Huber's of numbers. A guide
    whose field is not in `config.metadata.fields`, or has nothing to learn in the train split, is
    left out; a row or a batch without the field contributes nothing.

    With `guide_equalize`, each loss is multiplied by m / g: g is the norm of its gradient by the
    features of the global batch, and m the geometric mean of g over the guides that the batch has.
    The gradients of all guides then have the norm `guide_weight` m.

    Source: Gardes et al. 2026, "Who Needs Labels?" (FINO): guides, gradient reversal, equal norms,
    and the recipe (sub-region auxiliary, year adversarial).

    NOTE[DIFF] SimCLR instead of DINOv3, with SatMIPS' backbone, so that the methods compare.
    Classifiers and regressors, of 3 layers without dropout; FINO's recipe has prototypes. One view,
    whose crop the metadata follow; FINO takes both. The weight is ours and constant; FINO's has a
    sigmoid schedule. A missing field is an error there. FINO divides by the norm of the weighted
    gradient, which cancels the weights; here they count. Years are 64 classes from 1972.
    """

    title = "Guided SimCLR"
    options_class = GuidedOptions
    options: GuidedOptions
    views = 2
    metadata_view = 0

    def __init__(self, options: GuidedOptions, fields: str = "all") -> None:
        super().__init__(options, fields)
        self.simclr = SimCLR(options, fields)
        auxiliary, adversarial = map(_names, (options.guide_auxiliary, options.guide_adversarial))
        names = [*auxiliary, *adversarial]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(
                f"guides {', '.join(twice)} are named twice in config.method.guide_auxiliary and "
                "config.method.guide_adversarial: each is one of both"
            )
        self.adversarial = dict.fromkeys(auxiliary, False) | dict.fromkeys(adversarial, True)

    @property
    def needs_geo_clusters(self) -> bool:
        """Whether the location is a guide."""
        return "location" in self.adversarial and "location" in self._selected()

    def planning_schema(self, schema: Schema) -> Schema:
        """Return the schema with centres of clusters, if the location is a guide."""
        return (
            plan_centres(schema, self.options.geo_clusters) if self.needs_geo_clusters else schema
        )

    def guides(self, schema: Schema) -> list[Guide]:
        """Return the guides that data of this schema have."""
        found = [guide(name, schema) for name in self.adversarial]
        return [g for g in found if g.outputs and g.field.name in self._selected()]

    def heads(self, schema: Schema) -> dict[str, Head]:
        """Return SimCLR's head, and one per guide.

        Raises:
            ConfigError: the data have none of the guides, or there is no such guide.
        """
        guides = self.guides(schema)
        if not guides:
            raise ConfigError(
                f"method 'guided' has no guide: the train split of {schema.name!r} has nothing to "
                f"learn for {', '.join(self.adversarial) or 'none'} in config.metadata.fields="
                f"{self.fields!r}; choose others by config.method.guide_auxiliary and "
                "guide_adversarial, or train simclr"
            )
        hidden = self.options.guide_hidden
        return self.simclr.heads(schema) | {
            _head(g): Head("image", "predictor", hidden=hidden, out=g.outputs) for g in guides
        }

    def scores(self, batch_size: int) -> dict[str, Scores]:
        """Return those of SimCLR."""
        return self.simclr.scores(batch_size)

    def losses(self, forward: Forward, batch: dict[str, Any]) -> tuple[Scalars, Scalars]:
        """Compute "simclr" and "guide_NAME" of each guide, weighted and equalized.

        Of each guide the metrics have the plain loss, the accuracy of a class, and the norm of the
        gradient by the features.
        """
        features = forward.images(batch["image"], [0, 1])
        losses, metrics = self.simclr.loss(forward, features)
        guides, metadata = self.guides(forward.schema), batch["metadata"]
        fixed = replace(forward, params=jax.lax.stop_gradient(forward.params))
        norms = {g.name: _gradient_norm(g, fixed, metadata, features[0]) for g in guides}
        scales = equalizing_scales(norms) if self.options.guide_equalize else {}
        for g in guides:
            factor = -self.options.guide_reversal if self.adversarial[g.name] else 1.0
            loss, own = _loss(g, forward, metadata, scale_gradient(features[0], factor))
            weight = self.options.guide_weight * scales.get(g.name, jnp.float32(1))
            losses[f"guide_{g.name}"] = weight * loss
            metrics |= own | {f"{g.name}_gradient_norm": norms[g.name]}
        return losses, metrics

    def _selected(self) -> set[str]:
        return {f.name for f in select_fields(self.fields)}


def _names(text: str) -> list[str]:
    """Return the names in a list separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _head(g: Guide) -> str:
    return f"guide_{g.name}"


def _loss(
    g: Guide,
    forward: Forward,
    metadata: dict[str, Array],
    features: Float[Array, "batch width"],
) -> tuple[Float32[Array, ""], Scalars]:
    """Return the mean loss of a guide over the rows that have it, and its metrics."""
    (out,) = forward.head(_head(g), [features])
    truth, has = g.of(metadata, forward.schema)
    present = has.astype(jnp.float32)
    count = jnp.maximum(jnp.sum(present), 1.0)
    metrics = {}
    if g.classified:
        each = cross_entropy(out, jnp.maximum(truth, 0))
        correct = (jnp.argmax(out, axis=1) == truth).astype(jnp.float32)
        metrics[f"{g.name}_accuracy"] = jnp.sum(present * correct) / count
    else:
        each = jnp.mean(huber(out - truth), axis=1)
    loss = jnp.sum(present * each) / count
    return loss, metrics | {f"{g.name}_loss": loss}


def _gradient_norm(
    g: Guide,
    forward: Forward,
    metadata: dict[str, Array],
    features: Float[Array, "batch width"],
) -> Float32[Array, ""]:
    """Return the norm of the gradient of a guide's loss by the features; a constant."""

    def loss(features: Array) -> Array:
        return _loss(g, forward, metadata, features)[0]

    gradient = jax.grad(loss)(jax.lax.stop_gradient(features))
    return jnp.sqrt(jnp.sum(jnp.square(gradient.astype(jnp.float32))))


def equalizing_scales(norms: dict[str, Float32[Array, ""]]) -> dict[str, Float32[Array, ""]]:
    """Return the factors that give all gradients the geometric mean of their norms.

    Args:
        norms: of the gradients; those of 0 do not count, and get the factor 1.

    Example:
        >>> from satmip_jax.objectives.guided import equalizing_scales
        >>> norms = {"a": jnp.float32(1), "b": jnp.float32(4), "none": jnp.float32(0)}
        >>> scales = equalizing_scales(norms)
        >>> {name: float(scale) for name, scale in scales.items()}
        {'a': 2.0, 'b': 0.5, 'none': 1.0}
    """
    stacked = jnp.stack(list(norms.values()))
    there = stacked > 0
    logarithms = jnp.log(jnp.where(there, stacked, 1.0))
    mean = jnp.sum(logarithms) / jnp.maximum(jnp.sum(there.astype(jnp.float32)), 1.0)
    scales = jnp.where(there, jnp.exp(mean - logarithms), 1.0)
    return dict(zip(norms, scales, strict=True))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def scale_gradient(x: Float[Array, "*shape"], factor: float) -> Float[Array, "*shape"]:
    """Return `x`; its gradient is multiplied by `factor`: below 0, gradient reversal.

    Source: Ganin and Lempitsky 2015, "Unsupervised Domain Adaptation by Backpropagation".

    Example:
        >>> from satmip_jax.objectives.guided import scale_gradient
        >>> float(jax.grad(lambda x: scale_gradient(x, -2.0) ** 2)(jnp.float32(3)))
        -12.0
    """
    del factor
    return x


def _scale_forward(x: Array, factor: float) -> tuple[Array, None]:
    del factor
    return x, None


def _scale_backward(factor: float, _: None, gradient: Array) -> tuple[Array]:
    return (gradient * jnp.asarray(factor, gradient.dtype),)


scale_gradient.defvjp(_scale_forward, _scale_backward)
