"""Data sets by name. A data set is one file in this folder and one line in `SOURCES`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from satmip_jax.sources.base import TFDS, Source, SourceError, source_options


class Entry(NamedTuple):
    """A line of `SOURCES`."""

    location: str  # "module:Class", imported on first use; a module of this folder is ".name"
    title: str  # shown by `satmip prepare --help`, which imports no source


SOURCES: dict[str, Entry] = {
    "fmow": Entry(".fmow:FMoW", "fMoW-RGB: 62 classes, or data in its layout"),
    "eurosat": Entry(".eurosat:EuroSAT", "EuroSAT: Sentinel-2 chips in 10 classes"),
    "resisc45": Entry(".resisc45:RESISC45", "NWPU-RESISC45: scenes in 45 classes"),
    "optimal31": Entry(".optimal31:Optimal31", "OPTIMAL-31: scenes in 31 classes"),
    "ucmerced": Entry(".ucmerced:UCMerced", "UC Merced Land Use: aerial images in 21 classes"),
    "fgsc23": Entry(".fgsc23:FGSC23", "FGSC-23: ships in 23 classes"),
    "so2sat": Entry(".so2sat:So2Sat", "So2Sat LCZ42: 17 local climate zones"),
    "wilds-fmow": Entry(".wilds_fmow:WildsFMoW", "fMoW-WILDS: fMoW at 224 px, splits by time"),
    "folder": Entry(".folder:Folder", "Your images, with a table of metadata"),
    "images": Entry(".images:Images", "Your images without a table; GeoTIFFs with their tags"),
    "geotiff": Entry(".geotiff:GeoTIFFs", "Your GeoTIFFs, with their tags; whole or in tiles"),
    "stac": Entry(".stac:STAC", "STAC items and catalogues on disk"),
    "synthetic": Entry(".synthetic.dataset:Synthetic", "Synthetic scenes, without a download"),
}


def source_class(name: str) -> type[Source]:
    """Import and return the class of a source; raise `SourceError` for an unknown name."""
    if name not in SOURCES:
        raise SourceError(f"unknown source {name!r}: choose one of {', '.join(SOURCES)}")
    module, _, attribute = SOURCES[name].location.partition(":")
    return getattr(importlib.import_module(module, "satmip_jax.sources"), attribute)


def open_source(name: str, paths: Sequence[str | Path], **options: Any) -> Source:
    """Open a data set by name.

    Args:
        name: A key of `SOURCES`.
        paths: Files and folders that hold the data. Or one "tfds:NAME", a data set prepared by
            TensorFlow Datasets, see `satmip_jax.sources.tfds`.
        **options: Options of the source, see its class.

    Raises:
        SourceError: The name or an option is unknown, a value has a wrong type, a path does not
            exist, or the data is not laid out as the source expects.

    Example:
        >>> from satmip_jax.sources.registry import open_source
        >>> source = open_source("synthetic", ["scenes"], train=3, val=2, size=32)
        >>> len(source.refs())
        5
    """
    through_tfds = any(str(path).startswith(TFDS) for path in paths)
    cls: Callable[..., Source] = source_class(name)
    if through_tfds:
        from satmip_jax.sources.tfds import ThroughTFDS

        cls = partial(ThroughTFDS, source_class(name))
    _check_options(name, cls, options)
    for text in map(str, paths):
        if "://" in text:
            raise SourceError(
                f"source {name!r}: {text} is remote: mount it, or copy it to a local disk (or to "
                "a network file system, if several machines prepare), and give that path"
            )
    resolved = [Path(path) for path in paths]
    if not through_tfds and not source_class(name).generates:
        for path in resolved:
            if not path.exists():
                raise SourceError(f"source {name!r}: no file or folder at {path}")
    return cls(resolved, **options)


def _check_options(name: str, cls: Callable[..., Source], options: dict[str, Any]) -> None:
    declared = source_options(cls)
    for key, value in options.items():
        if key not in declared:
            problem = f"no option --{key.replace('_', '-')}"
        else:
            problem = declared[key].problem(value) or ""
        if problem:
            flags = ", ".join(option.flag for option in declared.values())
            raise SourceError(f"source {name!r}: {problem} (its options: {flags or 'none'})")
