"""The picture of results: kNN accuracy on EuroSAT, as docs/results.md has it."""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.figure import Figure
from style import Palette

RESULTS = Path(__file__).parents[1] / "results.md"
MODELS = {
    "untrained encoder": "untrained",
    "SimCLR": "SimCLR",
    "SatMIP": "SatMIP",
    "SatMIPS": "SatMIPS",
}
FEATURES = ("image", "metadata", "both")
SPLIT = "spatial"
HEAD = "| features | model |"  # of the table


def read_table(text: str) -> dict[tuple[str, str], float]:
    """Return (features, model) -> accuracy on the spatial split, of the first table of results.

    Raises:
        ValueError: the table is not as expected.
    """
    rows = text[text.index(HEAD) :].split("\n\n", 1)[0].splitlines()
    cells = [[cell.strip(" *") for cell in row.strip("|").split("|")] for row in rows]
    column, features, values = cells[0].index(SPLIT), "", {}
    for row in cells[2:]:
        features = row[0] or features
        model = MODELS.get(re.sub("encoders$", "encoder", row[1]))
        if model:
            values[features, model] = float(row[column])
    missing = {(f, m) for f in FEATURES for m in MODELS.values()} - values.keys()
    missing -= {("metadata", "SimCLR"), ("both", "SimCLR")}  # it has no metadata encoder
    if missing:
        raise ValueError(f"{RESULTS} has no {sorted(missing)}")
    return values


def describe() -> str:
    """Return the numbers of the picture in words; they are in the file, and a test reads them."""
    return "; ".join(
        f"{model} from {features}: {value:.1f}"
        for (features, model), value in read_table(RESULTS.read_text()).items()
    )


def draw(palette: Palette) -> Figure:
    """Return the picture: a group of bars per kind of features."""
    values = read_table(RESULTS.read_text())
    figure = Figure(figsize=(9.2, 4.3), facecolor=palette.page, layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor(palette.page)
    colours = dict(
        zip(
            MODELS.values(),
            (palette.grey, palette.image, palette.metadata, palette.loss),
            strict=True,
        )
    )
    ticks, x = [], 0.0
    for features in FEATURES:
        shown = [model for model in MODELS.values() if (features, model) in values]
        ticks.append(x + (len(shown) - 1) / 2)
        for model in shown:
            value = values[features, model]
            axes.bar(x, value, width=0.86, color=colours[model], zorder=2)
            style = {"ha": "center", "color": palette.ink, "fontsize": 10.5, "zorder": 3}
            weight = "bold" if model == "SatMIPS" else "normal"
            axes.text(x, value + 1, f"{value:.1f}", weight=weight, **style)
            x += 1
        x += 0.9
    labels = ["image", "metadata alone", "image and metadata"]
    axes.set_xticks(ticks, labels, fontsize=11.5, color=palette.ink)
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("kNN accuracy, percent", fontsize=11, color=palette.ink)
    axes.tick_params(colors=palette.ink, length=0)
    axes.grid(axis="y", color=palette.faint, lw=0.7, zorder=0)
    axes.spines[:].set_visible(False)
    handles = [axes.bar(0, 0, color=colour, label=model) for model, colour in colours.items()]
    axes.legend(
        handles=handles,
        ncols=4,
        loc="upper center",
        frameon=False,
        fontsize=10.5,
        labelcolor=palette.ink,
        bbox_to_anchor=(0.5, 1.02),
    )
    axes.set_title(
        "EuroSAT, pretrained and scored on the same data set (in-domain): 100,000 images,\n"
        "split by 1-degree cells, one seed, 95 % interval about 1.3 points",
        fontsize=10.5, color=palette.ink, pad=10,
    )  # fmt: skip
    return figure
