"""Images in folders and zips, found by the paths that the rows of an untrusted table give."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath

from satmip_jax.sources.archives import Archives, nfc
from satmip_jax.sources.base import UnreadableExample
from satmip_jax.sources.tables import Cell

_SEVERAL = "row whose path fits several images"


class SkippedRow(Exception):
    """A row that is left out; the message is the reason, by which rows are counted."""


class ImageIndex:
    """Files by their path, with or without its leading folders.

    Args:
        archives: Lists the files.
        limit: Maximum number of bytes that are read of a file, to compare it with another.
        skipped: Counts the files that are left out, by reason.

    Attributes:
        files: Path below a folder or in a zip -> (folder or zip, path as it is there).

    Example:
        >>> from collections import Counter
        >>> from satmip_jax.sources.archives import Archives
        >>> from satmip_jax.sources.image_index import ImageIndex
        >>> Path("tiles/north").mkdir(parents=True)
        >>> Path("tiles/north/a.png").touch()
        >>> ImageIndex(Archives([Path("tiles")], ("",)), 1 << 20, Counter()).find("a.png")
        'north/a.png'
    """

    def __init__(self, archives: Archives, limit: int, skipped: Counter[str]) -> None:
        self._archives = archives
        self._limit = limit
        self._unclear: set[str] = set()  # paths that several folders or zips have
        self.files: dict[str, tuple[str, str]] = {}
        for container, member, name in archives.files():
            try:
                key = _relative(name)
            except SkippedRow:
                skipped["zip member whose path leads out of the zip"] += 1
                continue
            if not _is_unicode(key):
                skipped["file whose name is not Unicode"] += 1
            elif key not in self.files:
                self.files[key] = (container, member)
            elif self._are_equal(self.files[key], (container, member)):
                skipped["file of the same path and content as another"] += 1
            else:  # which of them the table means is unknown
                skipped["file of the same path as another, of other content"] += 1
                self._unclear.add(key)
        skipped.update(archives.skipped)
        self._by_name: dict[str, list[str]] = {}
        for key in self.files:
            self._by_name.setdefault(key.rpartition("/")[2], []).append(key)

    def find(self, value: Cell) -> str:
        """Return the path, a key of `files`, of the one file that a cell of the table means.

        Raises:
            SkippedRow: There is no such file, or several.
        """
        text = cell_text(value)
        if not text:
            raise SkippedRow("row without a path")
        path = nfc(_relative(text))
        if path in self.files:
            fitting = [path]
        else:
            named = self._by_name.get(path.rpartition("/")[2], [])
            fitting = [key for key in named if key.endswith(f"/{path}")]
        if not fitting:
            raise SkippedRow("row without an image")
        if len(fitting) > 1 or fitting[0] in self._unclear:
            raise SkippedRow(_SEVERAL)
        return fitting[0]

    def _are_equal(self, one: tuple[str, str], other: tuple[str, str]) -> bool:
        """Whether two files have the same content."""
        try:
            first, second = (self._archives.read(*file, self._limit) for file in (one, other))
        except UnreadableExample:
            return False
        return first == second


def cell_text(value: Cell) -> str | None:
    """Return the text of a cell, None if it is empty. Integers look the same in every format.

    Example:
        >>> from satmip_jax.sources.image_index import cell_text
        >>> cell_text(7.0), cell_text(" a ")
        ('7', 'a')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None or isinstance(value, list | dict) else str(value).strip() or None


def _relative(text: str) -> str:
    """Return a path in plain form, "a/b.jpg"; reject one that could lead out of its folder."""
    text = text.replace("\\", "/")
    parts = PurePosixPath(text).parts
    if text.startswith("/") or ".." in parts or "\0" in text or re.match(r"[A-Za-z]:", text):
        raise SkippedRow("path that leads out of its folder")
    return "/".join(parts)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
