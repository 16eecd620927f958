"""Approximate search among millions of rows: an HNSW graph of their image features, by usearch.

The graph is built once and kept in a file, beside which a JSON file says of which file of
embeddings it is. It is memory-mapped, so a search reads only what it visits. usearch does not check
the graph itself: open files of your own.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from satmip_jax.errors import SatmipError
from satmip_jax.inference.embed.table import EmbeddingTable
from satmip_jax.inference.search.ranking import Standardization
from satmip_jax.runtime.files import (
    FileContentError,
    atomic_path,
    read_json_object,
    write_atomically,
)

FORMAT = 1
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 32, 128, 256
_BLOCK, _BLOCKS = 1 << 16, 64  # of a file's fingerprint


class IndexFileError(SatmipError, ValueError):
    """An index that cannot be used; the message says why and what to do."""


class SearchIndex:
    """An index of the rows of a file of embeddings.

    Attributes:
        standardization: of the image features in it.
        size: number of rows in it: those whose vectors are finite.
    """

    def __init__(self, graph: Any, standardization: Standardization) -> None:
        self._graph = graph
        self.standardization = standardization
        self.size = len(graph)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], table: EmbeddingTable, *, progress: bool = False
    ) -> SearchIndex:
        """Open the index in a file, or build it there.

        Args:
            path: of the index; a second file of that name with ".json" is beside it.
            table: that it is of.
            progress: show a progress bar while it is built.

        Raises:
            IndexFileError: it is of other embeddings or damaged, or usearch is not installed.
            OSError: it cannot be read or written.
        """
        path, about = Path(path), Path(f"{os.fspath(path)}.json")
        if not path.exists():
            _build(path, about, table, progress)
        advice = f"delete {path} and {about.name} to build it again"
        try:
            stated = read_json_object(about)
            width, bytes_ = table.image_width, path.stat().st_size
            mean, deviation = (
                np.array(stated[key], np.float32).reshape(width) for key in ("mean", "deviation")
            )
            same = stated["embeddings"] == fingerprint(table.local)
            intact = stated["format"] == FORMAT and stated["bytes"] == bytes_
        except (FileContentError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise IndexFileError(f"{about} does not describe {path.name}: {advice}") from error
        if not same:
            raise IndexFileError(f"{path} is of other embeddings than {table.path}: {advice}")
        if not intact or not (np.isfinite(mean).all() and (deviation > 0).all()):
            raise IndexFileError(f"{path} is damaged, or of another version: {advice}")
        graph = _new_graph(width)
        graph.view(str(path))
        graph.expansion_search = EXPANSION_SEARCH
        return cls(graph, Standardization(mean, deviation))

    def scores(
        self, query: Float32[np.ndarray, " d"], count: int, rows: int
    ) -> Float32[np.ndarray, " n"]:
        """Return the cosines of about the nearest rows with a direction, NaN for all others.

        Args:
            query: of length 1, from `Standardization.directions`.
            count: number of rows to find.
            rows: n, that of the file.
        """
        scores = np.full(rows, np.nan, np.float32)
        matches = self._graph.search(query, min(count, self.size))
        scores[matches.keys.astype(np.int64)] = 1 - matches.distances
        return scores


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Return a hash of a Parquet file's size, its footer, and blocks spread over it."""
    size = os.path.getsize(path)
    sha = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for start in np.linspace(0, max(size - _BLOCK, 0), _BLOCKS).astype(int):
            file.seek(int(start))  # the last block is the end of the footer
            sha.update(file.read(_BLOCK))
    return sha.hexdigest()


def _new_graph(width: int) -> Any:
    try:
        from usearch.index import Index
    except ImportError:
        raise IndexFileError('an index needs usearch: pip install -e ".[index]"') from None
    return Index(
        ndim=width,
        metric="cos",
        dtype="f32",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
    )


def _build(path: Path, about: Path, table: EmbeddingTable, progress: bool) -> None:
    graph = _new_graph(table.image_width)
    standardization = Standardization.of(table, progress=progress)
    with tqdm(
        total=table.count, desc="indexing", unit=" rows", leave=False, disable=not progress
    ) as bar:
        for start, rows in table.batches("image"):
            finite = np.flatnonzero(np.isfinite(rows).all(axis=1))
            if len(finite):
                graph.add(start + finite, standardization.directions(rows[finite]))
            bar.update(len(rows))
    with atomic_path(path) as temporary:
        graph.save(str(temporary))
        size = temporary.stat().st_size
    stated = {
        "format": FORMAT,
        "embeddings": fingerprint(table.local),
        "bytes": size,
        "mean": standardization.mean.tolist(),
        "deviation": standardization.deviation.tolist(),
    }
    write_atomically(about, json.dumps(stated))
