"""The order of samples: a pure function of the seed, the number of examples and the batch size.

All record numbers are shuffled, again in every epoch, and divided into global batches. Each process
takes its rows of every batch. So the position in the data is the step, a resumed run needs no other
state, and any number of worker processes or hosts sees the same batches.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import jax
import numpy as np
from jax.sharding import Mesh

from satmip_jax.data.shard_dataset import ShardDataset


@functools.lru_cache(maxsize=2)  # a batch may hold the end of one epoch and the start of the next
def _permutation(examples: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch; NumPy guarantees the stream of `RandomState` (NEP 19)."""
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
    return np.random.RandomState(bits).permutation(examples)


@dataclass(frozen=True)
class BatchOrder:
    """Record numbers of a process's rows of every global batch; an effectively infinite sequence.

    Element i is the list of the `batch_size // processes` rows of step `start + i`. No example
    is left out: a batch may contain the end of one epoch and the beginning of the next.

    Attributes:
        examples: number of examples of the split.
        batch_size: global batch size, a multiple of `processes`.
        seed: seed of the shuffles.
        start: step of element 0.
        process: index of the process, from 0.
        processes: number of processes of the run.

    Example:
        >>> from satmip_jax.data.sampler import BatchOrder
        >>> BatchOrder(examples=4, batch_size=3, seed=0)[1]
        [0, 1, 0]
    """

    examples: int
    batch_size: int
    seed: int
    start: int = 0
    process: int = 0
    processes: int = 1

    def __len__(self) -> int:
        return 2**52  # grain converts the length to float64, exact below 2^53

    def __getitem__(self, index: SupportsIndex) -> list[int]:
        rows = self.batch_size // self.processes
        first = (self.start + index.__index__()) * self.batch_size + self.process * rows
        numbers: list[int] = []
        while len(numbers) < rows:
            epoch, position = divmod(first + len(numbers), self.examples)
            order = _permutation(self.examples, self.seed, epoch)
            numbers += order[position : position + rows - len(numbers)].tolist()
        return numbers


def train_order(dataset: ShardDataset, *, batch_size: int, seed: int, start: int) -> BatchOrder:
    """Return the order of this process's rows in a training on `dataset`, from step `start` on."""
    process, processes = jax.process_index(), jax.process_count()
    return BatchOrder(len(dataset), batch_size, seed, start, process, processes)


def process_slice(numbers: Sequence[int], mesh: Mesh) -> list[int]:
    """Return this process's contiguous part of `numbers`, of equal length on all devices.

    The end is padded with the first number; the caller removes the padding from the results.
    """
    rows = -(-len(numbers) // mesh.size) * mesh.size
    padded = [*numbers, *[numbers[0]] * (rows - len(numbers))]
    each = rows // jax.process_count()
    return padded[jax.process_index() * each :][:each]
