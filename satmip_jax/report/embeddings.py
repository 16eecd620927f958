"""Features and embeddings of a run's model: a bounded number of images, each encoded once.

The parts of the page on neighbours, classes, locations and metadata are all based on them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import jax
import numpy as np
from ml_collections import ConfigDict

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.evaluation import fusion
from satmip_jax.evaluation.features import Features, extract
from satmip_jax.evaluation.joint_space import JointSpace, has_joint_space
from satmip_jax.evaluation.knn import knn_predict
from satmip_jax.evaluation.loading import load_model
from satmip_jax.metadata.schema import Schema
from satmip_jax.report.run import Run

MAX_QUERIES, MAX_BANK = 2000, 10_000  # images encoded
K = 5  # neighbours that vote


@dataclass(frozen=True)
class Sample:
    """Encoded records of a split.

    Attributes:
        dataset: the split.
        features: features of these records.
    """

    dataset: ShardDataset
    features: Features

    @property
    def indices(self) -> np.ndarray:
        """Index of each record in the split, int (n,)."""
        return self.features.indices

    @property
    def complete(self) -> bool:
        """Whether these are all records of the split."""
        return len(self.indices) == len(self.dataset)

    def class_name(self, row: int) -> str:
        """Return the readable name of the class of a row."""
        label = int(self.features.labels[row])
        return readable_name(self.dataset.schema.classes[label]) if label >= 0 else "no label"

    def describe(self) -> str:
        """Return the number of images and the split, such as "2,000 of 4,050 val images"."""
        of = "" if self.complete else f" of {len(self.dataset):,}"
        return f"{len(self.indices):,}{of} {self.dataset.split} images"


@dataclass(frozen=True)
class EncodedData:
    """Validation images (queries) and train images (bank) as a run's model encodes them.

    Attributes:
        config: config of the run.
        schema: of the data that the model was trained on; lists the fields that it sees.
        bank: records of the train split.
        queries: records of the validation split.
        standardized: image features of bank and queries, standardized by the bank, for kNN.
        predicted: int (n,), class of each query by kNN; -1 if nothing is labelled.
        k: number of neighbours that vote.
        embedded: image and metadata embeddings of the queries in their joint space, unit vectors,
            both float32 (n, d); None if the method has no such space.
        parameters: number of parameters of the model.
    """

    config: ConfigDict
    schema: Schema
    bank: Sample
    queries: Sample
    standardized: tuple[np.ndarray, np.ndarray]
    predicted: np.ndarray
    k: int
    embedded: tuple[np.ndarray, np.ndarray] | None
    parameters: int

    @property
    def labelled(self) -> np.ndarray:
        """Mask of the queries with a label and a prediction, bool (n,)."""
        return (self.queries.features.labels >= 0) & (self.predicted >= 0)

    @property
    def correct(self) -> np.ndarray:
        """Mask of the queries that are classified correctly, bool (n,)."""
        return self.labelled & (self.queries.features.labels == self.predicted)


def encode(run: Run, data: str) -> EncodedData:
    """Encode samples of the train and the validation split with a run's latest checkpoint.

    Args:
        run: the run.
        data: folder written by `satmip prepare`.

    Raises:
        ShardError: there are no such data or splits.
        ModelError: there is no checkpoint.
        CheckpointError: there is none that is intact and fits the config.
    """
    splits = [
        (ShardDataset(data, split), limit)
        for split, limit in (
            (run.config.data.train_split, MAX_BANK),
            (run.config.data.val_split, MAX_QUERIES),
        )
    ]
    model = load_model(run.folder)
    bank, queries = (
        Sample(dataset, extract(model, dataset, limit=limit)) for dataset, limit in splits
    )

    embedded = None
    if has_joint_space(model):
        space, by_kind = JointSpace(model), queries.features.by_kind
        embedded = space.images(by_kind["image"]), space.metadata(by_kind["metadata"])
    standardized = fusion.standardize(
        bank.features.by_kind["image"], queries.features.by_kind["image"]
    )
    k = min(K, int((bank.features.labels >= 0).sum()))
    predicted = np.full(len(queries.indices), -1)
    if k:
        predicted = np.asarray(
            knn_predict(
                standardized[0],
                bank.features.labels,
                standardized[1],
                k=k,
                num_classes=len(bank.dataset.schema.classes),
            )
        )
    parameters = sum(x.size for x in jax.tree.leaves(model.params))
    return EncodedData(
        model.config, model.schema, bank, queries, standardized, predicted, k, embedded, parameters
    )


def readable_name(name: str) -> str:
    """Split a name into words, and shorten it to 40 characters.

    Example:
        >>> from satmip_jax.report.embeddings import readable_name
        >>> readable_name("AnnualCrop"), readable_name("annual_crop")
        ('Annual Crop', 'annual crop')
    """
    words = re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", name)
    return words if len(words) <= 40 else words[:39] + "…"
