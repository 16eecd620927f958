"""Any folder or zip of images, with a table that says what is known of them.

sensor       whatever the table says
bands        whatever `satmip_jax.data.images` decodes: JPEG, PNG, TIFF and WebP, as RGB
labels       a column of the table, or none
metadata     columns of the table, a CSV, JSON Lines or Parquet file; fields without one are missing
splits       a column of the table, or shares drawn by the hash of the id
licence      the publisher's

Nothing is extracted to disk, and nothing outside the given folders and zips is read, whatever
paths the table, a zip or a symbolic link may name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources import tables
from satmip_jax.sources.archives import Archives
from satmip_jax.sources.base import Example, Ref, SourceError, read_file

MAX_IMAGE_BYTES = 1 << 30
MAX_CLASSES = 10_000
MAX_LABEL = 128  # characters

_IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
_SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")


class Folder:
    """Images in folders and zips, and a table.

    Args:
      paths: Folders, searched at any depth, and zips; a folder's own zips are searched too. The
        table may be among them.
      metadata: The table, CSV, JSON Lines or Parquet by its ending; where not given, the only one
        among `paths` or at the top of a folder (of several, `metadata.*`).
      columns: Which column holds what: "path=file,label=class,location=lon+lat,gsd=resolution".
        On the left a field of `satmip_jax.metadata`, or `path` (of the image, below a given folder
        or zip; leading folders may be left out while it is clear which image is meant), `label`,
        `split`, `id`; on the right a column, or one per component. Columns that have our names
        need no mention; "gsd=" leaves one out. Also a mapping, for names with commas.
      splits: Shares such as "train=0.8,val=0.2" instead of a column. An example's split follows
        from the seed and its id alone: it stays when rows are added or moved.
      seed: Of the shares.

    Raises:
      SourceError: No table or several, a column or field that does not exist, shares that do not
        add up to 1.

    Example:
      >>> source = Folder([Path("chips.zip")], metadata="chips.csv",
      ...     columns="path=file,label=class,location=longitude+latitude",
      ...     splits="train=0.8,val=0.2")
    """

    name = "folder"
    license = "the publisher's"
    homepage = "not stated"
    image_size = 64
    context_ratio = None

    def __init__(
        self,
        paths: Sequence[Path],
        metadata: str | Path | None = None,
        columns: str | Mapping[str, str | Sequence[str]] = "",
        splits: str = "",
        seed: int = 0,
    ) -> None:
        self.paths = [Path(path) for path in paths]
        self.table = self._find_table(metadata)
        self.columns = tables.match(columns, tables.columns(self.table), self.table)
        self.shares = _parse_shares(splits)
        if self.shares and "split" in self.columns:
            if "split" in tables.parse_columns(columns):
                raise SourceError(
                    "give either a split column (--columns split=...) or shares "
                    "(--splits), not both"
                )
            del self.columns["split"]
        self.seed = int(seed)
        if self.shares:
            self.splits_from = f"drawn with seed {self.seed}: {splits}"
        elif "split" in self.columns:
            self.splits_from = f"the column {self.columns['split'][0]!r} of {self.table.name}"
        else:
            self.splits_from = "none: all is train"
        self.skipped: Counter[str] = Counter()
        self.classes = self._classes()
        self.options: dict[str, Any] = {
            "metadata": self.table.name,
            "columns": {ours: "+".join(theirs) for ours, theirs in self.columns.items()},
            "shares": dict(self.shares),
            "seed": self.seed,
        }
        self._archives = Archives(self.paths, _IMAGES)

    def refs(self) -> list[Ref]:
        """Every image that has a row, in the order of the ids."""
        self.skipped = Counter()
        files = self._files()
        index = _Index(files)
        used: set[str] = set()
        refs: dict[str, Ref] = {}
        count = 0
        for row in self._rows(self.skipped):
            count += 1
            try:
                key = index.find(row.get("path"))
                if key in used:
                    raise _SkippedRow("another row of the same image")
                used.add(key)
                identity = _text(row.get("id")) if "id" in self.columns else key
                if not identity:
                    raise _SkippedRow("row without an id")
                if identity in refs:
                    raise _SkippedRow("another row of the same id")
                split = self._split(row.get("split"), identity)
                label = self._label(row.get("label"))
            except _SkippedRow as reason:
                self.skipped[str(reason)] += 1
                continue
            raw = {name: value for name, value in row.items() if name not in tables.SPECIAL}
            refs[identity] = Ref(identity, split, (*files[key], label, json.dumps(raw)))
        unlisted = sum(key.lower().endswith(_IMAGES) for key in files.keys() - used)
        if unlisted:
            self.skipped["image without a row"] = unlisted
        if not refs:
            found = "; ".join(f"{n} x {reason}" for reason, n in self.skipped.most_common(5))
            raise SourceError(
                f"none of the {count} rows of {self.table} can be used with the {len(files)} files "
                f"in {', '.join(map(str, self.paths))} ({found or 'there are none'}): the column "
                f"{self.columns['path'][0]!r} should read like {min(files, default='a/b.jpg')!r}"
            )
        return [refs[key] for key in sorted(refs)]

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Reads one image; raises `UnreadableExample` when its file cannot be read."""
        container, member, label, raw = ref.location
        image = self._read(str(container), None if member is None else str(member))
        metadata = Metadata.parse(json.loads(str(raw)), problems)
        return Example(ref.id, image, metadata, None if label is None else str(label))

    def _rows(self, skipped: Counter[str]) -> Iterator[dict[str, tables.Cell]]:
        """The table's rows by our names; several columns as a list, None where all are empty."""
        wanted = [name for theirs in self.columns.values() for name in theirs]
        for cells in tables.rows(self.table, wanted, skipped):
            row: dict[str, tables.Cell] = {}
            for ours, theirs in self.columns.items():
                values = [cells[name] for name in theirs]
                several = None if all(value is None for value in values) else values
                row[ours] = values[0] if len(theirs) == 1 else several
            yield row

    def _classes(self) -> tuple[str, ...]:
        """The labels of the table: whole numbers by value, others by the alphabet."""
        if "label" not in self.columns:
            return ()
        (column,) = self.columns["label"]
        found: set[str] = set()
        for row in tables.rows(self.table, [column], Counter()):
            text = _text(row[column])
            if text and len(text) <= MAX_LABEL:
                found.add(text)
            if len(found) > MAX_CLASSES:
                raise SourceError(
                    f"{self.table}: the column {column!r} holds more than {MAX_CLASSES:,} "
                    'different labels: name another with --columns "label=...", or none with '
                    '"label="'
                )
        numbers = all(re.fullmatch(r"[0-9]{1,9}", text) for text in found)
        return tuple(sorted(found, key=lambda text: (int(text) if numbers else 0, text)))

    def _label(self, value: tables.Cell) -> str | None:
        text = _text(value)
        if text and len(text) > MAX_LABEL:
            raise _SkippedRow(f"label of more than {MAX_LABEL} characters")
        return text

    def _split(self, value: tables.Cell, identity: str) -> str:
        if self.shares:
            digest = hashlib.blake2b(f"{self.seed}:{identity}".encode(), digest_size=8).digest()
            at = int.from_bytes(digest, "big") / 2**64
            for name, share in self.shares:
                at -= share
                if at < 0:
                    return name
            return self.shares[-1][0]
        if "split" not in self.columns:
            return "train"
        text = _text(value)
        if not text or not _SPLIT.fullmatch(text):
            raise _SkippedRow("row without a split" if not text else "row with an unusable split")
        return text

    # --- files ------------------------------------------------------------------------------------

    def _files(self) -> dict[str, tuple[str, str | None]]:
        """Path below a folder or in a zip -> (file, None) or (zip, member)."""
        files: dict[str, tuple[str, str | None]] = {}
        for key, place in self._walk():
            if not _is_unicode(key):
                self.skipped["file whose name is not Unicode"] += 1
            elif key in files:
                self.skipped["file of the same path as another"] += 1
            else:
                files[key] = place
        return files

    def _walk(self) -> Iterator[tuple[str, tuple[str, str | None]]]:
        for path in self.paths:
            if path.is_dir():
                root = os.path.realpath(path)
                for place, folders, names in os.walk(path):
                    for name in folders:
                        if os.path.islink(os.path.join(place, name)):
                            self.skipped["folder that is a symbolic link"] += 1
                    folders.sort()
                    for name in sorted(names):
                        file = os.path.join(place, name)
                        if name.lower().endswith(".zip") and place == str(path):
                            yield from self._members(Path(file))
                        elif not os.path.realpath(file).startswith(root.rstrip(os.sep) + os.sep):
                            self.skipped["symbolic link that leads out of its folder"] += 1
                        else:
                            yield os.path.relpath(file, path).replace(os.sep, "/"), (file, None)
            elif path.suffix.lower() == ".zip":
                yield from self._members(path)
            elif not tables.is_table(path):
                raise SourceError(f"{path}: expected a folder, a zip or a table")

    def _members(self, path: Path) -> Iterator[tuple[str, tuple[str, str | None]]]:
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise SourceError(f"{path}: cannot be read as a zip ({error})") from error
        for name in sorted(names):
            if name.endswith("/"):
                continue
            try:
                yield _relative(name), (str(path), name)
            except _SkippedRow:
                self.skipped["zip member whose path leads out of the zip"] += 1

    def _read(self, container: str, member: str | None) -> bytes:
        if member is None:
            return read_file(container, MAX_IMAGE_BYTES)
        return self._archives.read(container, member, MAX_IMAGE_BYTES)

    def _find_table(self, given: str | Path | None) -> Path:
        if given is not None:
            if not Path(given).is_file():
                raise SourceError(f"no table at {given}")
            return Path(given)
        named = [path for path in self.paths if path.is_file() and tables.is_table(path)]
        folders = [path for path in self.paths if path.is_dir()]
        found = named or [
            path
            for folder in folders
            for path in sorted(folder.iterdir())
            if path.is_file() and tables.is_table(path)
        ]
        usual = [path for path in found if path.name.lower().startswith("metadata.")]
        if len(usual) == 1 or len(found) == 1:
            return (usual or found)[0]
        what = f"several tables ({', '.join(p.name for p in found[:9])})" if found else "no table"
        raise SourceError(
            f"{what} in {', '.join(map(str, self.paths))}: name a CSV, JSON Lines or Parquet file "
            "with --metadata; it has at least a column of image paths"
        )


