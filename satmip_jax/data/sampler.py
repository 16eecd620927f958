"""The order of samples, a pure function of (seed, number of examples, global batch size).

A global shuffle of record numbers, anew each epoch, cut into global batches, of which each process
takes its rows. So the position in the data is the step, a resume is a slice, and any number of
worker processes or hosts sees the same batches.
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
    """An epoch's order; numpy has frozen what `RandomState` draws (NEP 19)."""
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
    return np.random.RandomState(bits).permutation(examples)


@dataclass(frozen=True)
class BatchOrder:
    """The record numbers of a process's rows of each global batch, a sequence as good as endless.

    Element i is the list of the `batch_size // processes` rows of step `start + i`. No example
    is left out: a batch may hold the end of one epoch and the beginning of the next.

    Example:
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
        return 2**52  # grain takes the length as a float, exact below 2^53

    def __getitem__(self, index: SupportsIndex) -> list[int]:
        rows = self.batch_size // self.processes
        first = (self.start + index.__index__()) * self.batch_size + self.process * rows
        numbers: list[int] = []
        while len(numbers) < rows:
            epoch, place = divmod(first + len(numbers), self.examples)
            order = _permutation(self.examples, self.seed, epoch)
            numbers += order[place : place + rows - len(numbers)].tolist()
        return numbers


def train_order(dataset: ShardDataset, *, batch_size: int, seed: int, start: int) -> BatchOrder:
    """This process's rows of each batch of a training on `dataset`, from step `start` on."""
    this = jax.process_index(), jax.process_count()
    return BatchOrder(len(dataset), batch_size, seed, start, *this)


def process_slice(numbers: Sequence[int], mesh: Mesh) -> list[int]:
    """This process's contiguous part of `numbers`, of equal length on all devices.

    What is missing at the end is filled with the first number, and so is to be cut off again.
    """
    rows = -(-len(numbers) // mesh.size) * mesh.size
    padded = [*numbers, *[numbers[0]] * (rows - len(numbers))]
    each = rows // jax.process_count()
    return padded[jax.process_index() * each :][:each]
