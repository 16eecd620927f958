"""The order of samples: a pure function of the seed, the number of examples and the batch size.

All record numbers are shuffled, again in every epoch, and divided into global batches. Each process
takes its rows of every batch. So the position in the data is the step, a resumed run needs no other
state, and any number of worker processes or hosts sees the same batches.

No batch holds an example twice, also where one epoch ends within it and the next one begins: the
new epoch's first rows that would repeat an example of the batch change places with its last ones.
"""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from jax.sharding import Mesh

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed.sharding import process_rows
from satmip_jax.errors import ConfigError

MAX_REPLACEMENTS = 16  # tried in turn
_KEPT_EPOCHS = 3  # a batch may need two, and threads may be a batch apart


def _permutation(examples: int, *seeds: int) -> np.ndarray:
    """Return a random order; NumPy guarantees the stream of `RandomState` (NEP 19)."""
    bits = np.random.MT19937(np.random.SeedSequence(seeds))
    return np.random.RandomState(bits).permutation(examples)


class _EpochOrders:
    """The order of examples in each epoch.

    The order of an epoch depends on the end of the one before, back to an epoch that begins with a
    batch: one in `batch_size` does at least. So the newest ones are kept: an epoch costs one
    shuffle, and a resumed run first shuffles earlier ones, about 20 million examples per second.
    """

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        self._examples, self._batch_size, self._seed = examples, batch_size, seed
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __getitem__(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._kept:
                period = self._batch_size // math.gcd(self._examples, self._batch_size)
                first = epoch // period * period  # begins with a batch
                known = [earlier + 1 for earlier in self._kept if first <= earlier < epoch]
                for number in range(max(known, default=first), epoch + 1):
                    self._kept[number] = self._order(number)
                    if len(self._kept) > _KEPT_EPOCHS:
                        del self._kept[next(iter(self._kept))]
            return self._kept[epoch]

    def _order(self, epoch: int) -> np.ndarray:
        order = _permutation(self._examples, self._seed, epoch)
        taken = epoch * self._examples % self._batch_size  # rows of the first batch
        if not taken:
            return order
        in_batch = np.zeros(self._examples, bool)
        in_batch[self._kept[epoch - 1][-taken:]] = True
        rest = self._batch_size - taken
        repeated = np.flatnonzero(in_batch[order[:rest]])
        # The last ones, because the last batch of an epoch is shared with the next epoch as well:
        # batches within an epoch stay those of the plain shuffle.
        others = np.flatnonzero(~in_batch[order[rest:]])[::-1][: len(repeated)] + rest
        order[repeated], order[others] = order[others], order[repeated]
        return order


_epoch_orders = functools.lru_cache(maxsize=4)(_EpochOrders)


@dataclass(frozen=True, eq=False)
class BatchOrder:
    """Record numbers of a process's rows of every global batch; an effectively infinite sequence.

    Element i is the list of the process's rows of step `start + i`. Batches follow each other
    across epochs: a batch may contain the end of one epoch and the beginning of the next. Every
    epoch holds every example exactly once, and no batch holds an example twice.

    Attributes:
        examples: number of examples of the split.
        batch_size: global batch size, at most `examples`.
        seed: seed of the shuffles.
        start: step of element 0.
        rows: the process's rows of a global batch, from `process_rows`; by default all.

    Raises:
        ConfigError: the batch is larger than the split.

    Example:
        >>> from satmip_jax.data.sampler import BatchOrder
        >>> BatchOrder(examples=4, batch_size=3, seed=0)[1]
        [0, 1, 2]
    """

    examples: int
    batch_size: int
    seed: int
    start: int = 0
    rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.batch_size > self.examples:
            raise ConfigError(
                f"config.optimizer.batch_size is {self.batch_size}, and there are only "
                f"{self.examples} examples: a batch would contain duplicates"
            )

    def __len__(self) -> int:
        return 2**52  # grain converts the length to float64, exact below 2^53

    def __getitem__(self, index: SupportsIndex) -> list[int]:
        return self.batch(index)[self._rows].tolist()

    @property
    def _rows(self) -> np.ndarray:
        return np.arange(self.batch_size) if self.rows is None else self.rows

    def batch(self, index: SupportsIndex) -> np.ndarray:
        """Return the record numbers of the global batch of element `index`, int64 (batch_size,)."""
        orders = _epoch_orders(self.examples, self.batch_size, self.seed)
        epoch, first = divmod((self.start + index.__index__()) * self.batch_size, self.examples)
        numbers = orders[epoch][first : first + self.batch_size]
        if missing := self.batch_size - len(numbers):
            numbers = np.concatenate([numbers, orders[epoch + 1][:missing]])
        return numbers

    def replacements(self, index: SupportsIndex, position: int) -> Iterator[int]:
        """Yield records that may replace a bad one of element `index`; none is in its global batch.

        The examples outside the batch are divided among its rows. So processes replace records
        without asking each other, and yet not by the same ones. A row whose share is used up
        continues with those of the other rows of its process; the caller skips those in use.

        Args:
            index: element of this sequence.
            position: of the bad record in the element.

        Example:
            >>> from satmip_jax.data.sampler import BatchOrder
            >>> order = BatchOrder(examples=8, batch_size=3, seed=0)
            >>> order.batch(0).tolist(), list(order.replacements(0, 1))
            ([6, 3, 5], [7, 1, 2, 4, 0])
        """
        batch, rows = np.sort(self.batch(index)), self._rows
        spare = self.examples - self.batch_size
        offsets = batch - np.arange(self.batch_size)  # spare examples below each of the batch

        def share(row: int) -> Iterator[int]:
            ranks = np.arange(row, spare, self.batch_size)
            for rank in ranks[_permutation(len(ranks), number)]:
                yield int(rank + np.searchsorted(offsets, rank, side="right"))

        number = self[index][position]
        shares = (share(int(row)) for row in np.roll(rows, -position))
        return itertools.islice(itertools.chain.from_iterable(shares), MAX_REPLACEMENTS)


def train_order(
    dataset: ShardDataset, mesh: Mesh, *, batch_size: int, seed: int, start: int
) -> BatchOrder:
    """Return the order of this process's rows in a training on `dataset`, from step `start` on."""
    return BatchOrder(len(dataset), batch_size, seed, start, process_rows(mesh, batch_size))


def pad(numbers: np.ndarray, multiple: int) -> np.ndarray:
    """Repeat the first of `numbers` at the end, up to a length that is a multiple of `multiple`."""
    return np.pad(numbers, (0, -len(numbers) % multiple), constant_values=numbers[0])
