"""Metrics fetched without stalling the device; the end of a training that is not finite."""

from __future__ import annotations

import time

import jax
import numpy as np

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import replicated
from satmip_jax.errors import SatmipError
from satmip_jax.training.metrics_log import MetricsLog
from satmip_jax.training.step import Program


class NotFiniteError(SatmipError, ArithmeticError):
    """The loss or the gradient is not finite; the message names step, checkpoint and images."""


class MetricsMonitor:
    """Collects the metrics of steps on the device; writes their mean when asked.

    Reading a metric waits for its step. So metrics stay on the device until `flush`, and the
    device has no pause between steps but there.

    Args:
        metrics_log: where the means go.
        program: the program of the run.
        dataset: names the images of a batch that is not finite.
        checkpoints: names the last good checkpoint then.
    """

    def __init__(
        self,
        metrics_log: MetricsLog,
        program: Program,
        dataset: ShardDataset,
        checkpoints: Checkpoints,
    ) -> None:
        self.metrics_log, self.program = metrics_log, program
        self.dataset, self.checkpoints = dataset, checkpoints
        self._pending: list[tuple[int, jax.Array, dict[str, jax.Array]]] = []
        self._compiling, self._untimed_steps = True, 0
        self._clock = time.perf_counter()

    def add(self, step: int, index: jax.Array, metrics: dict[str, jax.Array]) -> None:
        """Add a step that was just dispatched.

        Args:
            step: its number, from 1: the number of steps done with it.
            index: (batch,) int32, numbers of the records of its batch.
            metrics: name -> scalar on the device.
        """
        self._pending.append((step, index, metrics))
        if self._compiling:  # the first step is mostly compilation: not part of any rate
            jax.block_until_ready(metrics)
            self._compiling, self._untimed_steps = False, 1
            self.restart_clock()

    def restart_clock(self) -> None:
        """Exclude the time since the last call from the measured rate."""
        self._clock = time.perf_counter()

    def flush(self) -> None:
        """Wait for the steps added since the last call, check them and write their mean.

        Raises:
            NotFiniteError: a loss or a gradient norm is NaN or infinite.
        """
        if not self._pending:
            return
        rows = []
        fetched = jax.device_get([metrics for _, _, metrics in self._pending])
        for (step, index, _), metrics in zip(self._pending, fetched, strict=True):
            row = {name: float(value) for name, value in metrics.items()}
            if not np.isfinite([row["loss"], row["grad_norm"]]).all():
                raise NotFiniteError(self._not_finite(step, index, row))
            rows.append(row)
        seconds = time.perf_counter() - self._clock
        mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        if timed := len(rows) - self._untimed_steps:
            batch_size = self.program.config.optimizer.batch_size
            mean["images_per_second"] = timed * batch_size / seconds
        self._untimed_steps = 0
        self.checkpoints.poll()
        self.metrics_log.advance(len(rows))
        self.metrics_log.write(self._pending[-1][0], mean)
        self._pending.clear()
        self.restart_clock()

    def _not_finite(self, step: int, index: jax.Array, row: dict[str, float]) -> str:
        self.checkpoints.settle()
        last = self.checkpoints.latest
        everywhere = jax.device_put(index, replicated(self.program.mesh))
        ids = self.dataset.ids(jax.device_get(everywhere).tolist())
        listed = "\n  ".join(ids[:16]) + (f"\n  ... ({len(ids)} in all)" if len(ids) > 16 else "")
        good = f"step {last} in {self.checkpoints.folder}" if last is not None else "none"
        return (
            f"step {step}: loss is {row['loss']}, gradient norm {row['grad_norm']}. "
            f"Last good checkpoint: {good}. Images of this batch:\n  {listed}\n"
            "Look at these images. A lower config.optimizer.learning_rate, or "
            "config.optimizer.clip_norm=1.0, needs another --workdir."
        )
