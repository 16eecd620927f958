"""A trace of some steps of a training by the JAX profiler, for TensorBoard, XProf or Perfetto."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax

from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import ConfigError
from satmip_jax.runtime import stores
from satmip_jax.runtime.paths import AnyPath, is_remote, local_path

log = logging.getLogger(__name__)

FOLDER = "profile"  # in the workdir


def parse_steps(text: str) -> range:
    """Return the steps that "FIRST:LAST" names, from 0, both included.

    Raises:
        ConfigError: it is not of that form, or LAST is before FIRST.

    Example:
        >>> from satmip_jax.training.profiling import parse_steps
        >>> parse_steps("10:12")
        range(10, 13)
    """
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text)
    if match is None or int(match[2]) < int(match[1]):
        raise ConfigError(
            f"--profile {text}: give FIRST:LAST, numbers of steps from 0, such as 10:12"
        )
    return range(int(match[1]), int(match[2]) + 1)


def check_steps(steps: range, total: int) -> None:
    """Raise ConfigError if a run of `total` steps does not have all of `steps`."""
    if steps and steps[-1] >= total:
        raise ConfigError(
            f"--profile {steps[0]}:{steps[-1]}: this run has {total:,} steps, "
            f"so the last one is {total - 1}"
        )


class StepProfiler:
    """Traces some steps of a training into a folder.

    Only the main process traces: in a run of several processes all do the same work. The first
    step of a start includes compilation; a trace of a few later steps is what one wants to see.

    Args:
        folder: folder of the trace; `tensorboard --logdir FOLDER` shows it, with the plug-in of
            XProf installed.
        steps: steps to trace; empty for none.
        start: first step of this start of the run. Earlier steps cannot be traced any more.

    Example:
        >>> from satmip_jax.training.profiling import StepProfiler
        >>> with StepProfiler(Path("profile"), range(1, 3), start=0) as profiler:
        ...     for step in range(4):
        ...         with profiler.step(step):
        ...             x = jnp.sin(jnp.arange(3.0))
        ...         profiler.end_step(step, x)
        >>> len([*Path("profile").rglob("*.xplane.pb")])
        1
    """

    def __init__(self, folder: AnyPath, steps: range, *, start: int) -> None:
        if steps and start > steps[0]:
            log.warning(
                f"steps {steps[0]} to {min(start - 1, steps[-1])} cannot be traced, as the run "
                f"resumes at step {start}"
            )
        self._folder = folder
        self._steps = steps if is_main_process() else range(0)
        self._tracing = False
        self._temporary: TemporaryDirectory[str] | None = None  # of a trace for a bucket

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Enclose what one step does on the host: waiting for its batch, and its dispatch."""
        if number not in self._steps:
            yield
            return
        if not self._tracing:
            jax.profiler.start_trace(self._local_folder())
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def end_step(self, number: int, results: Any) -> None:
        """After the last step to trace, wait for its results and write the trace."""
        if self._tracing and number == self._steps[-1]:
            jax.block_until_ready(results)
            self._stop()
            log.info(f"trace of steps {self._steps[0]} to {number}: {self._folder}")

    def _local_folder(self) -> Path:
        if not is_remote(self._folder):
            return local_path(self._folder, "profile")
        self._temporary = TemporaryDirectory(prefix="satmip-trace-")
        return Path(self._temporary.name)

    def _stop(self) -> None:
        self._tracing = False
        try:
            jax.profiler.stop_trace()
            if self._temporary is not None:
                stores.put_folder(Path(self._temporary.name), self._folder)
                self._temporary.cleanup()
        except (OSError, RuntimeError) as error:  # RuntimeError: XLA's, of a full disk
            log.warning(f"the trace could not be written to {self._folder}: {error}")

    def __enter__(self) -> StepProfiler:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracing:  # the run ended within the steps to trace
            self._stop()
