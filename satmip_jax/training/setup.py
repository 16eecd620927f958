"""Set-up of a training: the data, the schema, and a line that describes the run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from tqdm import tqdm

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.config.fields import check_fields
from satmip_jax.data.bad_records import BadRecords
from satmip_jax.data.loaders import InMemoryBatches, TrainBatches
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.distributed import multihost
from satmip_jax.distributed.device_mesh import describe_mesh
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import ConfigError
from satmip_jax.metadata.geo_clusters import fit_centres
from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives import build_method
from satmip_jax.runtime.paths import AnyPath
from satmip_jax.training.step import Program, TrainState


def open_split(config: ConfigDict, split: str) -> ShardDataset:
    """Open a split of `config.data.dir`.

    Raises:
        ConfigError: `config.data.dir` is empty.
        ShardError: the folder or the split does not exist, or is incomplete.
    """
    if not config.data.dir:
        raise ConfigError(
            "config.data.dir is empty: give the folder that `satmip prepare` wrote, "
            "as --config.data.dir=DIR"
        )
    return ShardDataset(config.data.dir, split)


def open_train_split(config: ConfigDict) -> ShardDataset:
    """Open the train split, after checks that it suits the config and is the same on all hosts.

    Raises:
        ConfigError: the data cannot serve this config; the message says what to change.
        ProcessError: process 0 has other data.
    """
    dataset = open_split(config, config.data.train_split)
    _check_data(config, dataset)
    identity = f"{len(dataset)} examples, {dataset.schema.to_json()}"
    multihost.require_on_all_processes(
        multihost.broadcast_str(identity) == identity,
        f"{dataset.data_dir} differs from that of process 0: prepare the data once, and give all "
        "hosts the same",
    )
    return dataset


def _check_data(config: ConfigDict, dataset: ShardDataset) -> None:
    check_fields(config, dataset.schema, f"{dataset.split!r} in {dataset.data_dir}")
    if config.eval.every:
        val = open_split(config, config.data.val_split)
        if not val.schema.classes:
            raise ConfigError(
                f"config.eval.every is {config.eval.every}, and {dataset.data_dir} has no labels "
                "to score with: set config.eval.every=0"
            )


def run_schema(config: ConfigDict, dataset: ShardDataset, workdir: AnyPath) -> Schema:
    """Return the schema of the data, with geo clusters if the method classifies them.

    The first start of a run reads the locations of the train split and clusters them. From then on
    the centres are in the run's `schema.json` and checkpoints, so that a resumed run and an
    evaluation use the same ones.
    """
    if not build_method(config).needs_geo_clusters:
        return dataset.schema
    path = workdir / "schema.json"
    stored = Schema.load(path).geo_centres if path.is_file() else ()
    stored = stored[: config.method.geo_clusters]  # of other options, seen late by another host
    # every process clusters, so that none waits for another; but processors round differently,
    # so all take the result of process 0
    fitted = stored or fit_centres(_locations(dataset), config.method.geo_clusters, config.seed)
    padded = np.zeros((config.method.geo_clusters, 3), np.float32)
    padded[: len(fitted)] = np.reshape(fitted, (-1, 3))
    padded = multihost_utils.broadcast_one_to_all(padded)
    centres = padded[padded.any(axis=1)].tolist()
    return replace(dataset.schema, geo_centres=tuple(map(tuple, centres)))


def _locations(dataset: ShardDataset) -> np.ndarray:
    """Return longitude and latitude (n, 2) of the records that have them; no image is decoded."""
    numbers = tqdm(
        range(len(dataset)),
        desc=f"reading the locations of {dataset.split}",
        unit=" records",
        leave=False,
        mininterval=1.0,
        disable=not is_main_process(),
    )
    locations = []
    for number in numbers:
        with suppress(ShardError):  # a bad record is counted when a batch needs it
            locations.append(dataset[number]["metadata"].values.get("location"))
    present = [location for location in locations if location is not None]
    return np.array(present, np.float64).reshape(-1, 2)


def check_checkpoints(checkpoints: Checkpoints) -> None:
    """Raise ProcessError unless all processes see the same newest checkpoint."""
    latest = str(checkpoints.latest)
    multihost.require_on_all_processes(
        multihost.broadcast_str(latest) == latest,
        f"the newest checkpoint in {checkpoints.folder} is {latest}, but not on process 0: the "
        "workdir must be one folder that all hosts share",
    )


def open_batches(
    program: Program, dataset: ShardDataset, workdir: AnyPath, start: int
) -> TrainBatches | InMemoryBatches:
    """Open the batches of a training from step `start` on, as `config.data` asks for them."""
    config = program.config
    bad_records = BadRecords(
        dataset.split, budget=config.data.bad_records, path=workdir / "bad_records.json"
    )
    options: dict[str, Any] = {
        "batch_size": config.optimizer.batch_size,
        "seed": config.seed,
        "start": start,
        "captions": config.metadata.encoder == "text",
        "bad_records": bad_records,
    }
    if config.data.in_memory:
        return InMemoryBatches(dataset, program.mesh, **options)
    return TrainBatches(dataset, program.mesh, workers=config.data.workers, **options)


def describe(program: Program, state: TrainState) -> str:
    """Return a line that describes a run, with the true number of negatives or the targets."""
    config, method, mesh = program.config, program.method, program.mesh
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    negatives = method.negatives(config.optimizer.batch_size)
    outputs = {name: head.out for name, head in method.heads(program.schema).items()}
    task = "negatives per anchor" if negatives else "targets and their outputs"
    numbers = ", ".join(f"{name} {n:,}" for name, n in (negatives or outputs).items())
    return (
        f"{config.method.name} {config.image.encoder}: {parameters / 1e6:.2f} M parameters, "
        f"{program.steps:,} steps of {config.optimizer.batch_size:,} images on {mesh.size} "
        f"{jax.devices()[0].platform} device(s) of {jax.process_count()} process(es); "
        f"mesh: {describe_mesh(mesh)}; "
        f"{task}: {numbers}"
    )
