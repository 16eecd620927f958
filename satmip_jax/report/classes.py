"""Classification in detail: the confusion matrix, the classes one by one, maps of the features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from satmip_jax.evaluation.metrics import ClassScore, confusion_matrix, per_class
from satmip_jax.report import figures
from satmip_jax.report.embeddings import Encoded, plain

MAX_CLASSES = 70  # of a table
MIN_POINTS = 10  # of a map
DIMENSIONS = 50  # that t-SNE is given


@dataclass(frozen=True)
class Classes:
    """How each class fares.

    Attributes:
        names: of the classes shown, the most frequent ones where there are too many.
        matrix: counts of true class (row) and answer (column), the shown classes only.
        shares: the same as shares of each true class.
        scores: a line per shown class.
        accuracy, majority: share of right answers, and of the most frequent class, 0 to 1.
        n: examples classified.
        left_out: classes that are not shown.
    """

    names: Sequence[str]
    matrix: Sequence[Sequence[int]]
    shares: Sequence[Sequence[float]]
    scores: Sequence[ClassScore]
    accuracy: float
    majority: float
    n: int
    left_out: int


def classes(encoded: Encoded) -> Classes | None:
    """Of the queries by kNN on image features; None where nothing has a label."""
    known = encoded.known
    if not known.any():
        return None
    truth, predicted = encoded.queries.features.labels[known], encoded.predicted[known]
    everything = encoded.queries.dataset.schema.classes
    counts, answers = (np.bincount(x, minlength=len(everything)) for x in (truth, predicted))
    shown = np.sort(np.argsort(-(counts + answers), kind="stable")[:MAX_CLASSES])
    names = [plain(everything[i]) for i in shown]
    # all classes that are not shown count as one more, so that the scores of the others stay exact
    place = np.full(len(everything), len(shown))
    place[shown] = np.arange(len(shown))
    matrix = confusion_matrix(place[truth], place[predicted], len(shown) + 1)
    matrix = matrix[:-1, :-1]
    return Classes(
        names,
        matrix.tolist(),
        (matrix / np.maximum(counts[shown], 1)[:, None]).tolist(),
        per_class(place[truth], place[predicted], [*names, ""])[:-1],
        float(np.mean(truth == predicted)),
        float(counts.max() / len(truth)),
        len(truth),
        len(everything) - len(shown),
    )


def feature_maps(encoded: Encoded) -> list[figures.Picture]:
    """The queries' image features in two dimensions, by class and by latitude."""
    features, labels = encoded.standard[1], encoded.queries.features.labels
    if len(features) < MIN_POINTS:
        return []
    points = flatten(features)
    names = [plain(name) for name in encoded.queries.dataset.schema.classes]
    about = f"{encoded.queries.describe()}"
    pictures = [
        figures.by_class(
            points,
            labels,
            names,
            alt="map of the image features, coloured by class",
            caption=f"By class, {about}.",
        )
    ]
    latitude = encoded.queries.features.locations[:, 1]
    if np.isfinite(latitude).any():
        pictures.append(
            figures.by_value(
                points,
                latitude,
                label="latitude, degrees",
                alt="the same map, coloured by latitude",
                caption="By latitude; grey where the place is unknown.",
            )
        )
    return pictures


def flatten(features: np.ndarray) -> np.ndarray:
    """Features (n, d) -> (n, 2): principal components, then t-SNE; the same each time."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    kept = min(DIMENSIONS, *features.shape)
    reduced = PCA(kept, random_state=0).fit_transform(features.astype(np.float64))
    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0, max_iter=500)
    return tsne.fit_transform(reduced)


def places(encoded: Encoded) -> figures.Picture | None:
    """Where the classifier is right and where wrong; None without places or labels."""
    locations = encoded.queries.features.locations
    shown = encoded.known & np.isfinite(locations).all(axis=1)
    if not shown.any():
        return None
    return figures.places(
        locations[shown],
        encoded.right[shown],
        alt="longitude and latitude of the examples, coloured by right and wrong",
        caption=f"{int(shown.sum()):,} examples whose place and class are known.",
    )
