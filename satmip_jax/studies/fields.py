"""Study: ablation of the metadata fields, with SatMIP trained on one group of fields at a time."""

from __future__ import annotations

from satmip_jax.config.conversion import vary
from satmip_jax.metadata.fields import field, select_fields
from satmip_jax.metadata.kinds import Category, Numeric
from satmip_jax.metadata.schema import Schema
from satmip_jax.studies import plot
from satmip_jax.studies.base import (
    Axis,
    MethodConfigs,
    Plan,
    Study,
    Variant,
    fields_with_values,
)

# The rows of the paper's ablation.
SELECTIONS = ("GSD", "Time", "Location", "Angles", "GSD+Time+Location", "all")


def plan(configs: MethodConfigs, schema: Schema) -> Plan:
    """Plan a SatMIP per selection of fields; those without several values are skipped."""
    available = fields_with_values(schema)
    varying = {name for name in available if _varies(name, schema)}
    variants: list[Variant] = []
    names: dict[frozenset[str], str] = {}  # fields -> name of the selection
    skipped: dict[str, str] = {}
    for selection in SELECTIONS:
        groups = [] if selection == "all" else selection.split("+")
        empty = [group for group in groups if not available & _names(group)]
        constant = [group for group in groups if not varying & _names(group)]
        fields = frozenset(available & _names(selection))
        if empty:
            skipped[selection] = f"{schema.name} has no values of {', '.join(empty)}"
        elif constant:
            skipped[selection] = f"all images of {schema.name} have one {', '.join(constant)}"
        elif fields in names:
            skipped[selection] = f"in {schema.name} these are the same fields as {names[fields]}"
        else:
            names[fields] = selection
            config = vary(configs.of("satmip"), {"metadata.fields": selection})
            values = {"fields": selection, "field_count": len(fields)}
            variants.append(Variant(selection, config, values=values))
    return Plan(variants, skipped)


def _names(selection: str) -> set[str]:
    return {f.name for f in select_fields(selection)}


def _varies(name: str, schema: Schema) -> bool:
    """Whether images of the train split have different values of a field, as far as is known."""
    kind, stats = field(name).kind, schema.fields[name]
    if isinstance(kind, Category):
        return len(stats.vocabulary) > 1
    return not isinstance(kind, Numeric) or set(stats.std) != {1.0}  # of constants, see FieldStats


STUDY = Study(
    name="fields",
    title="Ablation of the metadata fields",
    description=(
        "SatMIP pretrained on one group of metadata fields at a time, scored on image features, on "
        "metadata features and on both. The paper (fMoW, linear-probe F1, image | image and "
        "metadata): GSD 37.4 | 40.5, Time 43.7 | 46.5, Location 47.1 | 53.3, Angles 41.1 | 43.4, "
        "GSD+Time+Location 50.7 | 57.7, all 50.7 | 58.0."
    ),
    plan=plan,
    x=(Axis("fields", "metadata fields"),),
    draw=plot.points,
    columns={"fields": str, "field_count": int},
)
