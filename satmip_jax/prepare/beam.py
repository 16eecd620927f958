"""Preparation as an Apache Beam pipeline, on this machine or on a cluster.

Beam only replaces `runtime.process_pool`: each element of the pipeline names one shard, workers
write the same shard files and marks to the same folder, and the driver reads the marks. The bytes
of the result are those that local workers write, and an interrupted run resumes with Beam or
without.

    .prepare/beam/train-00003-of-00356.json   a task: ids and locations of the examples of a shard

Tasks are files rather than elements of the pipeline, because the size of a pipeline is limited
(Dataflow: 10 MB), and Beam takes minutes to compress all of fMoW.

Beam is imported by this module only, and `prepare` imports it only for `--runner beam`.
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

# DirectRunner may download and start a Go program (prism), which ignores direct_num_workers; this
# is the runner that it uses otherwise.
_LOCAL_RUNNER = "FnApiRunner"
_TASKS = "beam"
_TIMEOUT = 90.0  # seconds until files of another machine are visible: NFS caches for up to 60
_POLL = 1.0  # seconds between two polls for finished shards


def pipeline_options(text: str, workers: int | None) -> PipelineOptions:
    """Parse options of Beam.

    Args:
        text: Options as in a shell, "--runner=DataflowRunner --project=mine". Without a runner, the
            pipeline runs on this machine.
        workers: Worker processes on this machine; 0 works in this process, None is one per core.

    Raises:
        PrepareError: Beam cannot parse the options, or `workers` is given with another runner.
    """
    try:
        options = PipelineOptions(shlex.split(text))
        given = options.get_all_options(drop_default=True)
    except (ValueError, SystemExit) as error:  # argparse prints the error and exits
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise PrepareError(f"--beam-options {text!r}: Beam cannot parse them{reason}") from error
    if "runner" not in given:
        workers = process_pool.cores() if workers is None else workers
        options.view_as(StandardOptions).runner = _LOCAL_RUNNER
        local = options.view_as(DirectOptions)
        local.direct_num_workers = max(workers, 1)
        local.direct_running_mode = "multi_processing" if workers else "in_memory"
    elif workers is not None:
        raise PrepareError(
            f"--workers {workers}: only for Beam on this machine; for {given['runner']} use its "
            "option in --beam-options, such as --max_num_workers (Dataflow) or --parallelism "
            "(Flink)"
        )
    return options


def run(job: Job, tasks: Sequence[Task], bar: tqdm, options: PipelineOptions) -> None:
    """Write the shards of `tasks` by a Beam pipeline.

    Args:
        job: All workers must see its source and its folder under the same paths.
        tasks: The shards that are not written yet.
        bar: Progress bar, updated when a shard is finished.
        options: See `pipeline_options`.

    Raises:
        PrepareError: The pipeline failed, or shards are missing in the folder afterwards.
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
        except BaseException:  # Ctrl-C also cancels a job on a cluster
            with contextlib.suppress(Exception):
                result.cancel()
            raise
    except Exception as error:
        raise PrepareError(
            f"the Beam pipeline failed: {_reason(error)}. Finished shards are kept: the same "
            "command resumes"
        ) from error
    finally:
        follower.stop()
    if state is not None and state != PipelineState.DONE:
        raise PrepareError(f"the Beam pipeline ended as {state}: the same command resumes")
    if missing := follower.wait(_TIMEOUT):
        raise PrepareError(
            f"Beam has finished, but {missing} of {len(tasks)} shards are missing in {job.out}: "
            "its workers must see that folder and the source under the same absolute paths as this "
            "machine, as on a network file system"
        )
    shutil.rmtree(job.out / WORK / _TASKS)


def _save(job: Job, tasks: Sequence[Task]) -> list[str]:
    """Write the tasks for the workers, and return the names of the files."""
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
        | "Spread" >> beam.Reshuffle()  # otherwise one worker would write them all
        | "Write" >> beam.Map(_write, job)
    )
    return pipeline


def _write(name: str, job: Job) -> None:
    """Write one shard on a worker, unless it exists: Beam may run a task twice."""
    images.use_one_thread()
    task = _load(job, name)
    if job.read_mark(task) is None:
        job.run(task, beam.metrics.Metrics.counter("satmip", "examples").inc)


class _Follower(threading.Thread):
    """Updates a progress bar by the marks of finished shards, from workers on any machine."""

    def __init__(self, job: Job, tasks: Sequence[Task], bar: tqdm) -> None:
        super().__init__(daemon=True)
        self._job, self._bar = job, bar
        self._waiting = {job.mark(task).name: task for task in tasks}
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(_POLL):
            self._poll()

    def stop(self) -> None:
        self._stopped.set()
        self.join()
        self._poll()

    def wait(self, seconds: float) -> int:
        """Wait until all shards are finished, or for a time; return how many are missing."""
        end = time.monotonic() + seconds
        while self._waiting and time.monotonic() < end:
            time.sleep(_POLL)
            self._poll()
        return len(self._waiting)

    def _poll(self) -> None:
        files = {path.name for path in (self._job.out / WORK).iterdir()}
        for name in files & self._waiting.keys():
            if self._job.read_mark(self._waiting[name]) is not None:
                self._bar.update(len(self._waiting.pop(name).refs))


def _reason(error: Exception) -> str:
    """Return the last line with text: a worker's error is the text of its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(error).__name__
