"""Base class of all sources, their references and examples, and errors."""

from __future__ import annotations

import abc
import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satmip_jax.errors import SatmipError
from satmip_jax.runtime.options import Option, options_of

if TYPE_CHECKING:
    from satmip_jax.data.tiff_tiles import Window
    from satmip_jax.metadata.record import Metadata, Problems

TFDS = "tfds:"  # prefix of a path that names a data set of TensorFlow Datasets
Box = tuple[float, float, float, float]


class UnreadableExample(SatmipError):
    """One example cannot be used; the message is the reason, short enough to be counted."""


class SourceError(SatmipError, ValueError):
    """A data set cannot be used at all; the message says why and what to do next."""


class Skipped(Counter[str]):
    """Reason -> number of examples that a listing left out, with the names of the first ones.

    Names are not pickled.

    Attributes:
        named: (name, reason) of those that have a name, at most `MAX_NAMED`.

    Example:
        >>> from satmip_jax.sources.base import Skipped
        >>> skipped = Skipped()
        >>> skipped.add("damaged TIFF", "scenes/a.tif")
        >>> dict(skipped), skipped.named
        ({'damaged TIFF': 1}, [('scenes/a.tif', 'damaged TIFF')])
    """

    MAX_NAMED = 100_000

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        super().__init__(counts)
        self.named: list[tuple[str, str]] = []

    def copy(self) -> Skipped:
        """Return an independent copy."""
        other = Skipped(self)
        other.named = list(self.named)
        return other

    def add(self, reason: str, name: str) -> None:
        """Count one more for this reason."""
        self[reason] += 1
        if len(self.named) < self.MAX_NAMED:
            self.named.append((name, reason))


@dataclass(frozen=True)
class Ref:
    """A small, picklable reference to one example.

    Attributes:
        id: Unique within the data set, stable and readable: a relative path, plus the box if an
            image has several.
        split: Split of the example, such as "train".
        location: What `Source.read` needs to find the example: strings and numbers.
    """

    id: str
    split: str
    location: tuple[str | int | float | None, ...]


@dataclass(frozen=True)
class Example:
    """One image as its publisher stores it, with label and metadata.

    Attributes:
        id: The id of its `Ref`.
        image: Contents of the encoded image file, unchanged.
        metadata: Metadata of the *full* image, before any crop or resize.
        label: Name of its class, one of the source's `classes`; None if it is unlabelled.
        box: Labelled region (x, y, width, height) in pixels; None for the full image.
        footprint: Outline of the full image on the ground as a GeoJSON geometry, in degrees. It is
            untrusted, and may exceed 180 degrees of longitude; None if it is unknown.
    """

    id: str
    image: bytes
    metadata: Metadata
    label: str | None
    box: Box | None = None
    footprint: Mapping[str, Any] | None = None


