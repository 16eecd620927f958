"""A toy study, and readers of what a study writes."""

import csv
from dataclasses import replace

from satmip_jax.config.conversion import vary
from satmip_jax.evaluation.results import Score
from satmip_jax.studies import plot
from satmip_jax.studies.base import Axis, Plan, Study, Variant


def plan(configs, schema):
    """A baseline, a short SimCLR run, and its untrained encoder."""
    run = vary(configs.of("simclr"), {"optimizer.batch_size": 8, "optimizer.images": 32})
    untrained = Variant("untrained", run, init="random", run="b8", values={"batch": 0})
    colour = Variant("colour", baseline="colour")
    skipped = {"b7": "does not divide by the devices"}
    return Plan([colour, untrained, Variant("b8", run, values={"batch": 8})], skipped)


# The content of the file of a new study.
BATCHES = Study(
    name="batches",
    title="Batches",
    description="Scores against the batch size.",
    plan=plan,
    x=(Axis("batch", "batch size", "log"),),
    draw=plot.lines,
    columns={"batch": int},
)
OTHER = replace(BATCHES, name="other")


def rows_of(folder, *, without=("train_seconds",)):
    """Read results.csv, without the columns that change from run to run."""
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in without} for row in rows]


def row_of(**changes):
    """A line of a table."""
    row = Score("toy $5_x$ set", "val", "m", "image", "knn5", "accuracy", 0.5, 10, 0.4, 0.6)
    facts = {"study": "s", "variant": "a", "method": "simclr", "seed": 0, "images": 64}
    return {**facts, "train_seconds": 1.0, **vars(row), **changes}


def count_calls(monkeypatch, module, name, before=lambda call: None):
    """Patch a function to record the arguments of its calls; `before` runs first."""
    calls, function = [], getattr(module, name)

    def counted(*args, **kwargs):
        calls.append(args)
        before(len(calls))
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls
