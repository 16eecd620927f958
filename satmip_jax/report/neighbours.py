"""Nearest neighbours in the train split of images from the validation split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from satmip_jax.data import images
from satmip_jax.evaluation.knn import nearest
from satmip_jax.report.embeddings import EncodedData, Sample
from satmip_jax.report.figures import data_uri

QUERIES, NEIGHBOURS = 8, 6  # queries shown, and neighbours of each
THUMBNAIL_SIZE = 128  # pixels; smaller images are shown as they are stored


@dataclass(frozen=True)
class Thumbnail:
    """A small image with its caption.

    Attributes:
        src: data URI of the image.
        label: caption.
        mark: "correct", "wrong", "match", "other" or "".
        note: small text beside the caption.
    """

    src: str
    label: str
    mark: str = ""
    note: str = ""


def choose_queries(labels: np.ndarray, count: int = QUERIES, seed: int = 0) -> np.ndarray:
    """Draw rows at random, from as many different classes as possible.

    Args:
        labels: int (n,), class of each row.
        count: number of rows to draw.
        seed: of the random order.

    Example:
        >>> from satmip_jax.report.neighbours import choose_queries
        >>> labels = np.repeat(np.arange(10), 50)
        >>> len(set(labels[choose_queries(labels)]))
        8
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    counts: dict[int, int] = {}  # class -> rows so far
    turns = []
    for row in order:
        turns.append(counts.get(int(labels[row]), 0))
        counts[int(labels[row])] = turns[-1] + 1
    return order[np.argsort(turns, kind="stable")][:count]


def neighbours(encoded: EncodedData) -> list[tuple[Thumbnail, list[Thumbnail]]]:
    """Return queries, each with its nearest neighbours in the bank by cosine similarity."""
    bank, queries = encoded.bank, encoded.queries
    rows = choose_queries(queries.features.labels)
    count = min(NEIGHBOURS, len(bank.indices))
    bank_features, query_features = encoded.standardized
    cosine, matches = map(np.asarray, nearest(bank_features, query_features[rows], count))
    examples = []
    for number, row in enumerate(rows):
        truth = queries.features.labels[row]
        near = []
        for score, match in zip(cosine[number], matches[number], strict=True):
            label = bank.features.labels[match]
            mark = "" if min(truth, label) < 0 else "correct" if truth == label else "wrong"
            near.append(thumbnail(bank, match, bank.class_name(match), mark, f"{score:.2f}"))
        examples.append((thumbnail(queries, row, queries.class_name(row)), near))
    return examples


def thumbnail(sample: Sample, row: int, label: str, mark: str = "", note: str = "") -> Thumbnail:
    """Return the image of a row as a small JPEG, with its caption."""
    data = sample.dataset[int(sample.indices[row])]["image"]
    size = sample.dataset.schema.image_size
    if size > THUMBNAIL_SIZE:
        data = images.make_square(data, THUMBNAIL_SIZE, quality=85).data
    else:
        images.decode_square(data, size)  # raises for bytes that are no such image
    return Thumbnail(data_uri(data, "image/jpeg"), label, mark, note)
