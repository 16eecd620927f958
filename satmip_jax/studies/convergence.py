"""Study: scores against the length of training; each length is a full run with its own schedule."""

from __future__ import annotations

from satmip_jax.config.conversion import vary
from satmip_jax.config.training_length import total_steps
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

METHODS = ("simclr", "satmip", "satmips")  # those of the paper's figure
LENGTHS = {"eighth": 1 / 8, "quarter": 1 / 4, "half": 1 / 2, "full": 1.0}  # of the config's length


def plan(configs: MethodConfigs, schema: Schema) -> Plan:
    """Plan each method at each length, with a warm-up and a cosine schedule per run."""
    fields_with_values(schema)
    variants: list[Variant] = []
    skipped: dict[str, str] = {}
    for method in METHODS:
        config = configs.of(method)
        batch = config.optimizer.batch_size
        steps = total_steps(config, schema.splits[config.data.train_split])
        names: dict[int, str] = {}  # number of steps -> name of the length
        for name, fraction in LENGTHS.items():
            length = max(1, round(steps * fraction))
            if length in names:
                skipped[f"{method}-{name}"] = f"same number of steps ({length}) as {names[length]}"
                continue
            names[length] = name
            changes = {"optimizer.images": length * batch}
            values = {"length": name, "fraction": fraction}
            variants.append(Variant(f"{method}-{name}", vary(config, changes), values=values))
    return Plan(variants, skipped)


STUDY = Study(
    name="convergence",
    title="Scores against the length of training",
    description=(
        "SimCLR, SatMIP and SatMIPS at an eighth, a quarter, a half and all of the config's "
        "length. Each is a full run with its own cosine schedule, scored on image features. Time "
        "is measured training time, without compilation and evaluation. The paper (fMoW F1 at 1, "
        "2, 4, 8 units): SimCLR 46.1 50.9 56.1 61.1, SatMIP 45.7 50.4 53.8 55.2, SatMIPS 53.9 57.8 "
        "60.9 62.3."
    ),
    plan=plan,
    x=(
        Axis("images", "images seen in training", "log"),
        Axis("train_seconds", "training time, s", "log"),
    ),
    draw=plot.lines,
    columns={"length": str, "fraction": float},
)
