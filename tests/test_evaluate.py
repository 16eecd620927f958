"""Scores of a run against scikit-learn on the same features; the page of pictures."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from satmip_jax import parallel
from satmip_jax.checkpoint import Checkpoints
from satmip_jax.evaluation.evaluate import (
    EvaluationError,
    evaluate,
    evaluate_baseline,
    load_model,
)
from satmip_jax.evaluation.features import extract, unit
from satmip_jax.gallery import write_page
from satmip_jax.shards import ShardDataset
from satmip_jax.train import train


def features(run, data, split, init="trained"):
    with Checkpoints(run, read_only=True) as checkpoints:
        config, schema = checkpoints.run()
        mesh = parallel.make_mesh()
        towers, state = load_model(checkpoints, config, schema, mesh, init=init)
    return extract(config, towers, state.params, schema, ShardDataset(data, split), mesh)


def value(rows, **wanted):
    (row,) = [r for r in rows if all(getattr(r, key) == want for key, want in wanted.items())]
    return row.value


def test_scores_are_those_of_scikit_learn(tiny_run, tiny_shards_dir):
    rows = evaluate(tiny_run, str(tiny_shards_dir))
    bank, queries = (features(tiny_run, tiny_shards_dir, split) for split in ("train", "val"))
    assert (len(bank.labels), len(queries.labels)) == (64, 24)
    for kind in ("image", "metadata", "both"):
        knn = KNeighborsClassifier(5, metric="cosine", algorithm="brute")
        knn.fit(bank.by_kind[kind].astype(np.float64), bank.labels)
        predicted = knn.predict(queries.by_kind[kind].astype(np.float64))
        for metric, want in (
            ("accuracy", accuracy_score(queries.labels, predicted)),
            ("macro_f1", f1_score(queries.labels, predicted, average="macro")),
        ):
            got = value(rows, features=kind, protocol="knn5", metric=metric)
            assert got == pytest.approx(want), (kind, metric)
    both = np.concatenate([unit(bank.by_kind["image"]), unit(bank.by_kind["metadata"])], axis=1)
    np.testing.assert_allclose(bank.by_kind["both"], both)
    assert {row.n for row in rows} == {24}
    assert {row.dataset for row in rows} == {"synthetic"}


def test_features_do_not_depend_on_the_batch_and_are_deterministic(tiny_run, tiny_shards_dir):
    one = features(tiny_run, tiny_shards_dir, "val")
    two = features(tiny_run, tiny_shards_dir, "val")
    for kind, array in one.by_kind.items():
        np.testing.assert_array_equal(array, two.by_kind[kind])
        assert np.isfinite(array).all()
        assert array.std(axis=0).max() > 0


def test_untrained_features_are_others(tiny_run, tiny_shards_dir):
    trained = features(tiny_run, tiny_shards_dir, "val")
    untrained = features(tiny_run, tiny_shards_dir, "val", init="random")
    for kind in ("image", "metadata"):
        assert np.abs(trained.by_kind[kind] - untrained.by_kind[kind]).max() > 1e-4
    rows = evaluate(tiny_run, str(tiny_shards_dir), features=["image"], init="random")
    assert {row.model for row in rows} == {"satmips mu/8 (untrained)"}


@pytest.mark.parametrize("name", ["colour", "patches", "fields"])
def test_baselines_have_rows(name, tiny_shards_dir):
    rows = evaluate_baseline(name, str(tiny_shards_dir))
    kinds = {"metadata", "both"} if name == "fields" else {"image"}
    assert {row.features for row in rows} == kinds
    assert {row.model for row in rows} == {name}


def test_a_method_without_metadata_has_image_features_only(tiny_config, tiny_shards_dir, tmp_path):
    train(tiny_config("simclr", "--config.optimizer.images=16"), tmp_path)
    assert {row.features for row in evaluate(tmp_path, str(tiny_shards_dir))} == {"image"}
    with pytest.raises(EvaluationError, match="simclr has no metadata encoder"):
        evaluate(tmp_path, str(tiny_shards_dir), features=["metadata"])
    with pytest.raises(EvaluationError, match="colour"):
        evaluate(tmp_path, str(tiny_shards_dir), features=["image", "colour"])


def test_the_page_shows_what_there_is(tiny_run, tiny_shards_dir, tmp_path):
    rows = evaluate(tiny_run, str(tiny_shards_dir), features=["image"])
    page = write_page(tmp_path, tiny_run, ShardDataset(tiny_shards_dir, "val"), rows)
    text = page.read_text()
    assert "satmips mu/8" in text
    for picture in ("samples.png", "loss.png", "retrieval.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
        assert picture in text
