"""Every score of one evaluation, as split and in blocks, against scikit-learn and plain loops."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from satmip_jax.evaluation import spatial_blocks, worst_group
from satmip_jax.evaluation.features import Features
from satmip_jax.evaluation.protocols import score

CLASSES = ("Crop", "Forest", "Lake", "River", "Road")
COUNTRIES = {"FRA": "Europe", "ITA": "Europe", "PER": "Americas", "JPN": "Asia", "": ""}
ENOUGH = 6  # examples of a group


def examples(n, seed):
    """The east has another common class and other features: a fold is not like all of them."""
    rng = np.random.default_rng(seed)
    locations = np.stack([rng.uniform(0, 12, n), np.full(n, 45.5)], axis=1)
    labels = rng.choice([-1, 1, 3, 4], p=[0.1, 0.55, 0.3, 0.05], size=n)
    labels = np.where(labels == 1, np.where(locations[:, 0] < 6, 0, 2), labels)
    image = rng.normal(size=(n, 4)) + 1.5 * np.eye(4, 5)[:, labels].T
    image += np.square(locations[:, :1]) * [0.5, 0.0, -0.3, 0.1]
    locations[rng.random(n) < 0.1] = np.nan
    return Features(
        {"image": image.astype(np.float32)},
        labels.astype(np.int32),
        locations.astype(np.float32),
        np.arange(n),
    )


@pytest.fixture(scope="module")
def parts():
    return examples(220, 0), examples(160, 1)


@pytest.fixture(scope="module")
def countries():
    return np.random.default_rng(2).choice(list(COUNTRIES), size=160).tolist()


@pytest.fixture(scope="module")
def rows(parts, countries, tiny_shards):
    dataset = copy.copy(tiny_shards)
    dataset.schema = replace(tiny_shards.schema, classes=CLASSES, class_weights={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worst_group, "MIN_EXAMPLES", ENOUGH)
        found = score(
            *parts,
            kinds=["image"],
            dataset=dataset,
            model="m",
            protocols=["knn5", "precision10"],
            countries=countries,
        )
    return {(row.protocol, row.metric): row for row in found}


def folds(parts, blocked):
    """Labelled rows of the bank, and labelled queries, of each fold."""
    bank, queries = parts
    if not blocked:
        return [(np.flatnonzero(bank.labels >= 0), np.flatnonzero(queries.labels >= 0))]
    cells = [spatial_blocks.cells(part.locations, 1.0) for part in parts]
    pairs = spatial_blocks.folds(cells[0], np.where(queries.labels >= 0, cells[1], -1))
    assert len(pairs) == 5
    return [(rows[bank.labels[rows] >= 0], asked) for rows, asked in pairs]


def by_hand(parts, blocked):
    """Query, its predicted class, its precision at 10 and the majority class, fold by fold."""
    bank, queries = parts
    found = []
    for rows, asked in folds(parts, blocked):
        scaler = StandardScaler().fit(bank.by_kind["image"][rows].astype(np.float64))
        x = scaler.transform(bank.by_kind["image"][rows])
        y = scaler.transform(queries.by_kind["image"][asked])
        knn = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(x, bank.labels[rows])
        nearest = bank.labels[rows][knn.kneighbors(y, 10, return_distance=False)]
        precision = (nearest == queries.labels[asked][:, None]).mean(axis=1)
        majority = np.bincount(bank.labels[rows]).argmax()
        found += zip(asked, knn.predict(y), precision, np.full(len(asked), majority), strict=True)
    return [np.array(column) for column in zip(*found, strict=True)]


@pytest.mark.parametrize("blocked", [False, True])
def test_scores_are_those_of_scikit_learn_fold_by_fold(parts, rows, blocked):
    asked, predicted, precision, majority = by_hand(parts, blocked)
    truth, suffix = parts[1].labels[asked], " blocked 1deg" if blocked else ""
    assert len(set(majority)) == 1 + blocked
    named = {metric: row for (name, metric), row in rows.items() if name == f"knn5{suffix}"}
    for row, constant in ((named["accuracy"], True), (named["macro_f1"], False)):
        assert row.n == len(asked)
        answers = (predicted, majority)
        wanted = [
            np.mean(truth == x) if constant else f1_score(truth, x, average="macro")
            for x in answers
        ]
        assert (row.value, row.majority) == pytest.approx(tuple(wanted))
    row = rows[f"precision10{suffix}", "precision"]
    assert (row.value, row.n) == (pytest.approx(precision.mean()), len(asked))
    assert row.majority == pytest.approx(np.mean(truth == majority))
    assert dict(row.by_class) == pytest.approx(
        {CLASSES[c]: precision[truth == c].mean() for c in (0, 2, 3, 4)}
    )


@pytest.mark.parametrize("blocked", [False, True])
def test_worst_groups_are_of_the_true_class_and_the_place_of_each_query(
    parts, rows, countries, blocked
):
    asked, predicted, *_ = by_hand(parts, blocked)
    right = predicted == parts[1].labels[asked]
    groups = {
        "worst_class": [CLASSES[label] for label in parts[1].labels[asked]],
        "worst_region": [COUNTRIES[countries[i]] for i in asked],
    }
    for metric, names in groups.items():
        row = rows["knn5 blocked 1deg" if blocked else "knn5", metric]
        hits = {name: right[np.array(names) == name] for name in set(names) - {""}}
        accuracies = {name: x.mean() for name, x in hits.items() if len(x) >= ENOUGH}
        assert dict(row.by_class) == pytest.approx(accuracies)
        worst = min(accuracies, key=accuracies.get)
        assert (row.value, row.n) == (pytest.approx(accuracies[worst]), len(hits[worst]))
