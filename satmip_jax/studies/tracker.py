"""What a study has done so far, and the files that tell it.

    DIR/study.json          what is compared, on what machine, what was skipped and what failed
    DIR/results.csv         one score a line; results.parquet holds the same
    DIR/plot.svg, plot.png
    DIR/runs/<run>-seed<n>/ a workdir of `satmip train`, evaluation.json and scored.json

Every file is written at once or not at all, and the table always comes from the files of the runs:
a study that was stopped on the way ends with the same table as one that was not.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from satmip_jax.config.conversion import differences, from_json, vary
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation.results import Score, read_scores, write_scores
from satmip_jax.runtime.environment import environment
from satmip_jax.studies import plot, table
from satmip_jax.studies.base import MethodConfigs, Plan, Study, StudyError, Variant
from satmip_jax.studies.training_time import training_seconds
from satmip_jax.training.loop import Interrupted
from satmip_jax.training.optimizer import total_steps

MARKER = "scored.json"  # in a run's folder: what was scored -> keys of its rows in evaluation.json


@dataclass(frozen=True)
class StudyRun:
    """A variant with one seed: what is done as a whole or not at all.

    Attributes:
      seed: of the training; None for features that need none.
      config: of the training, with this seed; None likewise.
      folder: of the run, which several variants may share.
    """

    variant: Variant
    seed: int | None
    config: ConfigDict | None
    folder: Path

    @property
    def name(self) -> str:
        """For people."""
        return self.variant.name + ("" if self.seed is None else f", seed {self.seed}")


class StudyTracker:
    """The state of a study in a folder.

    Args:
      folder: where the study lives.
      recipes: what the variants start from.
      seeds: of every variant that is trained.
      data: name -> prepared folder, on which everything is scored.
      examples: number of training images.
    """

    def __init__(
        self,
        folder: Path,
        study: Study,
        plan: Plan,
        recipes: MethodConfigs,
        *,
        seeds: Sequence[int],
        data: Mapping[str, str],
        examples: int,
        console: Console,
    ) -> None:
        self.folder, self.study, self.plan, self.config = folder, study, plan, recipes.config
        self.seeds, self.data, self.examples, self.console = seeds, data, examples, console
        self.units = [unit for variant in plan.variants for unit in self._units(variant)]
        self.rows: dict[str, list[dict[str, Any]]] = {}  # of the units that are done, by name
        self.failed: dict[str, tuple[StudyRun, str]] = {}
        methods = {variant.config.method.name for variant in plan.variants if variant.config}
        # method -> where its recipe is not that of `config`
        self.departures = {m: d for m, d in recipes.departures().items() if m in methods}
        self.machines: list[dict[str, Any]] = []  # on which the study was computed

    def _units(self, variant: Variant) -> Iterator[StudyRun]:
        run = self.folder / "runs" / (variant.run or variant.name)
        if variant.config is None:
            yield StudyRun(variant, None, None, run)
            return
        for seed in self.seeds:
            folder = run.with_name(f"{run.name}-seed{seed}")
            yield StudyRun(variant, seed, vary(variant.config, {"seed": seed}), folder)

    # --- the way of a study -----------------------------------------------------------------------

    def open(self) -> None:
        """Claim the folder and take in what is done.

        Raises:
          StudyError: the folder holds another study or one with another config.
        """
        path = self.folder / "study.json"
        if path.is_file():
            stored = _read_json(path)
            if stored.get("name") != self.study.name:
                raise StudyError(
                    f"{self.folder} holds the study {stored.get('name')!r}, not "
                    f"{self.study.name!r}: use another --out"
                )
            old = from_json(json.dumps(stored.get("config")))
            if changed := differences(old, self.config):
                raise StudyError(
                    f"{self.folder} holds this study with another config:\n  "
                    + "\n  ".join(changed)
                    + "\nUse another --out, or the config of that study to go on with it."
                )
            self.machines = stored.get("machines") or []
        for unit in self.units:
            if self._is_done(unit):
                self.rows[unit.name] = self._collect(unit)
        if len(self.rows) < len(self.units) and (here := environment()) not in self.machines:
            self.machines.append(here)
        self.write()

    def todo(self) -> Iterator[StudyRun]:
        """The units that are not done, one after another."""
        for number, unit in enumerate(self.units, start=1):
            if unit.name in self.rows or unit.name in self.failed:
                continue
            self.console.rule(f"{number}/{len(self.units)}  {unit.name}")
            failures = self.failed.values()
            reasons = [reason for other, reason in failures if other.folder == unit.folder]
            if reasons:
                self.fail(unit, reasons[0])
            else:
                yield unit

    @contextmanager
    def attempt(self, unit: StudyRun) -> Iterator[None]:
        """Record a failure of what is done inside and go on; only a wish to stop goes through."""
        try:
            yield
        except Interrupted:
            raise
        except Exception as error:
            reason = str(error)
            if not isinstance(error, SatmipError):
                reason = f"{type(error).__name__}: {error}"
                if is_main_process():
                    unit.folder.mkdir(parents=True, exist_ok=True)
                    text = traceback.format_exc()
                    (unit.folder / "failure.txt").write_text(text, encoding="utf-8")
            self.fail(unit, reason)

    def fail(self, unit: StudyRun, reason: str) -> None:
        """Note that a unit failed, and why."""
        self.failed[unit.name] = (unit, reason)
        self.console.print(f"{unit.name} failed: {reason}", style="red", markup=False)
        self.write()

    def finish(self, unit: StudyRun) -> None:
        """Take a unit whose scores are all kept into the table."""
        (unit.folder / "failure.txt").unlink(missing_ok=True)  # of an earlier try
        self.rows[unit.name] = self._collect(unit)
        self.write()

    # --- the scores of a unit ---------------------------------------------------------------------

    def scores(self, unit: StudyRun, data: str) -> list[Score] | None:
        """The scores that are kept of a unit on one data set; None where there are none."""
        path = unit.folder / MARKER
        marked = _read_json(path) if path.is_file() else {}
        if (label := self._label(unit, data)) not in marked:
            return None
        kept = {row.key: row for row in read_scores(unit.folder / "evaluation.json")}
        keys = [tuple(key) for key in marked[label]]
        return [kept[key] for key in keys] if all(key in kept for key in keys) else None

    def keep(self, unit: StudyRun, data: str, rows: Sequence[Score]) -> None:
        """Write the scores of a unit on one data set into its folder."""
        if not is_main_process():
            return
        write_scores(unit.folder / "evaluation.json", rows)
        path = unit.folder / MARKER
        marked = _read_json(path) if path.is_file() else {}
        marked[self._label(unit, data)] = [row.key for row in rows]
        atomically(path, lambda part: part.write_text(json.dumps(marked, indent=1) + "\n"))

    def _label(self, unit: StudyRun, data: str) -> str:
        """What was scored, in words: the key in the marker."""
        features = unit.variant.baseline or unit.variant.init
        splits = self.config.data
        return f"{features} on {data}, {splits.val_split} by {splits.train_split}"

    def _is_done(self, unit: StudyRun) -> bool:
        if unit.config is not None:
            path = unit.folder / "config.json"
            if not path.is_file():
                return False
            trained = from_json(path.read_text(encoding="utf-8"))
            if differences(trained, unit.config):
                return False  # trying it will tell the differences
        return all(self.scores(unit, name) is not None for name in self.data)

    def _collect(self, unit: StudyRun) -> list[dict[str, Any]]:
        """The lines of the table for a unit that is done."""
        variant = unit.variant
        images, seconds = self._length(unit)
        facts = {
            "study": self.study.name,
            "variant": variant.name,
            "method": variant.method,
            "seed": unit.seed,
            "images": images,
            "train_seconds": seconds,
        }
        rows = [row for name in self.data for row in self.scores(unit, name) or ()]
        return [{**facts, **asdict(row), **variant.values} for row in rows]

    def _length(self, unit: StudyRun) -> tuple[int | None, float | None]:
        """Images seen and seconds taken by the training behind the features."""
        if unit.config is None or unit.variant.init == "random":
            return 0, 0.0
        metrics, batch = unit.folder / "metrics.jsonl", unit.config.optimizer.batch_size
        if not metrics.is_file():
            return None, None  # nothing was trained
        return total_steps(unit.config, self.examples) * batch, training_seconds(metrics, batch)

    # --- the files of the study -------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """One score a line, in the order of the units."""
        return [row for unit in self.units for row in self.rows.get(unit.name, ())]

    def write(self) -> None:
        """Write all files of the study."""
        if not is_main_process():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._facts(), indent=1)
        atomically(self.folder / "study.json", lambda part: part.write_text(text + "\n"))
        rows = self.table()
        scores = table.to_arrow(self.study, rows)
        atomically(self.folder / "results.csv", lambda part: table.write_csv(scores, part))
        atomically(self.folder / "results.parquet", lambda part: table.write_parquet(scores, part))
        for suffix, picture in plot.render(self.study, table.summarize(self.study, rows)).items():
            target = self.folder / f"plot.{suffix}"
            atomically(target, lambda part, data=picture: part.write_bytes(data))  # type: ignore[misc]

    def _facts(self) -> dict[str, Any]:
        axis = self.study.x[0]
        return {
            "name": self.study.name,
            "title": self.study.title,
            "description": self.study.description,
            "x_axis": {"column": axis.column, "label": axis.label, "scale": axis.scale},
            "config": self.config.to_dict(),
            "seeds": list(self.seeds),
            "data": dict(self.data),
            "variants": [variant.name for variant in self.plan.variants],
            "recipes": self.departures,
            "skipped": dict(self.plan.skipped),
            "failed": [
                {"variant": unit.variant.name, "seed": unit.seed, "reason": reason}
                for unit, reason in self.failed.values()
            ],
            "machines": self.machines,
        }


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under another name, then put it in place."""
    part = path.with_name(f"{path.name}.tmp")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path} is not JSON ({error}): delete it and run again") from None
    if not isinstance(data, dict):
        raise StudyError(f"{path} holds a {type(data).__name__}: delete it and run again")
    return data
