"""One shard of a preparation: read, crop, resize, encode, count; and the mark that it is done."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from satmip_jax.data import images
from satmip_jax.data.shard_format import Record, is_id, shard_file
from satmip_jax.data.shard_writer import write_shard
from satmip_jax.errors import SatmipError
from satmip_jax.metadata.record import Problems
from satmip_jax.metadata.statistics import StatsAccumulator
from satmip_jax.runtime.files import write_atomically
from satmip_jax.sources.base import Example, Ref, Source, UnreadableExample

WORK = ".prepare"  # the plan, a lock, and a mark per finished shard
AHEAD = 16  # examples read before the first is decoded, at most,
AHEAD_BYTES = 32 << 20  # and no other after so many bytes


class PrepareError(SatmipError, ValueError):
    """The data cannot be prepared; the message says why and what to do next."""


@dataclass(frozen=True)
class Options:
    """What decides the bytes of the result; see `prepare`."""

    image_size: int
    jpeg_quality: int
    context_ratio: float | None
    max_pixels: int
    shard_size: int

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("--image-size ", self.image_size, 8, 4096),
            ("jpeg_quality=", self.jpeg_quality, 1, 100),  # it and the others have no flag
            ("max_pixels=", self.max_pixels, 1, 2**40),
            ("shard_size=", self.shard_size, 1, 1_000_000),
        ):
            if not low <= value <= high:
                raise PrepareError(f"{name}{value}: must be between {low} and {high}")
        if self.context_ratio is not None and not 1 <= self.context_ratio <= 100:
            raise PrepareError(f"--context-ratio {self.context_ratio}: must be between 1 and 100")


@dataclass(frozen=True)
class Task:
    """One shard to write."""

    split: str
    index: int
    count: int
    refs: tuple[Ref, ...]


@dataclass(frozen=True)
class Job:
    """All that a worker process needs, besides the task."""

    source: Source
    name: str
    options: Options
    out: Path

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.source.classes)}

    def shard(self, task: Task) -> Path:
        return self.out / shard_file(self.name, task.split, task.index, task.count)

    def mark(self, task: Task) -> Path:
        return self.out / WORK / f"{task.split}-{task.index:05d}-of-{task.count:05d}.json"

    def read_mark(self, task: Task) -> Any:
        """What is known of a finished shard; None where it is not finished."""
        try:
            mark = json.loads(self.mark(task).read_bytes())
            return mark if self.shard(task).stat().st_size == mark["bytes"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def run(self, task: Task, tick: Callable[[], None]) -> None:
        """Writes one shard, then its mark."""
        problems, stats, sums = Problems(), StatsAccumulator(), PixelSums()
        bad: dict[str, str] = {}
        train = task.split == "train"

        def refuse(ref: Ref, error: Exception) -> None:
            bad[ref.id] = str(error)
            tick()

        def records() -> Iterator[Record]:
            for group in self._read_ahead(task.refs, refuse):
                made = []  # without pixels, which may be large
                for item in group:
                    try:
                        square = self._cut(item.example)
                    except images.ImageError as error:
                        refuse(item.ref, error)
                        continue
                    if train:
                        sums.add(square.pixels)
                    made.append(self._record(item, square))
                    problems.merge(item.problems)
                for record in made:
                    if train:
                        stats.add(record.metadata)
                    yield record
                    tick()

        length = write_shard(self.shard(task), records())
        write_json(
            self.mark(task),
            {
                "bytes": self.shard(task).stat().st_size,
                "length": length,
                "bad": [(ref.id, bad[ref.id]) for ref in task.refs if ref.id in bad],
                "problems": problems.to_json(),
                "stats": stats.to_json(),
                "pixels": asdict(sums),
            },
        )

    def _read_ahead(
        self, refs: Sequence[Ref], refuse: Callable[[Ref, Exception], None]
    ) -> Iterator[list[_Read]]:
        """Reads examples in small groups: steps that are repeated stay in the caches."""
        group: list[_Read] = []
        size = 0
        for ref in refs:
            own = Problems()  # counted only if the example is kept
            try:
                example, label = self._read(ref, own)
            except (UnreadableExample, images.ImageError) as error:
                refuse(ref, error)
                continue
            group.append(_Read(ref, example, label, own))
            size += len(example.image)
            if len(group) == AHEAD or size > AHEAD_BYTES:
                yield group
                group, size = [], 0
        yield group

    def _read(self, ref: Ref, problems: Problems) -> tuple[Example, int]:
        """An example and the number of its class, -1 without one."""
        if not is_id(ref.id):
            raise UnreadableExample("its id is too long or cannot be printed")
        example = self.source.read(ref, problems)
        if example.label is None:
            return example, -1
        try:
            return example, self._labels[example.label]
        except KeyError:
            raise UnreadableExample(f"unknown class {example.label[:40]!r}") from None

    def _cut(self, example: Example) -> images.Square:
        return images.make_square(
            example.image,
            self.options.image_size,
            box=example.box,
            context_ratio=self.options.context_ratio or 1.0,
            quality=self.options.jpeg_quality,
            max_pixels=self.options.max_pixels,
        )

    def _record(self, item: _Read, square: images.Square) -> Record:
        metadata = item.example.metadata.crop_resize(
            square.region, square.source_size, self.options.image_size, item.problems
        )
        return Record(item.ref.id, square.data, metadata, item.label)


@dataclass(frozen=True)
class _Read:
    """An example on its way into a shard, and what was found in it."""

    ref: Ref
    example: Example
    label: int  # number of its class, -1 without one
    problems: Problems


@dataclass
class PixelSums:
    """Exact sums over 8-bit pixels, per channel: they merge in any order to the same bits."""

    count: int = 0
    total: list[int] = field(default_factory=lambda: [0, 0, 0])
    squares: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, pixels: np.ndarray) -> None:
        """Adds an image, uint8 (h, w, 3)."""
        totals, squares = images.channel_sums(pixels)
        self.count += pixels.size // 3
        self.total = [a + b for a, b in zip(self.total, totals, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares, squares, strict=True)]

    def merge(self, other: PixelSums) -> None:
        """Adds the sums of another."""
        self.count += other.count
        self.total = [a + b for a, b in zip(self.total, other.total, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares, other.squares, strict=True)]

    def finish(self) -> tuple[Any, Any]:
        """Mean and standard deviation per channel, of pixels in [0, 1]."""
        n = self.count
        mean = tuple(total / (n * 255) for total in self.total)
        std = tuple(
            math.sqrt((n * squares - total * total) / (n * 255) ** 2) or 1.0  # 1: constant
            for total, squares in zip(self.total, self.squares, strict=True)
        )
        return mean, std


def write_json(path: Path, data: Any) -> None:
    """Writes JSON so that the file is either absent, old or whole."""
    write_atomically(path, json.dumps(data, indent=1, allow_nan=False), durable=True)
