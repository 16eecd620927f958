"""Retrieval between images and metadata."""

from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from satmip_jax.metadata.fields import select_fields
from satmip_jax.metadata.record import Metadata
from satmip_jax.report.retrieval import ranks, recall, retrieval, varying_lines


def test_ranks_agree_with_scipy():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (40, 40)).astype(np.float32)  # many ties
    expected = [rankdata(-row, method="average")[i] for i, row in enumerate(scores)]
    np.testing.assert_allclose(ranks(scores), expected)


def test_recall_of_perfect_and_constant_similarities():
    n = 200
    perfect = recall("", ranks(np.eye(n)))
    assert perfect.at[1] == (1.0, 1 / n)
    assert perfect.median == (1.0, 100.5)
    constant = recall("", ranks(np.zeros((n, n))))  # all are ties
    assert constant.at[10] == (0.0, 0.05)
    assert constant.median == (100.5, 100.5)


def test_retrieval_marks_the_true_record(encoded):
    report = retrieval(encoded)
    scores = encoded.embedded[0] @ encoded.embedded[1].T
    assert report.candidates == 17
    assert report.recalls[0].median[0] == np.median(ranks(scores))
    for example in report.by_image:
        true = [lines for lines, mark, _ in example.records if mark == "match"]
        assert (len(true) == 1) == (example.rank <= 3)
        assert all(lines == example.lines for lines in true)


def test_fields_that_all_records_share_are_left_out():
    records = [Metadata.parse({"gsd": 10, "cloud_cover": cover}) for cover in (3, 40, None)]
    texts = varying_lines(records, select_fields("all"))
    assert [len(lines) for lines in texts] == [1, 1, 0]
    assert "40" in texts[1][0]
    assert varying_lines(records, select_fields("GSD")) == [[], [], []]


def test_fields_that_are_newer_than_the_model_are_left_out(encoded):
    def lines(unlisted):
        schema = replace(encoded.schema, unlisted=frozenset(unlisted))
        return [set(e.lines) for e in retrieval(replace(encoded, schema=schema)).by_image]

    names = [f.name for f in encoded.schema.select_fields(encoded.config.metadata.fields)]
    known = lines(())
    assert all(known)
    assert lines(names[1:]) != known
    for name in names:
        left = lines({*names} - {name})  # the model sees this field only
        assert all(some <= every for some, every in zip(left, known, strict=True))
        assert all(len(some) <= 1 for some in left)
