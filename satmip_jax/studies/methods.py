"""All methods side by side, with what needs no training and with labels as the upper end."""

from __future__ import annotations

from satmip_jax.config.conversion import vary
from satmip_jax.metadata.schema import Schema
from satmip_jax.studies import plot
from satmip_jax.studies.base import Axis, MethodConfigs, Plan, Study, Variant, known_fields


def plan(recipes: MethodConfigs, schema: Schema) -> Plan:
    """Baselines first, then the methods; supervised only where there are labels."""
    known_fields(schema)
    satmip, satmips = recipes.of("satmip"), recipes.of("satmips", coupled=True)
    variants = [Variant("untrained", satmips, init="random", run="satmips")]
    variants += [Variant(name, baseline=name) for name in ("colour", "patches", "fields")]
    variants += [
        Variant("simclr", recipes.of("simclr")),
        Variant("satmip", vary(satmip, {"metadata.encoder": "tabular"})),
        Variant("satmip-text", vary(satmip, {"metadata.encoder": "text"})),
        Variant("satmips", satmips),
        Variant("satmips-uncoupled", recipes.of("satmips", coupled=False)),
        Variant("metapred", recipes.of("metapred")),
        Variant("supervised", recipes.of("supervised")),
    ]
    if len(schema.classes) >= 2:
        return Plan(variants)
    reason = f"{schema.name} has {len(schema.classes)} classes to learn"
    return Plan([v for v in variants if v.name != "supervised"], {"supervised": reason})


STUDY = Study(
    name="methods",
    title="Methods compared",
    description=(
        "Every method by its own recipe where the config file has one, beside features that need "
        "no training (untrained encoders, colour statistics, random patch projections, raw "
        "fields) and supervised training as the upper end. The paper (fMoW, linear-probe F1): "
        "SimCLR 61.1, SatMIP 55.2, SatMIPS 62.3."
    ),
    plan=plan,
    x=(Axis("variant", "method"),),
    draw=plot.points,
)
