"""Images of the validation split and those of the train split that are nearest to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from satmip_jax.data import images
from satmip_jax.evaluation.knn import nearest
from satmip_jax.report.embeddings import Encoded, Sample
from satmip_jax.report.figures import data_uri

SHOWN, NEIGHBOURS = 8, 6  # queries, and images beside each
THUMBNAIL = 128  # pixels; smaller squares are shown as they are stored


@dataclass(frozen=True)
class Shown:
    """An image as the page shows it.

    Attributes:
        src: data URI of a small picture.
        label: under it.
        mark: "right", "wrong", "own", "other" or "".
        note: small, beside the label.
    """

    src: str
    label: str
    mark: str = ""
    note: str = ""


def choose_queries(labels: np.ndarray, count: int = SHOWN, seed: int = 0) -> np.ndarray:
    """Rows to be shown, drawn at random: of different classes as far as there are so many.

    Example:
        >>> len(set(labels[choose_queries(labels)]))  # ten classes, say
        8
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    seen: dict[int, int] = {}  # class -> how often it was met
    turns = []
    for row in order:
        turns.append(seen.get(int(labels[row]), 0))
        seen[int(labels[row])] = turns[-1] + 1
    return order[np.argsort(turns, kind="stable")][:count]


def neighbours(encoded: Encoded) -> list[tuple[Shown, list[Shown]]]:
    """Queries, each with the images of the bank nearest to it."""
    bank, queries = encoded.bank, encoded.queries
    rows = choose_queries(queries.features.labels)
    count = min(NEIGHBOURS, len(bank.numbers))
    cosine, found = map(np.asarray, nearest(encoded.standard[0], encoded.standard[1][rows], count))
    shown = []
    for place, row in enumerate(rows):
        truth = queries.features.labels[row]
        near = []
        for score, match in zip(cosine[place], found[place], strict=True):
            label = bank.features.labels[match]
            mark = "" if min(truth, label) < 0 else "right" if truth == label else "wrong"
            near.append(show(bank, match, bank.label(match), mark, f"{score:.2f}"))
        shown.append((show(queries, row, queries.label(row)), near))
    return shown


def show(part: Sample, row: int, label: str, mark: str = "", note: str = "") -> Shown:
    """The small picture of a row, JPEG."""
    data = part.dataset[int(part.numbers[row])]["image"]
    size = part.dataset.schema.image_size
    if size > THUMBNAIL:
        data = images.make_square(data, THUMBNAIL, quality=85).data
    else:
        images.decode_square(data, size)  # refuses what is no such image
    return Shown(data_uri(data, "image/jpeg"), label, mark, note)
