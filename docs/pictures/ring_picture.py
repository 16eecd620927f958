"""The picture of the ring exchange: what four devices hold and score on each hop."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from style import Palette, arrow, canvas

DEVICES = 4
CELL = 0.3


def draw(palette: Palette) -> Figure:
    """Return the picture: the matrix of all scores, a block per device and hop."""
    figure, axes = canvas(12.6, 3.25, palette)
    middle = {"ha": "center", "va": "center"}
    for hop in range(DEVICES):
        left, bottom = 0.75 + 3.0 * hop, 0.62
        width = 4 * 1.6 * CELL
        title = "own columns" if hop == 0 else f"hop {hop}"
        axes.text(left + width / 2, 2.98, title, fontsize=11, color=palette.ink, **middle)
        for row in range(DEVICES):
            y = bottom + (DEVICES - 1 - row) * 1.6 * CELL
            if hop == 0:
                text = f"device {row}"
                axes.text(left - 0.07, y + 0.8 * CELL, text, fontsize=8, color=palette.ink,
                          ha="right", va="center")  # fmt: skip
            for column in range(DEVICES):
                x = left + column * 1.6 * CELL
                now = (row + hop) % DEVICES == column
                done = (column - row) % DEVICES < hop
                face = palette.loss if now else palette.faint if done else palette.page
                size = 1.6 * CELL - 0.04
                style = {"facecolor": face, "edgecolor": palette.grey, "lw": 0.8}
                axes.add_patch(Rectangle((x, y), size, size, **style))
                if now:
                    text = f"{row}·{column}"
                    at = (x + size / 2, y + size / 2)
                    axes.text(*at, text, fontsize=9, color=palette.on_box, **middle)
        if hop < DEVICES - 1:
            y = bottom + 2 * 1.6 * CELL
            arrow(axes, (left + width + 0.1, y), (left + 2.85, y), palette.image)
            axes.text(left + width + 0.48, y + 0.2, "columns\ntravel", fontsize=8,
                      color=palette.ink, ha="center", va="bottom")  # fmt: skip
    text = (
        "A square: the scores of a device's rows against the columns of one device. Dark: computed "
        "now, tile by tile; grey: done, only the sums are kept."
    )
    axes.text(6.3, 0.24, text, fontsize=9.5, color=palette.ink, **middle)
    return figure
