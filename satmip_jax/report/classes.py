"""Classification in detail: confusion matrix, scores per class, feature space, locations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from satmip_jax.evaluation.metrics import ClassScore, confusion_matrix, most_frequent, per_class
from satmip_jax.report import figures
from satmip_jax.report.embeddings import EncodedData, readable_name

MAX_CLASSES = 70  # in the tables
MIN_POINTS = 10  # in a scatter plot
DIMENSIONS = 50  # principal components given to t-SNE


@dataclass(frozen=True)
class ClassReport:
    """Classification of the queries, by class.

    Attributes:
        names: classes shown; the most frequent ones if there are too many.
        matrix: counts by true class (row) and prediction (column), for the classes shown.
        shares: the counts as fractions of the examples of the true class.
        scores: one entry per class shown.
        accuracy: fraction of correct predictions, 0 to 1.
        majority: accuracy of always predicting the most frequent class of the bank, 0 to 1.
        n: number of examples classified.
        left_out: number of classes not shown.
    """

    names: Sequence[str]
    matrix: Sequence[Sequence[int]]
    shares: Sequence[Sequence[float]]
    scores: Sequence[ClassScore]
    accuracy: float
    majority: float
    n: int
    left_out: int


def class_report(encoded: EncodedData) -> ClassReport | None:
    """Describe the kNN predictions of the queries by class; None without labels."""
    labelled = encoded.labelled
    if not labelled.any():
        return None
    truth, predicted = encoded.queries.features.labels[labelled], encoded.predicted[labelled]
    all_names = encoded.queries.dataset.schema.classes
    counts, predictions = (np.bincount(x, minlength=len(all_names)) for x in (truth, predicted))
    shown = np.sort(np.argsort(-(counts + predictions), kind="stable")[:MAX_CLASSES])
    names = [readable_name(all_names[i]) for i in shown]
    # the classes left out count as one more class, so the scores of the others stay exact
    row = np.full(len(all_names), len(shown))
    row[shown] = np.arange(len(shown))
    matrix = confusion_matrix(row[truth], row[predicted], len(shown) + 1)
    matrix = matrix[:-1, :-1]
    return ClassReport(
        names,
        matrix.tolist(),
        (matrix / np.maximum(counts[shown], 1)[:, None]).tolist(),
        per_class(row[truth], row[predicted], [*names, ""])[:-1],
        float(np.mean(truth == predicted)),
        float(np.mean(truth == most_frequent(encoded.bank.features.labels))),
        len(truth),
        len(all_names) - len(shown),
    )


def feature_space(encoded: EncodedData) -> list[figures.Picture]:
    """Draw the image features of the queries in two dimensions, by class and by latitude."""
    features, labels = encoded.standardized[1], encoded.queries.features.labels
    if len(features) < MIN_POINTS:
        return []
    points = project_to_plane(features)
    names = [readable_name(name) for name in encoded.queries.dataset.schema.classes]
    pictures = [
        figures.scatter_by_class(
            points,
            labels,
            names,
            alt="t-SNE of the image features, coloured by class",
            caption=f"By class, {encoded.queries.describe()}.",
        )
    ]
    latitude = encoded.queries.features.locations[:, 1]
    if np.isfinite(latitude).any():
        pictures.append(
            figures.scatter_by_value(
                points,
                latitude,
                label="latitude, degrees",
                alt="t-SNE of the image features, coloured by latitude",
                caption="By latitude; grey where the location is unknown.",
            )
        )
    return pictures


def project_to_plane(features: np.ndarray) -> np.ndarray:
    """Project features (n, d) to (n, 2) by principal components and t-SNE; reproducible."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    components = min(DIMENSIONS, *features.shape)
    reduced = PCA(components, random_state=0).fit_transform(features.astype(np.float64))
    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0, max_iter=500)
    # Its threads wait for each other in every iteration: of few points, ten times as long as one
    # thread takes, where the cores have other work.
    with threadpool_limits(1, "openmp"):
        return tsne.fit_transform(reduced)


def geography(encoded: EncodedData) -> figures.Picture | None:
    """Draw the locations of correct and wrong predictions; None without locations or labels."""
    locations = encoded.queries.features.locations
    shown = encoded.labelled & np.isfinite(locations).all(axis=1)
    if not shown.any():
        return None
    return figures.locations(
        locations[shown],
        encoded.correct[shown],
        alt="longitudes and latitudes of the examples, coloured by correct and wrong predictions",
        caption=f"{int(shown.sum()):,} examples with a location and a class.",
    )
