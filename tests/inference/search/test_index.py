"""Approximate search: nearly the exact rows, of the right file alone."""

import json
import shutil
import sys

import numpy as np
import pytest

from satmip_jax.inference.embed import table as embedding_table
from satmip_jax.inference.search.index import IndexFileError, SearchIndex
from satmip_jax.inference.search.run import search
from tests.inference.search.test_run import write

pytest.importorskip("usearch")


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """3,000 rows in 40 clusters, one of them not finite."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(40, 24))[rng.integers(0, 40, 3000)] + rng.normal(size=(3000, 24))
    rows[7, 3] = np.nan
    rows = rows * rng.uniform(0.1, 5, 24) + 3
    return write(tmp_path_factory.mktemp("c") / "e.parquet", rows, labels=["a", "b", None] * 1000)


def test_nearly_all_of_the_exact_rows_are_found(clusters, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_table, "ROWS", 700)  # the file is read in batches
    recall = []
    for number in range(0, 3000, 100):
        query = {"ids": [f"r{number}"], "count": 10}
        exact = search(clusters, **query)
        found = search(clusters, index=tmp_path / "i", **query)
        assert (len(found.hits), found.unusable, exact.unusable) == (10, 1, 1)
        scores = {hit.row: hit.score for hit in exact.hits}
        assert number not in {hit.row for hit in found.hits}
        common = [hit for hit in found.hits if hit.row in scores]
        np.testing.assert_allclose(
            [hit.score for hit in common], [scores[hit.row] for hit in common], atol=1e-5
        )
        recall.append(len(common) / 10)
    assert np.mean(recall) > 0.97


def test_filters_make_the_search_exact(clusters, tmp_path):
    query = {"ids": ["r3"], "where": "label==a", "count": 400}
    exact, found = (search(clusters, index=i, **query) for i in (None, tmp_path / "i"))
    assert found.hits == exact.hits
    assert not (tmp_path / "i").exists()


def test_an_index_of_other_embeddings_or_a_damaged_one_is_refused(clusters, tmp_path):
    path = tmp_path / "i"
    SearchIndex.open(path, clusters)
    other = write(tmp_path / "other.parquet", clusters.images()[::-1])
    with pytest.raises(IndexFileError, match=r"of other embeddings than .*other.parquet: delete"):
        search(other, ids=["r0"], index=path)
    shutil.copy(clusters.path, tmp_path / "copy.parquet")
    moved = search(tmp_path / "copy.parquet", ids=["r0"], index=path)
    assert len(moved.hits) == 10
    about = json.loads((tmp_path / "i.json").read_text())
    for change in ({"mean": [1]}, {"bytes": 3}, {"format": 0}, {"deviation": [0] * 24}):
        (tmp_path / "i.json").write_text(json.dumps(about | change))
        with pytest.raises(IndexFileError, match="to build it again"):
            SearchIndex.open(path, clusters)
    (tmp_path / "i.json").unlink()
    with pytest.raises(IndexFileError, match="does not describe i: delete"):
        SearchIndex.open(path, clusters)


def test_usearch_is_asked_for(clusters, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(IndexFileError, match=r'pip install -e ".\[index\]"'):
        SearchIndex.open(tmp_path / "i", clusters)
