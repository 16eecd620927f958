"""The picture of spatial blocks: a random and a blocked split of the same places."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from style import Palette, canvas

CELLS = 5


def draw(palette: Palette) -> Figure:
    """Return the picture: clusters of images in cells, split in two ways."""
    rng = np.random.default_rng(3)
    places = np.concatenate(
        [centre + 0.16 * rng.standard_normal((6, 2)) for centre in rng.uniform(0.3, 4.7, (14, 2))]
    ).clip(0.05, CELLS - 0.05)
    cells = places.astype(int)
    random = rng.random(len(places)) < 0.25
    held_out = {(0, 1), (1, 3), (2, 0), (3, 3), (4, 1), (2, 2)}
    blocked = np.array([tuple(cell) in held_out for cell in cells])
    figure, axes = canvas(9.2, 4.6, palette)
    for left, queries, title in (
        (0.4, random, "random split: the answer is next door"),
        (5.0, blocked, "spatial blocks: a cell is on one side"),
    ):
        scale = 3.75 / CELLS
        axes.text(
            left + 1.87, 4.38, title, ha="center", va="center", fontsize=11, color=palette.ink
        )
        for x in range(CELLS):
            for y in range(CELLS):
                corner = (left + scale * x, 0.42 + scale * y)
                shaded = queries is blocked and (x, y) in held_out
                face = palette.faint if shaded else palette.page
                style = {"facecolor": face, "edgecolor": palette.faint, "lw": 1}
                axes.add_patch(Rectangle(corner, scale, scale, **style))
        for chosen, colour, marker in (
            (~queries, palette.image, "o"),
            (queries, palette.metadata, "^"),
        ):
            x, y = (places[chosen] * scale + (left, 0.42)).T
            edge = {"edgecolor": palette.page, "linewidth": 0.6, "zorder": 3}
            axes.scatter(x, y, s=34, c=colour, marker=marker, **edge)
    for x, colour, marker, text in (
        (2.6, palette.image, "o", "image with a known label"),
        (5.4, palette.metadata, "^", "image to be classified"),
    ):
        axes.scatter([x], [0.2], s=40, c=colour, marker=marker)
        axes.text(x + 0.14, 0.2, text, va="center", fontsize=10, color=palette.ink)
    return figure
