"""`satmip embed`: embeddings of any number of images to one GeoParquet file, resumable."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import satmip_jax
from satmip_jax.checkpoints.integrity import named_leaves
from satmip_jax.data import images
from satmip_jax.evaluation.features import CPU_BATCHES
from satmip_jax.inference.embed.geometry import wkb_type
from satmip_jax.inference.embed.inputs import Entry, Inputs, open_inputs
from satmip_jax.inference.embed.parts import EmbedError, NothingUsableError, PartFacts, Parts
from satmip_jax.inference.embed.reader import BatchReader, ReadBatch
from satmip_jax.inference.embed.report import EmbedReport, list_left_out, read_report
from satmip_jax.inference.embed.writer import ROWS, Row, to_table
from satmip_jax.inference.embedding import EmbeddingModel
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.record import Problems
from satmip_jax.runtime import process_pool, threads
from satmip_jax.runtime.paths import AnyPath, as_path, is_remote
from satmip_jax.runtime.stores import check_access

PART_SECONDS = 30.0  # after which a part is written: what an interruption costs at most
FEW = 4096  # images for which worker processes are not worth their start
MAX_WORKERS = 16
MAX_REASONS = 200  # different ones that are counted
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def embed_files(
    model: EmbeddingModel,
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    options: Mapping[str, Any] | None = None,
    source: str | None = None,
    bands: str | None = None,
    scale: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    announce: Any = print,
) -> EmbedReport:
    """Embed images and their metadata to a file, see `writer`.

    With the same arguments it resumes an interrupted run, and does nothing if all is done.

    Args:
        model: the trained model.
        paths: images, tables, STAC files, folders and zips.
        out: the file, in an existing folder or a bucket.
        options: of the sources that read the paths, such as `{"tile": 224}`.
        source: name of the source, instead of those detected.
        bands: see `satmip_jax.data.rendering.Rendering.parse`.
        scale: see there.
        workers: processes that read images; 0 reads in threads of this one. By default 0 on CPUs,
            whose cores encode, and up to one per core elsewhere.
        progress: show a progress bar.
        announce: called with each sentence about what was detected, before the work.

    Raises:
        EmbedError: no input can be used, `out` holds something else, or the disk is full.
        StoreError: `out` is in a bucket that cannot be accessed.
        SourceError: see `open_inputs`.

    Example:
        >>> import cv2
        >>> import satmip_jax as sm
        >>> from satmip_jax.inference.embed.run import embed_files
        >>> _ = cv2.imwrite("a.png", np.zeros((40, 40, 3), np.uint8))
        >>> report = embed_files(sm.load(workdir), ["a.png"], "a.parquet", progress=False)
        a.png: images
          no labels
        >>> report.rows
        1
    """
    start_time = time.monotonic()
    out = as_path(out)
    check_access(out)
    if not is_remote(out) and not out.parent.is_dir():
        raise EmbedError(f"{out}: no folder {out.parent}")
    try:
        rendering = images.Rendering.parse(bands, scale)
    except images.ImageError as error:
        raise EmbedError(str(error)) from error
    inputs = open_inputs(paths, options or {}, source=source)
    for line in inputs.lines:
        announce(line)
    about = describe_model(model)
    parts = Parts(out, {"model": about, **inputs.fingerprint(), "rendering": rendering.to_json()})
    resumed = len(inputs.entries)
    if not parts.is_complete():
        reader = BatchReader(inputs.sources, model.encoder.stored_size, rendering)
        try:
            with _full_disk_explained(out), parts.claim():
                resumed = min(parts.finished(), len(inputs.entries))
                read = _reads(reader, model, workers)
                _write_parts(model, inputs, parts, resumed, read, progress)
                _finish(parts, inputs, about, rendering)
        except NothingUsableError:
            parts.remove()
            raise
        parts.remove()
    return read_report(out, resumed, time.monotonic() - start_time)


def describe_model(model: EmbeddingModel) -> dict[str, Any]:
    """Return what decides the features of a model, as JSON, with a fingerprint of its parameters.

    Example:
        >>> import satmip_jax as sm
        >>> from satmip_jax.inference.embed.run import describe_model
        >>> describe_model(sm.load(workdir))["fields"]
        ['location', 'utm_zone', 'country_code']
    """
    sha = hashlib.sha256()
    for name, leaf in sorted(named_leaves(model.model.params).items()):
        values = np.asarray(jax.device_get(leaf))
        sha.update(f"{name} {values.dtype} {values.shape} ".encode())
        sha.update(np.ascontiguousarray(values).tobytes())
    return {
        "model": model.model.name,
        "step": model.model.step,
        "parameters": sha.hexdigest(),
        "image_size": model.image_size,
        "fields": list(model.fields),
    }


# --- batches --------------------------------------------------------------------------------------


Reads = Callable[[Iterable[Sequence[Entry]], int], Iterator[ReadBatch]]


def _reads(reader: BatchReader, model: EmbeddingModel, workers: int | None) -> Reads:
    """Return the function that reads batches ahead of the encoder."""

    def read(batches: Iterable[Sequence[Entry]], count: int) -> Iterator[ReadBatch]:
        chosen = workers
        if chosen is None:
            on_cpu = model.model.mesh.devices.flat[0].platform == "cpu"
            chosen = 0 if on_cpu or count < FEW else min(process_pool.cores(), MAX_WORKERS)
        if not chosen:
            return threads.map_in_order(reader, batches, process_pool.cores())
        return process_pool.map_in_order(
            reader, batches, workers=chosen, initializer=images.use_one_thread
        )

    return read


def _write_parts(
    model: EmbeddingModel,
    inputs: Inputs,
    parts: Parts,
    first: int,
    read: Reads,
    progress: bool,
) -> None:
    """Encode the inputs from number `first` on, and write a part every `PART_SECONDS`."""
    total = len(inputs.entries)
    starts = range(first, total, model.batch_size)
    entries = (inputs.entries[start : start + model.batch_size] for start in starts)
    on_cpu = model.model.mesh.devices.flat[0].platform == "cpu"
    at_once = CPU_BATCHES if on_cpu and model.model.mesh.size == 1 else 1
    encoded = threads.map_in_order(partial(_encode, model), read(entries, total - first), at_once)
    pending: list[tuple[ReadBatch, np.ndarray, np.ndarray | None]] = []
    end, written = first, time.monotonic()
    with tqdm(
        desc="embedding",
        total=total,
        initial=first,
        unit=" images",
        mininterval=1.0,
        disable=not progress,
    ) as bar:
        for batch in encoded:
            pending.append(batch)
            end += batch[0].count
            bar.update(batch[0].count)
            late = time.monotonic() - written > PART_SECONDS
            if late or end - first >= ROWS or end == total:
                _write_part(parts, first, end, pending)
                first, pending, written = end, [], time.monotonic()


def _encode(
    model: EmbeddingModel, batch: ReadBatch
) -> tuple[ReadBatch, np.ndarray, np.ndarray | None]:
    """Return a batch with its image and metadata vectors."""
    if not batch.rows:
        return batch, np.zeros((0, 0), np.float32), None
    vectors = model.encoder.pixels(batch.pixels)
    if not model.has_metadata:
        return batch, vectors, None
    described, _ = model.encoder.metadata(
        batch.records, sizes=batch.sizes, field_problems=Problems(), progress=False
    )
    return batch, vectors, described


def _write_part(
    parts: Parts,
    first: int,
    end: int,
    batches: Sequence[tuple[ReadBatch, np.ndarray, np.ndarray | None]],
) -> None:
    facts = PartFacts()
    rows: list[Row] = []
    for batch, _, _ in batches:
        rows += batch.rows
        facts.unusable += batch.unusable
        facts.problems.merge(batch.problems)
    for row in rows:
        facts.fields.update(row.values.keys())
        if row.geometry is not None:
            facts.geometry_types.add(wkb_type(row.geometry))
    used = [(vectors, described) for batch, vectors, described in batches if batch.rows]
    vectors = np.concatenate([x for x, _ in used]) if used else np.zeros((0, 1), np.float32)
    described = [y for _, y in used if y is not None]
    facts.described = sum(int(np.isfinite(y).all(axis=1).sum()) for y in described)
    table = to_table(rows, vectors, np.concatenate(described) if described else None)
    parts.write(first, end, table, facts)


# --- the end --------------------------------------------------------------------------------------


def _finish(
    parts: Parts, inputs: Inputs, about: Mapping[str, Any], rendering: images.Rendering
) -> None:
    """Join the parts, and list what was left out."""
    unusable: Counter[str] = Counter()
    fields: Counter[str] = Counter()
    described = 0
    problems = Problems()
    with list_left_out(parts.out) as write:
        for name, reason in inputs.skipped.named:
            write(name, reason)
        for facts in parts.facts():
            fields.update(facts.fields)
            described += facts.described
            problems.merge(facts.problems)
            for name, reason in facts.unusable:
                unusable[reason] += 1
                write(name, reason)
    if unusable.total() == len(inputs.entries):
        reasons = "; ".join(f"{n:,} x {reason}" for reason, n in unusable.most_common(5))
        raise NothingUsableError(f"none of the {unusable.total():,} inputs can be used: {reasons}")
    counts = {
        "plan": parts.fingerprint,
        "count": len(inputs.entries),
        "fields": {f.name: fields[f.name] for f in FIELDS if fields[f.name]},
        "described": described,
        "skipped": _frequent(inputs.skipped),
        "unusable": _frequent(unusable),
        "problems": problems.to_json(),
        "details": problems.details_to_json(),
    }
    parts.join(
        {
            "version": satmip_jax.__version__,
            **about,
            "rendering": rendering.to_json(),
            "inputs": counts,
        }
    )


def _frequent(counts: Counter[str]) -> dict[str, int]:
    """Return the most frequent reasons, and all others together."""
    frequent = dict(counts.most_common(MAX_REASONS))
    others = counts.total() - sum(frequent.values())
    return frequent | ({"(other reasons)": others} if others else {})


@contextmanager
def _full_disk_explained(out: AnyPath) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise EmbedError(
            f"{error.filename or out}: {os.strerror(error.errno)}. Finished parts are kept: make "
            "room, then the same command resumes"
        ) from error
