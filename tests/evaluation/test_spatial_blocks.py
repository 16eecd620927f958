"""Spatial cells and the folds of a cross-validation over them."""

import numpy as np
import pytest

from satmip_jax.evaluation import spatial_blocks


def test_cells_are_whole_and_folds_share_none():
    rng = np.random.default_rng(0)
    places = np.stack([rng.uniform(-180, 180, 500), rng.uniform(-90, 90, 500)], axis=1)
    places[:3] = [[180, 90], [-180, -90], [np.nan, 5]]
    cells = spatial_blocks.cells(places, 10.0)
    assert cells[2] == -1
    assert (np.delete(cells, 2) >= 0).all()
    for first, second in ((3, 4), (10, 400)):
        same = np.array_equal(places[first] // 10, places[second] // 10)
        assert (cells[first] == cells[second]) == same
    assert len(np.unique(cells)) == 1 + len(np.unique(np.delete(places, 2, 0) // 10, axis=0))
    classified = []
    for bank, queries in spatial_blocks.folds(cells[:400], cells[400:]):
        assert not set(cells[:400][bank]) & set(cells[400:][queries])
        assert 2 not in bank
        assert len(bank) > 250
        classified += queries.tolist()
    assert sorted(classified) == list(range(100))


def test_a_cell_has_a_size():
    with pytest.raises(ValueError, match="cells of 0 degrees"):
        spatial_blocks.cells(np.zeros((1, 2)), 0)
