"""Protocols: how features are scored.

A protocol classifies queries by a labelled bank. A new one is a function in a file of its own and
one line in `PROTOCOLS`. Where locations are known every score is given twice: for the split as it
is, and "blocked" (see `spatial_blocks`), so that recognizing the place is not mistaken for
recognizing what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation import fusion, spatial_blocks
from satmip_jax.evaluation.features import Features
from satmip_jax.evaluation.knn import FeaturesError, knn_classify
from satmip_jax.evaluation.linear_probe import held_out_rows, linear_classify
from satmip_jax.evaluation.metrics import (
    accuracy,
    bootstrap,
    challenge_f1,
    macro_f1,
    mean_interval,
    most_frequent,
)
from satmip_jax.evaluation.precision import precisions, retrieve_classes
from satmip_jax.evaluation.results import Score
from satmip_jax.evaluation.torchgeo_bench import linear_classify_raw
from satmip_jax.evaluation.worst_group import group_by_region, score_worst_groups
from satmip_jax.metadata.schema import Schema
from satmip_jax.runtime.threads import map_in_order

log = logging.getLogger(__name__)

# (truth, predicted) -> value, and -> (low, high)
Metric = tuple[Callable[..., float], Callable[..., tuple[float, float]]]
BLOCK = 1.0  # degrees
# On a CPU, where one does not keep two cores busy; each holds its features and a solver's arrays.
FOLDS_AT_ONCE = 2
MAX_NAMES = 10  # classes named in a note


@dataclass(frozen=True)
class Protocol:
    """One way to score features.

    Attributes:
        classify: `(bank, queries, labels, held_out, num_classes)` -> int (m,), the class of each
            query. Bank (n, d) and queries (m, d) are float32, see `raw`. Labels are
            int32 (n,), -1 for rows that may not be used. What has to be chosen (a strength, say) is
            chosen on the rows of `held_out`, bool (n,). None if it retrieves.
        retrieve: `(bank, queries, labels, own)` -> int (m, k), see `precision.retrieve_classes`;
            the score is the precision.
        main: whether its scores are in the printed table of an evaluation, in the model card, and
            in the final table and plot of a study; evaluation.json and results.csv have all.
    """

    classify: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], np.ndarray] | None
    main: bool = True
    retrieve: (
        Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None], np.ndarray] | None
    ) = None
    raw: bool = False
    joins: bool = True
    default: bool = True


# k = 5 with a majority vote is the practice of the SatMIP authors, the weighted vote is DINO's.
PROTOCOLS: dict[str, Protocol] = {
    "knn5": Protocol(partial(knn_classify, k=5, vote="majority")),
    "knn20-weighted": Protocol(
        partial(knn_classify, k=20, vote="weighted", temperature=0.07), main=False
    ),
    "linear": Protocol(linear_classify),
    "precision10": Protocol(None, main=False, retrieve=partial(retrieve_classes, k=10)),
    "torchgeo-knn5": Protocol(
        partial(knn_classify, k=5, vote="majority", metric="euclidean"),
        main=False,
        raw=True,
        joins=False,
        default=False,
    ),
    "torchgeo-linear": Protocol(linear_classify_raw, main=False, raw=True, default=False),
}


# metrics of the protocols that retrieve: (truth, classes of the retrieved rows) -> as `Metric`
RETRIEVAL: dict[str, Metric] = {
    "precision": (
        lambda truth, retrieved: float(precisions(truth, retrieved).mean()),
        lambda truth, retrieved: mean_interval(precisions(truth, retrieved)),
    )
}


class EvaluationError(SatmipError, ValueError):
    """An evaluation that is not possible; the message says why."""


def check_protocols(names: Sequence[str] | None) -> Sequence[str]:
    """Return the names of the protocols; those that are `default` for None.

    Raises:
        EvaluationError: a name is not in `PROTOCOLS`, or there is none.
    """
    if names is None:
        return [name for name, protocol in PROTOCOLS.items() if protocol.default]
    unknown = sorted(set(names) - set(PROTOCOLS))
    if unknown or not names:
        raise EvaluationError(f"no protocol {unknown or ''}: choose from {', '.join(PROTOCOLS)}")
    return names


def main_scores(rows: Sequence[Score]) -> list[Score]:
    """Return the scores of protocols that are `main`; all scores if none is.

    Example:
        >>> from satmip_jax.evaluation.protocols import main_scores
        >>> from satmip_jax.evaluation.results import Score
        >>> names = ("knn5 blocked 1deg", "knn20-weighted", "precision10 (bank val)")
        >>> rows = [Score("d", "val", "m", "image", name, "accuracy", 0.5, 9) for name in names]
        >>> [row.protocol for row in main_scores(rows)]
        ['knn5 blocked 1deg']
    """
    main = {name for name, protocol in PROTOCOLS.items() if protocol.main}
    return [row for row in rows if row.protocol.split(" ")[0] in main] or list(rows)


def score(
    bank: Features,
    queries: Features,
    *,
    kinds: Sequence[str],
    dataset: ShardDataset,
    model: str,
    protocols: Sequence[str] | None = None,
    block: float = BLOCK,
    tune: Bool[np.ndarray, " n"] | None = None,
    bank_name: str = "the bank",
    data: str | None = None,
    step: int | None = None,
    planned: int | None = None,
    countries: Sequence[str] | None = None,
) -> list[Score]:
    """Score every kind of features by every protocol, with 95 % bootstrap intervals.

    The metrics are accuracy, macro F1, and the weighted F1 scores that belong to the data set; of
    protocols that retrieve, the precision, also by class. "worst_class" and "worst_region" are the
    lowest accuracy of a class and of a region, see `worst_group`; they are left out where there are
    fewer than two of enough examples.

    Args:
        bank: labelled examples.
        queries: examples to classify; those without a label are not scored. If they are the bank
            itself, protocols that retrieve leave out the query; the others cannot be used.
        kinds: of "image", "metadata" and "both" (see `fusion`).
        dataset: split of the queries; its name is in the rows.
        model: name of the model in the rows.
        protocols: names in `PROTOCOLS`; those that are `default` by default.
        block: side of the spatial cells, degrees; 0 for no blocked scores. Those are
            cross-validated over cells, and n is the number of queries with a known location.
        tune: rows of the bank on which weights and strengths are chosen; by default a fifth of
            it, by cells where locations are known.
        bank_name: name of the bank in notes.
        data: fingerprint of the data in the rows.
        step: of the checkpoint in the rows.
        planned: number of steps of the complete training in the rows.
        countries: ISO 3166 alpha-3 code of each query, "" where unknown; None for no regions.

    Raises:
        EvaluationError: there are no labels, or a protocol is unknown.
    """
    protocols = check_protocols(protocols)
    labelled = queries.labels >= 0
    if not labelled.any() or not (bank.labels >= 0).any():
        raise EvaluationError(
            f"{dataset.data_dir} has no labels in the splits used: classification needs labelled "
            "examples"
        )
    if unlabelled := int((bank.labels < 0).sum()):
        log.warning("%d of the bank's %d examples have no label", unlabelled, len(bank.labels))
    groups = [spatial_blocks.cells(part.locations, block or BLOCK) for part in (bank, queries)]
    cells = groups[0] if (groups[0] >= 0).any() else None
    held_out = _hold_out(bank.labels, cells) if tune is None else tune
    # to choose the metadata's weight: groups of the bank that classify each other, and which rows
    if tune is not None:
        weigh_on = tune.astype(np.int64), tune
    elif cells is not None:
        weigh_on = cells, cells >= 0
    else:
        weigh_on = np.arange(len(bank.labels)), np.ones(len(bank.labels), bool)
    settings = [("", [(np.arange(len(bank.labels)), np.flatnonzero(labelled))])]
    if block and cells is not None:
        folds = spatial_blocks.folds(cells, np.where(labelled, groups[1], -1))
        folds = [fold for fold in folds if (bank.labels[fold[0]] >= 0).any()]
        if len(folds) > 1:
            settings.append((f" blocked {block:g}deg", folds))

    note = _describe_classes(bank.labels, queries.labels, dataset, bank_name)
    if note:
        log.warning("%s", note)
    rows, metrics = [], _metrics(dataset.schema)
    regions = {} if countries is None else group_by_region(np.where(labelled, countries, ""))
    joining = np.ones(len(bank.labels), bool) if tune is None else ~tune
    classify = partial(
        _classify, bank, queries, kinds, protocols, held_out, joining, weigh_on, dataset
    )
    every_fold = [fold for _, folds in settings for fold in folds]
    at_once = FOLDS_AT_ONCE if jax.default_backend() == "cpu" and len(every_fold) > 1 else 1
    answers_of_folds = map_in_order(classify, every_fold, at_once)
    for suffix, folds in settings:
        truth = np.concatenate([queries.labels[rows_of_fold] for _, rows_of_fold in folds])
        if suffix and len(truth) < labelled.sum():
            log.warning(
                "blocked: %d of %d queries have no location and are not scored",
                labelled.sum() - len(truth),
                labelled.sum(),
            )
        majority = np.concatenate(
            [np.full(len(part), most_frequent(bank.labels[rows_])) for rows_, part in folds]
        )
        answers = [next(answers_of_folds) for _ in folds]
        for kind, protocol in answers[0]:
            predicted = np.concatenate([answer[kind, protocol] for answer in answers])
            retrieves = PROTOCOLS[protocol].retrieve is not None
            of_row = Score(
                dataset=dataset.schema.name,
                split=dataset.split,
                model=model,
                features=kind,
                protocol=protocol + suffix,
                metric="",
                value=0.0,
                n=len(truth),
                data=data,
                step=step,
                planned=planned,
                note=note,
            )
            constant = majority[:, None] if retrieves else majority
            for metric, (function, interval) in (RETRIEVAL if retrieves else metrics).items():
                low, high = interval(truth, predicted)
                rows.append(
                    replace(
                        of_row,
                        metric=metric,
                        value=function(truth, predicted),
                        low=low,
                        high=high,
                        majority=float(function(truth, constant)),
                        by_class=_by_class(truth, predicted, dataset) if retrieves else None,
                    )
                )
            if not retrieves:
                scored = np.concatenate([rows_of_fold for _, rows_of_fold in folds])
                groupings = {"class": np.array(dataset.schema.classes)[truth]}
                groupings |= {level: names[scored] for level, names in regions.items()}
                rows += score_worst_groups(of_row, truth, predicted, groupings)
    return rows


def _by_class(
    truth: np.ndarray, retrieved: np.ndarray, dataset: ShardDataset
) -> tuple[tuple[str, float], ...]:
    """Return the precision of the queries of each class that occurs."""
    values = precisions(truth, retrieved)
    return tuple(
        (dataset.schema.classes[label], float(values[truth == label].mean()))
        for label in np.unique(truth)
    )


def _hold_out(labels: np.ndarray, cells: np.ndarray | None) -> np.ndarray:
    """Hold out a fifth of the bank, by cells if they allow it; no row if there are too few."""
    for groups in (None,) if cells is None else (cells, None):
        try:
            return held_out_rows(labels, groups=groups)
        except FeaturesError as error:
            log.warning("%s", error)
    return np.zeros(len(labels), bool)


def _describe_classes(
    bank: np.ndarray, queries: np.ndarray, dataset: ShardDataset, bank_name: str
) -> str | None:
    """Say which classes of the queries the bank lacks, and if it has one class only."""
    notes, names = [], dataset.schema.classes
    present, asked = np.unique(bank[bank >= 0]), queries[queries >= 0]
    if lacking := np.setdiff1d(asked, present).tolist():
        count = int(np.isin(asked, lacking).sum())
        listed = ", ".join(names[i] for i in lacking[:MAX_NAMES])
        more = f" and {len(lacking) - MAX_NAMES} more" if len(lacking) > MAX_NAMES else ""
        notes.append(
            f"{count} of {len(asked)} {dataset.split} images are of classes that {bank_name} does "
            f"not have ({listed}{more})"
        )
    if len(present) == 1:
        notes.append(f"{bank_name} has one class ({names[present[0]]}): every answer is that class")
    return "; ".join(notes) or None


def _metrics(schema: Schema) -> dict[str, Metric]:
    """Return the metrics of a data set, each with the function for its interval.

    Weighted F1 scores such as `challenge_f1` are those in `Schema.class_weights`. Data prepared
    before the schema had weights has none of them: prepare it again.
    """

    def with_interval(function: Callable[..., float], name: Any, **options: Any) -> Metric:
        return (
            partial(function, **options),
            lambda truth, predicted: bootstrap(truth, predicted, name, **options),
        )

    metrics = {
        "accuracy": with_interval(accuracy, "accuracy"),
        "macro_f1": with_interval(macro_f1, "macro_f1"),
    }
    for name, weights in schema.class_weights.items():
        metrics[name] = with_interval(challenge_f1, "challenge_f1", weights=weights)
    return metrics


def _classify(
    bank: Features,
    queries: Features,
    kinds: Sequence[str],
    protocols: Sequence[str],
    held_out: np.ndarray,
    joining: np.ndarray,
    weigh_on: tuple[np.ndarray, np.ndarray],
    dataset: ShardDataset,
    fold: tuple[np.ndarray, np.ndarray],
) -> dict[tuple[str, str], np.ndarray]:
    """Return the predicted classes of the queries of a fold, by kind and protocol.

    `joining` are the rows that protocols which do not join the tuning split may use.
    """
    bank_rows, query_rows = fold
    num_classes = len(dataset.schema.classes)
    # Rows of the bank outside the fold become unlabelled, and all queries are classified: every
    # fold has the same shapes, and nothing is compiled twice.
    labels = np.full_like(bank.labels, -1)
    labels[bank_rows] = bank.labels[bank_rows]
    pairs = {
        kind: fusion.standardize(bank.by_kind[kind], queries.by_kind[kind], labels >= 0)
        for kind in bank.by_kind
    }
    if "both" in kinds:
        (image, image_query), (metadata, metadata_query) = pairs["image"], pairs["metadata"]
        weight = fusion.choose_weight(image, metadata, labels, *weigh_on, num_classes=num_classes)
        log.debug("both: the metadata have %g times the weight of the image", weight)
        pairs["both"] = (
            fusion.fuse(image, metadata, weight),
            fusion.fuse(image_query, metadata_query, weight),
        )
    own = np.arange(len(queries.labels)) if queries is bank else None

    def answer(kind: str, protocol: Protocol) -> np.ndarray:
        pair = pairs[kind]
        if protocol.raw and kind != "both":
            pair = bank.by_kind[kind], queries.by_kind[kind]
        usable = labels if protocol.joins else np.where(joining, labels, -1)
        if protocol.retrieve is not None:
            return protocol.retrieve(*pair, usable, own)
        assert protocol.classify is not None
        return protocol.classify(*pair, usable, held_out, num_classes)

    return {
        (kind, name): answer(kind, PROTOCOLS[name])[query_rows]
        for kind in kinds
        for name in protocols
    }
