"""Throughput of preparing images on one core, beside that of the OpenCV calls alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from satmip_jax.bench.timing import Measurement, over_rounds, time_in_turn
from satmip_jax.data import images
from satmip_jax.metadata.record import Problems
from satmip_jax.prepare.shard_job import WORK, Job, Options, Task
from satmip_jax.sources.base import Example, Source

QUALITY = 95


def bench(source: Source, *, count: int, size: int, rounds: int) -> list[Measurement]:
    """Measure the conversion of images to squares.

    "prepare" reads, decodes, crops, resizes and encodes, adjusts the metadata, sums up pixels and
    writes a shard. "make_square" is the part from decoding to encoding. "OpenCV only" does that
    part by bare calls, with regions known in advance.

    Args:
        source: source of the images.
        count: number of images, the first ones of the source.
        size: side of the squares, pixels.
        rounds: rounds of timing.
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

        def opencv() -> None:
            for example, done in zip(examples, squares, strict=True):
                opencv_square(example.image, done, size)

        functions = {
            "prepare": lambda: job.run(task, lambda: None),
            "make_square": square,
            "OpenCV only": opencv,
        }
        seconds = time_in_turn(functions, rounds)
    facts = {"images": len(refs), "size": size, "source side": _median_side(squares)}
    measurements = []
    for name, measured in seconds.items():
        rates = [len(refs) / second for second in measured]
        shares = [100 * a / b for a, b in zip(seconds["OpenCV only"], measured, strict=True)]
        for metric, unit, values in (
            ("throughput per core", "images/s", rates),
            ("relative to OpenCV only", "%", shares),
        ):
            measurements.append(
                Measurement("prepare", name, metric, unit=unit, facts=facts, **over_rounds(values))
            )
    return measurements


def make_square(example: Example, size: int, ratio: float | None) -> images.Square:
    """Make the square of an example, as `satmip prepare` does."""
    return images.make_square(
        example.image, size, box=example.box, context_ratio=ratio or 1.0, quality=QUALITY
    )


def opencv_square(data: bytes, like: images.Square, size: int) -> bytes:
    """Make the JPEG of a known region by OpenCV calls only.

    Args:
        data: bytes of the image.
        like: square with the same region.
        size: side of the result, pixels.
    """
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    x, y, width, height = map(int, like.region)
    pixels = cv2.resize(
        pixels[y : y + height, x : x + width], (size, size), interpolation=cv2.INTER_AREA
    )
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()


def _median_side(squares: Sequence[images.Square]) -> int:
    return int(np.median([min(square.source_size) for square in squares]))