class _SkippedRow(Exception):
    """A row that is left out; the message is the reason, to be counted by."""


class _Index:
    """Finds images by their path, with or without its leading folders."""

    def __init__(self, files: Mapping[str, object]) -> None:
        self._files = files
        self._by_name: dict[str, list[str]] = {}
        for key in files:
            self._by_name.setdefault(key.rpartition("/")[2], []).append(key)

    def find(self, value: tables.Cell) -> str:
        """The key of the one file that a table's path means; raises `_SkippedRow`."""
        text = _text(value)
        if not text:
            raise _SkippedRow("row without a path")
        path = _relative(text)
        if path in self._files:
            return path
        named = self._by_name.get(path.rpartition("/")[2], [])
        fitting = [key for key in named if key.endswith(f"/{path}")]
        if len(fitting) > 1:
            raise _SkippedRow("row whose path fits several images")
        if not fitting:
            raise _SkippedRow("row without an image")
        return fitting[0]


def _relative(text: str) -> str:
    """A path in plain form, "a/b.jpg"; refuses one that could lead out of its folder."""
    text = text.replace("\\", "/")
    parts = PurePosixPath(text).parts
    if text.startswith("/") or ".." in parts or "\0" in text or re.match(r"[A-Za-z]:", text):
        raise _SkippedRow("path that leads out of its folder")
    return "/".join(parts)


def _text(value: tables.Cell) -> str | None:
    """Text of a cell; None where it is empty. Whole numbers read the same in every format."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None or isinstance(value, list) else str(value).strip() or None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# --- options --------------------------------------------------------------------------------------


def _parse_shares(text: str) -> tuple[tuple[str, float], ...]:
    """ "train=0.8,val=0.2" -> (("train", 0.8), ("val", 0.2))."""
    shares: dict[str, float] = {}
    for part in text.split(",") if text.strip() else ():
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not _SPLIT.fullmatch(name) or not 0 < share <= 1 or name in shares:
            raise SourceError(
                f'--splits: cannot read {part.strip()!r}: write shares such as "train=0.8,val=0.2"'
            )
        shares[name] = share
    if shares and abs(sum(shares.values()) - 1) > 1e-6:
        raise SourceError(
            f"--splits: the shares in {text!r} add up to {sum(shares.values()):g}, not 1"
        )
    return tuple(shares.items())
