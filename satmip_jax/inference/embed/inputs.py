"""Inputs of `satmip embed`: files and folders of any kind to a list of images, through sources."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from satmip_jax.prepare.plan import digest, file_sizes
from satmip_jax.prepare.report import describe
from satmip_jax.sources.base import FileSource, Ref, Skipped, SourceError, source_options
from satmip_jax.sources.detect import Detected, detect
from satmip_jax.sources.registry import open_source, source_class

TABLE_OPTIONS = ("metadata", "columns")  # those that say that there is a table


class Entry(NamedTuple):
    """An image or a tile to embed.

    Attributes:
        source: number of its source.
        ref: its reference there.
    """

    source: int
    ref: Ref


@dataclass(frozen=True)
class Inputs:
    """All images of the inputs, in a fixed order.

    Attributes:
        sources: that read them.
        entries: the images and tiles.
        skipped: what the listings left out.
        lines: sentences for users: what was detected and how it is read.
    """

    sources: Sequence[FileSource]
    entries: Sequence[Entry]
    skipped: Skipped
    lines: Sequence[str]

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides the rows, as JSON: options, examples, and sizes of the files."""
        of_source = [
            [entry.ref for entry in self.entries if entry.source == i]
            for i in range(len(self.sources))
        ]
        pairs = list(zip(self.sources, of_source, strict=True))
        return {
            "sources": [[source.name, dict(source.options)] for source in self.sources],
            "examples": digest(
                [ref.id, list(source.row_of(ref))] for source, refs in pairs for ref in refs
            ),
            "file_sizes": digest(
                size for source, refs in pairs for size in file_sizes(source, refs)
            ),
        }


def open_inputs(
    paths: Sequence[str | os.PathLike[str]],
    options: Mapping[str, Any],
    *,
    source: str | None = None,
) -> Inputs:
    """List the images of some files and folders.

    Args:
        paths: images, tables, STAC files, folders and zips.
        options: of the sources; each must be one of a source that reads a path.
        source: name of the source that reads all paths, instead of those detected.

    Raises:
        SourceError: a path does not exist or is of no known kind, an option fits none of them, or
            there is no image.

    Example:
        >>> import cv2
        >>> from satmip_jax.inference.embed.inputs import open_inputs
        >>> _ = cv2.imwrite("a.png", np.zeros((8, 8, 3), np.uint8))
        >>> [entry.ref.id for entry in open_inputs(["a.png"], {}).entries]
        ['a.png']
    """
    texts = [os.fspath(path) for path in paths]
    if source is None:
        detected = detect(texts, with_table=any(options.get(name) for name in TABLE_OPTIONS))
    else:
        detected = [Detected(source, tuple(map(Path, texts)), f"read as {source}")]
    known = {found.source: set(source_options(source_class(found.source))) for found in detected}
    for name in options:
        if not any(name in names for names in known.values()):
            raise SourceError(
                f"--{name.replace('_', '-')}: an option of other inputs; these are read as "
                f"{', '.join(known)}"
            )
    sources: list[FileSource] = []
    entries: list[Entry] = []
    skipped, lines = Skipped(), []
    seen: set[str] = set()
    failures: list[SourceError] = []
    for found in detected:
        own = {name: value for name, value in options.items() if name in known[found.source]}
        try:
            opened = open_source(found.source, found.paths, **own)
            refs = opened.refs()
        except SourceError as error:
            if len(detected) == 1:
                raise
            failures.append(error)
            skipped.add(str(error), str(found.paths[0]))
            continue
        if not isinstance(opened, FileSource):
            raise SourceError(f"--source {found.source}: its images are not files of their own")
        lines.append(str(found))
        lines += [f"  {line}" for line in describe(opened)]
        if found.source == "images" and (unread := _records_beside(refs)):
            lines.append(
                f"  {unread:,} JSON files beside the images are not read: join them to one table, "
                "for example a JSON array, and give it by --metadata, with the columns in "
                "--columns path=NAME,..."
            )
        _add(skipped, opened.skipped)
        for ref in refs:
            name = entry_id(opened, ref)
            if name in seen:
                skipped.add("the same file again", name)
                continue
            seen.add(name)
            entries.append(Entry(len(sources), ref))
        sources.append(opened)
    if not entries:
        raise failures[0] if failures else SourceError(f"no images in {', '.join(texts)}")
    return Inputs(sources, entries, skipped, lines)


def place_of(ref: Ref) -> str:
    """Return the file of an example as a user opens it; a member of a zip follows its zip."""
    container, member = (str(part) for part in ref.location[:2])
    return member if container in ("", ".") else os.path.join(container, member)


def entry_id(source: FileSource, ref: Ref) -> str:
    """Return the unique id of an example: its file, and "#x,y" for a tile."""
    window = source.window_of(ref)
    return place_of(ref) + (f"#{window.x},{window.y}" if window else "")


def _records_beside(refs: Sequence[Ref]) -> int:
    """Return the number of images in folders with a JSON file of the same name beside them."""
    stems: dict[str, set[str]] = {}
    for ref in refs:
        folder, name = os.path.split(place_of(ref))
        stems.setdefault(folder, set()).add(os.path.splitext(name)[0])
    count = 0
    for folder, names in stems.items():
        if os.path.isdir(folder or "."):  # not in a zip
            files = map(os.path.splitext, os.listdir(folder or "."))
            count += len(names & {stem for stem, suffix in files if suffix == ".json"})
    return count


def _add(skipped: Skipped, other: Mapping[str, int]) -> None:
    if isinstance(other, Skipped):
        unnamed = Counter(other) - Counter(reason for _, reason in other.named)
        for name, reason in other.named:
            skipped.add(reason, name)
        skipped.update(unnamed)
    else:
        skipped.update(other)
