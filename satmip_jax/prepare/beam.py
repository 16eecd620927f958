"""The shards of a preparation as an Apache Beam pipeline: on this machine, or on a cluster.

Beam replaces the processes of `pool`, and nothing else: each element of the pipeline names one
shard to write, workers leave the same shard files and the same marks in the same folder, and the
driver reads the marks. So the bytes of the result are those that local workers write, and a run
that was stopped goes on where it was, with Beam or without.

    .prepare/beam/train-00003-of-00356.json   a task: ids and locations of the examples of a shard

Tasks lie in the folder rather than in the pipeline, whose size is limited (Dataflow: 10 MB), and
which Beam compresses slowly: minutes for all of fMoW.

All of Beam is imported here; `prepare` imports this file when it is asked for.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import threading
import time
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState
from tqdm import tqdm

from satmip_jax.data import images
from satmip_jax.prepare.shard_job import WORK, Job, PrepareError, Task
from satmip_jax.runtime import process_pool
from satmip_jax.sources.base import Ref

# What DirectRunner runs a batch with, unless it first downloads and starts a program in Go
# (prism), which knows nothing of direct_num_workers.
_LOCAL = "FnApiRunner"
_TASKS = "beam"
_PATIENCE = 90.0  # seconds until files of another machine show: NFS looks again after 60
_LOOK = 1.0  # seconds between two looks at what is done


def pipeline_options(text: str, workers: int | None) -> PipelineOptions:
    """Reads options of Beam as its own programs take them.

    Args:
      text: As in a shell: "--runner=DataflowRunner --project=mine". Without a runner, the
        pipeline runs on this machine.
      workers: Processes on this machine: 0 works in this one, None takes a process per core.

    Raises:
      PrepareError: Beam cannot read the options, or `workers` is given with another runner.

    Example:
      >>> pipeline_options("", workers=2).get_all_options(drop_default=True)["direct_num_workers"]
      2
    """
    try:
        options = PipelineOptions(shlex.split(text))
        given = options.get_all_options(drop_default=True)
    except (ValueError, SystemExit) as error:  # argparse says what is wrong, and exits
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise PrepareError(f"--beam-options {text!r}: Beam cannot read them{reason}") from error
    if "runner" not in given:
        workers = process_pool.cores() if workers is None else workers
        options.view_as(StandardOptions).runner = _LOCAL
        local = options.view_as(DirectOptions)
        local.direct_num_workers = max(workers, 1)
        local.direct_running_mode = "multi_processing" if workers else "in_memory"
    elif workers is not None:
        raise PrepareError(
            f"--workers {workers}: is for Beam on this machine; give {given['runner']} its own "
            "option in --beam-options, such as --max_num_workers (Dataflow) or --parallelism "
            "(Flink)"
        )
    return options


def run(job: Job, tasks: Sequence[Task], bar: tqdm, options: PipelineOptions) -> None:
    """Has Beam write the shards of `tasks`.

    Args:
      job: Its source and its folder lie where all workers see them, under the same path.
      tasks: The shards that are not written yet.
      bar: Moves on by the examples of every shard that is done.
      options: See `pipeline_options`.

    Raises:
      PrepareError: The pipeline failed, or the shards are not in the folder afterwards.
    """
    if not tasks:
        return
    names = _save(job, tasks)
    follower = _Follower(job, tasks, bar)
    follower.start()
    try:
        result = _pipeline(job, names, options).run()
        try:
            state = result.wait_until_finish()
        except BaseException:  # Ctrl-C, too, ends what runs on a cluster
            with contextlib.suppress(Exception):
                result.cancel()
            raise
    except Exception as error:
        raise PrepareError(
            f"the Beam pipeline failed: {_reason(error)}; finished shards are kept, the same "
            "command goes on from there"
        ) from error
    finally:
        follower.stop()
    if state is not None and state != PipelineState.DONE:
        raise PrepareError(f"the Beam pipeline ended as {state}: give the same command to go on")
    if missing := follower.wait(_PATIENCE):
        raise PrepareError(
            f"Beam is done, but {missing} of {len(tasks)} shards are not in {job.out}: its workers "
            "must see that folder, and the source, under the same absolute paths as this machine, "
            "as on a network file system"
        )
    shutil.rmtree(job.out / WORK / _TASKS)


def _save(job: Job, tasks: Sequence[Task]) -> list[str]:
    """Writes the tasks for the workers to read; returns the names of the files."""
    (job.out / WORK / _TASKS).mkdir(exist_ok=True)
    names = [job.mark(task).name for task in tasks]
    for name, task in zip(names, tasks, strict=True):
        refs = [(ref.id, ref.split, ref.location) for ref in task.refs]
        (job.out / WORK / _TASKS / name).write_text(json.dumps({**vars(task), "refs": refs}))
    return names


def _load(job: Job, name: str) -> Task:
    saved = json.loads((job.out / WORK / _TASKS / name).read_bytes())
    refs = (Ref(id_, split, tuple(location)) for id_, split, location in saved.pop("refs"))
    return Task(**saved, refs=tuple(refs))


def _pipeline(job: Job, names: Sequence[str], options: PipelineOptions) -> beam.Pipeline:
    pipeline = beam.Pipeline(options=options)
    (
        pipeline
        | "Shards" >> beam.Create(names, reshuffle=False)
        | "Spread" >> beam.Reshuffle()  # else one worker would write all that it created
        | "Write" >> beam.Map(_write, job)
    )
    return pipeline


def _write(name: str, job: Job) -> None:
    """On a worker: writes one shard, unless it is there: Beam may hand a task out again."""
    images.use_one_thread()
    task = _load(job, name)
    if job.read_mark(task) is None:
        job.run(task, beam.metrics.Metrics.counter("satmip", "examples").inc)


class _Follower(threading.Thread):
    """Moves a bar by what workers, wherever they are, have finished: their marks tell."""

    def __init__(self, job: Job, tasks: Sequence[Task], bar: tqdm) -> None:
        super().__init__(daemon=True)
        self._job, self._bar = job, bar
        self._waiting = {job.mark(task).name: task for task in tasks}
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(_LOOK):
            self._look()

    def stop(self) -> None:
        self._stopped.set()
        self.join()
        self._look()

    def wait(self, seconds: float) -> int:
        """Waits until all shards are there, or for so long; returns how many are missing."""
        end = time.monotonic() + seconds
        while self._waiting and time.monotonic() < end:
            time.sleep(_LOOK)
            self._look()
        return len(self._waiting)

    def _look(self) -> None:
        there = {path.name for path in (self._job.out / WORK).iterdir()}
        for name in there & self._waiting.keys():
            if self._job.read_mark(self._waiting[name]) is not None:
                self._bar.update(len(self._waiting.pop(name).refs))


def _reason(error: Exception) -> str:
    """The last line that says something: a worker's error comes with its traceback as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(error).__name__
