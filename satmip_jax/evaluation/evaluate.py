"""Scores of representations by kNN: of a checkpoint, of its untrained twin, of baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from satmip_jax import parallel, pipeline
from satmip_jax.checkpoint import Checkpoints
from satmip_jax.evaluation import baselines
from satmip_jax.evaluation.features import KINDS, Features, extract, fuse
from satmip_jax.evaluation.knn import knn_predict
from satmip_jax.evaluation.metrics import accuracy, macro_f1
from satmip_jax.evaluation.results import Row
from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import select_fields
from satmip_jax.models import Towers, build_towers
from satmip_jax.objectives import build_method
from satmip_jax.shards import ShardDataset
from satmip_jax.train_step import TrainState, init_state, make_optimizer

# name -> options of knn_predict. k=5 is the authors' practice, the other DINO's.
PROTOCOLS: dict[str, dict[str, Any]] = {
    "knn5": {"k": 5, "vote": "majority"},
    "knn20-weighted": {"k": 20, "vote": "weighted", "temperature": 0.07},
}


class EvaluationError(ValueError):
    """What was asked for cannot be evaluated; the message says why."""


def evaluate(
    workdir: str | Path,
    data: str,
    *,
    split: str = "val",
    bank: str = "train",
    features: Sequence[str] = KINDS,
    init: str = "trained",
) -> list[Row]:
    """Score the checkpoint in `workdir` on prepared data.

    Args:
        data: folder that `satmip prepare` wrote.
        split, bank: examples to be classified, and those whose labels vote.
        features: of "image", "metadata" and "both"; what the method lacks is left out.
        init: "trained", or "random" for the untrained encoders of the same config.

    Raises:
        EvaluationError: no labels, unknown features, or none that this method has.
        CheckpointError: no checkpoint, or one that does not fit.
    """
    with Checkpoints(workdir, read_only=True) as checkpoints:
        config, schema = checkpoints.run()
        mesh = parallel.make_mesh()
        towers, state = load_model(checkpoints, config, schema, mesh, init=init)
    wanted = [kind for kind in features if kind == "image" or towers.has_metadata]
    if unknown := set(features) - set(KINDS):
        raise EvaluationError(f"no features {sorted(unknown)}: choose of {', '.join(KINDS)}")
    if not wanted:
        raise EvaluationError(
            f"{config.method.name} has no metadata encoder: evaluate --features image"
        )
    bank_data, query_data = ShardDataset(data, bank), ShardDataset(data, split)
    encode = lambda part: extract(config, towers, state.params, schema, part, mesh)  # noqa: E731
    model = f"{config.method.name} {config.image.encoder}"
    return score(
        encode(bank_data),
        encode(query_data),
        kinds=wanted,
        dataset=query_data,
        model=f"{model} (untrained)" if init == "random" else model,
    )


def evaluate_baseline(
    name: str, data: str, *, split: str = "val", bank: str = "train", fields: str = "all"
) -> list[Row]:
    """Score features that need no training: see BASELINES."""
    bank_data, query_data = ShardDataset(data, bank), ShardDataset(data, split)
    return score(
        *BASELINES[name](bank_data, query_data, fields),
        kinds=None,
        dataset=query_data,
        model=name,
    )


def score(
    bank: Features,
    queries: Features,
    *,
    kinds: Sequence[str] | None,
    dataset: ShardDataset,
    model: str,
) -> list[Row]:
    """Rows of every kind of features, protocol and metric."""
    known = queries.labels >= 0
    if not known.any() or not (bank.labels >= 0).any():
        raise EvaluationError(
            f"{dataset.data_dir} has no labels in the splits used: kNN needs labelled examples"
        )
    truth = queries.labels[known]
    voters = int((bank.labels >= 0).sum())
    rows = []
    for kind in kinds or bank.by_kind:
        for protocol, options in PROTOCOLS.items():
            predicted = knn_predict(
                bank.by_kind[kind],
                bank.labels,
                queries.by_kind[kind][known],
                num_classes=len(dataset.schema.classes),
                **(options | {"k": min(options["k"], voters)}),
            )
            for metric, function in (("accuracy", accuracy), ("macro_f1", macro_f1)):
                rows.append(
                    Row(
                        dataset=dataset.schema.name,
                        split=dataset.split,
                        model=model,
                        features=kind,
                        protocol=protocol,
                        metric=metric,
                        value=float(function(truth, predicted)),
                        n=len(truth),
                    )
                )
    return rows


def knn_accuracy(
    config: ConfigDict, towers: Towers, params: Any, schema: tabular.Schema, mesh: Mesh
) -> dict[str, float]:
    """kNN accuracy on the validation split during training, by kind of features."""
    bank_data = ShardDataset(config.data.dir, config.data.train_split)
    query_data = ShardDataset(config.data.dir, config.data.val_split)
    bank = extract(config, towers, params, schema, bank_data, mesh, limit=config.eval.max_bank)
    queries = extract(config, towers, params, schema, query_data, mesh)
    known = queries.labels >= 0
    scores = {}
    for kind, features in bank.by_kind.items():
        predicted = knn_predict(
            features,
            bank.labels,
            queries.by_kind[kind][known],
            k=min(config.eval.k, int((bank.labels >= 0).sum())),
            num_classes=len(schema.classes),
        )
        scores[f"knn_{kind}"] = float(accuracy(queries.labels[known], predicted))
    return scores


def load_model(
    checkpoints: Checkpoints,
    config: ConfigDict,
    schema: tabular.Schema,
    mesh: Mesh,
    *,
    init: str = "trained",
) -> tuple[Towers, TrainState]:
    """Towers of a config with the newest checkpoint, or ("random") as they were at the start."""
    towers = build_towers(config, schema, build_method(config).heads(len(schema.classes)))
    tx, _ = make_optimizer(config, schema.splits[config.data.train_split])
    abstract, fresh = init_state(config, towers, tx, schema, mesh)
    return towers, fresh() if init == "random" else checkpoints.restore(abstract)


# --- features that need no training ---------------------------------------------------------------


def _colour(bank: ShardDataset, queries: ShardDataset, fields: str) -> tuple[Features, Features]:
    """Mean and standard deviation of each channel, standardised."""
    return _of_pixels(baselines.colour_statistics, bank, queries)


def _patches(bank: ShardDataset, queries: ShardDataset, fields: str) -> tuple[Features, Features]:
    """Pooled random projections of patches, standardised."""
    return _of_pixels(baselines.patch_projections, bank, queries)


def _fields(bank: ShardDataset, queries: ShardDataset, fields: str) -> tuple[Features, Features]:
    """The metadata fields themselves; and beside colour statistics, each at unit length."""
    chosen = select_fields(fields)
    raw = jax.jit(lambda meta: tabular.raw_features(meta, bank.schema, chosen))
    colours = _colour(bank, queries, fields)
    results = []
    for dataset, colour in zip((bank, queries), colours, strict=True):
        arrays = pipeline.read_all(dataset)["metadata"]  # one schema for all splits
        metadata = np.asarray(raw(arrays))
        both = fuse(colour.by_kind["image"], metadata)
        results.append(Features({"metadata": metadata, "both": both}, colour.labels))
    return results[0], results[1]


def _of_pixels(
    function: Callable[[np.ndarray], np.ndarray], bank: ShardDataset, queries: ShardDataset
) -> tuple[Features, Features]:
    batches = [pipeline.read_all(dataset) for dataset in (bank, queries)]
    features = baselines.standardize(*(function(batch["image"]) for batch in batches))
    first, second = (
        Features({"image": x}, batch["label"]) for x, batch in zip(features, batches, strict=True)
    )
    return first, second


BASELINES = {"colour": _colour, "patches": _patches, "fields": _fields}
