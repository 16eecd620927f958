"""Which source reads some files and folders, told from what they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from satmip_jax.data import headers
from satmip_jax.sources import stac_items, tables
from satmip_jax.sources.archives import BAD_ZIP, Archives, is_macos, read_directory
from satmip_jax.sources.base import SourceError, UnreadableExample, read_file
from satmip_jax.sources.columns import match_columns

MAX_LOOKED_AT = 16  # JSON files of a folder or zip that are opened
MAX_WALKED = 20_000  # files of a folder whose names are looked at


@dataclass(frozen=True)
class Detected:
    """Files and folders that one source reads.

    Attributes:
        source: Name of the source, a key of `registry.SOURCES`.
        paths: What it reads.
        reason: Why it was chosen, in words.
    """

    source: str
    paths: tuple[Path, ...]
    reason: str

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.paths[:3]))}{self._more()}: {self.reason}"

    def _more(self) -> str:
        return f" and {len(self.paths) - 3:,} more" if len(self.paths) > 3 else ""


def detect(paths: Sequence[str | Path], *, with_table: bool = False) -> list[Detected]:
    """Return the sources that read some paths.

    STAC items are recognized by their JSON, tables by their suffix. Without either, files and
    folders are images. A table belongs to all paths that are not STAC. Images given one by one are
    read together; every folder and zip is read by itself, so that equal names do not clash.

    Args:
        paths: Images, tables, STAC files, folders and zips.
        with_table: Whether a table is given elsewhere.

    Raises:
        SourceError: A path does not exist, or is none of these.

    Example:
        >>> from satmip_jax.sources.detect import detect
        >>> Path("scenes").mkdir()
        >>> for name in ("a.png", "b.png", "scenes/c.tif"):
        ...     Path(name).touch()
        >>> [(found.source, len(found.paths)) for found in detect(["a.png", "b.png", "scenes"])]
        [('images', 2), ('images', 1)]
    """
    stac: list[Detected] = []
    containers: list[Path] = []
    files: list[Path] = []
    given: list[Path] = []
    for path in dict.fromkeys(map(Path, paths)):
        if not path.exists():
            raise SourceError(f"no file or folder at {path}")
        suffix = path.suffix.lower()
        if path.is_dir() or suffix == ".zip":
            if place := _holds_stac(path):
                stac.append(Detected("stac", (path,), f"STAC ({place})"))
            else:
                containers.append(path)
        elif suffix in stac_items.SUFFIXES and _is_stac_file(path):
            stac.append(Detected("stac", (path,), "STAC, with what it links to"))
        elif tables.is_table(path):
            given.append(path)
        elif suffix in headers.SUFFIXES:
            files.append(path)
        else:
            raise SourceError(
                f"{path}: expected an image ({', '.join(headers.SUFFIXES)}), a folder, a zip, a "
                "table or a STAC file"
            )
    if given or with_table:
        everything = (*files, *containers, *given)
        # the images lie beside a table that is given alone
        everything = everything if files or containers else (*given, *_parents(given))
        named = f"the table {given[0]}" if given else "a table"
        return [Detected("folder", everything, f"images with {named}"), *stac]
    found = [Detected("images", tuple(files), "images")] if files else []
    for path in containers:
        table, reason = _table_in(path)
        found.append(
            Detected("folder", (path, table), f"images with the table {table.name}")
            if table
            else Detected("images", (path,), f"images without a table{reason}")
        )
    return [*found, *stac]


def _parents(paths: Sequence[Path]) -> list[Path]:
    return list(dict.fromkeys(path.parent for path in paths))


def _table_in(folder: Path) -> tuple[Path | None, str]:
    """Return the table at the top of a folder that names images, or why there is none, in words.

    Raises:
        SourceError: Several tables name images.
    """
    if not folder.is_dir():
        return None, ""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    candidates = [path for path in files if tables.is_table(path) and not is_macos(path.name)]
    fitting = [path for path in candidates if _names_images(path)]
    usual = [path for path in fitting if path.name.lower().startswith("metadata.")]
    if len(fitting) > 1 and len(usual) != 1:
        raise SourceError(
            f"several tables ({', '.join(path.name for path in fitting[:9])}) in {folder}: choose "
            "one with --metadata"
        )
    if fitting:
        return (usual or fitting)[0], ""
    return None, f" ({candidates[0].name} names none)" if candidates else ""


def _names_images(table: Path) -> bool:
    """Whether a file is a table with a column of paths, and not one of embeddings."""
    try:
        if table.suffix.lower() == ".parquet" and b"satmip" in (
            pq.read_schema(table).metadata or {}
        ):
            return False
        match_columns("", tables.Table(table).header, table)
    except (SourceError, OSError, pa.ArrowException):
        return False
    return True


def _holds_stac(path: Path) -> str | None:
    """Return the path of a STAC file in a folder or zip, of the first JSON files."""
    archives = Archives([path], stac_items.SUFFIXES)
    for number, member in enumerate(_json_files(path)):
        if number == MAX_LOOKED_AT:
            break
        try:
            data = archives.read(str(path), member, stac_items.MAX_JSON_BYTES)
        except UnreadableExample:
            continue
        if stac_items.is_stac(_parsed(data)):
            return member
    return None


def _json_files(path: Path) -> Iterator[str]:
    if not path.is_dir():
        try:
            names = [info.filename for info in read_directory(path)]
        except BAD_ZIP:
            return
        yield from (name for name in names if name.lower().endswith(stac_items.SUFFIXES))
        return
    walked = 0
    for folder, folders, files in os.walk(path):
        folders.sort()
        walked += len(files)
        for name in sorted(files):
            if name.lower().endswith(stac_items.SUFFIXES) and not is_macos(name):
                yield os.path.relpath(os.path.join(folder, name), path)
        if walked > MAX_WALKED:
            return


def _is_stac_file(path: Path) -> bool:
    try:
        return stac_items.is_stac(_parsed(read_file(path, stac_items.MAX_JSON_BYTES)))
    except UnreadableExample:
        return False


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
