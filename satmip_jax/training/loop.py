"""Training: from a config and a folder of shards to checkpoints, metrics and kNN scores."""

from __future__ import annotations

import logging
from pathlib import Path

import jax
from ml_collections import ConfigDict

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.config.validation import validate
from satmip_jax.data.bad_records import BadRecords, BadRecordsError
from satmip_jax.data.loaders import InMemoryBatches, TrainBatches
from satmip_jax.data.resilient_iterator import WorkersError
from satmip_jax.data.shard_format import ShardError
from satmip_jax.distributed import multihost
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.distributed.preemption import PreemptionHandler
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.errors import INTERRUPTED, SatmipError
from satmip_jax.evaluation.evaluate import knn_accuracy
from satmip_jax.runtime import compilation_cache
from satmip_jax.training.metrics_log import MetricsLog, read_knn_scores
from satmip_jax.training.monitor import MetricsMonitor
from satmip_jax.training.setup import check_data, claim_workdir, describe, open_split, run_schema
from satmip_jax.training.step import TrainState, build_program

log = logging.getLogger(__name__)


class Interrupted(SatmipError):
    """Training was asked to stop and has saved its state."""

    exit_code = INTERRUPTED


def train(config: ConfigDict, workdir: str | Path) -> TrainState:
    """Train as `config` says; called again with the same arguments it resumes by itself.

    Writes to `workdir`: `config.json`, `schema.json`, `checkpoints/`, `metrics.jsonl`,
    `environment.jsonl` (what computed it, see `MetricsLog`), `tensorboard/` and, where there are
    any, `bad_records.json` and `damaged/` checkpoints.

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
    validate(config)
    compilation_cache.enable()
    mesh = make_mesh(fsdp=config.parallel.fsdp)
    claim_workdir(workdir, config)
    dataset = open_split(config, config.data.train_split)
    check_data(config, dataset)
    data = f"{len(dataset)} examples, {dataset.schema.to_json()}"
    multihost.require_on_all_processes(
        multihost.broadcast_str(data) == data,
        f"{dataset.data_dir} holds other data than on process 0: prepare it once, and give all "
        "hosts the same",
    )
    schema = run_schema(config, dataset, workdir)
    program = build_program(config, schema, len(dataset), mesh)
    steps = program.steps

    with Checkpoints(workdir, keep=config.checkpoint.keep) as checkpoints:
        latest = checkpoints.latest
        multihost.require_on_all_processes(
            multihost.broadcast_str(str(latest)) == str(latest),
            f"the newest checkpoint in {checkpoints.folder} is {latest}, but not on process 0. "
            "The workdir must be one folder that all hosts share",
        )
        resumed = latest is not None
        state = checkpoints.restore(program.abstract) if resumed else program.init()
        start = int(state.step)
        checkpoints.scores |= read_knn_scores(workdir)
        # one that was cut off after the save and before the score makes up for it
        owed = resumed and _scores_due(config, start, steps) and start not in checkpoints.scores
        if start >= steps and not owed:
            return state
        logbook = MetricsLog(
            workdir, start=start, total=steps, batch_size=config.optimizer.batch_size
        )
        if is_main_process():
            schema.save(workdir / "schema.json")
        log.info(describe(program, state) + (f"; resumed at step {start}" if resumed else ""))

        def write_scores(done: int) -> None:
            scores = knn_accuracy(config, program.towers, state.params, schema, mesh)
            checkpoints.scores[done] = scores["knn_image"]
            logbook.write(done, scores)
            shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            log.info(f"step {done}: {shown}")

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
                PreemptionHandler(mesh) as stop,
            ):
                if owed:
                    write_scores(start)
                watch = MetricsMonitor(logbook, dataset, checkpoints, config.optimizer.batch_size)
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
                    log.info(f"best kNN score: checkpoint {checkpoints.best}, which is kept")
        finally:
            logbook.close()
    return state


def _scores_due(config: ConfigDict, done: int, steps: int) -> bool:
    every = config.eval.every
    return bool(every and done and (done % every == 0 or done == steps))
