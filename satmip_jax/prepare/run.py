"""Turns a source into shards: crop, resize, encode, follow with the metadata, count what is bad.

The work is cut into shards. Each is written to a temporary name, renamed when whole, and marked
as done by a small JSON file with its partial statistics. A run that was stopped, at any moment
and in any way, goes on where it was when started again. The bytes of the result depend on the
data and the options alone: not on the number of workers, nor on interruptions.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

import satmip_jax
from satmip_jax.data import images
from satmip_jax.data.remote_cache import is_remote
from satmip_jax.data.shard_format import SCHEMA_FILE, shard_file
from satmip_jax.data.shard_writer import finish
from satmip_jax.metadata.record import Problems
from satmip_jax.metadata.schema import MAX_NAME, Schema
from satmip_jax.metadata.statistics import StatsAccumulator
from satmip_jax.prepare.report import REPORT_FILE, PrepareReport
from satmip_jax.prepare.shard_job import (
    WORK,
    Job,
    Options,
    PixelSums,
    PrepareError,
    Task,
    write_json,
)
from satmip_jax.runtime import process_pool
from satmip_jax.sources.base import Ref, Source

__all__ = ["PrepareError", "PrepareReport", "prepare"]

_FORMAT = 1  # of the work folder


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
    progress: bool = True,
) -> PrepareReport:
    """Writes a source as shards of square JPEGs with metadata, in TFDS layout.

    Run again with the same options, it goes on where it stopped, and does nothing when all is done.

    Args:
      source: See `satmip_jax.sources.open_source`.
      out: A folder on a local disk: new, empty, or begun by an earlier run.
      image_size: Side of the stored squares in pixels.
      name: Of the data set, for file names; the source's own by default.
      workers: Processes of this machine; 0 works in this one. All cores by default.
      runner: "local", or "beam" for a pipeline of Apache Beam, which writes the same bytes.
      beam_options: Options of that pipeline, handed to Beam as they are, such as
        "--runner=FlinkRunner --flink_master=host:8081"; without a runner it runs on this machine.
        Workers on other machines must see the source and `out` under the same absolute paths, as
        on a network file system.
      limit: At most so many examples per split, spread evenly over the list.
      splits: Only these; all by default.
      statistics_from: A prepared folder whose image and field statistics are taken over, instead
        of computing those of the train split; what is needed to evaluate on another data set.
      shard_size: Examples per shard.
      jpeg_quality: Of images that are encoded anew.
      context_ratio: Side of the square around a labelled box in units of its longer side; the
        source's own by default.
      max_pixels: Larger images count as bad; guards against decompression bombs.
      progress: Shows a progress bar on stderr.

    Raises:
      PrepareError: Bad options, no Apache Beam or a pipeline of it that failed, a folder that holds
        something else or was begun with other options, nothing usable, or no train split to take
        statistics from.
      SourceError: The source cannot be listed.
    """
    began = time.monotonic()
    if is_remote(out):
        raise PrepareError(
            f"{out}: prepare on a local disk, then copy the folder there (--runner beam: on a "
            "network file system that all workers mount)"
        )
    out = Path(out)
    write = _runner(runner, workers, beam_options)
    ratio = source.context_ratio if context_ratio is None else context_ratio
    options = Options(image_size, jpeg_quality, ratio, max_pixels, shard_size)
    inherited = None if statistics_from is None else _load_statistics(Path(statistics_from))
    chosen = _select(source.refs(), splits, limit)
    name = source.name if name is None else name
    _check_names(name, chosen, source)
    if inherited is None and "train" not in chosen:
        raise PrepareError(
            f"no split 'train' to take statistics from (there is {', '.join(chosen)}): give "
            "--statistics-from, a prepared folder whose statistics apply"
        )
    tasks = _cut(chosen, shard_size)
    plan = {
        "format": _FORMAT,
        "name": name,
        "source": source.name,
        **{f"source.{key}": value for key, value in source.options.items()},
        **asdict(options),
        "limit": limit,
        "splits": sorted(splits) if splits else None,
        "examples": _fingerprint(tasks, source.classes),
    }
    job = Job(source, name, options, out)
    with _claim(out):
        _check_plan(out, json.loads(json.dumps(plan)))
        todo = [task for task in tasks if job.read_mark(task) is None]
        total = sum(len(task.refs) for task in tasks)
        resumed = total - sum(len(task.refs) for task in todo)
        with tqdm(
            desc=f"preparing {name}",
            total=total,
            initial=resumed,
            unit=" examples",
            mininterval=1.0,
            disable=not progress,
        ) as bar:
            write(job, todo, bar)
        marks = [(task, job.read_mark(task)) for task in tasks]
        report = PrepareReport(
            name=name,
            out=out,
            splits=_lengths(marks, sum),
            bad=[(task.split, *row) for task, mark in marks for row in mark["bad"]],
            skipped=dict(source.skipped),
            problems=_problems(mark for _, mark in marks),
            statistics="train" if statistics_from is None else os.fspath(statistics_from),
            resumed=resumed,
            seconds=time.monotonic() - began,
        )
        write_json(out / REPORT_FILE, report.to_json())
        _check_usable(report, need_train=inherited is None)
        schema = _schema(job, report, marks, inherited, plan)
        finish(out, schema, _lengths(marks, list))
        report = replace(report, seconds=time.monotonic() - began)
        write_json(out / REPORT_FILE, report.to_json())
    return report


def _runner(
    name: str, workers: int | None, beam_options: str
) -> Callable[[Job, Sequence[Task], tqdm], None]:
    """What has the shards of a job written, somewhere; refuses bad options at once."""
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
        raise PrepareError(f"--beam-options {beam_options!r}: are for --runner beam")
    return partial(_run_local, workers=workers)


def _run_local(job: Job, tasks: Sequence[Task], bar: tqdm, workers: int | None) -> None:
    try:
        process_pool.run(
            job.run, tasks, workers=workers, bar=bar, initializer=images.use_one_thread
        )
    except process_pool.WorkerDiedError as error:
        raise PrepareError(
            f"{error}: try fewer --workers; finished shards are kept, the same command goes on "
            "from there"
        ) from error


def _load_statistics(folder: Path) -> Schema:
    try:
        return Schema.load(folder / SCHEMA_FILE)
    except OSError as error:
        raise PrepareError(
            f"--statistics-from {folder}: no prepared data there: {error}"
        ) from error


def _select(
    refs: Sequence[Ref], splits: Sequence[str] | None, limit: int | None
) -> dict[str, list[Ref]]:
    """The examples of each split that is wanted, splits in alphabetical order."""
    by_split: dict[str, list[Ref]] = {}
    for ref in refs:
        by_split.setdefault(ref.split, []).append(ref)
    if not refs:
        raise PrepareError("the source lists no examples")
    if len({ref.id for ref in refs}) < len(refs):
        twice = Counter(ref.id for ref in refs).most_common(1)[0][0]
        raise PrepareError(f"the source lists {twice!r} twice: ids must be unique")
    if splits and (not all(splits) or len(set(splits)) < len(splits)):
        raise PrepareError(
            f"--splits {','.join(splits)!r}: name each split once, as in "
            f"{','.join(sorted(by_split))}"
        )
    if unknown := set(splits or ()) - by_split.keys():
        raise PrepareError(f"no split {min(unknown)!r}: there is {', '.join(sorted(by_split))}")
    if limit is not None and limit < 1:
        raise PrepareError(f"--limit {limit}: must be at least 1")
    chosen = {}
    for split in sorted(splits or by_split):
        listed = by_split[split]
        n = min(len(listed), limit or len(listed))
        # spread, because lists are often sorted by class
        chosen[split] = [listed[i * len(listed) // n] for i in range(n)]
    return chosen


def _check_names(name: str, splits: Iterable[str], source: Source) -> None:
    """Reject at once what could not be saved hours later."""
    classes = source.classes
    for split in splits:
        try:
            shard_file(name, split, 0, 1)
        except ValueError as error:
            raise PrepareError(str(error)) from error
    for text in classes:
        if not 0 < len(text) <= MAX_NAME or not text.isprintable():
            raise PrepareError(f"class {text[:MAX_NAME]!r}: must be 1 to {MAX_NAME} printable")
    if len(set(classes)) < len(classes):
        raise PrepareError(f"class {Counter(classes).most_common(1)[0][0]!r} exists twice")
    for metric, weights in source.class_weights.items():
        if not metric.endswith("_f1"):
            raise PrepareError(f"class_weights: the name of {metric!r} must end in _f1")
        if missing := sorted(set(classes) - weights.keys()):
            raise PrepareError(f"class_weights: {metric} has no weight for {missing[0]!r}")


def _cut(chosen: Mapping[str, Sequence[Ref]], shard_size: int) -> list[Task]:
    return [
        Task(split, i, -(-len(refs) // shard_size), tuple(refs[start : start + shard_size]))
        for split, refs in chosen.items()
        for i, start in enumerate(range(0, len(refs), shard_size))
    ]


def _fingerprint(tasks: Sequence[Task], classes: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for task in tasks:
        digest.update(json.dumps([task.split, [ref.id for ref in task.refs]]).encode())
    return digest.hexdigest()


# --- the folder and its plan ----------------------------------------------------------------------


@contextlib.contextmanager
def _claim(out: Path) -> Iterator[None]:
    """Holds the folder for this process; frees it even when the process is killed."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / WORK).exists())):
        raise PrepareError(f"{out} holds something else: choose a new or empty folder")
    (out / WORK).mkdir(parents=True, exist_ok=True)
    with (out / WORK / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PrepareError(f"{out}: another process is preparing this folder") from error
        for left in [*out.glob(".*.tmp"), *(out / WORK).glob(".*.tmp")]:
            left.unlink()  # by a run that was killed
        yield


def _check_plan(out: Path, plan: dict[str, Any]) -> None:
    """Notes the options in a new folder; in one that was begun, they must be the same."""
    path = out / WORK / "plan.json"
    if not path.exists():
        write_json(path, plan)
        return
    begun = json.loads(path.read_text())
    differing = [key for key in begun | plan if begun.get(key) != plan.get(key)]
    if "examples" in differing and len(differing) > 1:
        differing.remove("examples")  # it follows from the others
    if differing:
        changes = ", ".join(
            "other examples are listed"
            if key == "examples"
            else f"{key} was {begun.get(key)!r} and is now {plan.get(key)!r}"
            for key in differing
        )
        raise PrepareError(
            f"{out} was begun differently: {changes}. Use the same options to go on, "
            "another folder, or delete this one to start afresh"
        )


# --- the end --------------------------------------------------------------------------------------

Marks = Sequence[tuple[Task, Any]]


def _lengths(marks: Marks, gather: Callable[[list[int]], Any]) -> dict[str, Any]:
    """Split -> the lengths of its shards, gathered."""
    lengths: dict[str, list[int]] = {}
    for task, mark in marks:
        lengths.setdefault(task.split, []).append(mark["length"])
    return {split: gather(shards) for split, shards in lengths.items()}


def _check_usable(report: PrepareReport, need_train: bool) -> None:
    if any(report.splits.values()) and (report.splits.get("train") or not need_train):
        return
    what = "training example" if any(report.splits.values()) else "example"
    reasons = "; ".join(f"{n} x {reason}" for reason, n in report.bad_reasons().items())
    raise PrepareError(
        f"no {what} of {report.name} could be used ({reasons[:500]}): "
        f"{report.out / REPORT_FILE} names each one"
    )


def _problems(marks: Iterable[Any]) -> Problems:
    problems = Problems()
    for mark in marks:
        problems.merge(Problems.from_json(mark["problems"]))
    return problems


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
            metric: tuple(weights[name] for name in source.classes)
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
