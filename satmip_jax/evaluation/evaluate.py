"""Scores of a checkpoint, of its untrained twin, and of baselines that need no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.data.batch_reader import Batch, read_all
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.evaluation import baselines
from satmip_jax.evaluation.features import KINDS, Features, extract
from satmip_jax.evaluation.protocols import BLOCK, PROTOCOLS, EvaluationError, score
from satmip_jax.evaluation.results import Score
from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import select_fields
from satmip_jax.metadata.schema import Schema
from satmip_jax.models import Towers, build_towers
from satmip_jax.objectives import build_method
from satmip_jax.training.optimizer import make_optimizer
from satmip_jax.training.step import TrainState, init_state

BANK = "train"  # the split whose labels are known, unless asked otherwise


def evaluate(
    workdir: str | Path,
    data: str,
    *,
    split: str = "val",
    bank: str = BANK,
    tune: str | None = None,
    features: Sequence[str] = KINDS,
    fields: str = "all",
    protocols: Sequence[str] = tuple(PROTOCOLS),
    block: float = BLOCK,
    init: str = "trained",
) -> list[Score]:
    """Score the checkpoint in `workdir` on prepared data.

    Args:
        data: folder that `satmip prepare` wrote.
        split, bank: examples to be classified, and those whose labels are known.
        tune: split on which weights and strengths are chosen, and which then joins the bank; a
            fifth of the bank where it is not given.
        features: of "image", "metadata" and "both"; what the method lacks is left out, and so is
            metadata where the data have none of `fields`.
        fields: those that the metadata encoder may see, see `select_fields`.
        protocols, block: see `protocols.score`. Rows say where `bank` and `tune` are not the
            default, as in "knn5 (tune val)": such scores stand beside the others.
        init: "trained", or "random" for the untrained encoders of the same config.

    Raises:
        EvaluationError: no labels, unknown features, or none that this method has; or one split in
            two of the three roles.
        FieldError: unknown fields.
        CheckpointError: no checkpoint, or one that does not fit.
    """
    if unknown := set(features) - set(KINDS):
        raise EvaluationError(f"no features {sorted(unknown)}: choose of {', '.join(KINDS)}")
    shown = select_fields(fields)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        config, schema = checkpoints.run()
        mesh = make_mesh()
        towers, state = load_model(checkpoints, config, schema, mesh, init=init)
    queries = ShardDataset(data, split)
    known = any(queries.schema.fields[field.name].count for field in shown)
    wanted = [kind for kind in features if kind == "image" or (towers.has_metadata and known)]
    if not wanted:
        lacking = f"{data} has no metadata"
        if known:
            lacking = f"{config.method.name} has no metadata encoder"
        raise EvaluationError(f"{lacking}: evaluate --features image")

    def encode(part: str) -> Features:
        dataset = ShardDataset(data, part)
        return extract(config, towers, state.params, schema, dataset, mesh, fields=shown)

    model = f"{config.method.name} {config.image.encoder}"
    return _score_splits(
        encode,
        queries,
        bank,
        tune,
        kinds=wanted,
        model=f"{model} (untrained)" if init == "random" else model,
        protocols=protocols,
        block=block,
        fields=fields,
    )


def evaluate_baseline(
    name: str,
    data: str,
    *,
    split: str = "val",
    bank: str = BANK,
    tune: str | None = None,
    fields: str = "all",
    protocols: Sequence[str] = tuple(PROTOCOLS),
    block: float = BLOCK,
) -> list[Score]:
    """Score features that need no training: see BASELINES."""
    kinds, describe = BASELINES[name]
    queries = ShardDataset(data, split)

    def encode(part: str) -> Features:
        dataset = ShardDataset(data, part)
        batch = read_all(dataset)
        own = batch["index"] == np.arange(len(dataset))  # bad records are left out
        batch = jax.tree.map(lambda x: x[own], batch)
        by_kind = describe(batch, queries.schema, fields)
        return Features(by_kind, batch["label"], tabular.locations(batch["metadata"]))

    return _score_splits(
        encode,
        queries,
        bank,
        tune,
        kinds=kinds,
        model=name,
        protocols=protocols,
        block=block,
        fields=fields,
    )


def _score_splits(
    encode: Callable[[str], Features],
    queries: ShardDataset,
    bank: str,
    tune: str | None,
    *,
    kinds: Sequence[str],
    fields: str,
    **options: Any,
) -> list[Score]:
    roles = [queries.split, bank, *([] if tune is None else [tune])]
    if len(set(roles)) < len(roles):
        raise EvaluationError(
            f"split, bank and tune are {', '.join(roles)}: they must differ, or examples would be "
            f"classified by themselves; there are {', '.join(queries.schema.splits)}"
        )
    known, held_out = encode(bank), None
    if tune is not None:
        chosen_on = encode(tune)
        held_out = np.arange(len(known.labels) + len(chosen_on.labels)) >= len(known.labels)
        known = known.join(chosen_on)
    asked = encode(queries.split)
    rows = score(known, asked, kinds=kinds, dataset=queries, tune=held_out, **options)
    # What differs from the default is part of a row's key: other splits do not overwrite it.
    others = {"bank": None if bank == BANK else bank, "tune": tune}
    if said := ", ".join(f"{role} {part}" for role, part in others.items() if part is not None):
        rows = [replace(row, protocol=f"{row.protocol} ({said})") for row in rows]
    if fields == "all":
        return rows
    return [
        row if row.features == "image" else replace(row, features=f"{row.features} ({fields})")
        for row in rows
    ]


def knn_accuracy(
    config: ConfigDict, towers: Towers, params: Any, schema: Schema, mesh: Mesh
) -> dict[str, float]:
    """Accuracy of "knn5" on the validation split during training, by kind of features."""
    bank_data = ShardDataset(config.data.dir, config.data.train_split)
    query_data = ShardDataset(config.data.dir, config.data.val_split)
    bank = extract(config, towers, params, schema, bank_data, mesh, limit=config.eval.max_bank)
    queries = extract(config, towers, params, schema, query_data, mesh)
    rows = score(
        bank,
        queries,
        kinds=[kind for kind in KINDS if kind == "image" or towers.has_metadata],
        dataset=query_data,
        model="",
        protocols=["knn5"],
        block=0,
    )
    return {f"knn_{row.features}": row.value for row in rows if row.metric == "accuracy"}


def load_model(
    checkpoints: Checkpoints,
    config: ConfigDict,
    schema: Schema,
    mesh: Mesh,
    *,
    init: str = "trained",
) -> tuple[Towers, TrainState]:
    """Towers of a config with the newest checkpoint, or ("random") as they were at the start."""
    towers = build_towers(config, schema, build_method(config))
    tx, _ = make_optimizer(config, schema.splits[config.data.train_split])
    abstract, fresh = init_state(config, towers, tx, schema, mesh)
    return towers, fresh() if init == "random" else checkpoints.restore(abstract)


# --- features that need no training: (kinds, function of a batch read whole) ----------------------


def _colour(batch: Batch, schema: Schema, fields: str) -> dict[str, np.ndarray]:
    """Mean and standard deviation of each channel."""
    return {"image": baselines.colour_statistics(batch["image"])}


def _patches(batch: Batch, schema: Schema, fields: str) -> dict[str, np.ndarray]:
    """Pooled random projections of patches."""
    return {"image": baselines.patch_projections(batch["image"])}


def _fields(batch: Batch, schema: Schema, fields: str) -> dict[str, np.ndarray]:
    """The metadata fields themselves, for "both" beside colour statistics."""
    raw = partial(tabular.raw_features, schema=schema, fields=schema.select_fields(fields))
    return _colour(batch, schema, fields) | {"metadata": np.asarray(raw(batch["metadata"]))}


BASELINES: dict[str, tuple[tuple[str, ...], Callable[..., dict[str, np.ndarray]]]] = {
    "colour": (("image",), _colour),
    "patches": (("image",), _patches),
    "fields": (("metadata", "both"), _fields),
}
