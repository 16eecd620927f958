"""The pictures of the documentation say what its tables say."""

import re

import pytest

from tests.conftest import REPOSITORY

# features -> models, as the table has them
ROWS = {
    "image": ("untrained encoder", "SimCLR", "SatMIP", "SatMIPS"),
    "metadata": ("untrained encoder", "SatMIP", "SatMIPS"),
    "both": ("untrained encoders", "SatMIP", "SatMIPS"),
}


@pytest.mark.parametrize("name", ["results.svg", "results-dark.svg"])
def test_the_picture_of_results_has_the_numbers_of_the_table(name):
    """If this fails: `python docs/pictures/draw.py results`."""
    text = (REPOSITORY / "docs/results.md").read_text()
    table = text[text.index("| features | model | spatial |") :].split("\n\n")[0].replace("*", "")
    expected = {}
    for features, models in ROWS.items():
        part = table[table.index(f"\n| {features} |") :]
        for model in models:
            value = re.search(rf"\| {model} \| ([\d.]+) ", part)
            expected[features, model.split()[0]] = float(value[1])
    drawn = re.findall(
        r"(\w+) from (\w+): ([\d.]+)", (REPOSITORY / "docs/pictures" / name).read_text()
    )
    assert {(features, model): float(value) for model, features, value in drawn} == expected
