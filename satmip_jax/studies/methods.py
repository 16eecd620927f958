"""Study: all methods, beside baselines without training and supervised training."""

from __future__ import annotations

from satmip_jax.config.conversion import vary
from satmip_jax.errors import ConfigError
from satmip_jax.evaluation.baselines import BASELINES
from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives import METHODS, build_method
from satmip_jax.studies import plot
from satmip_jax.studies.base import (
    Axis,
    MethodConfigs,
    Plan,
    Study,
    Variant,
    fields_with_values,
)

LAST = "supervised"  # the upper bound


def plan(configs: MethodConfigs, schema: Schema) -> Plan:
    """Plan the baselines, then the methods."""
    fields_with_values(schema)
    satmips = configs.of("satmips", coupled=True)
    untrained = Variant("untrained", satmips, init="random", run="satmips")
    baselines = [Variant(name, baseline=name) for name in BASELINES]
    methods = method_variants(configs, schema)
    return Plan([untrained, *baselines, *methods.variants], methods.skipped)


def method_variants(configs: MethodConfigs, schema: Schema) -> Plan:
    """Plan every method of `METHODS`, and the variants of SatMIP and SatMIPS.

    A method that cannot learn from the data set (supervised training without labels) is skipped.
    """
    satmip = configs.of("satmip")
    several = {
        "satmip": [
            Variant("satmip", vary(satmip, {"metadata.encoder": "tabular"})),
            Variant("satmip-text", vary(satmip, {"metadata.encoder": "text"})),
        ],
        "satmips": [
            Variant("satmips", configs.of("satmips", coupled=True)),
            Variant("satmips-uncoupled", configs.of("satmips", coupled=False)),
        ],
    }
    variants: list[Variant] = []
    skipped: dict[str, str] = {}
    for method in sorted(METHODS, key=lambda name: name == LAST):  # stable
        candidate = build_method(configs.of(method))
        try:
            candidate.heads(candidate.planning_schema(schema))
        except ConfigError as error:
            skipped[method] = str(error)
        else:
            variants += several.get(method) or [Variant(method, configs.of(method))]
    return Plan(variants, skipped)


STUDY = Study(
    name="methods",
    title="Comparison of methods",
    description=(
        "Every method with its own recipe, if the config file has one. Beside them, features that "
        "need no training (untrained encoders, colour statistics, random patch projections, raw "
        "fields) and supervised training as the upper bound. The paper (fMoW, linear-probe F1): "
        "SimCLR 61.1, SatMIP 55.2, SatMIPS 62.3."
    ),
    plan=plan,
    x=(Axis("variant", "method"),),
    draw=plot.points,
)