class Source(abc.ABC):
    """A data set on disk.

    A new data set is one file with a subclass, and one line in `registry.SOURCES`. The subclass
    sets the class attributes that differ from the defaults below, and defines `refs` and `read`.

    Options are keyword arguments of the constructor with a type and a default. They become flags
    of `satmip prepare NAME`; their help texts come from the `Args:` section of the docstring, see
    `options`. Values that decide the data are kept with it, see `options`.

    Sources are picklable: `prepare` sends them to its worker processes. Files that stay open do
    not travel; drop them in `__getstate__`.

    Args:
        paths: Files and folders that hold the data.

    Attributes:
        name: Short name, used in file names: letters, digits and "_".
        classes: Names of the classes in the order of the labels; () for unlabelled data.
        license: Terms of use.
        homepage: Where the data comes from.
        image_size: Default side of the stored squares, pixels.
        context_ratio: Side of the square cut around a labelled box, as a multiple of the longer
            side of the box; None if examples have no boxes.
        splits_from: What decides the split of an example.
        label_option: How to give the images labels, where an option decides it; else "".
        class_weights: Weighted F1 scores that belong to the data set: name of the metric, which
            ends in "_f1", to the weight of each class. Evaluation reports them besides accuracy
            and macro F1.
        summary: Lines for users about how the data are read, such as the columns of a table.
        skipped: Reason -> number of examples that `refs` left out.
        generates: Whether the source writes its own files, so that `paths` need not exist.
        tfds_name: Name of the data set in TensorFlow Datasets; makes `tfds:NAME` a path. Such a
            source also has `facts` and the attributes for its split, see `tfds`.

    Example:
        >>> import cv2
        >>> from satmip_jax.metadata.record import Metadata
        >>> from satmip_jax.sources.base import Example, Ref, Source
        >>> class Shades(Source):
        ...     '''Grey images from light to dark.'''
        ...     name, classes, image_size = "shades", ("dark", "light"), 8
        ...
        ...     def __init__(self, paths, count: int = 10):
        ...         self.count = count
        ...
        ...     def refs(self):
        ...         return [Ref(f"{i}.png", "train", (i,)) for i in range(self.count)]
        ...
        ...     def read(self, ref, problems):
        ...         (i,) = ref.location
        ...         pixels = np.full((8, 8, 3), 255 * i // self.count, np.uint8)
        ...         image = cv2.imencode(".png", pixels)[1].tobytes()
        ...         label = "light" if 2 * i >= self.count else "dark"
        ...         return Example(ref.id, image, Metadata.parse({}, problems), label)
        >>> source = Shades([], count=4)
        >>> [ref.id for ref in source.refs()]
        ['0.png', '1.png', '2.png', '3.png']
        >>> source.options
        {'count': 4}
    """

    name: str
    classes: tuple[str, ...] = ()
    license: str = "not stated"
    homepage: str = "not stated"
    image_size: int = 256
    context_ratio: float | None = None
    splits_from: str = "the source"
    label_option: str = ""
    class_weights: Mapping[str, Mapping[str, float]] = {}
    summary: Sequence[str] = ()
    skipped: Mapping[str, int] = {}
    generates: bool = False
    tfds_name: str | None = None

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = [Path(path) for path in paths]

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """Values that decide the data, as JSON; kept with the prepared data.

        By default all options, from attributes of the same names. Assign a mapping in the
        constructor to keep something else.
        """
        values = {name: getattr(self, name) for name in source_options(type(self))}
        return {k: v if isinstance(v, int | float | None) else str(v) for k, v in values.items()}

    @abc.abstractmethod
    def refs(self) -> list[Ref]:
        """List the examples, in an order that depends on the data alone.

        Raises:
            SourceError: No example can be used.
        """

    @abc.abstractmethod
    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read one example; fields with bad values become missing and are counted in `problems`.

        Raises:
            UnreadableExample: This example cannot be used.
        """

    def files_of(self, ref: Ref) -> tuple[tuple[str, str | None], ...]:
        """Return the files of an example: (file, None), or (folder or zip, path in it).

        `prepare` notices when the size of one has changed since an interrupted run.
        """
        return ()

    def row_of(self, ref: Ref) -> tuple[object, ...]:
        """Return what the listing knows of an example besides id, split and files: JSON.

        `prepare` notices when it has changed since an interrupted run.
        """
        return ()


class FileSource(Source):
    """A source with one image file per example.

    `Ref.location` begins with the folder or zip of the file and its path in there; what follows is
    the example's own.
    """

    def files_of(self, ref: Ref) -> tuple[tuple[str, str | None], ...]:
        """Return the image."""
        container, member, *_ = ref.location
        return ((str(container), str(member)),)

    def row_of(self, ref: Ref) -> tuple[object, ...]:
        """Return what is known of the example beside its file."""
        return ref.location[2:]

    def window_of(self, ref: Ref) -> Window | None:
        """Return the tile of the file that is the example; None for all of it."""
        return None


def source_options(source: Callable[..., Source]) -> dict[str, Option]:
    """Return the options of a source by name: arguments of its constructor other than `paths`."""
    return {name: option for name, option in options_of(source).items() if name != "paths"}


def read_file(path: str | Path, limit: int) -> bytes:
    """Return the contents of a regular file of at most `limit` bytes.

    Raises:
        UnreadableExample: The file cannot be read, is no regular file, or is too long.
    """
    try:
        with open(path, "rb", opener=_open_without_blocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableExample("not a regular file")
            # not `limit` + 1: the buffer is allocated at once
            data = file.read(min(status.st_size, limit) + 1)
    except OSError as error:
        raise UnreadableExample(f"cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise UnreadableExample(f"more than {limit:,} bytes")
    if len(data) > status.st_size:
        raise UnreadableExample("grew while it was read")
    return data


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a named pipe would wait for its writer
