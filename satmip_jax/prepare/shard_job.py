"""One shard of a preparation: read, crop, resize, encode, count, and mark the shard as done."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from satmip_jax.data import images
from satmip_jax.data.shard_format import Record, is_id, shard_file
from satmip_jax.data.shard_writer import write_shard
from satmip_jax.errors import SatmipError
from satmip_jax.metadata.plausibility import PlausibilityCheck
from satmip_jax.metadata.record import Problems
from satmip_jax.metadata.statistics import StatsAccumulator
from satmip_jax.runtime.files import read_json_object, write_atomically
from satmip_jax.runtime.paths import AnyPath, file_size
from satmip_jax.sources.base import Example, Ref, Source, UnreadableExample

WORK = ".prepare"  # folder of the plan, a lock, and a mark per finished shard
MIN_SIDE = 8  # of the stored squares, pixels
AHEAD = 16  # maximum number of examples read before the first is decoded
AHEAD_BYTES = 32 << 20  # size after which no further example is read ahead
_FATAL = (OSError, MemoryError)  # of the machine, not of one example


class PrepareError(SatmipError, ValueError):
    """The data cannot be prepared; the message says why and what to do next."""


class PrepareMemoryError(PrepareError, MemoryError):
    """The machine has too little memory for an example."""


@contextmanager
def _memory_explained(ref: Ref) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        raise PrepareMemoryError(
            f"{ref.id}: too little memory to read and decode it{reason}: use fewer --workers. "
            "Finished shards are kept: the same command resumes"
        ) from error


@dataclass(frozen=True)
class Options:
    """Options that decide the bytes of the result; see `prepare`."""

    image_size: int
    jpeg_quality: int
    context_ratio: float | None
    max_pixels: int
    shard_size: int
    rendering: images.Rendering = images.DEFAULT

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("--image-size ", self.image_size, MIN_SIDE, 4096),
            ("jpeg_quality=", self.jpeg_quality, 1, 100),  # these three have no flag
            ("max_pixels=", self.max_pixels, 1, 2**40),
            ("shard_size=", self.shard_size, 1, 1_000_000),
        ):
            if not low <= value <= high:
                raise PrepareError(f"{name}{value}: must be between {low} and {high}")
        if self.context_ratio is not None and not 1 <= self.context_ratio <= 100:
            raise PrepareError(f"--context-ratio {self.context_ratio}: must be between 1 and 100")

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON; of bands and scale only what is given."""
        return {
            "image_size": self.image_size,
            "jpeg_quality": self.jpeg_quality,
            "context_ratio": self.context_ratio,
            "max_pixels": self.max_pixels,
            "shard_size": self.shard_size,
            **self.rendering.to_json(),
        }


@dataclass(frozen=True)
class Task:
    """One shard to write.

    Attributes:
        split: Its split.
        index: Its number within the split.
        count: Number of shards of the split.
        refs: Its examples.
    """

    split: str
    index: int
    count: int
    refs: tuple[Ref, ...]


@dataclass(frozen=True)
class Job:
    """What a worker process needs besides the task.

    Attributes:
        source: The data set; picklable.
        name: Name of the data set, for file names.
        options: Options that decide the bytes.
        out: Folder of the result, on a disk or in a bucket.
    """

    source: Source
    name: str
    options: Options
    out: AnyPath

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.source.classes)}

    def shard(self, task: Task) -> AnyPath:
        """Return the path of a shard."""
        return self.out / shard_file(self.name, task.split, task.index, task.count)

    def mark(self, task: Task) -> AnyPath:
        """Return the path of the mark of a finished shard."""
        return self.out / WORK / f"{task.split}-{task.index:05d}-of-{task.count:05d}.json"

    def read_mark(self, task: Task) -> Any:
        """Return the mark of a finished shard, None if the shard is not finished."""
        try:
            mark = read_json_object(self.mark(task))
            return mark if file_size(self.shard(task)) == mark["bytes"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def run(self, task: Task, tick: Callable[[], None]) -> None:
        """Write one shard, then its mark; call `tick` once per example."""
        problems, stats, sums, scaled = Problems(), StatsAccumulator(), PixelSums(), Scaled()
        enlarged = Enlarged()
        plausible = PlausibilityCheck()
        bad: dict[str, str] = {}
        train = task.split == "train"

        def reject(ref: Ref, error: Exception) -> None:
            bad[ref.id] = _reason(error)
            tick()

        def records() -> Iterator[Record]:
            for group in self._read_ahead(task.refs, reject):
                finished = []  # without pixels, which may be large
                for item in group:
                    try:
                        with _memory_explained(item.ref):
                            square = self._cut(item.example)
                            record = self._record(item, square)
                    except _FATAL:
                        raise
                    except Exception as error:
                        reject(item.ref, error)
                        continue
                    if train:
                        sums.add(square.pixels)
                    scaled.add(square)
                    enlarged.add(square, self.options.image_size)
                    finished.append(record)
                    problems.merge(item.problems)
                for record in finished:
                    if train:
                        stats.add(record.metadata)
                    plausible.add(record.id, record.metadata)
                    yield record
                    tick()

        length = write_shard(self.shard(task), records())
        write_json(
            self.mark(task),
            {
                "bytes": file_size(self.shard(task)),
                "length": length,
                "bad": [(ref.id, bad[ref.id]) for ref in task.refs if ref.id in bad],
                "problems": problems.to_json(),
                "details": problems.details_to_json(),
                "plausibility": plausible.to_json(),
                "stats": stats.to_json(),
                "pixels": asdict(sums),
                "scaled": asdict(scaled),
                "enlarged": enlarged.to_json(),
            },
        )

    def _read_ahead(
        self, refs: Sequence[Ref], reject: Callable[[Ref, Exception], None]
    ) -> Iterator[list[_Read]]:
        """Read examples in small groups: repeating one step keeps its code and data cached."""
        group: list[_Read] = []
        size = 0
        for ref in refs:
            problems = Problems()  # counted only if the example is stored
            try:
                with _memory_explained(ref):
                    example, label = self._read(ref, problems)
            except _FATAL:
                raise
            except Exception as error:
                reject(ref, error)
                continue
            group.append(_Read(ref, example, label, problems))
            size += len(example.image)
            if len(group) == AHEAD or size > AHEAD_BYTES:
                yield group
                group, size = [], 0
        yield group

    def _read(self, ref: Ref, problems: Problems) -> tuple[Example, int]:
        """Return an example and the number of its class, -1 if it is unlabelled."""
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
            rendering=self.options.rendering,
        )

    def _record(self, item: _Read, square: images.Square) -> Record:
        metadata = item.example.metadata.crop_resize(
            square.region, square.source_size, self.options.image_size, item.problems
        )
        return Record(item.ref.id, square.data, metadata, item.label)


