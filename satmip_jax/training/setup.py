"""Set-up of a training: the workdir, the data, the schema, and one line on what will run."""

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

from satmip_jax.config.conversion import differences, from_json, to_json
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import ShardError
from satmip_jax.distributed import multihost
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import ConfigError
from satmip_jax.metadata.geo_clusters import fit_centres
from satmip_jax.metadata.schema import Schema
from satmip_jax.objectives.metapred import predicts_places
from satmip_jax.runtime.files import write_atomically
from satmip_jax.training.step import Program, TrainState


def open_split(config: ConfigDict, split: str) -> ShardDataset:
    """Open a split of `config.data.dir`, or say how to make one."""
    if not config.data.dir:
        raise ConfigError(
            "config.data.dir is empty: give the folder that `satmip prepare` wrote, "
            "as --config.data.dir=DIR"
        )
    return ShardDataset(config.data.dir, split)


def check_data(config: ConfigDict, dataset: ShardDataset) -> None:
    """Raise ConfigError where the data cannot serve, before hours were spent."""
    batch_size = config.optimizer.batch_size
    if batch_size > len(dataset):
        raise ConfigError(
            f"config.optimizer.batch_size is {batch_size:,}, and {dataset.data_dir} has "
            f"{len(dataset):,} images in {dataset.split!r}: an image would be among its own "
            "negatives; use a smaller batch"
        )
    if config.eval.every:
        scored = open_split(config, config.data.val_split)
        if not scored.schema.classes:
            raise ConfigError(
                f"config.eval.every is {config.eval.every}, and {dataset.data_dir} has no labels "
                "to score with: set config.eval.every=0"
            )


def claim_workdir(workdir: Path, config: ConfigDict) -> None:
    """Write the config into a new workdir; refuse one that holds another config."""
    path = workdir / "config.json"
    first = from_json(multihost.broadcast_str(to_json(config)))
    changed = differences(first, config)
    multihost.require_on_all_processes(
        not changed, "other options than on process 0:\n  " + "\n  ".join(changed)
    )
    if refusal := multihost.broadcast_str(_claim(path, config) if is_main_process() else ""):
        raise ConfigError(refusal)
    for _ in range(30):  # a network file system may show what is new a little later
        if seen := path.is_file():
            break
        time.sleep(1)
    multihost.require_on_all_processes(
        seen,
        f"{path}, which process 0 has written, is not here: the workdir must be one folder that "
        "all hosts share (NFS, Lustre, Filestore, a mounted bucket)",
    )


def _claim(path: Path, config: ConfigDict) -> str:
    """Write the config to `path`, or say why not."""
    if path.is_file():
        stored = from_json(path.read_text(encoding="utf-8"))
        changed = differences(stored, config)
        if not changed:
            return ""
        return (
            f"{path.parent} belongs to a run with another config:\n  "
            + "\n  ".join(changed)
            + "\nUse another --workdir, or the config of that run to resume it."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_json(config))
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
