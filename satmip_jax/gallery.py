"""A page of pictures of a run: samples, loss curve, scores, retrieval of metadata by images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from satmip_jax import images, parallel
from satmip_jax.checkpoint import Checkpoints
from satmip_jax.evaluation.evaluate import load_model
from satmip_jax.evaluation.features import extract, unit
from satmip_jax.evaluation.results import Row
from satmip_jax.logbook import read_rows
from satmip_jax.metadata import caption
from satmip_jax.metadata.record import Metadata
from satmip_jax.shards import ShardDataset

SAMPLES, QUERIES, FOUND = 12, 8, 3


def write_page(folder: Path, run: Path, dataset: ShardDataset, rows: Sequence[Row]) -> Path:
    """Write `index.html` and its pictures; return its path.

    Args:
        folder: where to; made if need be.
        run: workdir of the training.
        dataset: split whose examples are shown.
        rows: scores to be tabled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.unique(np.linspace(0, len(dataset) - 1, SAMPLES).astype(int))
    _samples(folder / "samples.png", dataset, numbers)
    _curves(folder / "loss.png", run)
    found = _retrieve(run, dataset)
    if found is not None:
        _retrieval(folder / "retrieval.png", dataset, *found)
    page = _PAGE.render(
        title=f"{dataset.schema.name}: {run.name}",
        rows=[row for row in rows if row.protocol == "knn5"],
        retrieval=found is not None,
        classes=len(dataset.schema.classes),
        median_rank=None if found is None else int(np.median(found[2])),
        candidates=len(dataset),
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def lines(metadata: Metadata) -> list[str]:
    """What is known of an image, a line per field."""
    text = caption.fragments([metadata])[0]
    return [bytes(row).rstrip(b"\0; ").decode("ascii") for row in text if row.any()]


def _name(example: dict, dataset: ShardDataset) -> str:
    label = example["label"]
    return dataset.schema.classes[label].replace("_", " ") if label >= 0 else "no label"


def _show(axis: Axes, example: dict, dataset: ShardDataset, title: str, colour: str) -> None:
    """An image with what is known of it at its right."""
    axis.imshow(images.decode_square(example["image"], dataset.schema.image_size))
    axis.set_title(title, fontsize=9, color=colour, loc="left")
    axis.axis("off")
    text = "\n".join(lines(example["metadata"]))
    axis.text(1.04, 1, text, fontsize=6.5, va="top", color=colour, transform=axis.transAxes)


def _grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(rows, columns, figsize=(3.8 * columns, 2.1 * rows), squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.86, bottom=0.01, top=0.96, wspace=1.1, hspace=0.15)
    for axis in axes.flat:
        axis.axis("off")
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _samples(path: Path, dataset: ShardDataset, numbers: np.ndarray) -> None:
    figure, axes = _grid(-(-len(numbers) // 4), 4)
    for axis, number in zip(axes.flat, numbers, strict=False):
        example = dataset[int(number)]
        _show(axis, example, dataset, _name(example, dataset), "#222222")
    _save(figure, path)


def _curves(path: Path, run: Path) -> None:
    rows = read_rows(run / "metrics.jsonl")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    for axis, ending, title in (
        (left, "loss", "loss"),
        (right, "accuracy", "partner found among the batch"),
    ):
        for name in sorted({key for row in rows for key in row if key.endswith(ending)}):
            points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            axis.plot(*zip(*points, strict=True), label=name.replace("_", " "))
        axis.set_xlabel("step")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _retrieve(run: Path, dataset: ShardDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Query numbers, the metadata found for each, and the rank of each image's own metadata."""
    with Checkpoints(run, read_only=True) as checkpoints:
        config, schema = checkpoints.run()
        mesh = parallel.make_mesh()
        towers, state = load_model(checkpoints, config, schema, mesh)
    if not towers.has_metadata:
        return None
    features = extract(config, towers, state.params, schema, dataset, mesh)
    embedded = [
        unit(
            np.asarray(
                towers.apply({"params": state.params}, kind, features.by_kind[kind], method="head")
            )
        )
        for kind in ("image", "metadata")
    ]
    scores = embedded[0] @ embedded[1].T  # (n, d) . (n, d) -> (n, n)
    order = np.argsort(-scores, axis=1)
    ranks = 1 + np.argmax(order == np.arange(len(order))[:, None], axis=1)
    queries = np.unique(np.linspace(0, len(dataset) - 1, QUERIES).astype(int))
    return queries, order[queries, :FOUND], ranks


def _retrieval(
    path: Path, dataset: ShardDataset, queries: np.ndarray, found: np.ndarray, ranks: np.ndarray
) -> None:
    figure, axes = _grid(len(queries), 1 + found.shape[1])
    for row, query, matches in zip(axes, queries, found, strict=True):
        example = dataset[int(query)]
        row[0].imshow(images.decode_square(example["image"], dataset.schema.image_size))
        title = f"{_name(example, dataset)}; own at rank {ranks[query]}"
        row[0].set_title(title, fontsize=9, loc="left")
        for axis, match in zip(row[1:], matches, strict=True):
            own = match == query
            colour, title = ("#0a7d33", "its own") if own else ("#444444", "of another image")
            _show(axis, dataset[int(match)], dataset, title, colour)
    _save(figure, path)


_PAGE = jinja2.Environment(autoescape=True).from_string(
    """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem;
       color: #222 }
img { width: 100% } h2 { margin-top: 2.5rem }
table { border-collapse: collapse } td, th { padding: .3rem .9rem; text-align: left }
tr:nth-child(even) { background: #f3f5f7 } td.value { text-align: right }
</style>
<h1>{{ title }}</h1>
<p>Images and their metadata, aligned by a contrastive loss. Chance over {{ classes }} classes is
{{ "%.1f"|format(100 / classes) }} % where they are equally frequent.</p>
<h2>Scores: kNN, k = 5, cosine</h2>
<table><tr><th>model<th>features<th>metric<th>value<th>n</tr>
{% for row in rows %}<tr><td>{{ row.model }}<td>{{ row.features }}<td>{{ row.metric }}
<td class="value">{{ "%.1f"|format(100 * row.value) }}<td class="value">{{ row.n }}</tr>
{% endfor %}</table>
<h2>Training</h2><img src="loss.png" alt="loss and accuracy over the steps">
<h2>Images with their metadata</h2><img src="samples.png" alt="samples">
{% if retrieval %}<h2>Which metadata belongs to this image?</h2>
<p>For an image, the {{ candidates }} metadata records of this split in order of similarity; the
best three are shown, the image's own in green. Median rank of the own one: {{ median_rank }};
by chance {{ candidates // 2 }}.</p>
<img src="retrieval.png" alt="image to metadata retrieval">{% endif %}
</html>
"""
)
