"""Batches of `satmip embed`: images read and resized, with their metadata, here or in workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from satmip_jax.data import images
from satmip_jax.errors import SatmipError
from satmip_jax.inference.embed.geometry import geojson_wkb, point_wkb
from satmip_jax.inference.embed.inputs import Entry, entry_id, place_of
from satmip_jax.inference.embed.writer import Row
from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.base import Example, FileSource

_FATAL = (OSError, MemoryError)  # of the machine, not of one image
MAX_REASON = 200  # characters


@dataclass
class ReadBatch:
    """Images of a batch that can be used, and those that cannot.

    Attributes:
        rows: of the table, without vectors.
        pixels: uint8 (n, s, s, 3), RGB, one per row.
        records: metadata of the images as they are in their files, one per row.
        sizes: width and height of the images, one per row.
        unusable: id and reason of the others.
        problems: counts of metadata values that cannot be used.
        count: number of entries that were read, usable or not.
    """

    rows: list[Row]
    pixels: np.ndarray
    records: list[Metadata]
    sizes: list[tuple[int, int]]
    unusable: list[tuple[str, str]] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    count: int = 0


@dataclass(frozen=True)
class BatchReader:
    """Reads images and their metadata; picklable, for worker processes.

    Attributes:
        sources: see `Inputs`.
        size: side of the squares, pixels.
        rendering: bands and scale.
    """

    sources: Sequence[FileSource]
    size: int
    rendering: images.Rendering = images.DEFAULT

    def __call__(self, entries: Sequence[Entry]) -> ReadBatch:
        """Read the images of one batch; one that cannot be used is named and left out."""
        pixels = np.empty((len(entries), self.size, self.size, 3), np.uint8)
        batch = ReadBatch([], pixels, [], [], count=len(entries))
        for number, ref in entries:
            source = self.sources[number]
            name = entry_id(source, ref)
            try:
                name.encode()
                problems = Problems()
                example = source.read(ref, problems)
                square, size = images.read_resized(
                    example.image, self.size, rendering=self.rendering
                )
            except UnicodeEncodeError:
                printable = name.encode("utf-8", "replace").decode()
                batch.unusable.append((printable, "its name is not Unicode"))
                continue
            except _FATAL:
                raise
            except Exception as error:  # of a source or a library
                batch.unusable.append((name, _reason(error)))
                continue
            window = source.window_of(ref)
            pixels[len(batch.rows)] = square
            batch.rows.append(
                Row(
                    name,
                    place_of(ref),
                    window,
                    example.label,
                    _geometry(example),
                    example.metadata.values,
                )
            )
            batch.records.append(example.metadata)
            batch.sizes.append(size)
            batch.problems.merge(problems)
        batch.pixels = pixels[: len(batch.rows)]
        return batch


def _geometry(example: Example) -> bytes | None:
    outline = geojson_wkb(example.footprint)
    location = example.metadata.numbers("location")
    if outline is not None or location is None:
        return outline
    longitude, latitude = location
    return point_wkb(longitude, latitude)


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, SatmipError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:MAX_REASON]
