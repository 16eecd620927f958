"""Results of a search as one self-contained page of thumbnails.

The file of embeddings, which may be untrusted, names the images. They are read like those of
`satmip prepare`: regular files of a bounded size, decoded within a bound on their pixels; nothing
is downloaded. An image that cannot be read has a placeholder, and is counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satmip_jax.data import images
from satmip_jax.data.headers import read_header
from satmip_jax.data.image_errors import ImageError
from satmip_jax.data.rendering import Rendering
from satmip_jax.data.tiff_tiles import Window
from satmip_jax.inference.image_input import read_image
from satmip_jax.inference.search.output import other_fields, place, plain, summary, text
from satmip_jax.inference.search.run import Hit, Results, rendering_of
from satmip_jax.report.figures import data_uri
from satmip_jax.report.neighbours import THUMBNAIL_SIZE
from satmip_jax.report.page import write_page
from satmip_jax.report.section import Part, Section
from satmip_jax.runtime.files import FileContentError
from satmip_jax.runtime.paths import AnyPath, as_path, is_remote
from satmip_jax.sources.archives import Archives
from satmip_jax.sources.base import UnreadableExample
from satmip_jax.sources.tiled_images import read_image as read_source_image

MAX_HITS = 500  # with a picture on the page


@dataclass(frozen=True)
class Picture:
    """An image of the query or of a row, as the page shows it.

    Attributes:
        src: data URI of the thumbnail; "" if the image cannot be read.
        title: line below it.
        lines: further lines.
    """

    src: str
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchReport:
    """Content of the page.

    Attributes:
        query: query images.
        terms: what is sought, and the filters, in words.
        hits: rows that were found.
        missing: number of images that cannot be read.
        left_out: number of rows that were found and are not shown.
    """

    query: list[Picture]
    terms: list[str]
    hits: list[Picture]
    missing: int
    left_out: int


def write_search_page(results: Results, out: str | os.PathLike[str]) -> AnyPath:
    """Write the query and the rows that were found as one HTML file; return its path.

    Args:
        results: of `search`.
        out: path of the file, on a disk or in a bucket; its folder is made if needed.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> from satmip_jax.inference.search.run import search
        >>> from satmip_jax.inference.search.page import write_search_page
        >>> write_search_page(search(embeddings_file, ids=["scene-3"], count=2), "page.html").name
        'page.html'
    """
    rendering = rendering_of(results.table)
    given = [_given(image, rendering) for image in results.images]
    given += [
        Picture(_of_row(row, rendering), plain(row["id"]), _details(row, []))
        for row in results.rows
    ]
    names = other_fields(results)
    found = [_found(hit, rendering, names) for hit in results.hits[:MAX_HITS]]
    report = SearchReport(
        given,
        [f"sought: {plain(str(term))}" for term in results.sought]
        + [f"filter: {plain(term)}" for term in results.filters],
        found,
        sum(not picture.src for picture in (*given, *found)),
        max(len(results.hits) - MAX_HITS, 0),
    )
    info = results.table.info
    step = "" if info["step"] is None else f", step {info['step']:,}"
    facts = [
        ("embeddings", plain(results.table.path.name)),
        ("model", plain(info["model"] + step)),
        ("rows", f"{results.table.count:,}"),
    ]
    lead = summary(results) + "."
    return write_page(
        as_path(out),
        "Search",
        [Section("Search", lead, facts, [Part("Results", "search", report)])],
    )


def _found(hit: Hit, rendering: Rendering, names: list[str]) -> Picture:
    scores = [("image", hit.image), ("metadata", hit.metadata)]
    both = all(score is not None for _, score in scores)
    details = [f"{name} {score:.2f}" for name, score in scores if both and score is not None]
    label = f" {plain(hit.values['label'], 40)}" if hit.values["label"] else ""
    return Picture(
        _of_row(hit.values, rendering),
        f"{hit.rank}.{label} ({hit.score:.2f})",
        (*details, *_details(hit.values, names), plain(hit.values["id"])),
    )


def _details(values: Mapping[str, Any], names: list[str]) -> tuple[str, ...]:
    """Return place, time and other fields of a row that states them."""
    lines = [place(values), text(values.get("timestamp"))]
    lines += [
        f"{name.replace('_', ' ')} {text(values[name])}"
        for name in names
        if values.get(name) is not None
    ]
    return tuple(line for line in lines if line)


def _given(image: Any, rendering: Rendering) -> Picture:
    """Return a query image, which the model could read."""
    if isinstance(image, str | os.PathLike):
        path = os.path.abspath(os.fspath(image))
        return Picture(_of_file(str(path), None, rendering), plain(Path(path).name))
    try:
        pixels, _ = read_image(image, THUMBNAIL_SIZE)
        return Picture(data_uri(images.encode_png(pixels), "image/png"), "image")
    except (ImageError, FileContentError):
        return Picture("", "image")


def _of_row(row: Mapping[str, Any], rendering: Rendering) -> str:
    corner = [row[name] for name in ("x", "y", "width", "height")]
    known = all(isinstance(number, int) for number in corner)
    inside = known and min(corner[:2]) >= 0 and min(corner[2:]) > 0
    if known and not inside:
        return ""
    return _of_file(row["path"], Window(*corner) if known else None, rendering)


def _of_file(path: str, window: Window | None, rendering: Rendering) -> str:
    """Return the thumbnail of a local image or a tile of it; "" if it cannot be read."""
    if is_remote(path) or "\0" in path:
        return ""
    container, member = _split(path)
    try:
        data = read_source_image(Archives([], ()), container, member, window)[0]
        header = read_header(data)
        size = min(THUMBNAIL_SIZE, max(header.width, header.height))
        square = images.make_square(data, size, quality=85, rendering=rendering)
    except (ImageError, UnreadableExample, OSError, ValueError, OverflowError):
        return ""
    return data_uri(square.data, "image/jpeg")


def _split(path: str) -> tuple[str, str]:
    """Return the folder or zip of an image, and its path in there."""
    if not os.path.exists(path):
        before, separator, member = path.partition(".zip/")
        if separator and os.path.isfile(f"{before}.zip"):
            return f"{before}.zip", member
    folder, name = os.path.split(os.path.abspath(path))
    return folder, name
