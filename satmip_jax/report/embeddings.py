"""A run's model on examples: each image encoded once, and a bounded number of them.

What the page shows of neighbours, classes, places and metadata is all taken from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from ml_collections import ConfigDict

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.evaluation import fusion
from satmip_jax.evaluation.evaluate import load_model
from satmip_jax.evaluation.features import Features, extract, unit
from satmip_jax.evaluation.knn import knn_predict
from satmip_jax.report.run import Run

MAX_QUERIES, MAX_BANK = 2000, 10_000  # images encoded
K = 5  # neighbours that vote


@dataclass(frozen=True)
class Sample:
    """Some records of a split, encoded.

    Attributes:
        numbers: int (n,), of the records in the split.
        features: of these records, in this order.
    """

    dataset: ShardDataset
    numbers: np.ndarray
    features: Features

    def label(self, row: int) -> str:
        """The class of a row, for people."""
        label = int(self.features.labels[row])
        return plain(self.dataset.schema.classes[label]) if label >= 0 else "no label"

    def describe(self) -> str:
        """How many of the split these are."""
        count, total = len(self.numbers), len(self.dataset)
        of = f" of {total:,}" if count < total else ""
        return f"{count:,}{of} {self.dataset.split} images"


@dataclass(frozen=True)
class Encoded:
    """A run's view of the examples it was not trained on, and of the bank that classifies them.

    Attributes:
        bank, queries: records of the train and of the validation split.
        standard: the image features of both, standardised by the bank, which kNN works on.
        predicted: int (n,), the class of each query by kNN; -1 where nothing has a label.
        embedded: image and metadata of the queries in the space they share, at unit length, float32
            (n, d) both; None where the method has no such space.
        parameters: of the model.
    """

    config: ConfigDict
    bank: Sample
    queries: Sample
    standard: tuple[np.ndarray, np.ndarray]
    predicted: np.ndarray
    embedded: tuple[np.ndarray, np.ndarray] | None
    parameters: int

    @property
    def known(self) -> np.ndarray:
        """bool (n,): queries whose class is known and could be predicted."""
        return (self.queries.features.labels >= 0) & (self.predicted >= 0)

    @property
    def right(self) -> np.ndarray:
        """bool (n,): queries classified as they should be."""
        return self.known & (self.queries.features.labels == self.predicted)


def encode(run: Run, data: str) -> Encoded:
    """Encode the validation split and a bank of the train split with a run's newest checkpoint.

    Args:
        data: folder written by `satmip prepare`.

    Raises:
        ShardError: no such data or splits.
        CheckpointError: no checkpoint, or one that does not fit.
    """
    sources = [
        (ShardDataset(data, split), limit)
        for split, limit in (
            (run.config.data.train_split, MAX_BANK),
            (run.config.data.val_split, MAX_QUERIES),
        )
    ]
    with Checkpoints(run.folder, read_only=True) as checkpoints:
        config, schema = checkpoints.run()
        mesh = make_mesh()
        towers, state = load_model(checkpoints, config, schema, mesh)
    parts = []
    for dataset, limit in sources:
        features = extract(config, towers, state.params, schema, dataset, mesh, limit=limit)
        count = len(features.labels)
        numbers = np.linspace(0, len(dataset), count, endpoint=False).astype(int)  # as `extract`
        parts.append(Sample(dataset, numbers, features))
    bank, queries = parts

    embedded = None
    if {"image", "metadata"} <= set(towers.heads):
        project = partial(towers.apply, {"params": state.params}, method="head")
        by_kind = queries.features.by_kind
        image, metadata = (
            unit(np.asarray(project(kind, by_kind[kind]))) for kind in ("image", "metadata")
        )
        embedded = image, metadata
    standard = fusion.standardize(bank.features.by_kind["image"], queries.features.by_kind["image"])
    voters = int((bank.features.labels >= 0).sum())
    predicted = np.full(len(queries.numbers), -1)
    if voters:
        predicted = np.asarray(
            knn_predict(
                standard[0],
                bank.features.labels,
                standard[1],
                k=min(K, voters),
                num_classes=len(bank.dataset.schema.classes),
            )
        )
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    return Encoded(config, bank, queries, standard, predicted, embedded, parameters)


def plain(name: str) -> str:
    """A name for people: "annual_crop" and "AnnualCrop" are words, and long ones are cut."""
    words = re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", name)
    return words if len(words) <= 40 else words[:39] + "…"
