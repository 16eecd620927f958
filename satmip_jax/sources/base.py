"""What a data set on disk is: `Source`, its references and examples, and its errors."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from satmip_jax.errors import SatmipError

if TYPE_CHECKING:
    from satmip_jax.metadata.record import Metadata, Problems


TFDS = "tfds:"  # begins a path that names a data set of TensorFlow Datasets
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Ref:
    """Points at one example; small and picklable.

    Attributes:
      id: Unique within the data set, stable and readable: a relative path, with the box where
        an image holds several.
      split: Split the example belongs to, such as "train".
      location: What the source needs to read it again: plain strings and numbers.
    """

    id: str
    split: str
    location: tuple[str | int | float | None, ...]


@dataclass(frozen=True)
class Example:
    """One labelled image, as stored by its publisher.

    Attributes:
      id: The id of its `Ref`.
      image: The encoded image file, bytes unchanged.
      metadata: What is known of the *whole* image, before any crop or resize.
      label: Class name, one of the source's `classes`; None where there is none.
      box: Labelled region, (x, y, width, height) in pixels of the image; None means all of it.
    """

    id: str
    image: bytes
    metadata: Metadata
    label: str | None
    box: Box | None = None


class UnreadableExample(SatmipError):
    """One example cannot be used; the message is the reason, short enough to be counted by."""


class SourceError(SatmipError, ValueError):
    """A whole data set cannot be used; the message says why and what to do next."""


def read_file(path: str | Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; raises `UnreadableExample`."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableExample("not a regular file")
            data = file.read(min(status.st_size, limit) + 1)  # room for `limit` costs, unused too
    except OSError as error:
        raise UnreadableExample(f"cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise UnreadableExample(f"more than {limit:,} bytes")
    if len(data) > status.st_size:
        raise UnreadableExample("grew while it was read")
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe would wait for its writer


@runtime_checkable
class Source(Protocol):
    """A data set on disk. Picklable: `prepare` sends it to its worker processes.

    Constructed as `Class(paths, **options)`, see `open_source`.

    Attributes:
      name: Short name, used for file names: letters, digits, "_".
      classes: Class names in label order; () where there are no labels.
      license: The terms of the data, in words.
      homepage: Where the data comes from.
      image_size: Side in pixels of the squares to store, where nobody asks for another.
      context_ratio: Side of the square cut around a labelled box, as a multiple of the box's
        longer side; None where there are no boxes.
      splits_from: What decides an example's split, in words.
      options: The options it was opened with, as JSON values; kept with the prepared data.
      skipped: Filled by `refs`: reason -> number of examples that it left out.
    """

    name: str
    classes: tuple[str, ...]
    license: str
    homepage: str
    image_size: int
    context_ratio: float | None
    splits_from: str
    options: Mapping[str, Any]
    skipped: Mapping[str, int]

    def refs(self) -> list[Ref]:
        """Lists the examples in an order that depends on the data alone."""
        ...

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Reads one example; bad fields are counted in `problems`.

        Raises:
          UnreadableExample: This one example cannot be used.
        """
        ...
