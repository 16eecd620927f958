"""How features are scored: a protocol is one line in `PROTOCOLS`.

Each protocol classifies the queries by a labelled bank. Where places are known, every score comes
twice: as the split is, and "blocked" (see `blocks`), so that knowing the place is not mistaken for
seeing what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation import fusion, spatial_blocks
from satmip_jax.evaluation.features import Features
from satmip_jax.evaluation.knn import knn_predict
from satmip_jax.evaluation.linear_probe import held_out_rows, linear_predict
from satmip_jax.evaluation.metrics import accuracy, bootstrap, challenge_f1, macro_f1
from satmip_jax.evaluation.results import Score
from satmip_jax.metadata.schema import Schema

log = logging.getLogger(__name__)

# (bank (n, d), queries (m, d), labels (n,), held_out (n,), num_classes) -> classes (m,)
Classifier = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
Metric = Callable[[np.ndarray, np.ndarray], tuple[float, float, float]]  # value, low, high
BLOCK = 1.0  # degrees


class EvaluationError(SatmipError, ValueError):
    """What was asked for cannot be evaluated; the message says why."""


def _knn(
    bank: np.ndarray,
    queries: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    num_classes: int,
    **options,
) -> np.ndarray:
    del held_out  # nothing is chosen
    k = min(options.pop("k"), int((labels >= 0).sum()))
    return np.asarray(knn_predict(bank, labels, queries, num_classes=num_classes, k=k, **options))


def _linear(
    bank: np.ndarray,
    queries: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    num_classes: int,
) -> np.ndarray:
    predicted, _ = linear_predict(bank, labels, queries, num_classes=num_classes, held_out=held_out)
    return np.asarray(predicted)


# All on features standardised by the bank. k = 5 is the authors' practice, the other vote DINO's.
PROTOCOLS: dict[str, Classifier] = {
    "knn5": partial(_knn, k=5, vote="majority"),
    "knn20-weighted": partial(_knn, k=20, vote="weighted", temperature=0.07),
    "linear": _linear,
}


def score(
    bank: Features,
    queries: Features,
    *,
    kinds: Sequence[str],
    dataset: ShardDataset,
    model: str,
    protocols: Sequence[str] = tuple(PROTOCOLS),
    block: float = BLOCK,
    tune: np.ndarray | None = None,
) -> list[Score]:
    """Rows of every kind of features, protocol and metric, with 95 % bootstrap intervals.

    The metrics are accuracy, macro F1, and the weighted F1 scores that belong to the data set.

    Args:
        kinds: of "image", "metadata" and "both" (see `fusion`).
        dataset: the queries'; names the rows.
        model: names the rows.
        block: side of the spatial cells, degrees; 0 leaves the blocked scores out. They are cross-
            validated over cells: n is the number of queries whose place is known.
        tune: bool (n,), the rows of the bank on which weights and strengths are chosen; a fifth of
            it by default, in whole cells where places are known.

    Raises:
        EvaluationError: no labels, or an unknown protocol.
    """
    if unknown := set(protocols) - set(PROTOCOLS):
        raise EvaluationError(f"no protocol {sorted(unknown)}: choose of {', '.join(PROTOCOLS)}")
    known = queries.labels >= 0
    if not known.any() or not (bank.labels >= 0).any():
        raise EvaluationError(
            f"{dataset.data_dir} has no labels in the splits used: classifying needs labelled "
            "examples"
        )
    if unlabelled := int((bank.labels < 0).sum()):
        log.warning("%d of the bank's %d examples have no label", unlabelled, len(bank.labels))
    groups = [spatial_blocks.cells(part.locations, block or BLOCK) for part in (bank, queries)]
    placed = groups[0] if (groups[0] >= 0).any() else None
    held_out = held_out_rows(bank.labels, groups=placed) if tune is None else tune
    # groups of the bank that classify each other, and who is classified, to weigh the metadata
    if tune is not None:
        weigh_on = tune.astype(np.int64), tune
    elif placed is not None:
        weigh_on = placed, placed >= 0
    else:
        weigh_on = np.arange(len(bank.labels)), np.ones(len(bank.labels), bool)
    everything = [(np.arange(len(bank.labels)), np.flatnonzero(known))]
    settings = [("", everything)]
    if block and placed is not None:
        folds = spatial_blocks.folds(groups[0], np.where(known, groups[1], -1))
        if len(folds) > 1:
            settings.append((f" blocked {block:g}deg", folds))

    rows, metrics = [], _metrics(dataset.schema)
    for suffix, folds in settings:
        truth = np.concatenate([queries.labels[asked] for _, asked in folds])
        if suffix and len(truth) < known.sum():
            log.warning(
                "blocked: %d of %d queries have no place", known.sum() - len(truth), known.sum()
            )
        answers = _classify(bank, queries, folds, kinds, protocols, held_out, weigh_on, dataset)
        for (kind, protocol), predicted in answers.items():
            for metric, function in metrics.items():
                value, low, high = function(truth, predicted)
                rows.append(
                    Score(
                        dataset=dataset.schema.name,
                        split=dataset.split,
                        model=model,
                        features=kind,
                        protocol=protocol + suffix,
                        metric=metric,
                        value=value,
                        n=len(truth),
                        low=low,
                        high=high,
                    )
                )
    return rows


def _metrics(schema: Schema) -> dict[str, Metric]:
    """Return the metrics of a data set, each with its interval.

    Weighted F1 scores such as `challenge_f1` are those in `Schema.class_weights`. Data prepared
    before the schema had weights has none of them: prepare it again.
    """

    def interval(function: Callable[..., float], name: Any, **options: Any) -> Metric:
        return lambda truth, predicted: (
            function(truth, predicted, **options),
            *bootstrap(truth, predicted, name, **options),
        )

    metrics = {
        "accuracy": interval(accuracy, "accuracy"),
        "macro_f1": interval(macro_f1, "macro_f1"),
    }
    for name, weights in schema.class_weights.items():
        metrics[name] = interval(challenge_f1, "challenge_f1", weights=weights)
    return metrics


def _classify(
    bank: Features,
    queries: Features,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    kinds: Sequence[str],
    protocols: Sequence[str],
    held_out: np.ndarray,
    weigh_on: tuple[np.ndarray, np.ndarray],
    dataset: ShardDataset,
) -> dict[tuple[str, str], np.ndarray]:
    """The classes of the queries, fold after fold, by kind and protocol."""
    num_classes = len(dataset.schema.classes)
    answers: dict[tuple[str, str], list[np.ndarray]] = {}
    for voters, asked in folds:
        # Who does not vote is unlabelled, and all queries are answered: so every fold has the same
        # shapes, and nothing is compiled twice.
        labels = np.full_like(bank.labels, -1)
        labels[voters] = bank.labels[voters]
        pairs = {
            kind: fusion.standardize(bank.by_kind[kind], queries.by_kind[kind], labels >= 0)
            for kind in bank.by_kind
        }
        if "both" in kinds:
            (image, image_query), (metadata, metadata_query) = pairs["image"], pairs["metadata"]
            weight = fusion.choose_weight(
                image, metadata, labels, *weigh_on, num_classes=num_classes
            )
            log.info("both: metadata at %g times the weight of the image", weight)
            pairs["both"] = (
                fusion.fuse(image, metadata, weight),
                fusion.fuse(image_query, metadata_query, weight),
            )
        for kind in kinds:
            for protocol in protocols:
                predicted = PROTOCOLS[protocol](*pairs[kind], labels, held_out, num_classes)
                answers.setdefault((kind, protocol), []).append(predicted[asked])
    return {key: np.concatenate(parts) for key, parts in answers.items()}
