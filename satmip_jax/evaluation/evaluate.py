"""Scores of a checkpoint, of its untrained twin, and of baselines that need no training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.data.shard_format import SCHEMA_FILE
from satmip_jax.evaluation.baselines import BASELINES, extract_baseline
from satmip_jax.evaluation.features import KINDS, Features, extract, extract_each
from satmip_jax.evaluation.loading import load_model
from satmip_jax.evaluation.model import Model
from satmip_jax.evaluation.protocols import (
    BLOCK,
    PROTOCOLS,
    EvaluationError,
    check_protocols,
    score,
)
from satmip_jax.evaluation.results import Score
from satmip_jax.metadata.fields import select_fields

BANK = "train"  # default split of the labelled examples
TRAINING_PROTOCOL = "knn5"  # scored during training


def evaluate(
    workdir: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    split: str = "val",
    bank: str = BANK,
    tune: str | None = None,
    features: Sequence[str] = KINDS,
    fields: str | Sequence[str] = "all",
    protocols: Sequence[str] | None = None,
    block: float = BLOCK,
    init: str = "trained",
) -> list[Score]:
    """Score the checkpoint in `workdir` on prepared data.

    Args:
        workdir: folder of the run.
        data: folder written by `satmip prepare`.
        split: examples to classify.
        bank: split of the labelled examples that classify them. It may be `split` itself for
            protocols that retrieve: no example is then among its own neighbours.
        tune: split on which weights and strengths are chosen, and which then joins the bank; a
            fifth of the bank by default.
        features: of "image", "metadata" and "both". Those that the method lacks are left out, and
            so is metadata where the data have none of `fields`.
        fields: shown to the metadata encoder, see `select_fields`. Each of several selections has
            rows of its own; images are encoded and scored once.
        protocols: names in `PROTOCOLS`; those that are `default` by default.
        block: side of the cells of the spatially blocked scores, degrees; 0 for none.
        init: "trained", or "random" for the untrained encoders of the same config.

    Returns:
        One row per kind of features, protocol and metric. A `bank` or `tune` other than the default
        is part of the protocol's name, as in "knn5 (tune val)", so that rows do not replace those
        of other splits.

    Raises:
        EvaluationError: the data have no labels, features or protocols are unknown, the method has
            none of the features, or one split has two roles.
        FieldError: unknown fields.
        ModelError: there is no model.
        CheckpointError: no checkpoint is intact and fits the config.

    Example:
        >>> from satmip_jax.evaluation.evaluate import evaluate
        >>> rows = evaluate(workdir, shards, features=["image"], protocols=["knn5"], block=0)
        >>> [(row.protocol, row.metric, row.n) for row in rows]
        [('knn5', 'accuracy', 24), ('knn5', 'macro_f1', 24)]
    """
    if unknown := set(features) - set(KINDS):
        raise EvaluationError(f"no features {sorted(unknown)}: choose from {', '.join(KINDS)}")
    specs = _specs(fields)
    selections = {spec: select_fields(spec) for spec in specs}
    queries = _open_queries(data, split, bank, tune, protocols)
    model = load_model(workdir, init=init)
    counts = {name: field.count for name, field in queries.schema.fields.items()}
    recorded = [spec for spec in specs if any(counts[f.name] for f in selections[spec])]
    described = recorded if model.towers.has_metadata else []
    if "image" not in features and not described:
        lacking = f"{data} has no metadata"
        if recorded:
            lacking = f"{model.config.method.name} has no metadata encoder"
        raise EvaluationError(f"{lacking}: evaluate --features image")
    rows = _score_selections(
        lambda part: extract_each(model, ShardDataset(data, part), [*selections.values()]),
        queries,
        bank,
        tune,
        kinds={spec: [x for x in features if x == "image" or spec in described] for spec in specs},
        model=f"{model.name} (untrained)" if init == "random" else model.name,
        protocols=protocols,
        block=block,
        step=model.step,
        planned=model.planned,
    )
    if not model.config.image.init:
        return rows
    began = f"the image encoder of {model.name} began with {model.config.image.init}"
    return [replace(row, note="; ".join(filter(None, [row.note, began]))) for row in rows]


def evaluate_baseline(
    name: str,
    data: str | os.PathLike[str],
    *,
    split: str = "val",
    bank: str = BANK,
    tune: str | None = None,
    fields: str | Sequence[str] = "all",
    protocols: Sequence[str] | None = None,
    block: float = BLOCK,
) -> list[Score]:
    """Score features that need no training on prepared data.

    Args:
        name: in `BASELINES`.
        data: folder written by `satmip prepare`.
        split: examples to classify.
        bank: see `evaluate`.
        tune: see `evaluate`.
        fields: metadata fields that the baseline may use, see `evaluate`.
        protocols: names in `PROTOCOLS`; those that are `default` by default.
        block: see `evaluate`.

    Raises:
        EvaluationError: the baseline or a protocol is unknown, the data have no labels, or one
            split has two roles.
        FieldError: unknown fields.

    Example:
        >>> from satmip_jax.evaluation.evaluate import evaluate_baseline
        >>> rows = evaluate_baseline("colour", shards, protocols=["knn5"], block=0)
        >>> [(row.model, row.features, row.metric) for row in rows]
        [('colour', 'image', 'accuracy'), ('colour', 'image', 'macro_f1')]
    """
    if name not in BASELINES:
        raise EvaluationError(f"no baseline {name!r}: choose from {', '.join(BASELINES)}")
    baseline = BASELINES[name]
    specs = _specs(fields)
    if "metadata" not in baseline.kinds:
        specs = specs[:1]  # it uses none
    return _score_selections(
        lambda part: [
            extract_baseline(baseline, ShardDataset(data, part), fields=spec) for spec in specs
        ],
        _open_queries(data, split, bank, tune, protocols),
        bank,
        tune,
        kinds=dict.fromkeys(specs, baseline.kinds),
        model=name,
        protocols=protocols,
        block=block,
    )


def knn_accuracy(model: Model) -> dict[str, float]:
    """Return the kNN accuracy on the validation split, for use during training.

    Args:
        model: with the run's config; the bank has at most `config.eval.max_bank` examples.

    Returns:
        "knn_image" and, where there is a metadata encoder, "knn_metadata" and "knn_both": the
        accuracy of `TRAINING_PROTOCOL`, a fraction.
    """
    config = model.config
    bank_data = ShardDataset(config.data.dir, config.data.train_split)
    query_data = ShardDataset(config.data.dir, config.data.val_split)
    bank = extract(model, bank_data, limit=config.eval.max_bank)
    queries = extract(model, query_data)
    rows = score(
        bank,
        queries,
        kinds=[kind for kind in KINDS if kind == "image" or model.towers.has_metadata],
        dataset=query_data,
        model=model.name,
        protocols=[TRAINING_PROTOCOL],
        block=0,
    )
    return {f"knn_{row.features}": row.value for row in rows if row.metric == "accuracy"}


def _specs(fields: str | Sequence[str]) -> list[str]:
    """Return the selections of fields, each once. Unknown fields, and none, are refused."""
    specs = [fields] if isinstance(fields, str) else list(dict.fromkeys(fields))
    select_fields(specs)
    return specs


def _open_queries(
    data: str | os.PathLike[str],
    split: str,
    bank: str,
    tune: str | None,
    protocols: Sequence[str] | None,
) -> ShardDataset:
    """Open the split to classify. Errors in the arguments are raised before anything is encoded."""
    check_protocols(protocols)
    queries = ShardDataset(data, split)
    roles = [split, bank, *([] if tune is None else [tune])]
    available = ", ".join(queries.schema.splits)
    leaves_out = all(PROTOCOLS[name].retrieve for name in check_protocols(protocols))
    if len(set(roles)) < len(roles) and not (leaves_out and tune is None):
        raise EvaluationError(
            f"split, bank and tune are {', '.join(roles)}: they must differ, or examples would be "
            "classified by themselves (split and bank may be the same for protocols that "
            f"retrieve); available splits: {available}"
        )
    if unknown := [name for name in roles if name not in queries.schema.splits]:
        raise EvaluationError(f"{data} has no split {', '.join(unknown)}: choose from {available}")
    if not queries.schema.classes:
        raise EvaluationError(f"{data} has no labels: classification needs labelled examples")
    return queries


def _fingerprint(dataset: ShardDataset) -> str:
    """Return a short hash of schema.json, which differs between data sets of the same name."""
    content = (dataset.data_dir / SCHEMA_FILE).read_bytes()
    return hashlib.sha256(content).hexdigest()[:12]


def _score_selections(
    encode: Callable[[str], list[Features]],
    queries: ShardDataset,
    bank: str,
    tune: str | None,
    *,
    kinds: Mapping[str, Sequence[str]],
    **options: Any,
) -> list[Score]:
    """Score selections of fields, the image once; put options other than the default into names.

    Args:
        encode: name of a split -> its features for each selection, which share those of images.
        queries: split to classify.
        bank: name of the split of the labelled examples.
        tune: name of the split on which weights and strengths are chosen, or None.
        kinds: selection -> kinds of features to score.
        options: of `score`.
    """
    parts = [bank] if tune is None else [bank, tune]
    encoded = {part: encode(part) for part in dict.fromkeys([*parts, queries.split])}
    suffix = ", ".join(
        f"{role} {part}"
        for role, part in (("bank", None if bank == BANK else bank), ("tune", tune))
        if part is not None
    )
    known = queries.schema.fields["country_code"].count > 0
    rows: list[Score] = []
    for i, (spec, wanted) in enumerate(kinds.items()):
        of_selection = [kind for kind in wanted if i == 0 or kind != "image"]
        if not of_selection:
            continue
        labelled, held_out = encoded[bank][i], None
        if tune is not None:
            size = len(labelled.labels)
            labelled = labelled.join(encoded[tune][i])
            held_out = np.arange(len(labelled.labels)) >= size
        asked = labelled if queries.split == bank else encoded[queries.split][i]
        found = score(
            labelled,
            asked,
            kinds=of_selection,
            dataset=queries,
            tune=held_out,
            bank_name=" and ".join(parts),
            data=_fingerprint(queries),
            countries=queries.countries(asked.indices.tolist()) if known else None,
            **options,
        )
        for row in found:
            shown = row.features
            if spec != "all" and shown != "image":
                shown = f"{shown} ({spec})"
            protocol = f"{row.protocol} ({suffix})" if suffix else row.protocol
            rows.append(replace(row, features=shown, protocol=protocol))
    return rows
