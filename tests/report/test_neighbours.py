"""Nearest neighbours."""

import base64

import numpy as np

from satmip_jax.report.neighbours import choose_queries, neighbours


def test_thumbnails_show_the_records_that_were_encoded(encoded):
    for part in (encoded.bank, encoded.queries):
        labels = [part.dataset[int(number)]["label"] for number in part.indices]
        np.testing.assert_array_equal(labels, part.features.labels)
    (query, near), *_ = neighbours(encoded)
    row = choose_queries(encoded.queries.features.labels)[0]
    record = encoded.queries.dataset[int(encoded.queries.indices[row])]
    assert base64.b64decode(query.src.split(",")[1]) == record["image"]
    assert len(near) == 6
    notes = [float(neighbour.note) for neighbour in near]
    assert notes == sorted(notes, reverse=True)
    for neighbour in near:
        assert neighbour.mark == ("correct" if neighbour.label == query.label else "wrong")


def test_queries_come_from_different_classes_if_possible():
    labels = np.repeat(np.arange(10), 50)
    assert len(set(labels[choose_queries(labels)])) == 8
    assert sorted(labels[choose_queries(np.array([0, 0, 0, 1]))]) == [0, 0, 0, 0]
    assert len(choose_queries(np.array([2, 2, -1]))) == 3
