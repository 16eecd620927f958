"""The tables of the paper on hand-made rows: whose number is in a cell, and which of the paper."""

import csv
import io

import pytest

from satmip_jax.studies.paper.tables import paper_tables
from tests.studies.paper.rows import row, scores

KINDS = ("image", "metadata", "both", "metadata (all-leak)", "both (all-leak)")
METHODS = ("simclr", "satmip", "satmips")
VARIANTS = (
    *(*METHODS, "untrained", "colour", "fields", "numbers"),
    *(
        f"{method}-{length}"
        for method in METHODS
        for length in ("eighth", "quarter", "half", "full")
    ),
    *("GSD", "Time", "Location", "Angles", "GSD+Time+Location", "all"),
)
SETS = ("toy", "EuroSAT", "other")
COSTS = ("relative_step_time", "relative_compiled_memory")


def value(variant, dataset, kind):
    """A score of its own for each variant, data set and kind of features, below 0.95."""
    number = VARIANTS.index(variant) * 15 + SETS.index(dataset) * 5 + KINDS.index(kind)
    return round(number / 500, 3)


def everything():
    """Two seeds two points apart, with rows of other metrics and protocols before and after."""
    rows = []
    for variant in VARIANTS:
        for dataset in SETS:
            for kind in KINDS:
                for seed in (0, 1):
                    own = value(variant, dataset, kind) + seed / 50
                    entry = row(variant, seed, own, features=kind, dataset=dataset)
                    others = [
                        entry | {"metric": m, "value": 2.0} for m in ("accuracy", "worst_class")
                    ]
                    blocked = entry | {"protocol": "linear blocked 1deg", "value": 3.0}
                    rows += [others[0], blocked, entry, *others, blocked]
    for i, variant in enumerate(METHODS):
        for j, metric in enumerate(COSTS):
            rows.append(row(variant, 0, 1 + i / 10 + j / 100) | {"metric": metric})
    return rows


@pytest.fixture(scope="module")
def tables():
    """Name -> (row, column) -> the line of the CSV file."""
    made = paper_tables(scores(everything(), transfers=("EuroSAT", "other")))
    return {
        table.name: {
            (line["row"], line["column"]): line for line in csv.DictReader(io.StringIO(table.csv()))
        }
        for table in made
    }


# table, row, column, whose score, of which data and features; and the number in the paper
CELLS = [
    ("methods", "SimCLR", "toy", "simclr", "toy", "image", 61.1),
    ("methods", "SatMIP", "toy", "satmip", "toy", "image", 55.2),
    ("methods", "SatMIPS", "toy", "satmips", "toy", "image", 62.3),
    ("methods", "untrained", "toy", "untrained", "toy", "image", None),
    ("methods", "SimCLR", "eurosat", "simclr", "EuroSAT", "image", 94.3),
    ("methods", "SatMIP", "eurosat", "satmip", "EuroSAT", "image", 95.7),
    ("methods", "SatMIPS", "eurosat", "satmips", "EuroSAT", "image", 95.1),
    ("methods", "colour", "eurosat", "colour", "EuroSAT", "image", None),
    ("methods", "SatMIPS", "other", "satmips", "other", "image", None),
    ("convergence", "SimCLR", "1/8", "simclr-eighth", "toy", "image", 46.1),
    ("convergence", "SatMIP", "1/4", "satmip-quarter", "toy", "image", 50.4),
    ("convergence", "SatMIPS", "1/2", "satmips-half", "toy", "image", 60.9),
    ("convergence", "SatMIPS", "1", "satmips-full", "toy", "image", 62.3),
    ("bimodal", "SatMIP, toy", "image", "satmip", "toy", "image", 59.3),
    ("bimodal", "SatMIP, toy", "image and metadata", "satmip", "toy", "both", 63.1),
    ("bimodal", "SatMIPS, toy", "image and metadata", "satmips", "toy", "both", 68.6),
    ("bimodal", "SatMIPS, toy", "leak-free", "satmips", "toy", "both (all-leak)", None),
    ("bimodal", "SatMIP, eurosat", "image", "satmip", "EuroSAT", "image", 94.5),
    ("bimodal", "SatMIPS, eurosat", "image and metadata", "satmips", "EuroSAT", "both", 96.4),
    ("metadata", "raw fields", "toy", "fields", "toy", "metadata", 8.1),
    ("metadata", "untrained encoder", "toy", "untrained", "toy", "metadata", 13.9),
    ("metadata", "SatMIP", "toy", "satmip", "toy", "metadata", 27.8),
    ("metadata", "SatMIP", "toy, leak-free", "satmip", "toy", "metadata (all-leak)", None),
    ("metadata", "SatMIPS", "toy", "satmips", "toy", "metadata", None),
    ("metadata", "plain numbers", "toy", "numbers", "toy", "metadata", None),
    ("metadata", "raw fields", "eurosat", "fields", "EuroSAT", "metadata", 22.0),
    ("metadata", "SatMIP", "eurosat", "satmip", "EuroSAT", "metadata", 48.4),
    ("fields", "GSD", "image", "GSD", "toy", "image", 37.4),
    ("fields", "Time", "image and metadata", "Time", "toy", "both", 46.5),
    ("fields", "Angles", "leak-free", "Angles", "toy", "both (all-leak)", None),
    ("fields", "all", "image and metadata", "all", "toy", "both", 58.0),
]


@pytest.mark.parametrize(
    ("table", "line", "column", "variant", "dataset", "kind", "published"), CELLS
)
def test_a_cell_is_of_its_row_and_column(
    tables, table, line, column, variant, dataset, kind, published
):
    cell = tables[table][line, column]
    assert float(cell["mean"]) == pytest.approx(100 * value(variant, dataset, kind) + 1)
    assert float(cell["std"]) == pytest.approx(2**0.5)  # of the sample, of two values 2 apart
    assert cell["seeds"] == "2"
    assert (float(cell["published"]) if cell["published"] else None) == published


def test_means_over_the_transfer_sets_and_relative_costs(tables):
    for table, line, variant, published in (
        ("methods", "SatMIP", "satmip", 79.3),
        ("methods", "SatMIPS", "satmips", 80.9),
        ("fields", "Location", "Location", 74.9),
    ):
        cell = tables[table][line, "mean of transfer"]
        both = [value(variant, dataset, "image") for dataset in SETS[1:]]
        assert float(cell["mean"]) == pytest.approx(50 * sum(both) + 1)
        assert float(cell["published"]) == published
    costs = {key: (c["mean"], c["published"]) for key, c in tables["efficiency"].items()}
    assert costs["SimCLR", "time"] == ("1.0", "1.0")
    assert costs["SatMIP", "time"] == ("1.1", "0.56")
    assert costs["SatMIPS", "memory"] == ("1.21", "1.11")
