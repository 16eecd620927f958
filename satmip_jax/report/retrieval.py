"""Retrieval between images and metadata: recall among the queries, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from satmip_jax.metadata import caption, tabular
from satmip_jax.metadata.fields import Field
from satmip_jax.metadata.record import Metadata
from satmip_jax.report.embeddings import EncodedData
from satmip_jax.report.neighbours import NEIGHBOURS, Thumbnail, choose_queries, thumbnail

QUERIES, RECORDS = 4, 3  # queries shown, and metadata records retrieved for each


@dataclass(frozen=True)
class Recall:
    """Quality of retrieval in one direction, among n candidates.

    Attributes:
        direction: such as "image → metadata".
        at: k -> (recall at k, that of chance).
        median: (median rank of the true candidate, that of chance); ranks start at 1.
    """

    direction: str
    at: dict[int, tuple[float, float]]
    median: tuple[float, float]


@dataclass(frozen=True)
class RetrievalExample:
    """A query with the candidates retrieved for it.

    Attributes:
        image: image of the pair.
        lines: metadata of the pair, one line per field.
        rank: rank of the true candidate, from 1.
        records: (lines, mark, class) of the metadata retrieved for the image.
        images: images retrieved for the metadata.
    """

    image: Thumbnail
    lines: Sequence[str]
    rank: int
    records: Sequence[tuple[Sequence[str], str, str]] = ()
    images: Sequence[Thumbnail] = ()


@dataclass(frozen=True)
class RetrievalReport:
    """Retrieval in both directions.

    Attributes:
        candidates: number of image-metadata pairs.
        recalls: quality in each direction.
        by_image: examples of metadata retrieved for images.
        by_metadata: examples of images retrieved for metadata.
    """

    candidates: int
    recalls: Sequence[Recall]
    by_image: Sequence[RetrievalExample]
    by_metadata: Sequence[RetrievalExample]


def ranks(scores: np.ndarray) -> np.ndarray:
    """Return the rank of the diagonal entry in each row of a similarity matrix, from 1.

    Ties count half, because identical records are retrieved in arbitrary order.

    Args:
        scores: similarities (n, n); row i belongs with column i.

    Returns:
        Ranks (n,), multiples of 0.5.

    Example:
        >>> from satmip_jax.report.retrieval import ranks
        >>> ranks(np.eye(3))
        array([1., 1., 1.])
    """
    true = np.diagonal(scores)[:, None]
    ties = (scores == true).sum(axis=1) - 1
    return 1 + (scores > true).sum(axis=1) + ties / 2


def recall(direction: str, ranks: np.ndarray) -> Recall:
    """Summarize the ranks of n true candidates: recall at 1, 5 and 10, and the median rank."""
    n = len(ranks)
    at = {k: (float(np.mean(ranks <= k)), min(k / n, 1.0)) for k in (1, 5, 10)}
    return Recall(direction, at, (float(np.median(ranks)), (n + 1) / 2))


def retrieval(encoded: EncodedData) -> RetrievalReport | None:
    """Retrieve metadata for images and images for metadata; None without a joint space."""
    if encoded.embedded is None:
        return None
    queries = encoded.queries
    image, metadata = encoded.embedded
    scores = image @ metadata.T  # (n, d) . (n, d) -> (n, n)
    records = [queries.dataset[int(index)]["metadata"] for index in queries.indices]
    texts = varying_lines(records, encoded.schema.select_fields(encoded.config.metadata.fields))
    rows = choose_queries(queries.features.labels, QUERIES)
    by_image, by_metadata = [], []
    image_ranks, metadata_ranks = ranks(scores), ranks(scores.T)
    for row in rows:
        retrieved = np.argsort(-scores[row], kind="stable")[:RECORDS]
        example = RetrievalExample(
            thumbnail(queries, row, queries.class_name(row)),
            texts[row],
            int(np.ceil(image_ranks[row])),
            records=[
                (texts[i], "match" if i == row else "other", queries.class_name(i))
                for i in retrieved
            ],
        )
        by_image.append(example)
        retrieved = np.argsort(-scores[:, row], kind="stable")[:NEIGHBOURS]
        pictures = [
            thumbnail(queries, i, queries.class_name(i), "match" if i == row else "")
            for i in retrieved
        ]
        rank = int(np.ceil(metadata_ranks[row]))
        by_metadata.append(RetrievalExample(example.image, texts[row], rank, images=pictures))
    recalls = [
        recall("image → metadata", image_ranks),
        recall("metadata → image", metadata_ranks),
    ]
    return RetrievalReport(len(scores), recalls, by_image, by_metadata)


def varying_lines(records: Sequence[Metadata], fields: Sequence[Field]) -> list[list[str]]:
    """Return the metadata of each record, one line per field.

    Fields with the same value in all records are left out.

    Args:
        records: metadata of the images.
        fields: fields to show, such as those that a model sees.
    """
    index = tabular.field_index()
    chosen = [index[field.name] for field in fields]
    phrases = caption.fragments(records)[:, chosen]  # (n, fields, bytes)
    varies = (phrases != phrases[:1]).any(axis=(0, 2))
    return [
        [bytes(phrase).rstrip(b"\0; ").decode("ascii") for phrase in row[varies] if phrase.any()]
        for row in phrases
    ]
