"""The default measurement of a study: every variant is trained and scored."""

from __future__ import annotations

from satmip_jax.config.fields import known_fields
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.evaluation.baselines import BASELINES
from satmip_jax.evaluation.evaluate import evaluate, evaluate_baseline
from satmip_jax.evaluation.results import Score
from satmip_jax.metadata.fields import select_fields
from satmip_jax.metadata.schema import Schema
from satmip_jax.studies.eval_data import EvalData
from satmip_jax.studies.tracker import StudyRun, StudyTracker
from satmip_jax.training.loop import train

LEAK_FREE = "all-leak"  # fields of the leak-free scores


def train_and_score(tracker: StudyTracker) -> None:
    """Train and score the pending runs, one variant and seed at a time.

    Args:
        tracker: an open study.

    Raises:
        Interrupted: training received a stop signal and saved its state; the next call resumes.
    """
    for run in tracker.pending():
        with tracker.attempt(run):
            if run.config is not None:
                train(run.config, run.folder)  # returns at once if complete
            for name, data in tracker.data.items():
                if tracker.load_scores(run, name) is None:
                    tracker.save_scores(run, name, score_run(run, data))
            tracker.finish(run)


def score_run(run: StudyRun, data: EvalData) -> list[Score]:
    """Score a trained run or a baseline on a data set; none if the baseline needs its metadata."""
    schema = ShardDataset(data.folder, data.bank).schema
    needs_metadata = run.config is None and "image" not in BASELINES[run.variant.baseline].kinds
    if needs_metadata and not known_fields(schema):
        return []
    fields = ["all"]
    if data.leak_free and set(run.variant.features) != {"image"} and _has_leak(run, schema):
        fields.append(LEAK_FREE)
    if run.config is None:
        return evaluate_baseline(run.variant.baseline, data.folder, fields=fields, **data.options)
    return evaluate(
        run.folder,
        data.folder,
        features=run.variant.features,
        fields=fields,
        init=run.variant.init,
        **data.options,
    )


def _has_leak(run: StudyRun, schema: Schema) -> bool:
    """Whether a run or baseline sees fields that reveal the size of the image, and others."""
    spec = "all" if run.config is None else run.config.metadata.fields
    seen = [f for f in select_fields(spec) if schema.fields[f.name].count]
    return any(f.leak for f in seen) and not all(f.leak for f in seen)
