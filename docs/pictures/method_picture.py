"""The picture of the method: SatMIPS on one synthetic scene."""

from __future__ import annotations

import functools
import io
import tempfile

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from style import Palette, arrow, box, canvas

from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.record import Problems
from satmip_jax.sources.registry import open_source

SCENE = 4  # of the synthetic train split
VIEWS = ((0.06, 0.10, 0.52), (0.40, 0.34, 0.54))  # left, top, side; fractions of the image


@functools.cache
def read_scene() -> tuple[np.ndarray, dict[str, object]]:
    """Return the pixels and the metadata of one synthetic scene."""
    with tempfile.TemporaryDirectory() as folder:
        source = open_source("synthetic", [folder], train=SCENE + 1, val=1, size=256, seed=0)
        refs = [ref for ref in source.refs() if ref.split == "train"]
        example = source.read(refs[SCENE], Problems())
    with Image.open(io.BytesIO(example.image)) as image:
        side = min(image.size)
        square = image.convert("RGB").crop((0, 0, side, side)).resize((192, 192))
    return np.asarray(square), example.metadata.to_json()


def value_texts(metadata: dict[str, object]) -> list[tuple[str, str]]:
    """Return (name, value) of each field."""

    def text(value: object) -> str:
        if value is None:
            return "missing"
        if isinstance(value, list):
            return ", ".join(f"{number:.4g}" for number in value)
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return [(field.name.replace("_", " "), text(metadata.get(field.name))) for field in FIELDS]


def draw(palette: Palette) -> Figure:
    """Return the picture."""
    figure, axes = canvas(12.6, 5.2, palette)
    pixels, metadata = read_scene()
    _draw_image(axes, pixels, palette)
    _draw_record(axes, metadata, palette)
    box(
        axes, (5.35, 2.4), (1.7, 2.3), "image encoder\n\nViT\n(one, shared)", palette.image, palette
    )
    size = (1.7, 1.2)
    text = "metadata encoder\nFT-Transformer\nor text"
    box(axes, (5.35, 0.5), size, text, palette.metadata, palette)
    arrow(axes, (3.1, 1.1), (5.29, 1.1), palette.metadata)
    axes.text(
        *(3.9, 1.42),
        "the crop is followed:\ngsd, pixel size, location",
        fontsize=8.6,
        color=palette.ink,
        style="italic",
    )
    arrow(axes, (3.72, 2.3), (3.72, 1.15), palette.loss)
    _draw_losses(axes, palette)
    return figure


def _picture(
    axes: Axes, image: np.ndarray, corner: tuple[float, float], side: float, edge: str
) -> None:
    left, bottom = corner
    axes.imshow(image, extent=(left, left + side, bottom, bottom + side), zorder=2)
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=edge, lw=1.8, zorder=3))


def _draw_image(axes: Axes, pixels: np.ndarray, palette: Palette) -> None:
    """Draw the image and its two views; the second is shared with the metadata."""
    side = len(pixels)
    _picture(axes, pixels, (0.1, 2.65), 2.1, palette.ink)
    title = {"ha": "center", "va": "top", "fontsize": 10.5, "color": palette.ink}
    axes.text(1.15, 5.07, "image", **title)
    axes.text(3.72, 5.07, "two augmented views", **title)
    for number, ((x, y, size), bottom) in enumerate(zip(VIEWS, (3.65, 2.4), strict=True)):
        colour = (palette.image, palette.loss)[number]
        corner = (0.1 + 2.1 * x, 2.65 + 2.1 * (1 - y - size))
        frame = {"fill": False, "edgecolor": colour, "lw": 2, "zorder": 4}
        axes.add_patch(Rectangle(corner, 2.1 * size, 2.1 * size, **frame))
        first, top = int(x * side), int(y * side)
        view = pixels[top : top + int(size * side), first : first + int(size * side)]
        view = view[:, ::-1] if number == 0 else view
        _picture(axes, view, (3.2, bottom), 1.05, colour)
        arrow(axes, (2.26, bottom + 0.52), (3.14, bottom + 0.52), colour)
        arrow(axes, (4.31, bottom + 0.52), (5.29, bottom + 0.52), colour)


def _draw_record(axes: Axes, metadata: dict[str, object], palette: Palette) -> None:
    """Draw the metadata, a line per field."""
    title = "metadata: 15 fields, any of them may be missing"
    axes.text(0.1, 2.33, title, fontsize=8.8, color=palette.ink)
    for row, (name, value) in enumerate(value_texts(metadata)):
        y = 2.15 - 0.145 * row
        colour = palette.grey if value == "missing" else palette.ink
        axes.text(0.12, y, name, fontsize=7.2, color=colour, va="center")
        axes.text(1.55, y, value, fontsize=7.0, color=colour, va="center", family="monospace")


def _draw_losses(axes: Axes, palette: Palette) -> None:
    """Draw the projectors and both losses over the global batch."""
    image, metadata, loss = palette.image, palette.metadata, palette.loss
    box(axes, (7.85, 3.65), (1.3, 0.95), "projector\nMLP", image, palette, filled=False)
    box(axes, (7.85, 2.2), (1.3, 0.9), "projector\nlinear", image, palette, filled=False)
    box(axes, (7.85, 0.65), (1.3, 0.9), "projector\nlinear", metadata, palette, filled=False)
    arrow(axes, (7.11, 4.12), (7.79, 4.12), image)
    arrow(axes, (7.11, 2.65), (7.79, 2.65), loss)
    arrow(axes, (7.11, 1.1), (7.79, 1.1), metadata)
    small = {"ha": "center", "fontsize": 8.4, "color": palette.ink}
    axes.text(7.42, 4.22, "both", **small)
    axes.text(7.42, 2.75, "one", **small)
    box(axes, (9.9, 3.5), (2.6, 1.25), "SimCLR: NT-Xent\nview against view", loss, palette)
    box(axes, (9.9, 1.15), (2.6, 1.4), "SatMIP: InfoNCE\nimage against metadata", loss, palette)
    arrow(axes, (9.21, 4.12), (9.84, 4.12), image)
    arrow(axes, (9.21, 2.65), (9.84, 2.15), loss)
    arrow(axes, (9.21, 1.1), (9.84, 1.55), metadata)
    middle = {"ha": "center", "va": "center"}
    axes.text(11.2, 3.02, "+   (the sum: SatMIPS)", fontsize=12, color=palette.ink, **middle)
    text = "negatives: the global batch,\nacross all devices"
    axes.text(11.2, 0.72, text, fontsize=9, color=palette.grey, **middle)
