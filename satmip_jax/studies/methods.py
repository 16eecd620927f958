"""All methods side by side, with what needs no training and with labels as the upper end."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from satmip_jax.metadata.schema import Schema
from satmip_jax.studies import plot
from satmip_jax.studies.base import Axis, Plan, Study, Variant, known_fields, vary

# variant -> what it changes in the config
TRAINED: dict[str, dict[str, Any]] = {
    "simclr": {"method.name": "simclr"},
    "satmip": {"method.name": "satmip", "metadata.encoder": "tabular"},
    "satmip-text": {"method.name": "satmip", "metadata.encoder": "text"},
    "satmips": {"method.name": "satmips", "method.coupled": True},
    "satmips-uncoupled": {"method.name": "satmips", "method.coupled": False},
    "metapred": {"method.name": "metapred"},
    "supervised": {"method.name": "supervised"},
}


def plan(config: ConfigDict, schema: Schema) -> Plan:
    """Baselines first, then the methods; supervised only where there are labels."""
    known_fields(schema)
    satmips = vary(config, TRAINED["satmips"])
    variants = [Variant("untrained", satmips, init="random", run="satmips")]
    variants += [Variant(name, baseline=name) for name in ("colour", "patches", "fields")]
    variants += [Variant(name, vary(config, changes)) for name, changes in TRAINED.items()]
    if len(schema.classes) >= 2:
        return Plan(variants)
    reason = f"{schema.name} has {len(schema.classes)} classes to learn"
    return Plan([v for v in variants if v.name != "supervised"], {"supervised": reason})


STUDY = Study(
    name="methods",
    title="Methods compared",
    description=(
        "Every method at the same length of training, beside features that need no training "
        "(untrained encoders, colour statistics, random patch projections, raw fields) and "
        "supervised training as the upper end. The paper (fMoW, linear-probe F1): SimCLR 61.1, "
        "SatMIP 55.2, SatMIPS 62.3."
    ),
    plan=plan,
    x=(Axis("variant", "method"),),
    draw=plot.points,
)
