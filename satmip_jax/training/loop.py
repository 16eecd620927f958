"""Training: from a config and a folder of shards to checkpoints, metrics and kNN scores."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace

import jax
from ml_collections import ConfigDict

from satmip_jax.checkpoints.manager import Checkpoints, NoneIntactError
from satmip_jax.checkpoints.published_file import PretrainedWeights
from satmip_jax.config.fields import describe_fields
from satmip_jax.config.validation import validate
from satmip_jax.data.bad_records import BadRecordsError
from satmip_jax.data.batch_reader import Batch
from satmip_jax.data.resilient_iterator import WorkersError
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.distributed import multihost
from satmip_jax.distributed.device_mesh import mesh_advice
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.distributed.preemption import PreemptionHandler
from satmip_jax.distributed.sharding import check_batch_size, make_mesh
from satmip_jax.errors import INTERRUPTED, SatmipError
from satmip_jax.evaluation.evaluate import knn_accuracy
from satmip_jax.evaluation.model import Model
from satmip_jax.runtime import compilation_cache
from satmip_jax.runtime.paths import AnyPath
from satmip_jax.training.extension import extend_run
from satmip_jax.training.metrics_log import MetricsLog, read_knn_scores
from satmip_jax.training.monitor import MetricsMonitor
from satmip_jax.training.profiling import FOLDER, StepProfiler, check_steps
from satmip_jax.training.setup import (
    check_checkpoints,
    describe,
    open_batches,
    open_train_split,
    run_schema,
)
from satmip_jax.training.step import Program, TrainState, build_program
from satmip_jax.training.wandb_log import check_wandb
from satmip_jax.training.warm_start import Source, read_weights, start_from
from satmip_jax.training.workdir import (
    check_same_options,
    claim_workdir,
    lock_workdir,
    training_folder,
)

log = logging.getLogger(__name__)


class Interrupted(SatmipError):
    """Training was asked to stop and has saved its state."""

    exit_code = INTERRUPTED


def train(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    init: Source | None = None,
    extend: bool = False,
    profile_steps: range = range(0),
    wandb: str = "",
) -> TrainState:
    """Train as `config` says; called again with the same arguments it resumes by itself.

    A resumed run may change the options that do not change its result, see `config.resume`.

    Writes to `workdir`: `config.json`, `schema.json`, `checkpoints/`, `metrics.jsonl`,
    `environment.jsonl` (hardware and versions of each start, see `MetricsLog`), `state.json`,
    `tensorboard/`, `train.lock` and, if there is reason to, `initialization.json`,
    `bad_records.json`, `damaged/` checkpoints, `profile/`, `wandb.json` and `wandb/`.

    Args:
        config: see `config.defaults`; validated first.
        workdir: folder of the run, made if it does not exist; shared by all hosts. It may be in a
            bucket of Google Cloud Storage, gs://bucket/run.
        init: weights that the image encoder begins with: a safetensors file of timm, DINO, DINOv2,
            MAE or CLIP, its folder, or a model of this package. A resumed run does without.
        extend: train the finished run in `workdir` for longer, to the length in `config`.
        profile_steps: steps, from 0, of which the main process writes a trace of the JAX profiler
            to `profile/`.
        wandb: project, or entity/project, of Weights & Biases that receives the metrics, too.

    Returns:
        The last state, on the devices.

    Raises:
        ConfigError: the config cannot work, or the workdir belongs to a run with another one, or
            on other data, or cannot be extended.
        WeightsError: the weights cannot be read or do not fit `config.image`.
        WorkdirError: another process is training in the workdir, or it cannot be written.
        CheckpointError: no checkpoint is intact, or they are of another model.
        NotFiniteError: the loss became NaN or infinite.
        ProcessError: the processes of the run differ in config, data or `workdir`.
        BadRecordsError: more records than `config.data.bad_records` cannot be read.
        WorkersError: the worker processes died or hung again and again.
        SaveError: the last state could not be saved.
        Interrupted: SIGTERM or Ctrl-C came; the state was saved first.

    Example:
        >>> from satmip_jax.training.loop import train
        >>> state = train(config, "run")
        >>> int(state.step)
        4
        >>> sorted(path.name for path in Path("run").iterdir())
        ['checkpoints', 'config.json', 'environment.jsonl', 'metrics.jsonl', 'schema.json', ...]
    """
    workdir = training_folder(workdir)
    validate(config)
    check_wandb(wandb)
    compilation_cache.enable()
    mesh = make_mesh(fsdp=config.parallel.fsdp)
    check_same_options(config)
    with lock_workdir(workdir) as check_lock:
        dataset = open_train_split(config)
        check_batch_size(config.optimizer.batch_size, mesh.size, examples=len(dataset))
        config, weights = read_weights(init, config, workdir)
        if extend:
            config = extend_run(workdir, config, dataset)
        claim_workdir(workdir, config, dataset)
        schema = run_schema(config, dataset, workdir)
        program = build_program(config, schema, len(dataset), mesh)
        check_steps(profile_steps, program.steps)
        with Checkpoints(workdir, keep=config.checkpoint.keep) as checkpoints:
            check_checkpoints(checkpoints)
            checkpoints.before_save = check_lock
            trainer = Trainer(program, dataset, workdir, checkpoints, weights)
            return trainer.run(profile_steps, wandb=wandb)


class Trainer:
    """One start of a run, from step 0 or from the newest intact checkpoint.

    Args:
        program: the compiled form of a config.
        dataset: the train split.
        workdir: folder of the run.
        checkpoints: those of the run.
        weights: that the image encoder of a new run begins with.

    Attributes:
        state: the current state, on the devices.
        start: the step of the first state.
    """

    def __init__(
        self,
        program: Program,
        dataset: ShardDataset,
        workdir: AnyPath,
        checkpoints: Checkpoints,
        weights: PretrainedWeights | None = None,
    ) -> None:
        self.program, self.config = program, program.config
        self.dataset, self.workdir, self.checkpoints = dataset, workdir, checkpoints
        restored = self._restore()
        self.resumed = restored is not None
        self.state: TrainState = program.init() if restored is None else restored
        if weights is not None and not self.resumed:
            self.state = start_from(weights, program, self.state, workdir)
        self.start = int(jax.device_get(self.state.step))
        self.model = Model(  # one, so that all scores share its compiled encoders
            self.config, program.schema, program.towers, self.state.params, program.mesh
        )
        # all must know the same ones, which decide what is scored; a shared folder may lag
        scores = json.loads(multihost.broadcast_str(json.dumps(read_knn_scores(workdir))))
        checkpoints.scores |= {int(step): score for step, score in scores.items()}

    def _restore(self) -> TrainState | None:
        """Return the newest intact state; None for a new run.

        A run whose only checkpoint is the first one starts again if that is damaged. It may have
        been killed before the file was read back, and would have no checkpoint one moment earlier.
        """
        latest = self.checkpoints.latest
        if latest is None:
            return None
        try:
            return self.checkpoints.restore(self.program.abstract)
        except NoneIntactError as error:
            if latest > self.config.checkpoint.every or self.config.image.init:
                raise
            log.warning(f"{error}\nIt is the first one, so the run starts again from step 0.")
            self.checkpoints.abandon()
            return None

    def run(self, profile_steps: range = range(0), *, wandb: str = "") -> TrainState:
        """Take the steps that are left, and return the last state; see `train`."""
        # an earlier start may have ended between a save and its evaluation
        score_is_missing = (
            self.resumed
            and self._is_scored(self.start)
            and self.start not in self.checkpoints.scores
        )
        if self.start >= self.program.steps and not score_is_missing:
            log.info(f"{self.workdir} is finished, at step {self.start}; --extend trains it longer")
            return self.state
        with MetricsLog(
            self.workdir,
            start=self.start,
            total=self.program.steps,
            batch_size=self.config.optimizer.batch_size,
            wandb=wandb,
            config=self.config.to_dict(),
        ) as metrics_log:
            if is_main_process():
                self.program.schema.save(self.workdir / "schema.json")
            resumed = f"; resumed at step {self.start}" if self.resumed else ""
            log.info(describe(self.program, self.state) + resumed)
            if advice := mesh_advice(self.program.mesh):
                log.warning(advice)
            if fields := describe_fields(self.config, self.program.schema, len(self.dataset)):
                log.info(fields)
            with (
                open_batches(self.program, self.dataset, self.workdir, self.start) as batches,
                PreemptionHandler(self.program.mesh) as preemption,
                StepProfiler(self.workdir / FOLDER, profile_steps, start=self.start) as profiler,
            ):
                if score_is_missing:
                    self._score(self.start, metrics_log)
                self._take_steps(batches, preemption, profiler, metrics_log)
                self.checkpoints.wait()
                if self.checkpoints.best not in (None, self.checkpoints.latest):
                    log.info(f"best kNN score: checkpoint {self.checkpoints.best}, which is kept")
        return self.state

    def _take_steps(
        self,
        batches: Iterator[Batch],
        preemption: PreemptionHandler,
        profiler: StepProfiler,
        metrics_log: MetricsLog,
    ) -> None:
        monitor = MetricsMonitor(metrics_log, self.program, self.dataset, self.checkpoints)
        for step in range(self.start, self.program.steps):
            with profiler.step(step):
                batch = self._next_batch(batches, step, monitor)
                self.state, metrics = self.program.step(self.state, batch)
            monitor.add(step + 1, batch["index"], metrics)
            profiler.end_step(step, metrics)
            self._end_step(step + 1, preemption.after_step(), monitor)

    def _next_batch(self, batches: Iterator[Batch], step: int, monitor: MetricsMonitor) -> Batch:
        """Return the batch of `step`; if the data fail, save what was learned first."""
        try:
            return next(batches)
        except (BadRecordsError, ShardError, WorkersError):
            # with several processes the others do not know of it, and saving is done by all
            if jax.process_count() == 1 and step != self.checkpoints.latest:
                monitor.flush()
                self._save(step, monitor)
                self.checkpoints.wait()
            raise

    def _end_step(self, done: int, stopped_by: str | None, monitor: MetricsMonitor) -> None:
        """Log, save and score the state after `done` steps where due; stop if asked to."""
        last = done == self.program.steps or stopped_by is not None
        save = last or done % self.config.checkpoint.every == 0
        if save or done % self.config.log_every == 0:
            monitor.flush()  # before a save: it raises on what is not finite
        if save:
            self._save(done, monitor, hurry=stopped_by is not None)
        if stopped_by and done < self.program.steps:
            self.checkpoints.wait(read_back=False)  # there may be seconds left: no scores either
            raise Interrupted(
                f"stopped by {stopped_by} and saved at step {done} of {self.program.steps}; "
                "the same command resumes from there"
            )
        if self._is_scored(done):
            self._score(done, monitor.metrics_log)
            monitor.restart_clock()

    def _save(self, done: int, monitor: MetricsMonitor, *, hurry: bool = False) -> None:
        monitor.metrics_log.flush()  # so that no checkpoint is ahead of the log
        self.checkpoints.save(done, self.state, self.config, self.program.schema, hurry=hurry)

    def _is_scored(self, done: int) -> bool:
        every = self.config.eval.every
        return bool(every and done and (done % every == 0 or done == self.program.steps))

    def _score(self, done: int, metrics_log: MetricsLog) -> None:
        self.model = replace(self.model, params=self.state.params)
        scores = knn_accuracy(self.model)
        self.checkpoints.scores[done] = scores["knn_image"]
        metrics_log.write(done, scores)
        listed = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        log.info(f"step {done}: {listed}")
