"""Conversion of a source to shards: crop, resize, encode, follow with the metadata.

The unit of work is a shard. It is written to a temporary file, renamed when complete, and marked as
done by a small JSON file with its partial statistics. A run that was interrupted, at any moment and
in any way, resumes when it is started again. The bytes of the result depend only on the data and
the options, not on the number of workers or on interruptions.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from tqdm import tqdm

import satmip_jax
from satmip_jax.data import images
from satmip_jax.data.shard_format import SCHEMA_FILE
from satmip_jax.data.shard_writer import finish
from satmip_jax.metadata.plausibility import PlausibilityCheck
from satmip_jax.metadata.record import Problems
from satmip_jax.metadata.schema import Schema
from satmip_jax.metadata.statistics import StatsAccumulator
from satmip_jax.prepare.plan import check_names, check_plan, claim, divide, make_plan, select
from satmip_jax.prepare.report import REPORT_FILE, PrepareReport, describe_for_training
from satmip_jax.prepare.shard_job import (
    Enlarged,
    Job,
    Options,
    PixelSums,
    PrepareError,
    Scaled,
    Task,
    write_json,
)
from satmip_jax.runtime import process_pool
from satmip_jax.runtime.paths import AnyPath, as_path, is_remote
from satmip_jax.runtime.stores import check_access
from satmip_jax.sources.base import Source

__all__ = ["PrepareError", "PrepareReport", "prepare"]

Runner = Callable[[Job, Sequence[Task], tqdm], None]  # writes the shards of the tasks
Marks = Sequence[tuple[Task, Any]]  # each task with the mark of its finished shard


def prepare(
    source: Source,
    out: str | os.PathLike[str],
    *,
    image_size: int,
    name: str | None = None,
    workers: int | None = None,
    runner: str = "local",
    beam_options: str = "",
    limit: int | None = None,
    splits: Sequence[str] | None = None,
    statistics_from: str | os.PathLike[str] | None = None,
    shard_size: int = 1024,
    jpeg_quality: int = 95,
    context_ratio: float | None = None,
    max_pixels: int = images.MAX_PIXELS,
    bands: str | None = None,
    scale: str | None = None,
    progress: bool = True,
) -> PrepareReport:
    """Convert a source to shards of square JPEGs with metadata, in TFDS layout.

    With the same options, it resumes an interrupted run, and does nothing if all is done.

    Args:
        source: See `satmip_jax.sources.registry.open_source`.
        out: A folder on a local disk or in a bucket (gs://, s3://): new, empty, or started by an
            earlier run. Shards for a bucket are written to a folder for temporary files first.
        image_size: Side of the stored squares, pixels.
        name: Name of the data set, for file names; that of the source by default.
        workers: Worker processes on this machine; 0 works in this process. One per core by default.
        runner: "local", or "beam" for an Apache Beam pipeline, which writes the same bytes.
        beam_options: Options of Beam, such as
            "--runner=FlinkRunner --flink_master=host:8081"; without a runner it runs on this
            machine. Workers on other machines must see the source and `out` under the same absolute
            paths, as on a network file system.
        limit: Maximum number of examples per split, spread evenly over the list.
        splits: Splits to convert; all by default.
        statistics_from: A prepared folder whose image and field statistics to use, instead of those
            of the train split; needed to evaluate on another data set.
        shard_size: Examples per shard.
        jpeg_quality: Quality of images that are encoded again.
        context_ratio: Side of the square around a labelled box, as a multiple of its longer side;
            that of the source by default.
        max_pixels: Larger images are rejected, which guards against decompression bombs.
        bands: Numbers from 1 of the bands shown as red, green and blue, such as "4,3,2", or of one
            shown as grey. By default 1, 2, 3; needed for images of other than 1, 3 or 4 bands.
        scale: How values that are not 8-bit become 8-bit: "LOW,HIGH", which become 0 and 255, or
            "percentile", see `satmip_jax.data.rendering.Rendering`. Without it, such images are
            rejected.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The report that is also saved in the folder.

    Raises:
        PrepareError: An option is wrong, Apache Beam is missing or its pipeline failed, the folder
            holds something else or was started with other options or data, no example is usable, or
            there is no train split to compute statistics from, or the disk is full.
        SourceError: The source cannot be listed.

    Example:
        >>> from satmip_jax.prepare.run import prepare
        >>> from satmip_jax.sources.registry import open_source
        >>> source = open_source("synthetic", ["scenes"], train=6, val=3, size=32)
        >>> prepare(source, "data", image_size=32, workers=0, progress=False).splits
        {'train': 6, 'val': 3}
    """
    start = time.monotonic()
    out = as_path(out)
    if is_remote(out) and runner != "local":
        raise PrepareError(
            f"--out {out}: --runner {runner} writes to a folder that all of its workers mount: "
            "prepare there, and copy the folder to the bucket"
        )
    check_access(out)
    write = _runner(runner, workers, beam_options)
    ratio = source.context_ratio if context_ratio is None else context_ratio
    try:
        rendering = images.Rendering.parse(bands, scale)
    except images.ImageError as error:
        raise PrepareError(str(error)) from error
    options = Options(image_size, jpeg_quality, ratio, max_pixels, shard_size, rendering)
    inherited = None if statistics_from is None else _load_statistics(as_path(statistics_from))
    job = Job(source, source.name if name is None else name, options, out)
    tasks = _tasks(job, splits, limit, need_train=inherited is None)
    plan = make_plan(job, tasks, splits, limit)
    with _full_disk_explained(out), claim(out) as check_claim:
        notice = check_plan(out, plan)
        resumed = _write_shards(job, tasks, write, progress)
        marks = [(task, job.read_mark(task)) for task in tasks]
        report = PrepareReport(
            name=job.name,
            out=out,
            splits={split: sum(lengths) for split, lengths in _lengths(marks).items()},
            bad=[(task.split, *row) for task, mark in marks for row in mark["bad"]],
            skipped=dict(source.skipped),
            problems=_problems(mark for _, mark in marks),
            plausibility=_plausibility(mark for _, mark in marks),
            statistics="train" if statistics_from is None else os.fspath(statistics_from),
            resumed=resumed,
            seconds=time.monotonic() - start,
            reading=describe_for_training(source),
            notice=notice,
            rendering=options.rendering,
            scaled=_scaled(mark for _, mark in marks),
            image_size=image_size,
            enlarged=_enlarged(mark for _, mark in marks),
        )
        write_json(out / REPORT_FILE, report.to_json())
        _check_usable(report, need_train=inherited is None)
        check_claim()
        finish(out, _schema(job, report, marks, inherited, plan), _lengths(marks))
        report = replace(report, seconds=time.monotonic() - start)
        write_json(out / REPORT_FILE, report.to_json())
    return report


# --- before ---------------------------------------------------------------------------------------


def _runner(name: str, workers: int | None, beam_options: str) -> Runner:
    """Return the function that writes shards; reject wrong options."""
    if name == "beam":
        try:
            from satmip_jax.prepare import beam
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "apache_beam":
                raise
            raise PrepareError(
                '--runner beam needs Apache Beam: pip install "satmip-jax[beam]"'
            ) from error
        options = beam.pipeline_options(beam_options, workers)
        return partial(beam.run, options=options)
    if name != "local":
        raise PrepareError(f"--runner {name}: must be local or beam")
    if beam_options:
        raise PrepareError(f"--beam-options {beam_options!r}: only with --runner beam")
    return partial(_run_local, workers=workers)


def _load_statistics(folder: AnyPath) -> Schema:
    try:
        return Schema.load(folder / SCHEMA_FILE)
    except OSError as error:
        raise PrepareError(f"--statistics-from {folder}: no prepared data: {error}") from error


def _tasks(
    job: Job, splits: Sequence[str] | None, limit: int | None, need_train: bool
) -> list[Task]:
    """List and check the examples, and return one task per shard."""
    selected = select(job.source.refs(), splits, limit)
    check_names(job.name, selected, job.source)
    if need_train and "train" not in selected:
        raise PrepareError(
            f"no split 'train' to compute statistics from (there is {', '.join(selected)}): give "
            "--statistics-from, a prepared folder whose statistics apply"
        )
    return divide(selected, job.options.shard_size)


@contextmanager
def _full_disk_explained(out: AnyPath) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PrepareError(
            f"{error.filename or out}: {os.strerror(error.errno)}. Finished shards are kept: make "
            "room, then the same command resumes"
        ) from error


# --- the shards -----------------------------------------------------------------------------------


def _write_shards(job: Job, tasks: Sequence[Task], write: Runner, progress: bool) -> int:
    """Write the shards that are not finished; return how many examples were finished before."""
    unfinished = [task for task in tasks if job.read_mark(task) is None]
    total = sum(len(task.refs) for task in tasks)
    resumed = total - sum(len(task.refs) for task in unfinished)
    with tqdm(
        desc=f"preparing {job.name}",
        total=total,
        initial=resumed,
        unit=" examples",
        mininterval=1.0,
        disable=not progress,
    ) as bar:
        write(job, unfinished, bar)
    return resumed


def _run_local(job: Job, tasks: Sequence[Task], bar: tqdm, workers: int | None) -> None:
    try:
        process_pool.run(
            job.run, tasks, workers=workers, bar=bar, initializer=images.use_one_thread
        )
    except process_pool.WorkerDiedError as error:
        raise PrepareError(
            f"{error} (--workers). Finished shards are kept: the same command resumes"
        ) from error


# --- after ----------------------------------------------------------------------------------------


def _lengths(marks: Marks) -> dict[str, list[int]]:
    """Return the lengths of the shards of each split."""
    lengths: dict[str, list[int]] = {}
    for task, mark in marks:
        lengths.setdefault(task.split, []).append(mark["length"])
    return lengths


def _check_usable(report: PrepareReport, need_train: bool) -> None:
    if any(report.splits.values()) and (report.splits.get("train") or not need_train):
        return
    what = "training example" if any(report.splits.values()) else "example"
    reasons = "; ".join(f"{n} x {reason}" for reason, n in report.bad_reasons().items())
    raise PrepareError(
        f"no {what} of {report.name} could be used ({reasons[:500]}): "
        f"{report.out / REPORT_FILE} lists them"
    )


def _problems(marks: Iterable[Any]) -> Problems:
    problems = Problems()
    for mark in marks:
        problems.merge(Problems.from_json(mark["problems"], mark.get("details")))
    return problems


def _plausibility(marks: Iterable[Any]) -> PlausibilityCheck:
    plausible = PlausibilityCheck()
    for mark in marks:  # an earlier version did not check
        plausible.merge(PlausibilityCheck.from_json(mark.get("plausibility", {})))
    return plausible


def _scaled(marks: Iterable[Any]) -> Scaled:
    scaled = Scaled()
    for mark in marks:
        scaled.merge(Scaled(**mark.get("scaled", {})))  # a mark of an older version has none
    return scaled


def _enlarged(marks: Iterable[Any]) -> Enlarged:
    enlarged = Enlarged()
    for mark in marks:
        enlarged.merge(Enlarged.from_json(mark.get("enlarged", {})))  # not in older marks
    return enlarged


def _schema(
    job: Job, report: PrepareReport, marks: Marks, inherited: Schema | None, plan: Mapping[str, Any]
) -> Schema:
    if inherited is None:
        stats, pixels = StatsAccumulator(), PixelSums()
        for _, mark in marks:
            stats.merge(StatsAccumulator.from_json(mark["stats"]))
            pixels.merge(PixelSums(**mark["pixels"]))
        mean, std = pixels.finish()
        fields: Mapping[str, Any] = stats.finish()
    else:
        mean, std, fields = inherited.image_mean, inherited.image_std, inherited.fields
    source = job.source
    return Schema(
        name=job.name,
        image_size=job.options.image_size,
        classes=tuple(source.classes),
        image_mean=mean,
        image_std=std,
        fields=fields,
        splits=report.splits,
        class_weights={
            metric: tuple(float(weights[name]) for name in source.classes)
            for metric, weights in source.class_weights.items()
        },
        provenance={
            "license": source.license,
            "homepage": source.homepage,
            "statistics": report.statistics,
            "satmip_jax": satmip_jax.__version__,
            **plan,
        },
    )