@dataclass(frozen=True)
class _Read:
    """An example that has been read, and the problems of its metadata."""

    ref: Ref
    example: Example
    label: int  # number of its class, -1 if it is unlabelled
    problems: Problems


@dataclass
class Scaled:
    """Images whose values were scaled to 8 bits.

    Attributes:
        count: Number of images.
        low: Smallest of their values; None without images.
        high: Largest of their values.
    """

    count: int = 0
    low: float | None = None
    high: float | None = None

    def add(self, square: images.Square) -> None:
        """Add an image."""
        if square.scaled_from is not None:
            self.merge(Scaled(1, *square.scaled_from))

    def merge(self, other: Scaled) -> None:
        """Add the images of another."""
        self.count += other.count
        self.low = min((x for x in (self.low, other.low) if x is not None), default=None)
        self.high = max((x for x in (self.high, other.high) if x is not None), default=None)


@dataclass
class Enlarged:
    """Images that are smaller than the squares they are stored in.

    Attributes:
        sides: Number of images by their longer side, pixels.

    Example:
        >>> from collections import Counter
        >>> from satmip_jax.prepare.shard_job import Enlarged
        >>> Enlarged(Counter({64: 20, 90: 2})).describe()
        (64, 64, 90)
    """

    sides: Counter[int] = field(default_factory=Counter)

    def add(self, square: images.Square, size: int) -> None:
        """Add an image if it is smaller than a square of this side, pixels."""
        side = round(max(square.region[2:]))
        if side < size:
            self.sides[side] += 1

    def merge(self, other: Enlarged) -> None:
        """Add the images of another."""
        self.sides.update(other.sides)

    def describe(self) -> tuple[int, int, int]:
        """Return the smallest, the median and the largest side."""
        sides = sorted(self.sides.elements())
        return sides[0], sides[len(sides) // 2], sides[-1]

    def to_json(self) -> dict[str, int]:
        """Return the numbers of images by side, as JSON."""
        return {str(side): self.sides[side] for side in sorted(self.sides)}

    @classmethod
    def from_json(cls, sides: Mapping[str, int]) -> Enlarged:
        """Read what `to_json` returned."""
        return cls(Counter({int(side): count for side, count in sides.items()}))


@dataclass
class PixelSums:
    """Exact sums over 8-bit pixels per channel; the order of merging does not change any bit.

    Attributes:
        count: Number of pixels.
        total: Sums of the values of red, green, blue.
        squares: Sums of their squares.

    Example:
        >>> from satmip_jax.prepare.shard_job import PixelSums
        >>> sums = PixelSums()
        >>> sums.add(np.full((4, 4, 3), 51, np.uint8))
        >>> sums.add(np.full((4, 4, 3), 153, np.uint8))
        >>> sums.finish()
        ((0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
    """

    count: int = 0
    total: list[int] = field(default_factory=lambda: [0, 0, 0])
    squares: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, pixels: np.ndarray) -> None:
        """Add an image, uint8 (h, w, 3)."""
        totals, squares = images.channel_sums(pixels)
        self.count += pixels.size // 3
        self.total = [a + b for a, b in zip(self.total, totals, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares, squares, strict=True)]

    def merge(self, other: PixelSums) -> None:
        """Add the sums of another."""
        self.count += other.count
        self.total = [a + b for a, b in zip(self.total, other.total, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares, other.squares, strict=True)]

    def finish(self) -> tuple[Any, Any]:
        """Return mean and standard deviation per channel, of pixels in [0, 1]."""
        n = self.count
        mean = tuple(total / (n * 255) for total in self.total)
        std = tuple(
            math.sqrt((n * squares - total * total) / (n * 255) ** 2) or 1.0  # constant channel
            for total, squares in zip(self.total, self.squares, strict=True)
        )
        return mean, std


def _reason(error: Exception) -> str:
    """Return why an example is bad, short enough to be counted."""
    if isinstance(error, SatmipError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]  # of a source or a library


def write_json(path: AnyPath, data: Any) -> None:
    """Write JSON atomically and durably."""
    write_atomically(path, json.dumps(data, indent=1, allow_nan=False), durable=True)
