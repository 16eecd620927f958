"""The state of a study: which runs are complete, and the files that record it.

    DIR/study.json          what is compared, the hardware, skipped variants and failed runs
    DIR/results.csv         one score per line; results.parquet holds the same
    DIR/plot.svg, plot.png
    DIR/runs/<run>-seed<n>/ a workdir of `satmip train`, with evaluation.json and scored.json

Every file is written atomically, and the table is always rebuilt from the files of the runs. An
interrupted and resumed study ends with the same table as an uninterrupted one.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from satmip_jax.config.conversion import differences, from_json, listed, vary
from satmip_jax.config.resume import result_changes
from satmip_jax.config.training_length import total_steps
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.features import KINDS
from satmip_jax.evaluation.results import Score, read_scores, write_scores
from satmip_jax.runtime.environment import environment
from satmip_jax.runtime.files import (
    FileContentError,
    atomic_path,
    read_json_object,
    write_atomically,
)
from satmip_jax.runtime.paths import AnyPath, make_folder
from satmip_jax.studies import plot, table
from satmip_jax.studies.base import MethodConfigs, Plan, Study, StudyError, Variant
from satmip_jax.studies.eval_data import EvalData
from satmip_jax.studies.training_time import training_seconds
from satmip_jax.training.loop import Interrupted

SCORED_FILE = "scored.json"  # in a run's folder: what was scored -> keys of its evaluation.json


@dataclass(frozen=True)
class StudyRun:
    """A variant with one seed, the unit of work that is complete or repeated.

    Attributes:
        variant: the variant.
        seed: seed of the training; None for a baseline.
        config: config of the training, with this seed; None for a baseline.
        folder: folder of the run; variants may share it.
    """

    variant: Variant
    seed: int | None
    config: ConfigDict | None
    folder: AnyPath

    @property
    def name(self) -> str:
        """Name in messages."""
        return self.variant.name + ("" if self.seed is None else f", seed {self.seed}")


class StudyTracker:
    """The state of a study in a folder.

    Args:
        folder: folder of the study.
        study: the study.
        plan: its variants.
        configs: the configs that the variants start from.
        seeds: seeds of every variant that is trained.
        data: name of each data set to score on -> how.
        train_examples: number of training images.
        console: where to print.
        runs_folder: folder of the runs, which several studies may share; by default "runs" in
            `folder`.
        failures: folder of each failed run -> reason; studies that share runs share it.

    Attributes:
        runs: all runs, in the order of the table.
        results: name of each complete run -> its lines of the table.
        failed: name of each failed run -> (the run, reason).
        recipe_differences: method -> how its recipe differs from the base config.
        environments: hardware and versions that the study was computed with.
    """

    def __init__(
        self,
        folder: AnyPath,
        study: Study,
        plan: Plan,
        configs: MethodConfigs,
        *,
        seeds: Sequence[int],
        data: Mapping[str, EvalData],
        train_examples: int,
        console: Console,
        runs_folder: AnyPath | None = None,
        failures: dict[AnyPath, str] | None = None,
    ) -> None:
        self.folder, self.study, self.plan, self.config = folder, study, plan, configs.config
        self.seeds, self.data, self.train_examples = seeds, data, train_examples
        self.console = console
        self.runs_folder = folder / "runs" if runs_folder is None else runs_folder
        self._failures = {} if failures is None else failures
        self.runs = [run for variant in plan.variants for run in self._runs_of(variant)]
        self.results: dict[str, list[dict[str, Any]]] = {}
        self.failed: dict[str, tuple[StudyRun, str]] = {}
        methods = {variant.config.method.name for variant in plan.variants if variant.config}
        self.recipe_differences = {
            method: changes
            for method, changes in configs.recipe_differences().items()
            if method in methods
        }
        self.environments: list[dict[str, Any]] = []

    def _runs_of(self, variant: Variant) -> Iterator[StudyRun]:
        folder = self.runs_folder / (variant.run or variant.name)
        if variant.config is None:
            yield StudyRun(variant, None, None, folder)
            return
        for seed in self.seeds:
            config = vary(variant.config, {"seed": seed})
            yield StudyRun(variant, seed, config, folder.with_name(f"{folder.name}-seed{seed}"))

    # --- progress ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Claim the folder and load the runs that are complete.

        Raises:
            StudyError: the folder holds another study, or this one with another config.
        """
        path = self.folder / "study.json"
        if path.is_file():
            stored = _read_object(path)
            if stored.get("name") != self.study.name:
                raise StudyError(
                    f"{self.folder} holds the study {stored.get('name')!r}, not "
                    f"{self.study.name!r}: use another --out"
                )
            old = from_json(json.dumps(stored.get("config")))
            if changed := listed(result_changes(old, self.config)):
                raise StudyError(
                    f"{self.folder} holds this study with another config:\n  "
                    + "\n  ".join(changed)
                    + "\nUse another --out, or resume with the config of that study."
                )
            self.environments = stored.get("machines") or []
        for run in self.runs:
            if self._is_complete(run):
                self.results[run.name] = self._table_rows(run)
        if len(self.results) < len(self.runs):
            current = environment()
            if current not in self.environments:
                self.environments.append(current)
        self.write()

    def pending(self) -> Iterator[StudyRun]:
        """Yield the runs that are not complete, in order.

        A run is failed without a try if another run that shares its folder has failed.
        """
        for number, run in enumerate(self.runs, start=1):
            if run.name in self.results or run.name in self.failed:
                continue
            self.console.rule(f"{number}/{len(self.runs)}  {run.name}")
            if reason := self._failures.get(run.folder):
                self.fail(run, reason)
            else:
                yield run

    @contextmanager
    def attempt(self, run: StudyRun) -> Iterator[None]:
        """Record an error in the block as a failure of the run; only a stop signal is re-raised.

        Raises:
            Interrupted: training received a stop signal.
        """
        try:
            yield
        except Interrupted:
            raise
        except Exception as error:
            reason = str(error)
            if not isinstance(error, SatmipError):
                reason = f"{type(error).__name__}: {error}"
                if is_main_process():
                    make_folder(run.folder)
                    write_atomically(run.folder / "failure.txt", traceback.format_exc())
            self.fail(run, reason)

    def fail(self, run: StudyRun, reason: str) -> None:
        """Record a run as failed."""
        self.failed[run.name] = (run, reason)
        self._failures[run.folder] = reason
        self.console.print(f"{run.name} failed: {reason}", style="red", markup=False)
        self.write()

    def finish(self, run: StudyRun) -> None:
        """Add a run whose scores are all saved to the table."""
        (run.folder / "failure.txt").unlink(missing_ok=True)  # of an earlier attempt
        self.results[run.name] = self._table_rows(run)
        self.write()

    # --- scores of a run --------------------------------------------------------------------------

    def load_scores(self, run: StudyRun, data: str) -> list[Score] | None:
        """Return the saved scores of a run on one data set; None if it has not been scored."""
        path = run.folder / SCORED_FILE
        scored = _read_object(path) if path.is_file() else {}
        if (key := self._scored_key(run, data)) not in scored:
            return None
        saved = {score.identity: score for score in read_scores(run.folder / "evaluation.json")}
        # files of earlier versions have no fingerprint of the data
        keys = [(*entry, "")[:7] for entry in scored[key]]
        return [saved[key] for key in keys] if all(key in saved for key in keys) else None

    def save_scores(self, run: StudyRun, data: str, scores: Sequence[Score]) -> None:
        """Write the scores of a run on one data set into its folder."""
        if not is_main_process():
            return
        write_scores(run.folder / "evaluation.json", scores)
        path = run.folder / SCORED_FILE
        scored = _read_object(path) if path.is_file() else {}
        scored[self._scored_key(run, data)] = [score.identity for score in scores]
        write_atomically(path, json.dumps(scored, indent=1) + "\n")

    def _scored_key(self, run: StudyRun, data: str) -> str:
        """Return a key of `SCORED_FILE`: features, data set and splits."""
        variant = run.variant
        key = f"{variant.baseline or variant.init} on {data}, {self.data[data].description}"
        return key if variant.features == KINDS else f"{key}, {'+'.join(variant.features)}"

    def _is_complete(self, run: StudyRun) -> bool:
        if run.config is not None:
            path = run.folder / "config.json"
            if not path.is_file():
                return False
            trained = from_json(path.read_text(encoding="utf-8"))
            if differences(trained, run.config):
                return False  # the attempt will report the differences
        return all(self.load_scores(run, name) is not None for name in self.data)

    def _table_rows(self, run: StudyRun) -> list[dict[str, Any]]:
        """Return the lines of the table for a complete run."""
        variant = run.variant
        images, seconds = self._training_cost(run)
        common = {
            "study": self.study.name,
            "variant": variant.name,
            "method": variant.method,
            "seed": run.seed,
            "images": images,
            "train_seconds": seconds,
        }
        scores = [score for name in self.data for score in self.load_scores(run, name) or ()]
        return [{**common, **asdict(score), **variant.values} for score in scores]

    def _training_cost(self, run: StudyRun) -> tuple[int | None, float | None]:
        """Return the images seen and the seconds taken by the training behind the features."""
        if run.config is None or run.variant.init == "random":
            return 0, 0.0
        metrics, batch = run.folder / "metrics.jsonl", run.config.optimizer.batch_size
        if not metrics.is_file():
            return None, None  # nothing was trained
        images = total_steps(run.config, self.train_examples) * batch
        return images, training_seconds(metrics, batch)

    # --- files of the study -----------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """Return one score per line, in the order of the runs."""
        return [row for run in self.runs for row in self.results.get(run.name, ())]

    def write(self) -> None:
        """Write all files of the study, on the main process."""
        if not is_main_process():
            return
        make_folder(self.folder)
        write_atomically(self.folder / "study.json", json.dumps(self._facts(), indent=1) + "\n")
        rows = self.table()
        scores = table.to_arrow(self.study, rows)
        with atomic_path(self.folder / "results.csv") as path:
            table.write_csv(scores, path)
        with atomic_path(self.folder / "results.parquet") as path:
            table.write_parquet(scores, path)
        for suffix, picture in plot.render(self.study, table.summarize(self.study, rows)).items():
            write_atomically(self.folder / f"plot.{suffix}", picture)

    def _facts(self) -> dict[str, Any]:
        """Return the content of study.json."""
        axis = self.study.x[0]
        return {
            "name": self.study.name,
            "title": self.study.title,
            "description": self.study.description,
            "x_axis": {"column": axis.column, "label": axis.label, "scale": axis.scale},
            "config": self.config.to_dict(),
            "seeds": list(self.seeds),
            "data": {name: data.folder for name, data in self.data.items()},
            "variants": [variant.name for variant in self.plan.variants],
            "recipes": self.recipe_differences,
            "skipped": dict(self.plan.skipped),
            "failed": [
                {"variant": run.variant.name, "seed": run.seed, "reason": reason}
                for run, reason in self.failed.values()
            ],
            "machines": self.environments,
        }


def _read_object(path: AnyPath) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except FileContentError as error:
        raise StudyError(f"{error}; delete it and run again") from None
