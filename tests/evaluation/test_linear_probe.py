"""The linear probe against scikit-learn, on well and badly conditioned features."""

import logging
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.linear_model import LogisticRegression

from satmip_jax.evaluation import logistic_solver
from satmip_jax.evaluation.knn import FeaturesError
from satmip_jax.evaluation.linear_probe import fit, held_out_rows, linear_predict, predict

N, D, CLASSES = 240, 8, 4
STRENGTHS = [1e-1, 1e-5, 1e-3]


def blobs(n: int = N, seed: int = 0, noise: float = 1.5, shares=(0.25,) * 4):
    """Classes that overlap: float32 (n, D) and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, size=n, p=shares)
    centres = np.random.default_rng(99).normal(size=(CLASSES, D))
    return (centres[labels] + noise * rng.normal(size=(n, D))).astype(np.float32), labels


def separable():
    return blobs(noise=0.05)


def collinear():
    """The last half of the features is the first half again, mixed; one feature is constant."""
    features, labels = blobs()
    mix = np.random.default_rng(1).normal(size=(D // 2, D // 2))
    features[:, D // 2 :] = features[:, : D // 2] @ mix
    features[:, 0] = 3
    return features, labels


def ill_scaled():
    features, labels = blobs()
    return features * np.logspace(-3, 3, D, dtype=np.float32) + 5, labels


def unbalanced():
    return blobs(shares=(0.9, 0.06, 0.02, 0.02))


def scikit_learns(features, labels, strength, weights=None):
    """The same problem in float64; scikit-learn of two classes has one vector for our two."""
    total = len(labels) if weights is None else np.sum(weights)
    factor = 2 if len(np.unique(labels)) == 2 else 1
    # Its lbfgs is far from the minimum after 20,000 iterations on ill-scaled features.
    inverse = factor / (strength * total)
    model = LogisticRegression(C=inverse, solver="newton-cg", tol=1e-8, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of line searches that end at the last digit
        return model.fit(np.asarray(features, np.float64), labels, weights)


def objective(coefficients, intercepts, features, labels, strength, weights=None):
    """The definition, in float64."""
    coefficients, intercepts, features = (
        np.asarray(x, np.float64) for x in (coefficients, intercepts, features)
    )
    scores = features @ coefficients.T + intercepts
    largest = scores.max(axis=1, keepdims=True)
    logarithm = largest[:, 0] + np.log(np.exp(scores - largest).sum(axis=1))
    losses = logarithm - scores[np.arange(len(labels)), labels]
    return np.average(losses, weights=weights) + strength / 2 * np.sum(coefficients**2)


@pytest.mark.parametrize("data", [blobs, separable, collinear, ill_scaled, unbalanced])
def test_minimum_is_scikit_learns(data):
    features, labels = data()
    probe = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS)
    assert probe.converged.all()
    answers = np.asarray(predict(probe, features))
    assert answers.dtype == np.int32
    for i, strength in enumerate(STRENGTHS):
        theirs = scikit_learns(features, labels, strength)
        problem = features, labels, strength
        minimum = objective(theirs.coef_, theirs.intercept_, *problem)
        ours = objective(probe.coefficients[i], probe.intercepts[i], *problem)
        # 3e-7 is the rounding of a mean of losses in float32; the smallest minimum is 4e-4
        assert ours == pytest.approx(minimum, rel=1e-5, abs=3e-7)
        assert probe.objective[i] == pytest.approx(ours, rel=1e-5, abs=3e-7)
        assert np.mean(answers[i] == theirs.predict(features)) > 0.995


def test_coefficients_are_scikit_learns():
    features, labels = blobs()
    probe = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS, tolerance=1e-5)
    for i, strength in enumerate(STRENGTHS):
        theirs = scikit_learns(features, labels, strength)
        size = np.abs(theirs.coef_).max()
        np.testing.assert_allclose(probe.coefficients[i], theirs.coef_, atol=2e-3 * size)
        # the intercepts are determined but for a constant
        centred = probe.intercepts[i] - probe.intercepts[i].mean()
        np.testing.assert_allclose(centred, theirs.intercept_, atol=2e-3 * size)
    queries, _ = blobs(100, seed=1)
    expected = scikit_learns(features, labels, 1e-3).predict(queries)
    np.testing.assert_array_equal(predict(probe, queries)[2], expected)


def test_two_classes():
    """scikit-learn penalizes the difference of our two vectors, which is twice as dear."""
    features, labels = blobs()
    labels = np.where(labels % 2, 3, 1)
    probe = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS, tolerance=1e-5)
    for i, strength in enumerate(STRENGTHS):
        theirs = scikit_learns(features, labels, strength)
        difference = probe.coefficients[i, 3] - probe.coefficients[i, 1]
        np.testing.assert_allclose(difference, theirs.coef_[0], atol=2e-3)
        np.testing.assert_array_equal(predict(probe, features)[i], theirs.predict(features))


def test_weights_are_repeated_rows():
    features, labels = blobs()
    weights = np.random.default_rng(2).integers(4, size=N).astype(np.float32)
    probe = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS, weights=weights)
    for i, strength in enumerate(STRENGTHS):
        theirs = scikit_learns(features, labels, strength, weights)
        problem = features, labels, strength, weights
        minimum = objective(theirs.coef_, theirs.intercept_, *problem)
        ours = objective(probe.coefficients[i], probe.intercepts[i], *problem)
        assert ours == pytest.approx(minimum, rel=2e-4)


def test_unlabelled_rows_and_classes_without_rows():
    features, labels = blobs()
    hidden = np.where((labels == 2) | (np.arange(N) % 5 == 0), -1, labels)
    probe = fit(features, hidden, num_classes=CLASSES, strengths=STRENGTHS)
    kept = hidden >= 0
    for i, strength in enumerate(STRENGTHS):
        theirs = scikit_learns(features[kept], hidden[kept], strength)  # of classes 0, 1 and 3
        present = np.array([0, 1, 3])
        problem = features[kept], np.searchsorted(present, hidden[kept]), strength
        minimum = objective(theirs.coef_, theirs.intercept_, *problem)
        ours = objective(probe.coefficients[i][present], probe.intercepts[i][present], *problem)
        assert ours == pytest.approx(minimum, rel=2e-4)
    assert (np.asarray(probe.coefficients[:, 2]) == 0).all()
    assert (np.asarray(probe.intercepts[:, 2]) == -np.inf).all()
    assert set(np.unique(predict(probe, features))) == {0, 1, 3}


def test_strengths_do_not_see_each_other():
    """Alone, or after others in any order, from 0 or from another start: the same solutions."""
    features, labels = blobs()
    together = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS)
    for i, strength in enumerate(STRENGTHS):
        alone = fit(features, labels, num_classes=CLASSES, strengths=[strength])
        np.testing.assert_allclose(alone.objective[0], together.objective[i], rtol=1e-5)
        np.testing.assert_allclose(
            alone.coefficients[0], together.coefficients[i], atol=0.01 / strength**0.25
        )
    again = fit(features, labels, num_classes=CLASSES, strengths=[1e-5, 1e-3, 1e-3, 1e-1])
    np.testing.assert_allclose(again.objective, together.objective[[1, 2, 2, 0]], rtol=1e-5)
    other = fit(features, np.where(labels == 2, -1, labels), num_classes=CLASSES, strengths=[1e-4])
    start = other.coefficients[0], other.intercepts[0]  # -infinity for a class that has rows now
    again = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS, start=start)
    np.testing.assert_allclose(again.objective, together.objective, rtol=1e-5)


def test_sharded_over_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    features, labels = blobs()
    expected = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS)
    sharded = jax.device_put(features, rows)
    probe = fit(sharded, labels, num_classes=CLASSES, strengths=STRENGTHS)
    np.testing.assert_allclose(probe.objective, expected.objective, rtol=2e-5)
    np.testing.assert_array_equal(predict(probe, sharded), predict(expected, features))


def test_what_did_not_converge_is_logged(caplog):
    features, labels = blobs()
    with caplog.at_level(logging.WARNING, logger="satmip_jax"):
        enough = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS)
        assert not caplog.text
        few = int(enough.iterations[0])  # the strongest needs the fewest
        probe = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS, max_iter=few)
    assert probe.converged.tolist() == [True, False, False]
    assert probe.iterations.tolist() == [few] * 3
    assert f"strength 1e-05 did not converge in {few} iterations" in caplog.text
    assert "strength 0.1 " not in caplog.text


def test_rounding_does_not_stop_it_for_ever():
    """A tolerance beyond float32: it ends, and says that it is not reached."""
    features, labels = blobs()
    probe = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS, tolerance=1e-12)
    assert not probe.converged.any()
    best = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS)
    assert (probe.objective <= best.objective * (1 + 1e-6)).all()


def test_memory_is_of_the_scores_and_not_of_their_gradients():
    n, d, s = 5000, 64, 4
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in [((n, d), "f4"), ((n,), "i4"), ((n,), "f4"), ((s,), "f4")]
    ]
    stop = jax.ShapeDtypeStruct((), "f4"), jax.ShapeDtypeStruct((), "i4")
    lowered = logistic_solver.solve.lower(*arguments, *stop, num_classes=10)
    assert lowered.as_text().count("HIGHEST") >= lowered.as_text().count("dot_general")
    memory = lowered.compile().memory_analysis().temp_size_in_bytes
    assert memory < 4 * (4 * n * d + 20 * 10 * n)  # (n, classes, s, d) would be 51 MB x 10


def noisy(n: int, seed: int):
    """Two features in eight say something, few rows: a strong penalty is best."""
    features, labels = blobs(n, seed, noise=2.5)
    features[:, 2:] = np.random.default_rng(seed + 50).normal(size=(n, D - 2))
    return features.astype(np.float32), labels


def test_strength_is_chosen_on_the_held_out_rows():
    (bank, labels), (queries, _) = noisy(N, 0), noisy(400, 1)
    labels[::17] = -1
    bank, queries = bank / bank.std(), queries / bank.std()
    held_out = held_out_rows(labels, fraction=0.5)
    strengths = [1e-4, 1.0, 1e-2, 1e-1]
    options = {"num_classes": CLASSES, "held_out": held_out, "strengths": strengths}
    predicted, choice = linear_predict(bank, labels, queries, **options)
    assert predicted.dtype == jnp.int32
    unit = np.sqrt(bank[labels >= 0].var(axis=0).mean())
    models = [
        scikit_learns(bank[rows] / unit, labels[rows], strength)
        for rows in [(labels >= 0) & ~held_out]
        for strength in strengths
    ]
    accuracies = [model.score(bank[held_out] / unit, labels[held_out]) for model in models]
    np.testing.assert_allclose(choice.held_out_accuracy, accuracies, atol=1.5 / held_out.sum())
    best = int(np.argmax(choice.held_out_accuracy))
    assert choice.strength == strengths[best]
    assert choice.converged
    final = scikit_learns(bank[labels >= 0] / unit, labels[labels >= 0], choice.strength)
    assert np.mean(np.asarray(predicted) == final.predict(queries / unit)) > 0.99
    again, rescaled = linear_predict(1000 * bank, labels, 1000 * queries, **options)
    assert rescaled.strength == choice.strength
    assert np.mean(np.asarray(again) == np.asarray(predicted)) > 0.99


def test_of_equals_the_strongest_is_chosen():
    features, labels = separable()
    held_out = held_out_rows(labels)
    strengths = [1e-3, 1e-2, 1e-4, 1e-5]
    _, choice = linear_predict(
        features, labels, features, num_classes=CLASSES, held_out=held_out, strengths=strengths
    )
    np.testing.assert_array_equal(choice.held_out_accuracy, 1)
    assert choice.strength == 1e-2
    nothing, _ = linear_predict(
        features.astype(np.float64),
        labels,
        jnp.asarray(features, jnp.bfloat16)[:0],
        num_classes=CLASSES,
        held_out=held_out,
        strengths=strengths,
    )
    assert nothing.shape == (0,)


labels_and_groups = st.lists(
    st.tuples(st.integers(-1, 3), st.integers(-1, 5)), min_size=1, max_size=60
)


@given(labels_and_groups, st.floats(0.05, 0.5), st.integers(0, 9), st.booleans())
@settings(max_examples=100, deadline=None)
def test_held_out_rows(rows, fraction, seed, grouped):
    labels, groups = np.array(rows).T
    groups = groups if grouped else np.full(len(labels), -1)
    try:
        held_out = held_out_rows(labels, fraction=fraction, groups=groups, seed=seed)
    except FeaturesError:
        return  # too few rows; the reasons are tested below
    again = held_out_rows(labels, fraction=fraction, groups=groups, seed=seed)
    np.testing.assert_array_equal(held_out, again)
    assert held_out.dtype == bool
    assert not held_out[labels < 0].any()
    for group in set(groups[groups >= 0]):
        assert len(set(held_out[(groups == group) & (labels >= 0)])) <= 1
    for label in set(labels[labels >= 0]):
        single = held_out[(labels == label) & (groups < 0)]
        assert not len(single) or not single.all() or not grouped
        assert abs(single.sum() - fraction * len(single)) <= 1
        if not grouped:
            assert not held_out[labels == label].all()


def test_held_out_groups_keep_the_classes_shares():
    """500 places of 10 rows, each mostly of one class."""
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(500), 10))
    main = rng.choice(4, size=500, p=[0.6, 0.25, 0.1, 0.05])
    labels = np.where(rng.random(5000) < 0.8, main[groups], rng.integers(4, size=5000))
    held_out = held_out_rows(labels, groups=groups)
    shares = np.bincount(labels[held_out]) / np.bincount(labels)
    np.testing.assert_allclose(shares, 0.2, atol=0.04)
    other = held_out_rows(labels, groups=groups, seed=1)
    assert (other != held_out).any()
    assert not set(groups[held_out]) & set(groups[~held_out])


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.zeros(8, int)}, r"of 8 rows 8 can be used, of 1 classes"),
        ({"labels": np.full(8, -1)}, "of 8 rows 0 can be used, of 0 classes"),
        ({"labels": np.arange(8)}, "label 4 of row 4"),
        ({"labels": np.zeros(8)}, "labels are float64"),
        ({"features": np.ones((8, 3), int)}, "features is int"),
        ({"features": np.full((8, 3), np.nan, "f4")}, "NaN or infinity in 8 of 8"),
        ({"features": np.eye(8, dtype="f4") * 1e30}, "too large for float32: standardize"),
        ({"strengths": []}, "strengths are "),
        ({"strengths": [0.0, 1.0]}, "expected numbers above 0"),
        ({"weights": np.ones(7)}, r"weights are \(7,\)"),
        ({"weights": -np.ones(8)}, "0 or more"),
        ({"weights": np.arange(8) == 0}, "of 8 rows 1 can be used, of 1 classes"),
    ],
)
def test_errors_of_fit(changed, message):
    arguments = {"features": np.eye(8, dtype="f4"), "labels": np.arange(8) % 4}
    with pytest.raises(FeaturesError, match=message):
        fit(**(arguments | {"num_classes": 4, "strengths": [1e-3]} | changed))


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"held_out": np.zeros(8, bool)}, "no labelled row is held out"),
        ({"held_out": np.arange(8) == 7}, "no labelled row is held out"),
        ({"held_out": np.arange(8) > 0}, "of 8 rows 1 can be used"),
        ({"held_out": np.zeros(8)}, r"held_out is float64 \(8,\): expected bool \(8,\)"),
        ({"held_out": np.zeros(7, bool)}, r"held_out is bool \(7,\)"),
        ({"queries": np.ones((4, 2), "f4")}, "bank has 8 features a row and queries 2"),
        ({"queries": np.full((4, 8), np.inf, "f4")}, "queries has NaN or infinity"),
        ({"labels": np.zeros(7, int)}, r"labels are int64 \(7,\)"),
        ({"bank": np.eye(8, dtype="f4") * 1e30}, "too large for float32"),
    ],
)
def test_errors_of_linear_predict(changed, message):
    labels = np.array([0, 1, 2, 3, 0, 1, 2, -1])
    arguments = {
        "bank": np.eye(8, dtype="f4"),
        "labels": labels,
        "queries": np.eye(8, dtype="f4"),
        "held_out": np.arange(8) < 2,
        "strengths": [1e-3],
    }
    with pytest.raises(FeaturesError, match=message):
        linear_predict(**(arguments | {"num_classes": 4} | changed))


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1, 0, 1], {"groups": [0, 1]}, r"labels are \(4,\) and groups \(2,\)"),
        ([0, 1, 0, 1], {"fraction": 1.0}, "fraction is 1.0"),
        ([0, 1, 0, 1], {"groups": [5] * 4}, "of 4 labelled rows none can be held out"),
        ([-1, -1], {}, "of 0 labelled rows none"),
        ([0, 1, 2, 3], {"fraction": 0.5}, "too few rows of a class"),
    ],
)
def test_errors_of_held_out_rows(labels, options, message):
    with pytest.raises(FeaturesError, match=message):
        held_out_rows(np.array(labels), **options)


@pytest.mark.usefixtures("no_type_checks")
def test_queries_of_another_encoder():
    features, labels = blobs()
    probe = fit(features, labels, num_classes=CLASSES, strengths=STRENGTHS)
    with pytest.raises(FeaturesError, match="probe has 8 features a row and queries 5"):
        predict(probe, features[:, :5])
