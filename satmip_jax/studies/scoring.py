"""The default measurement of a study: every variant is trained and scored."""

from __future__ import annotations

from satmip_jax.evaluation.evaluate import evaluate, evaluate_baseline
from satmip_jax.studies.tracker import StudyTracker
from satmip_jax.training.loop import train


def train_and_score(tracker: StudyTracker) -> None:
    """Train and score the pending runs, one variant and seed at a time.

    Args:
        tracker: an open study.

    Raises:
        Interrupted: training received a stop signal and saved its state; the next call resumes.
    """
    splits = {
        "split": tracker.config.data.val_split,
        "bank": tracker.config.data.train_split,
    }
    for run in tracker.pending():
        with tracker.attempt(run):
            if run.config is not None:
                train(run.config, run.folder)  # returns at once if complete
            for name, folder in tracker.data.items():
                if tracker.load_scores(run, name) is not None:
                    continue
                if run.config is None:
                    scores = evaluate_baseline(run.variant.baseline, folder, **splits)
                else:
                    scores = evaluate(run.folder, folder, init=run.variant.init, **splits)
                tracker.save_scores(run, name, scores)
            tracker.finish(run)
