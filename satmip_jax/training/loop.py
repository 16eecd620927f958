"""Training: from a config and a folder of shards to checkpoints, metrics and kNN scores."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from tqdm import tqdm

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.config import defaults as configs
from satmip_jax.data.bad_records import BadRecords, BadRecordsError
from satmip_jax.data.loaders import InMemoryBatches, TrainBatches
from satmip_jax.data.resilient_iterator import WorkersError
from satmip_jax.data.shard_dataset import ShardDataset, ShardError
from satmip_jax.distributed import multihost
from satmip_jax.distributed.preemption import StopSignal
from satmip_jax.distributed.sharding import is_main_process, make_mesh
from satmip_jax.evaluation.evaluate import knn_accuracy
from satmip_jax.metadata.geo_clusters import fit_centres
from satmip_jax.metadata.tabular import Schema
from satmip_jax.objectives.metapred import predicts_places
from satmip_jax.runtime import compilation_cache
from satmip_jax.training.metrics_log import Logbook, read_scores
from satmip_jax.training.step import Program, TrainState, build_program


class NotFiniteError(ArithmeticError):
    """The loss or the gradient is not finite; the message names step, checkpoint and batch."""


class Interrupted(Exception):
    """Training was asked to stop and has saved its state."""


def train(config: ConfigDict, workdir: str | Path) -> TrainState:
    """Train as `config` says; called again with the same arguments it resumes by itself.

    Writes to `workdir`: `config.json`, `schema.json`, `checkpoints/`, `metrics.jsonl`,
    `environment.jsonl` (what computed it, see `Logbook`), `tensorboard/` and, where there are any,
    `bad_records.json` and `damaged/` checkpoints.

    Raises:
        ConfigError: the config cannot work, or the workdir belongs to another one.
        CheckpointError: there are checkpoints, and none is whole or they are of another model.
        NotFiniteError: the loss became NaN or infinite.
        ProcessError: the processes of the run differ in config, data or what they see of `workdir`.
        BadRecordsError: more records than `config.data.bad_records` cannot be read.
        WorkersError: the decoding processes died or hung again and again.
        SaveError: the last state could not be saved.
        Interrupted: SIGTERM or Ctrl-C came; the state was saved first.
    """
    workdir = Path(workdir)
    configs.validate(config)
    compilation_cache.enable()
    mesh = make_mesh(fsdp=config.parallel.fsdp)
    claim_workdir(workdir, config)
    dataset = open_split(config, config.data.train_split)
    check_data(config, dataset)
    data = f"{len(dataset)} examples, {dataset.schema.to_json()}"
    multihost.check_all(
        multihost.from_first(data) == data,
        f"{dataset.data_dir} holds other data than on process 0: prepare it once, and give all "
        "hosts the same",
    )
    schema = run_schema(config, dataset, workdir)
    program = build_program(config, schema, len(dataset), mesh)
    steps = program.steps

    with Checkpoints(workdir, keep=config.checkpoint.keep) as checkpoints:
        latest = checkpoints.latest
        multihost.check_all(
            multihost.from_first(str(latest)) == str(latest),
            f"the newest checkpoint in {checkpoints.folder} is {latest}, but not on process 0. "
            "The workdir must be one folder that all hosts share",
        )
        resumed = latest is not None
        state = checkpoints.restore(program.abstract) if resumed else program.init()
        start = int(state.step)
        checkpoints.scores |= read_scores(workdir)
        # one that was cut off after the save and before the score makes up for it
        owed = resumed and _scores_due(config, start, steps) and start not in checkpoints.scores
        if start >= steps and not owed:
            return state
        logbook = Logbook(workdir, start=start, total=steps, batch_size=config.optimizer.batch_size)
        if is_main_process():
            schema.save(workdir / "schema.json")
        logbook.say(describe(program, state) + (f"; resumed at step {start}" if resumed else ""))

        def write_scores(done: int) -> None:
            scores = knn_accuracy(config, program.towers, state.params, schema, mesh)
            checkpoints.scores[done] = scores["knn_image"]
            logbook.write(done, scores)
            shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            logbook.say(f"step {done}: {shown}")

        bad = BadRecords(
            dataset.split, budget=config.data.bad_records, path=workdir / "bad_records.json"
        )
        batches_class = InMemoryBatches if config.data.in_memory else TrainBatches
        options = {} if config.data.in_memory else {"workers": config.data.workers}
        try:
            with (
                batches_class(
                    dataset,
                    mesh,
                    batch_size=config.optimizer.batch_size,
                    seed=config.seed,
                    start=start,
                    captions=config.metadata.encoder == "text",
                    bad_records=bad,
                    **options,
                ) as batches,
                StopSignal(mesh) as stop,
            ):
                if owed:
                    write_scores(start)
                watch = Watch(logbook, dataset, checkpoints, config.optimizer.batch_size)
                for step in range(start, steps):
                    try:
                        batch = next(batches)
                    except (BadRecordsError, ShardError, WorkersError):
                        if jax.process_count() == 1 and step != checkpoints.latest:
                            watch.log()
                            checkpoints.save(step, state, config, schema)
                            checkpoints.wait()
                        raise
                    watch.started(step, batch["index"])
                    state, metrics = program.step(state, batch)
                    done = step + 1
                    watch.finished(metrics)
                    stopped_by = stop.after_step()
                    last = done == steps or stopped_by is not None
                    if done % config.log_every == 0 or last:
                        watch.log()
                    if done % config.checkpoint.every == 0 or last:
                        watch.log()  # never save what is not finite
                        hurry = stopped_by is not None
                        checkpoints.save(done, state, config, schema, hurry=hurry)
                    if stopped_by and done < steps:  # there may be seconds: no scores, ...
                        checkpoints.wait(read_back=False)  # ... and no reading back
                        raise Interrupted(
                            f"stopped by {stopped_by} and saved at step {done} of {steps}; "
                            "the same command goes on from there"
                        )
                    if _scores_due(config, done, steps):
                        write_scores(done)
                        watch.restart_clock()
                checkpoints.wait()
                if checkpoints.best not in (None, checkpoints.latest):
                    logbook.say(f"best kNN score: checkpoint {checkpoints.best}, which is kept")
        finally:
            logbook.close()
    return state


def _scores_due(config: ConfigDict, done: int, steps: int) -> bool:
    every = config.eval.every
    return bool(every and done and (done % every == 0 or done == steps))


def open_split(config: ConfigDict, split: str) -> ShardDataset:
    """Open a split of `config.data.dir`, or say how to make one."""
    if not config.data.dir:
        raise configs.ConfigError(
            "config.data.dir is empty: give the folder that `satmip prepare` wrote, "
            "as --config.data.dir=DIR"
        )
    return ShardDataset(config.data.dir, split)


def check_data(config: ConfigDict, dataset: ShardDataset) -> None:
    """Raise ConfigError where the data cannot serve, before hours were spent."""
    batch_size = config.optimizer.batch_size
    if batch_size > len(dataset):
        raise configs.ConfigError(
            f"config.optimizer.batch_size is {batch_size:,}, and {dataset.data_dir} has "
            f"{len(dataset):,} images in {dataset.split!r}: an image would be among its own "
            "negatives; use a smaller batch"
        )
    if config.eval.every:
        scored = open_split(config, config.data.val_split)
        if not scored.schema.classes:
            raise configs.ConfigError(
                f"config.eval.every is {config.eval.every}, and {dataset.data_dir} has no labels "
                "to score with: set config.eval.every=0"
            )


def claim_workdir(workdir: Path, config: ConfigDict) -> None:
    """Write the config into a new workdir; refuse one that holds another config."""
    path = workdir / "config.json"
    first = configs.from_json(multihost.from_first(configs.to_json(config)))
    changed = configs.differences(first, config)
    multihost.check_all(not changed, "other options than on process 0:\n  " + "\n  ".join(changed))
    if refusal := multihost.from_first(_claim(path, config) if is_main_process() else ""):
        raise configs.ConfigError(refusal)
    for _ in range(30):  # a network file system may show what is new a little later
        if seen := path.is_file():
            break
        time.sleep(1)
    multihost.check_all(
        seen,
        f"{path}, which process 0 has written, is not here: the workdir must be one folder that "
        "all hosts share (NFS, Lustre, Filestore, a mounted bucket)",
    )


def _claim(path: Path, config: ConfigDict) -> str:
    """Write the config to `path`, or say why not."""
    if path.is_file():
        stored = configs.from_json(path.read_text(encoding="utf-8"))
        changed = configs.differences(stored, config)
        if not changed:
            return ""
        return (
            f"{path.parent} belongs to a run with another config:\n  "
            + "\n  ".join(changed)
            + "\nUse another --workdir, or the config of that run to resume it."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(configs.to_json(config), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        return f"{path} cannot be written: {error}. Use another --workdir."
    return ""


def run_schema(config: ConfigDict, dataset: ShardDataset, workdir: Path) -> Schema:
    """The schema of the data, and in it the centres of places where the method classifies them.

    The first start of a run reads the metadata of the train split and finds them; from then on they
    are in its `schema.json` and checkpoints, so that a resumed run and an evaluation have the same.
    """
    if not predicts_places(config):
        return dataset.schema
    path = workdir / "schema.json"
    stored = Schema.load(path).geo_centres if path.is_file() else ()
    # every process finds them, so that none waits for another, ...
    found = stored or fit_centres(_places(dataset), config.method.geo_clusters, config.seed)
    centres = np.zeros((config.method.geo_clusters, 3), np.float32)
    centres[: len(found)] = np.reshape(found, (-1, 3))
    # ... but those of the first one count, as another kind of processor may round otherwise
    centres = multihost_utils.broadcast_one_to_all(centres)
    known = centres[centres.any(axis=1)].tolist()
    return replace(dataset.schema, geo_centres=tuple(map(tuple, known)))


def _places(dataset: ShardDataset) -> np.ndarray:
    """Longitude and latitude (n, 2) of the records that have them; no image is decoded."""
    numbers = tqdm(
        range(len(dataset)),
        desc=f"reading the places of {dataset.split}",
        unit=" records",
        leave=False,
        mininterval=1.0,
        disable=not is_main_process(),
    )
    found = []
    for number in numbers:
        with suppress(ShardError):  # a bad record is counted when it comes to be trained on
            found.append(dataset[number]["metadata"].values.get("location"))
    return np.array([place for place in found if place is not None], np.float64).reshape(-1, 2)


def describe(program: Program, state: TrainState) -> str:
    """One line on what is about to run, with the true number of negatives or the targets."""
    config, method, mesh = program.config, program.method, program.mesh
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    negatives = method.negatives(config.optimizer.batch_size)
    outputs = {name: head[-1] for name, head in method.heads(program.schema).items()}
    task = "negatives per anchor" if negatives else "targets and their outputs"
    numbers = ", ".join(f"{name} {n:,}" for name, n in (negatives or outputs).items())
    return (
        f"{config.method.name} {config.image.encoder}: {parameters / 1e6:.2f} M parameters, "
        f"{program.steps:,} steps of {config.optimizer.batch_size:,} images on {mesh.size} "
        f"{jax.devices()[0].platform} device(s) of {jax.process_count()} process(es); "
        f"{task}: {numbers}"
    )


class Watch:
    """Fetches metrics without holding up the device, and stops on what is not finite."""

    def __init__(
        self, logbook: Logbook, dataset: ShardDataset, checkpoints: Checkpoints, batch_size: int
    ) -> None:
        self.logbook, self.dataset, self.checkpoints = logbook, dataset, checkpoints
        self.batch_size = batch_size
        self.pending: list[tuple[int, jax.Array, dict[str, jax.Array]]] = []
        self.compiling, self.untimed = True, 0
        self.since = time.perf_counter()

    def started(self, step: int, index: jax.Array) -> None:
        self.step, self.index = step, index

    def finished(self, metrics: dict[str, jax.Array]) -> None:
        self.pending.append((self.step, self.index, metrics))
        if self.compiling:  # the first step is mostly compilation, which no rate should hold
            jax.block_until_ready(metrics)
            self.compiling, self.untimed = False, 1
            self.restart_clock()

    def restart_clock(self) -> None:
        """Leave what was done since the last call out of the measured rate."""
        self.since = time.perf_counter()

    def log(self) -> None:
        """Wait for the steps since the last call, check them and write their mean."""
        if not self.pending:
            return
        rows = []
        for step, index, metrics in self.pending:
            row = {name: float(value) for name, value in metrics.items()}
            if not np.isfinite([row["loss"], row["grad_norm"]]).all():
                raise NotFiniteError(self._not_finite(step, index, row))
            rows.append(row)
        seconds = time.perf_counter() - self.since
        mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        if len(rows) > self.untimed:
            mean["images_per_second"] = (len(rows) - self.untimed) * self.batch_size / seconds
        self.untimed = 0
        self.checkpoints.poll()
        self.logbook.advance(len(rows))
        self.logbook.write(self.pending[-1][0], mean)
        self.pending.clear()
        self.restart_clock()

    def _not_finite(self, step: int, index: jax.Array, row: dict[str, float]) -> str:
        self.checkpoints.settle()
        last = self.checkpoints.latest
        rows = multihost_utils.process_allgather(index, tiled=True)
        ids = self.dataset.ids(rows.tolist())
        shown = "\n  ".join(ids[:16]) + (f"\n  ... ({len(ids)} in all)" if len(ids) > 16 else "")
        good = f"step {last} in {self.checkpoints.folder}" if last is not None else "none"
        return (
            f"step {step}: loss is {row['loss']}, gradient norm {row['grad_norm']}. "
            f"Last good checkpoint: {good}. Images of this batch:\n  {shown}\n"
            "Look at these images, lower config.optimizer.learning_rate or set "
            "config.optimizer.clip_norm=1.0."
        )
