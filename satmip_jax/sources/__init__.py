"""Data sets as they lie on disk: a source is one file in this folder and one line in `SOURCES`.

A source lists its examples (`refs`, cheap, in a fixed order) and reads them one at a time
(`read`). It parses metadata but never decodes pixels: that is left to `satmip_jax.data.images`.
Nothing heavy is imported here, so that the command can name the sources at once.
"""

from __future__ import annotations

import importlib
import inspect
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from satmip_jax.metadata.record import Metadata, Problems

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


class UnreadableExample(Exception):
    """One example cannot be used; the message is the reason, short enough to be counted by."""


class SourceError(ValueError):
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


TFDS = "tfds:"  # begins a path that names a data set of TensorFlow Datasets

# name -> "module:Class", imported when asked for.
SOURCES: dict[str, str] = {
    "fmow": "satmip_jax.sources.fmow:FMoW",
    "eurosat": "satmip_jax.sources.eurosat:EuroSAT",
    "resisc45": "satmip_jax.sources.resisc45:RESISC45",
    "optimal31": "satmip_jax.sources.optimal31:Optimal31",
    "ucmerced": "satmip_jax.sources.ucmerced:UCMerced",
    "fgsc23": "satmip_jax.sources.fgsc23:FGSC23",
    "so2sat": "satmip_jax.sources.so2sat:So2Sat",
    "folder": "satmip_jax.sources.folder:Folder",
    "synthetic": "satmip_jax.sources.synthetic.dataset:Synthetic",
}


def source_class(name: str) -> type:
    """The class behind a name in `SOURCES`; raises `SourceError` for an unknown one."""
    if name not in SOURCES:
        raise SourceError(f"unknown source {name!r}: choose one of {', '.join(SOURCES)}")
    module, _, attribute = SOURCES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def open_source(name: str, paths: Sequence[str | Path], **options: Any) -> Source:
    """Opens a data set by name.

    Args:
      name: A key of `SOURCES`.
      paths: Files and folders that hold the data; or "tfds:NAME" alone, for a data set that was
        prepared by TensorFlow Datasets, see `satmip_jax.sources.tfds`.
      **options: Options of that source; see its class.

    Raises:
      SourceError: The name or an option is unknown, a path does not exist, or the data is not
        laid out as the source expects.

    Example:
      >>> source = open_source("eurosat", ["eurosat/"], split_column="split_spatial")
      >>> len(source.refs())
      22950
    """
    cls: Any = source_class(name)
    through_tfds = any(str(path).startswith(TFDS) for path in paths)
    if through_tfds:
        from satmip_jax.sources.tfds import ThroughTFDS

        cls = partial(ThroughTFDS, cls)
    known = list(inspect.signature(cls).parameters)[1:]
    for option in options:
        if option not in known:
            raise SourceError(
                f"source {name!r} has no option {_flag(option)}: it knows "
                f"{', '.join(map(_flag, known)) or 'none'}"
            )
    for text in map(str, paths):
        if "://" in text:
            raise SourceError(
                f"source {name!r}: {text} is remote: mount it, or copy it to a disk (where "
                "several machines prepare, to a network file system), and name that path"
            )
    resolved = [Path(path) for path in paths]
    for path in resolved:
        if not path.exists() and not through_tfds and not getattr(cls, "generates", False):
            raise SourceError(f"source {name!r}: no file or folder at {path}")
    return cls(resolved, **options)


def _flag(option: str) -> str:
    """An option as the command spells it."""
    return f"--{option.replace('_', '-')}"
