"""Published scores."""

import dataclasses

from satmip_jax.report.published import published
from satmip_jax.report.scores import scores
from tests.report.pages import ROWS


def test_published_scores_appear_only_for_data_sets_of_the_paper():
    def methods(name):
        return [(row.method, row.value) for row in published(name) if row.experiment == "transfer"]

    assert methods("eurosat") == [("simclr", 94.3), ("satmip", 95.7), ("satmips", 95.1)]
    assert methods("UC_Merced")[1] == ("satmip", 95.2)
    assert published("fmow")[0].value == 61.1
    assert published("eurosat_spatial") == published("mine") == []
    row = dataclasses.replace(ROWS[0], dataset="eurosat")
    assert scores([("a", [row])]).published[0][0] == "eurosat"
