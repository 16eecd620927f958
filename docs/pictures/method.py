"""Draw docs/pictures/method.png: SatMIPS on one synthetic scene.

python docs/pictures/method.py
"""

import io
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from satmip_jax.metadata.record import Problems
from satmip_jax.sources.registry import open_source

SCENE = 4  # of the synthetic train split: an airport with two missing fields
VIEWS = ((0.06, 0.10, 0.52), (0.40, 0.34, 0.54))  # left, top, side; fractions of the image
INK, GREY, IMAGE, METADATA, LOSS = "#1f2933", "#7b8794", "#2a6f97", "#b5651d", "#5b3a8e"


def read_scene() -> tuple[np.ndarray, dict[str, object]]:
    """Return the pixels and the metadata of one synthetic scene."""
    with tempfile.TemporaryDirectory() as folder:
        source = open_source("synthetic", [folder], train=SCENE + 1, val=1, size=256, seed=0)
        refs = [ref for ref in source.refs() if ref.split == "train"]
        example = source.read(refs[SCENE], Problems())
    with Image.open(io.BytesIO(example.image)) as image:
        side = min(image.size)
        pixels = np.asarray(image.convert("RGB"))[:side, :side]
    return pixels, example.metadata.to_json()


def lines_of(metadata: dict[str, object]) -> list[tuple[str, str]]:
    """Return (name, value) of each field to show; missing ones are dashes."""
    from satmip_jax.metadata.fields import FIELDS

    def text(value: object) -> str:
        if value is None:
            return "missing"
        if isinstance(value, list):
            return ", ".join(f"{number:.4g}" for number in value)
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return [(field.name.replace("_", " "), text(metadata.get(field.name))) for field in FIELDS]


def box(axes, x, y, width, height, text, colour, *, filled=True, size=9.5):
    """Draw a rounded box with centred text."""
    style = {"facecolor": colour if filled else "white", "edgecolor": colour, "linewidth": 1.4}
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.09", **style)
    )
    axes.text(
        x + width / 2,
        y + height / 2,
        text,
        ha="center",
        va="center",
        color="white" if filled else colour,
        fontsize=size,
        linespacing=1.35,
    )


def arrow(axes, start, end, colour=INK, bend=0.0):
    """Draw an arrow between two points."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            linewidth=1.3,
            color=colour,
            shrinkA=0,
            shrinkB=0,
            connectionstyle=f"arc3,rad={bend}",
        )
    )


def draw() -> plt.Figure:
    """Return the figure."""
    pixels, metadata = read_scene()
    side = len(pixels)
    figure, axes = plt.subplots(figsize=(12.6, 4.95), dpi=130)
    axes.set(xlim=(0, 12.6), ylim=(0, 4.95), aspect="equal")
    axes.axis("off")

    def picture(image, left, bottom, size, edge=INK):
        axes.imshow(image, extent=(left, left + size, bottom, bottom + size), zorder=2)
        axes.add_patch(
            Rectangle((left, bottom), size, size, fill=False, edgecolor=edge, lw=1.6, zorder=3)
        )

    # the image and its metadata
    picture(pixels, 0.1, 2.45, 2.1)
    axes.text(1.15, 4.86, "image", ha="center", va="top", fontsize=10, color=INK)
    axes.text(0.1, 2.18, "metadata: 15 fields, any of them may be missing", fontsize=8.5, color=INK)
    for row, (name, value) in enumerate(lines_of(metadata)):
        y = 1.98 - 0.136 * row
        colour = GREY if value == "missing" else INK
        axes.text(0.12, y, name, fontsize=6.6, color=colour, va="center")
        axes.text(1.42, y, value, fontsize=6.6, color=colour, va="center", family="monospace")

    # two views; the second is shared with the metadata
    for number, ((x, y, size), bottom) in enumerate(zip(VIEWS, (3.45, 2.25), strict=True)):
        colour = IMAGE if number == 0 else LOSS
        edge = Rectangle(
            (0.1 + 2.1 * x, 2.45 + 2.1 * (1 - y - size)),
            2.1 * size,
            2.1 * size,
            fill=False,
            edgecolor=colour,
            lw=1.8,
            zorder=4,
        )
        axes.add_patch(edge)
        first, top = int(x * side), int(y * side)
        view = pixels[top : top + int(size * side), first : first + int(size * side)]
        view = view[:, ::-1] if number == 0 else view
        picture(view, 3.2, bottom, 1.05, colour)
        arrow(axes, (2.26, bottom + 0.52), (3.14, bottom + 0.52), colour)
        arrow(axes, (4.31, bottom + 0.52), (5.29, bottom + 0.52), colour)
    axes.text(3.72, 4.86, "two augmented views", ha="center", va="top", fontsize=9, color=INK)

    # encoders and projectors
    box(axes, 5.35, 2.25, 1.6, 2.25, "image encoder\n\nViT\n(one, shared)", IMAGE)
    box(axes, 5.35, 0.45, 1.6, 1.1, "metadata encoder\nFT-Transformer\nor text", METADATA)
    arrow(axes, (3.0, 1.0), (5.29, 1.0), METADATA)
    axes.text(
        3.82,
        1.55,
        "the crop is followed:\ngsd, pixel size, location",
        ha="left",
        fontsize=7.6,
        color=METADATA,
        style="italic",
    )
    arrow(axes, (3.72, 2.2), (3.72, 1.04), LOSS)
    box(axes, 7.75, 3.5, 1.3, 0.95, "projector\nMLP", IMAGE, filled=False)
    box(axes, 7.75, 2.05, 1.3, 0.85, "projector\nlinear", IMAGE, filled=False)
    box(axes, 7.75, 0.55, 1.3, 0.85, "projector\nlinear", METADATA, filled=False)
    arrow(axes, (7.01, 3.97), (7.69, 3.97), IMAGE)
    arrow(axes, (7.01, 2.48), (7.69, 2.48), LOSS)
    arrow(axes, (7.01, 0.98), (7.69, 0.98), METADATA)
    axes.text(7.3, 4.07, "both", ha="center", fontsize=7.4, color=IMAGE)
    axes.text(7.3, 2.58, "one", ha="center", fontsize=7.4, color=LOSS)

    # losses over the global batch
    box(
        axes,
        9.85,
        3.38,
        2.65,
        1.2,
        "SimCLR: NT-Xent\nview against view",
        LOSS,
    )
    box(axes, 9.85, 1.05, 2.65, 1.35, "SatMIP: InfoNCE\nimage against metadata", LOSS)
    arrow(axes, (9.11, 3.97), (9.79, 3.97), IMAGE)
    arrow(axes, (9.11, 2.48), (9.79, 2.0), LOSS)
    arrow(axes, (9.11, 0.98), (9.79, 1.4), METADATA)
    axes.text(11.17, 2.88, "+   SatMIPS", ha="center", va="center", fontsize=12, color=LOSS)
    axes.text(
        11.17,
        0.62,
        "negatives: the global batch,\nacross all devices",
        ha="center",
        va="center",
        fontsize=8,
        color=GREY,
    )
    figure.subplots_adjust(0, 0, 1, 1)
    return figure


if __name__ == "__main__":
    draw().savefig(Path(__file__).with_suffix(".png"), facecolor="white")
