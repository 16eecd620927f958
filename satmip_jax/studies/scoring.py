"""The common way of a study: every variant is trained, scored, and put into the book."""

from __future__ import annotations

from satmip_jax.evaluation.evaluate import evaluate, evaluate_baseline
from satmip_jax.studies.tracker import StudyTracker
from satmip_jax.training.loop import train


def train_and_score(book: StudyTracker) -> None:
    """Train and score what is not done yet, one variant and seed at a time.

    Raises:
      Interrupted: training was asked to stop; it has saved, and the next call goes on there.
    """
    splits = {"split": book.config.data.val_split, "bank": book.config.data.train_split}
    for unit in book.todo():
        with book.attempt(unit):
            if unit.config is not None:
                train(unit.config, unit.folder)  # returns at once where it is done
            for name, folder in book.data.items():
                if book.scores(unit, name) is not None:
                    continue
                if unit.config is None:
                    rows = evaluate_baseline(unit.variant.baseline, folder, **splits)
                else:
                    rows = evaluate(unit.folder, folder, init=unit.variant.init, **splits)
                book.keep(unit, name, rows)
            book.finish(unit)
