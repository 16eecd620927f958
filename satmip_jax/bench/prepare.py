"""Preparing images on one core: all of `satmip prepare`'s work on an image, and OpenCV's alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from satmip_jax.bench.timing import Measurement, in_turn, spread
from satmip_jax.data import images
from satmip_jax.metadata.record import Problems
from satmip_jax.prepare.shard_job import WORK, Job, Options, Task
from satmip_jax.sources.base import Example, Source

QUALITY = 95


def bench(source: Source, *, count: int, size: int, rounds: int) -> list[Measurement]:
    """Measure the way from the first `count` files of a source to squares of `size` pixels.

    "prepare" reads, decodes, cuts, resizes, encodes, follows with the metadata, sums pixels up and
    writes a shard; "make_square" decodes to encodes; "OpenCV alone" does the same by bare calls,
    for which the regions to cut are known beforehand.
    """
    refs = tuple(source.refs()[:count])
    ratio = source.context_ratio
    options = Options(size, QUALITY, ratio, images.MAX_PIXELS, len(refs))
    examples = [source.read(ref, Problems()) for ref in refs]
    squares = [make_square(example, size, ratio) for example in examples]
    images.use_one_thread()
    with TemporaryDirectory() as folder:
        (Path(folder) / WORK).mkdir()
        job, task = Job(source, "bench", options, Path(folder)), Task("train", 0, 1, refs)

        def square() -> None:
            for example in examples:
                make_square(example, size, ratio)

        def alone() -> None:
            for example, done in zip(examples, squares, strict=True):
                opencv_square(example.image, done, size)

        functions = {
            "prepare": lambda: job.run(task, lambda: None),
            "make_square": square,
            "OpenCV alone": alone,
        }
        seconds = in_turn(functions, rounds)
    facts = {"images": len(refs), "size": size, "source side": _median_side(squares)}
    found = []
    for name, measured in seconds.items():
        rates = [len(refs) / second for second in measured]
        shares = [100 * a / b for a, b in zip(seconds["OpenCV alone"], measured, strict=True)]
        for metric, unit, values in (
            ("rate of a core", "images/s", rates),
            ("of OpenCV alone", "%", shares),
        ):
            found.append(
                Measurement("prepare", name, metric, unit=unit, facts=facts, **spread(values))
            )
    return found


def make_square(example: Example, size: int, ratio: float | None) -> images.Square:
    """As `satmip prepare` calls it."""
    return images.make_square(
        example.image, size, box=example.box, context_ratio=ratio or 1.0, quality=QUALITY
    )


def opencv_square(data: bytes, like: images.Square, size: int) -> bytes:
    """The JPEG of the region that `like` shows, by OpenCV's calls and nothing else."""
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    x, y, width, height = map(int, like.region)
    pixels = cv2.resize(
        pixels[y : y + height, x : x + width], (size, size), interpolation=cv2.INTER_AREA
    )
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()


def _median_side(squares: Sequence[images.Square]) -> int:
    return int(np.median([min(square.source_size) for square in squares]))
