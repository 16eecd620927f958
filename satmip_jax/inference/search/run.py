"""Search in a file of embeddings: by images, by rows of the file, by metadata, or by both."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

import satmip_jax
from satmip_jax.data import images as images_of_files
from satmip_jax.data.image_errors import ImageError
from satmip_jax.data.rendering import Rendering
from satmip_jax.evaluation.joint_space import has_joint_space
from satmip_jax.inference.embed.run import describe_model
from satmip_jax.inference.embed.table import EmbeddingTable, EmbeddingTableError
from satmip_jax.inference.embedding import EmbeddingModel
from satmip_jax.inference.image_input import MAX_FILE_BYTES, as_list
from satmip_jax.inference.search import record
from satmip_jax.inference.search.index import SearchIndex
from satmip_jax.inference.search.query import LABEL, QueryError, Term, parse
from satmip_jax.inference.search.ranking import (
    Standardization,
    best_rows,
    image_scores,
    joint_scores,
    mean_direction,
)
from satmip_jax.inference.search.row_filter import passing_rows
from satmip_jax.runtime.files import FileContentError, read_bounded

log = logging.getLogger(__name__)

MAX_NAMES = 40  # of the values that a model knows, in a message


@dataclass(frozen=True)
class Hit:
    """A row that was found.

    Attributes:
        rank: from 1.
        row: number of the row in the file, from 0.
        score: what ranks it, see `search`.
        image: cosine with the query images; None without any.
        metadata: cosine with the described metadata; None without any.
        values: columns of the row but the vectors, see `embed.writer`.
    """

    rank: int
    row: int
    score: float
    image: float | None
    metadata: float | None
    values: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """Answer to a search.

    Attributes:
        table: file that was searched.
        hits: the best rows, the best first.
        images: the query images, as they were given.
        rows: the query rows, as dictionaries of their columns.
        sought: terms that describe what is sought; they rank.
        filters: terms that rows have to pass, with the number of rows that lack their field.
        passed: number of rows that pass them.
        unusable: number of rows whose vectors are not finite; they are not found.
    """

    table: EmbeddingTable
    hits: list[Hit]
    images: list[Any]
    rows: list[dict[str, Any]]
    sought: list[Term]
    filters: dict[str, int]
    passed: int
    unusable: int


def search(
    embeddings: str | os.PathLike[str] | EmbeddingTable,
    *,
    model: str | os.PathLike[str] | EmbeddingModel | None = None,
    images: Any = (),
    ids: Sequence[str] = (),
    where: str | Sequence[str] = (),
    count: int = 10,
    index: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Results:
    """Return the rows of a file of embeddings that are most similar to a query.

    * Images or rows: by the cosine of the image features, standardized by the mean and deviation of
      the file; several stand for the mean of their directions. Rows of the query are not found.
    * Terms with `=` on fields that the model takes in: by the cosine of image and metadata in the
      space that they share.
    * Both: by the mean of the two cosines, each standardized over the rows that pass the filters.
    * Other terms filter the rows, see `row_filter`.

    Args:
        embeddings: file of `satmip embed`.
        model: the one that made the file, its path or name; not needed for rows and filters.
        images: query images, see `EmbeddingModel.embed_images`.
        ids: query rows, by the column "id".
        where: conditions, see `query`.
        count: number of rows to find.
        index: file of an index, see `index`, which is built if there is none. It answers
            approximately where images or rows rank without filters; other queries are exact.
        progress: show progress bars.

    Raises:
        QueryError: there is nothing to rank by, or the query does not fit the file or model.
        EmbeddingTableError: the file is damaged.

    Example:
        >>> from satmip_jax.inference.search.run import search
        >>> results = search(embeddings_file, ids=["scene-3"], where="latitude>-60", count=2)
        >>> [hit.rank for hit in results.hits], results.hits[0].row != 3
        ([1, 2], True)
        >>> results = search(embeddings_file, model=workdir, where="latitude=60 month=7", count=1)
        >>> sorted(results.hits[0].values)[:4]
        ['cloud_cover', 'country_code', 'geometry', 'gsd']
    """
    table = (
        embeddings if isinstance(embeddings, EmbeddingTable) else EmbeddingTable.open(embeddings)
    )
    if not table.count:
        raise QueryError(f"{table.path} has no rows")
    terms = parse([where] if isinstance(where, str) else where)
    queries = as_list(images)
    if count < 1:
        raise QueryError(f"{count} rows to find: expected 1 or more")
    if isinstance(model, str | os.PathLike):
        model = satmip_jax.load(model, image_size=table.info["image_size"])
    if model is not None:
        _check_model(table, model)
    if queries and model is None:
        raise QueryError(f"images need the model that made {table.path}: {table.info['model']}")
    fields: tuple[str, ...] = ()
    if isinstance(model, EmbeddingModel) and has_joint_space(model.model):
        fields = model.fields
    sought, filters = record.split(terms, fields)
    if not queries and not ids and not sought:
        raise QueryError(_nothing_to_rank_by(terms, model, fields))
    if unseen := [term for term in filters if term.operator == "=" and term.name != LABEL]:
        reason = _why_unranked(unseen, model, fields)
        log.warning("%s filters rows: %s", " ".join(map(str, unseen)), reason)
    passes, lacking = passing_rows(table, filters)
    rows = _rows_of(table, ids)

    described = record.describe(sought)
    cosines = {}
    indexed = table.count
    if index is not None and (sought or filters):
        log.warning("with --where the search is exact: the index is of images alone")
    elif index is not None:
        found = SearchIndex.open(index, table, progress=progress)
        direction = _direction(table, model, queries, rows, found.standardization, progress)
        cosines["image"] = found.scores(direction, count + len(rows), table.count)
        indexed = found.size
    if "image" not in cosines and (queries or ids):
        standardization = Standardization.of(table, progress=progress)
        direction = _direction(table, model, queries, rows, standardization, progress)
        cosines["image"] = image_scores(table, direction, standardization, progress=progress)
    if described and model is not None:
        records = record.records(described, table, passes)
        direction = _record_direction(model, records, sought)
        cosines["metadata"] = joint_scores(table, direction, model.joint_space, progress=progress)
    usable = np.isfinite(sum(cosines.values()))
    passed = int(passes.sum())
    allowed = passes & usable
    allowed[rows] = False
    scores = _combine(list(cosines.values()), allowed)
    best = best_rows(scores, allowed, count)
    hits = [
        Hit(
            rank,
            int(row),
            float(scores[row]),
            float(cosines["image"][row]) if "image" in cosines else None,
            float(cosines["metadata"][row]) if "metadata" in cosines else None,
            values,
        )
        for rank, (row, values) in enumerate(zip(best, table.rows(best), strict=True), 1)
    ]
    if index is None or sought or filters:
        indexed = int(usable.sum())
    unusable = table.count - indexed
    return Results(table, hits, queries, table.rows(rows), sought, lacking, passed, unusable)


def rendering_of(table: EmbeddingTable) -> Rendering:
    """Return the bands and scale by which the images of a file were read.

    Raises:
        EmbeddingTableError: its description of them is not valid.
    """
    stated = table.info["rendering"]
    bands, scale = stated.get("bands"), stated.get("scale")
    try:
        return Rendering(
            None if bands is None else tuple(int(band) for band in bands),
            tuple(float(end) for end in scale) if isinstance(scale, list) else scale,  # type: ignore[arg-type]
        )
    except (ImageError, TypeError, ValueError, OverflowError):
        raise EmbeddingTableError(
            f"{table.path}: rendering of its description is {stated!r:.80}"
        ) from None


def _check_model(table: EmbeddingTable, model: EmbeddingModel) -> None:
    """Raise `QueryError` unless the vectors of the file are of the model."""
    info, ours = table.info, describe_model(model)
    for key in ("model", "step", "image_size", "parameters"):
        if info[key] != ours[key]:
            raise QueryError(
                f"{table.path} was made by another model, whose features are not comparable: "
                f"{key.replace('_', ' ')} {info[key]!r:.80} instead of {ours[key]!r:.80}"
            )


def _nothing_to_rank_by(
    terms: Sequence[Term], model: EmbeddingModel | None, fields: Sequence[str]
) -> str:
    rest = f"{' '.join(map(str, terms))} only filters rows: " if terms else ""
    if model is None:
        advice = "give a row of the file, or a model with an image or metadata"
    elif not fields:
        advice = f"give an image or a row: {model.model.name} does not rank images by metadata"
    else:
        advice = f"give an image, a row, or a value (with =) of {', '.join(fields)}"
        if unseen := [term for term in terms if term.operator == "=" and term.name != LABEL]:
            rest += f"{_why_unranked(unseen, model, fields)}; "
    return f"{rest}nothing to rank by; {advice}"


def _why_unranked(
    terms: Sequence[Term], model: EmbeddingModel | None, fields: Sequence[str]
) -> str:
    if model is None:
        return "without a model nothing ranks by it"
    if not fields:
        return f"{model.model.name} does not rank images by metadata"
    names = " and ".join(dict.fromkeys(term.field for term in terms))
    return f"the training of {model.model.name} saw no {names}, only {', '.join(fields)}"


def _rows_of(table: EmbeddingTable, ids: Sequence[str]) -> list[int]:
    """Return the numbers of the rows with these ids."""
    if not ids:
        return []
    column, rows = table.column("id"), []
    for name in ids:
        row = pc.index(column, name).as_py()
        if row < 0:
            raise QueryError(
                f"{table.path} has no row {name!r:.200}: ids are such as {_some(table)}"
            )
        rows.append(row)
    return rows


def _some(table: EmbeddingTable) -> str:
    return ", ".join(repr(row["id"]) for row in table.rows(range(min(3, table.count))))


def _direction(
    table: EmbeddingTable,
    model: EmbeddingModel | None,
    queries: list[Any],
    rows: Sequence[int],
    standardization: Standardization,
    progress: bool,
) -> np.ndarray:
    """Return the mean direction of images and rows."""
    features = np.zeros((0, table.image_width), np.float32)
    if queries and model is not None:
        readable = _readable(queries, rendering_of(table), model.encoder.stored_size)
        features = model.embed_images(readable, progress=progress)
        if model.problems:
            raise QueryError(f"the query image {model.problems[0]}")
        if features.shape[1] != table.image_width:
            raise EmbeddingTableError(
                f"{table.path} has vectors of {table.image_width} numbers, and its model's have "
                f"{features.shape[1]}: write it again by `satmip embed`"
            )
    stored = table.vectors("image", rows)
    if not np.isfinite(stored).all():
        raise QueryError(f"the vector of a query row of {table.path} is not finite")
    return mean_direction(standardization.directions(np.concatenate([features, stored])))


def _readable(queries: Sequence[Any], rendering: Rendering, size: int) -> list[Any]:
    """Return images for `embed_images`; files that need a rendering are read by that of the file.

    Args:
        queries: paths, arrays or PIL images.
        rendering: bands and scale.
        size: side of the squares that images are read as, pixels.
    """
    if rendering == Rendering():
        return list(queries)
    readable: list[Any] = []
    for image in queries:
        if isinstance(image, str | os.PathLike):
            try:
                data = read_bounded(Path(image), MAX_FILE_BYTES)
                image, _ = images_of_files.read_resized(data, size, rendering=rendering)
            except (ImageError, FileContentError, OSError) as error:
                raise QueryError(f"the query image {os.fspath(image)}: {error}") from error
        readable.append(image)
    return readable


def _record_direction(
    model: EmbeddingModel, records: list[dict[str, Any]], sought: Sequence[Term]
) -> np.ndarray:
    """Return the mean direction of records in the joint space."""
    for term in sought:
        names = model.model.schema.category_ids.get(term.field)
        if names is not None and term.value not in names:
            listed = ", ".join([*names][:MAX_NAMES]) + ", ..." * (len(names) > MAX_NAMES)
            raise QueryError(f"{term}: {model.model.name} does not know the value; it saw {listed}")
    features = model.embed_metadata(records, progress=False)
    return mean_direction(model.joint_space.metadata(features))


def _combine(cosines: Sequence[np.ndarray], allowed: np.ndarray) -> np.ndarray:
    """Return the scores: the cosine, or the mean of several, each standardized over the rows."""
    if len(cosines) == 1 or not allowed.any():
        return cosines[0]
    standardized = []
    for cosine in cosines:
        values = cosine[allowed].astype(np.float64)
        deviation = values.std()
        standardized.append((cosine - values.mean()) / (deviation if deviation > 0 else 1))
    return np.mean(standardized, axis=0)
