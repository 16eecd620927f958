"""Metrics fetched without holding up the device; training ends on what is not finite."""

from __future__ import annotations

import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.errors import SatmipError
from satmip_jax.training.metrics_log import MetricsLog


class NotFiniteError(SatmipError, ArithmeticError):
    """The loss or the gradient is not finite; the message names step, checkpoint and batch."""


class MetricsMonitor:
    """Fetches metrics without holding up the device, and stops on what is not finite."""

    def __init__(
        self, logbook: MetricsLog, dataset: ShardDataset, checkpoints: Checkpoints, batch_size: int
    ) -> None:
        self.logbook, self.dataset, self.checkpoints = logbook, dataset, checkpoints
        self.batch_size = batch_size
        self.pending: list[tuple[int, jax.Array, dict[str, jax.Array]]] = []
        self.compiling, self.untimed = True, 0
        self.since = time.perf_counter()

    def started(self, step: int, index: jax.Array) -> None:
        self.step, self.index = step, index

    def finished(self, metrics: dict[str, jax.Array]) -> None:
        self.pending.append((self.step, self.index, metrics))
        if self.compiling:  # the first step is mostly compilation, which no rate should hold
            jax.block_until_ready(metrics)
            self.compiling, self.untimed = False, 1
            self.restart_clock()

    def restart_clock(self) -> None:
        """Leave what was done since the last call out of the measured rate."""
        self.since = time.perf_counter()

    def log(self) -> None:
        """Wait for the steps since the last call, check them and write their mean."""
        if not self.pending:
            return
        rows = []
        for step, index, metrics in self.pending:
            row = {name: float(value) for name, value in metrics.items()}
            if not np.isfinite([row["loss"], row["grad_norm"]]).all():
                raise NotFiniteError(self._not_finite(step, index, row))
            rows.append(row)
        seconds = time.perf_counter() - self.since
        mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        if len(rows) > self.untimed:
            mean["images_per_second"] = (len(rows) - self.untimed) * self.batch_size / seconds
        self.untimed = 0
        self.checkpoints.poll()
        self.logbook.advance(len(rows))
        self.logbook.write(self.pending[-1][0], mean)
        self.pending.clear()
        self.restart_clock()

    def _not_finite(self, step: int, index: jax.Array, row: dict[str, float]) -> str:
        self.checkpoints.settle()
        last = self.checkpoints.latest
        rows = multihost_utils.process_allgather(index, tiled=True)
        ids = self.dataset.ids(rows.tolist())
        shown = "\n  ".join(ids[:16]) + (f"\n  ... ({len(ids)} in all)" if len(ids) > 16 else "")
        good = f"step {last} in {self.checkpoints.folder}" if last is not None else "none"
        return (
            f"step {step}: loss is {row['loss']}, gradient norm {row['grad_norm']}. "
            f"Last good checkpoint: {good}. Images of this batch:\n  {shown}\n"
            "Look at these images, lower config.optimizer.learning_rate or set "
            "config.optimizer.clip_norm=1.0."
        )
