"""What is learned of the image, of the metadata, and of both, against what needs no learning."""

from __future__ import annotations

from satmip_jax.metadata.schema import Schema
from satmip_jax.studies import plot
from satmip_jax.studies.base import Axis, MethodConfigs, Plan, Study, Variant, known_fields


def plan(recipes: MethodConfigs, schema: Schema) -> Plan:
    """One SatMIP and one SatMIPS, the encoders before training, and the fields themselves."""
    known_fields(schema)
    satmip, satmips = recipes.of("satmip"), recipes.of("satmips")
    # Both start from the same weights of the encoders, so one untrained twin stands for both.
    return Plan(
        [
            Variant("fields", baseline="fields", values={"weights": "none"}),
            Variant(
                "untrained", satmips, init="random", run="satmips", values={"weights": "random"}
            ),
            Variant("satmip", satmip, values={"weights": "trained"}),
            Variant("satmips", satmips, values={"weights": "trained"}),
        ]
    )


STUDY = Study(
    name="modalities",
    title="Image, metadata, or both",
    description=(
        "Scores from the image, from the metadata and from both: of SatMIP, of SatMIPS, of the "
        "same encoders before training, and of the raw fields (for both: beside colour "
        "statistics). The paper (F1): metadata alone on fMoW 8.1 raw, 13.9 untrained, 27.8 "
        "SatMIP; image -> both on fMoW 59.3 -> 63.1 SatMIP, 65.8 -> 68.6 SatMIPS."
    ),
    plan=plan,
    x=(Axis("variant", "features of"),),
    draw=plot.points,
    columns={"weights": str},
)
