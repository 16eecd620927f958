"""Study: metadata encoders, a tabular Transformer against a Transformer over a caption."""

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
    fields_with_values,
)


def plan(configs: MethodConfigs, schema: Schema) -> Plan:
    """Plan the config's method with each metadata encoder.

    Raises:
        StudyError: the method has no metadata encoder, or the data set has no metadata.
    """
    config = configs.config
    fields_with_values(schema)
    if not build_method(config).encodes_metadata(schema):
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
    title="Metadata encoders: table or text",
    description=(
        "The config's method with its metadata encoded by a Transformer over one token per field "
        "(tabular), and by a Transformer over a caption of the fields (text)."
    ),
    plan=plan,
    x=(Axis("encoder", "metadata encoder"),),
    draw=plot.points,
    columns={"encoder": str},
)
