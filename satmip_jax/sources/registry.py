"""Data sets by name. A source is one file in this folder and one line in `SOURCES`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass
from satmip_jax.sources.base import TFDS, Source, SourceError

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
