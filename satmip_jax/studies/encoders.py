"""The metadata encoder: fields as a table or as a text."""

from __future__ import annotations

from satmip_jax.config.conversion import vary
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import METADATA_ENCODERS
from satmip_jax.objectives import build_method
from satmip_jax.studies import plot
from satmip_jax.studies.base import (
    Axis,
    MethodConfigs,
    Plan,
    Study,
    StudyError,
    Variant,
    known_fields,
)


def plan(recipes: MethodConfigs, schema: Schema) -> Plan:
    """The config's own method with every metadata encoder there is."""
    config = recipes.config
    known_fields(schema)
    if "metadata" not in build_method(config).heads(schema):
        raise StudyError(
            f"config.method.name is {config.method.name!r}, which has no metadata encoder: "
            "set it to satmip or satmips"
        )
    return Plan(
        [
            Variant(name, vary(config, {"metadata.encoder": name}), values={"encoder": name})
            for name in METADATA_ENCODERS
        ]
    )


STUDY = Study(
    name="encoders",
    title="Metadata as a table or as a text",
    description=(
        "The config's method with its fields encoded by a Transformer over one token a field "
        "(tabular) and by a Transformer over a caption (text)."
    ),
    plan=plan,
    x=(Axis("encoder", "metadata encoder"),),
    draw=plot.points,
    columns={"encoder": str},
)
