"""Images and metadata that find each other: recall among the queries, and examples of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from satmip_jax.metadata import caption, tabular
from satmip_jax.metadata.fields import select_fields
from satmip_jax.metadata.record import Metadata
from satmip_jax.report.embeddings import Encoded
from satmip_jax.report.neighbours import NEIGHBOURS, Shown, choose_queries, show

SHOWN, FOUND = 4, 3  # queries, and records beside each


@dataclass(frozen=True)
class Recall:
    """How well one kind finds its partner among n of the other.

    Attributes:
        at: k -> share of partners among the k most similar; beside it that of chance.
        median: rank of the partner, from 1; beside it that of chance.
    """

    direction: str
    at: dict[int, tuple[float, float]]
    median: tuple[float, float]


@dataclass(frozen=True)
class Match:
    """A query and what was found for it, as the page shows it.

    Attributes:
        image: the query's own image.
        lines: the query's own metadata.
        rank: of its partner, from 1.
        records: (lines, mark, class) of the metadata found for the image.
        images: those found for the metadata.
    """

    image: Shown
    lines: Sequence[str]
    rank: int
    records: Sequence[tuple[Sequence[str], str, str]] = ()
    images: Sequence[Shown] = ()


@dataclass(frozen=True)
class Retrieval:
    """Which metadata belongs to this image, and the other way round."""

    candidates: int
    recalls: Sequence[Recall]
    by_image: Sequence[Match]
    by_metadata: Sequence[Match]


def ranks(scores: np.ndarray) -> np.ndarray:
    """The rank from 1 of each row's own column in a square of similarities (n, n).

    Columns that are as similar as the own one count half: identical records are found in any order.
    """
    own = np.diagonal(scores)[:, None]
    ties = (scores == own).sum(axis=1) - 1
    return 1 + (scores > own).sum(axis=1) + ties / 2


def recall(direction: str, ranks: np.ndarray) -> Recall:
    """Recall at 1, 5 and 10 and the median rank of n partners, beside those of chance."""
    n = len(ranks)
    at = {k: (float(np.mean(ranks <= k)), min(k / n, 1.0)) for k in (1, 5, 10)}
    return Recall(direction, at, (float(np.median(ranks)), (n + 1) / 2))


def retrieval(encoded: Encoded) -> Retrieval | None:
    """Images and their metadata found by each other among the queries; None without metadata."""
    if encoded.embedded is None:
        return None
    queries = encoded.queries
    image, metadata = encoded.embedded
    scores = image @ metadata.T  # (n, d) . (n, d) -> (n, n)
    records = [queries.dataset[int(number)]["metadata"] for number in queries.numbers]
    texts = varying_lines(records, encoded.config.metadata.fields)
    rows = choose_queries(queries.features.labels, SHOWN)
    by_image, by_metadata = [], []
    places = ranks(scores), ranks(scores.T)
    for row in rows:
        found = np.argsort(-scores[row], kind="stable")[:FOUND]
        match = Match(
            show(queries, row, queries.label(row)),
            texts[row],
            int(np.ceil(places[0][row])),
            records=[(texts[i], "own" if i == row else "other", queries.label(i)) for i in found],
        )
        by_image.append(match)
        found = np.argsort(-scores[:, row], kind="stable")[:NEIGHBOURS]
        pictures = [show(queries, i, queries.label(i), "own" if i == row else "") for i in found]
        by_metadata.append(
            Match(match.image, texts[row], int(np.ceil(places[1][row])), images=pictures)
        )
    recalls = [
        recall("image → metadata", places[0]),
        recall("metadata → image", places[1]),
    ]
    return Retrieval(len(scores), recalls, by_image, by_metadata)


def varying_lines(records: Sequence[Metadata], fields: str) -> list[list[str]]:
    """What is known of each image, a line per field; what all have in common is left out."""
    index = tabular.field_index()
    chosen = [index[field.name] for field in select_fields(fields)]
    phrases = caption.fragments(records)[:, chosen]  # (n, fields, bytes)
    varies = (phrases != phrases[:1]).any(axis=(0, 2))
    return [
        [bytes(phrase).rstrip(b"\0; ").decode("ascii") for phrase in row[varies] if phrase.any()]
        for row in phrases
    ]
