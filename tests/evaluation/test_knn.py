"""kNN against scikit-learn and an exhaustive search, on random and adversarial features."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.neighbors import KNeighborsClassifier

from satmip_jax.evaluation import knn
from satmip_jax.evaluation.knn import FeaturesError, knn_predict, nearest


def blobs(n: int, d: int = 12, classes: int = 6, seed: int = 0):
    """Classes that overlap, of very different scales, so that cosine is not Euclid."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, d))
    labels = rng.integers(classes, size=n)
    features = centres[labels] + 1.2 * rng.normal(size=(n, d))
    features *= rng.lognormal(sigma=2, size=(n, 1))
    return features.astype(np.float32), labels


def signs(n: int, d: int = 16, seed: int = 0):
    """Vectors of +-1: cosines are exact in float32, and many are equal."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(n, d)).astype(np.float32)


def plain(bank, labels, queries, k, classes, temperature=None, groups=None):
    """All cosines in float64, stable sorts, python votes."""

    def unit(x):
        x = np.asarray(x, np.float64)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        return x / np.where(length > 0, length, 1)

    cosine = unit(queries) @ unit(bank).T
    answers = []
    for i, row in enumerate(cosine):
        allowed = [
            j
            for j in range(len(bank))
            if labels[j] >= 0 and (groups is None or groups[0][j] != groups[1][i])
        ]
        near = sorted(allowed, key=lambda j: -row[j])[:k]
        votes = np.zeros(classes)
        for j in near:
            votes[labels[j]] += 1 if temperature is None else np.exp(row[j] / temperature)
        answers.append(int(np.argmax(votes)))
    return np.array(answers)


def predict(*args, **kwargs) -> np.ndarray:
    predicted = knn_predict(*args, **kwargs)
    assert predicted.dtype == jnp.int32
    return np.asarray(predicted)


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_majority_is_scikit_learns(k):
    (bank, labels), (queries, _) = blobs(700), blobs(301, seed=1)
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(bank, labels)
    ours = predict(bank, labels, queries, k=k, num_classes=6)
    np.testing.assert_array_equal(ours, theirs.predict(queries))
    assert len(set(ours)) == 6


def test_duplicates_do_not_disturb():
    """Every row of the bank k times, with one label: ties do not cross the k nearest."""
    bank, labels = signs(40), np.random.default_rng(1).integers(4, size=40)
    bank, labels = np.repeat(bank, 5, axis=0), np.repeat(labels, 5)
    shuffled = np.random.default_rng(2).permutation(200)
    bank, labels = bank[shuffled], labels[shuffled]
    theirs = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(bank, labels)
    unique = np.unique(bank, axis=0)
    ours = predict(bank, labels, unique, num_classes=4)
    np.testing.assert_array_equal(ours, theirs.predict(unique))
    by_row = {tuple(row): label for row, label in zip(bank, labels, strict=True)}
    np.testing.assert_array_equal(ours, [by_row[tuple(row)] for row in unique])


@pytest.mark.parametrize(("query_chunk", "bank_chunk"), [(1, 1), (7, 10), (16, 64), (999, 999)])
def test_equals_are_taken_in_the_banks_order_whatever_the_chunks(query_chunk, bank_chunk):
    bank, queries = signs(64, d=4), signs(16, d=4, seed=1)  # 16 vectors only: ties everywhere
    cosine, index = nearest(bank, queries, 9, query_chunk=query_chunk, bank_chunk=bank_chunk)
    exact = queries.astype(np.float64) @ bank.T / 4
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(cosine, np.take_along_axis(exact, expected, axis=1))


@given(st.data())
@settings(max_examples=12, deadline=None)
def test_chunks_never_change_the_answer(data):
    n, m = data.draw(st.integers(9, 20)), data.draw(st.integers(1, 12))
    chunks = {
        "query_chunk": data.draw(st.integers(1, 14)),
        "bank_chunk": data.draw(st.integers(1, 22)),
    }
    bank, queries = signs(n, seed=n), signs(m, seed=100 + m)
    usable = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    usable[:3] = True
    cosine, index = nearest(bank, queries, 3, usable=usable, **chunks)
    exact = np.where(usable[None], queries @ bank.T / 16, -np.inf)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(cosine, np.take_along_axis(exact, expected, axis=1))


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1e-4])
def test_weighted_vote_is_dinos(temperature):
    (bank, labels), (queries, _) = blobs(300), blobs(90, seed=1)
    ours = predict(
        bank, labels, queries, k=20, num_classes=6, vote="weighted", temperature=temperature
    )
    # exp(cosine / 1e-4) overflows in the plain formula: there the nearest alone decides
    expected = (
        plain(bank, labels, queries, 20, 6, temperature)
        if temperature > 1e-3
        else predict(bank, labels, queries, k=1, num_classes=6)
    )
    np.testing.assert_array_equal(ours, expected)
    majority = predict(bank, labels, queries, k=20, num_classes=6)
    assert (majority != ours).any()


def test_equal_votes_go_to_the_smallest_class():
    bank = np.eye(4, dtype=np.float32)
    query = np.array([[1, 1, 1, 1]], np.float32)
    for labels, winner in (([3, 1, 2, 0], 0), ([3, 1, 2, 2], 2), ([3, 1, 1, 3], 1)):
        for vote in ("majority", "weighted"):
            ours = predict(bank, np.array(labels), query, k=4, num_classes=4, vote=vote)
            assert ours.tolist() == [winner]


def test_leave_one_out():
    bank, labels = blobs(150)
    itself = (np.arange(150), np.arange(150))
    np.testing.assert_array_equal(predict(bank, labels, bank, k=1, num_classes=6), labels)
    ours = predict(bank, labels, bank, k=3, num_classes=6, groups=itself)
    np.testing.assert_array_equal(ours, plain(bank, labels, bank, 3, 6, groups=itself))
    assert (ours != labels).any()
    with pytest.raises(FeaturesError, match="k is 150, and 149 of"):
        knn_predict(bank, labels, bank, k=150, num_classes=6, groups=itself)


def test_neighbours_are_of_other_groups():
    (bank, labels), (queries, _) = blobs(200), blobs(50, seed=1)
    rng = np.random.default_rng(0)
    groups = rng.integers(9, size=200) * 10**12, rng.integers(12, size=50) * 10**12
    expected = plain(bank, labels, queries, 5, 6, groups=groups)
    assert (expected != plain(bank, labels, queries, 5, 6)).any()
    np.testing.assert_array_equal(
        predict(bank, labels, queries, num_classes=6, groups=groups), expected
    )
    _, index = nearest(bank, queries, 5, groups=groups, query_chunk=16, bank_chunk=64)
    assert (groups[0][np.asarray(index)] != groups[1][:, None]).all()


@pytest.mark.usefixtures("no_type_checks")
def test_groups_of_another_shape():
    (bank, labels), (queries, _) = blobs(200), blobs(50, seed=1)
    groups = np.arange(200), np.arange(200)
    with pytest.raises(FeaturesError, match=r"\(200,\) of the bank and \(50,\) of the queries"):
        knn_predict(bank, labels, queries, num_classes=6, groups=groups)


def test_unlabelled_rows_do_not_vote_and_are_counted(caplog):
    (bank, labels), (queries, _) = blobs(200), blobs(50, seed=1)
    hidden = labels.copy()
    hidden[::3] = -1
    with caplog.at_level(logging.DEBUG, logger="satmip_jax"):
        ours = predict(bank, hidden, queries, num_classes=6)
    assert "67 of 200 rows of the bank have no label" in caplog.text
    kept = hidden >= 0
    expected = predict(bank[kept], labels[kept], queries, num_classes=6)
    np.testing.assert_array_equal(ours, expected)
    assert (ours != predict(bank, labels, queries, num_classes=6)).any()


def test_features_of_any_length():
    """Zero vectors are at cosine 0 from all; squares of huge or tiny numbers do no harm."""
    bank = np.array([[1, 0], [0, 0], [-1, 0]], np.float32)
    labels = np.array([0, 1, 2])
    queries = np.array([[0, 0], [1e37, 0], [2e-38, 0], [-1e30, 1e-30]], np.float32)
    cosine, index = nearest(bank, queries, 3)
    np.testing.assert_array_equal(index, [[0, 1, 2], [0, 1, 2], [0, 1, 2], [2, 1, 0]])
    np.testing.assert_array_equal(cosine[1:], [[1, 0, -1]] * 3)
    np.testing.assert_array_equal(cosine[0], [0, 0, 0])
    ours = predict(bank, labels, queries, k=1, num_classes=3)
    np.testing.assert_array_equal(ours, [0, 0, 0, 2])


def test_compute_is_float32_whatever_comes():
    (bank, labels), (queries, _) = blobs(100), blobs(30, seed=1)
    low = jnp.asarray(bank, jnp.bfloat16), jnp.asarray(queries, jnp.bfloat16)
    cosine, _ = nearest(*low, 5)
    assert cosine.dtype == jnp.float32
    exact = nearest(np.asarray(low[0], np.float32), np.asarray(low[1], np.float32), 5)[0]
    np.testing.assert_array_equal(cosine, exact)
    double = predict(bank.astype(np.float64), labels, queries.astype(np.float64), num_classes=6)
    np.testing.assert_array_equal(double, predict(bank, labels, queries, num_classes=6))


def test_sharded_over_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    (bank, labels), (queries, _) = blobs(256), blobs(64, seed=1)
    expected = predict(bank, labels, queries, num_classes=6)
    sharded = [jax.device_put(x, rows) for x in (bank, labels, queries)]
    np.testing.assert_array_equal(predict(*sharded, num_classes=6), expected)


def test_memory_is_bounded_by_the_chunks():
    """No intermediate of n x m: 20,000 x 5,000 cosines would be 400 MB."""
    bank = jax.ShapeDtypeStruct((20_000, 8), jnp.float32)
    queries = jax.ShapeDtypeStruct((5_000, 8), jnp.float32)
    usable = jax.ShapeDtypeStruct((20_000,), jnp.bool)
    options = {"k": 5, "query_chunk": 256, "bank_chunk": 2048}
    lowered = knn._nearest.lower(bank, usable, queries, None, **options)
    assert "HIGHEST" in lowered.as_text()  # no TF32 or bfloat16 on an accelerator
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 30e6


def test_no_queries():
    bank, labels = blobs(10)
    assert predict(bank, labels, np.zeros((0, 12), np.float32), num_classes=6).shape == (0,)


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": 0}, "k is 0, and 8 of the bank's 10 rows"),
        ({"k": 9}, "k is 9, and 8 of the bank's 10 rows .* choose k from 1 to 8"),
        ({"labels": np.full(10, -1)}, "0 of the bank's 10 rows .* labelled"),
        ({"bank": np.zeros((0, 3), "f4"), "labels": np.zeros(0, int)}, "0 of the bank's 0 rows"),
        ({"labels": np.arange(10)}, "label 6 of row 6: expected 0 to 5.*4 rows"),
        ({"labels": np.arange(10) - 2}, "label -2 of row 0"),
        ({"labels": np.zeros(9, int)}, r"labels are int64 \(9,\)"),
        ({"labels": np.zeros(10)}, r"labels are float64 \(10,\)"),
        ({"bank": np.ones(10, "f4")}, r"bank is of shape \(10,\)"),
        ({"bank": np.ones((10, 3), int)}, "bank is int"),
        ({"queries": np.ones((4, 2), "f4")}, "bank has 3 features a row and queries 2"),
        ({"queries": np.array([[0, 0, 0], [0, np.nan, 0]], "f4")}, "in 1 of 2 rows.* row 1"),
        ({"bank": np.full((10, 3), np.inf, "f4")}, "bank has NaN or infinity in 10 of 10"),
        ({"vote": "loudest"}, "vote is 'loudest'"),
        ({"temperature": 0}, "temperature is 0"),
    ],
)
def test_errors_say_what_is_wrong(changed, message):
    labels = np.array([0, 1, 2, 3, 4, 5, -1, -1, 0, 1])
    arguments = {"bank": np.ones((10, 3), "f4"), "labels": labels, "queries": np.ones((4, 3), "f4")}
    with pytest.raises(FeaturesError, match=message):
        knn_predict(**(arguments | {"num_classes": 6} | changed))
