"""Any folder or zip of images, with a table of their metadata.

sensor       a column of the table
bands        of JPEG, PNG, TIFF, WebP and JPEG 2000 files, as RGB; see `satmip_jax.data.rendering`
labels       a column of the table, or none
metadata     columns of a CSV, JSON or Parquet file; fields without a column are missing
splits       a column of the table, random shares, or years
licence      not stated

Nothing is extracted to disk. Nothing outside the given folders and zips is read, whatever paths
the table, a zip or a symbolic link contains.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from satmip_jax.data import headers
from satmip_jax.metadata.conventions import CloudCover, Conventions, Dates, TableScan
from satmip_jax.metadata.fields import field
from satmip_jax.metadata.kinds import BadValueError
from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.archives import LINK, Archives, is_macos, leads_out, nfc
from satmip_jax.sources.base import Example, FileSource, Ref, Skipped, SourceError
from satmip_jax.sources.cells import CellReader
from satmip_jax.sources.columns import (
    PLANE,
    SPECIAL,
    describe_columns,
    match_columns,
    parse_columns,
)
from satmip_jax.sources.image_index import ImageIndex, SkippedRow, cell_text
from satmip_jax.sources.splits import (
    SPLIT_NAME,
    draw_split,
    parse_shares,
    parse_years,
    split_of_year,
)
from satmip_jax.sources.tables import Cell, Table, is_table

MAX_IMAGE_BYTES = 1 << 30
MAX_CLASSES = 10_000
MAX_LABEL = 128  # characters

_SPLITS = ("train", "val", "test")  # whatever their case


class Folder(FileSource):
    r"""Images in folders and zips, and a table.

    The split of an example in random shares depends on the seed and its id only: it stays the same
    when rows are added or moved. `columns` may also be a mapping, for names with commas.

    Args:
        paths: Folders, searched at any depth, zips, including those at the top of a folder, and
            images. The table may be one of the paths.
        metadata: The table: CSV, JSON (lines, an array, or GeoJSON) or Parquet, by its suffix.
            Without it, the only table among the paths or at the top of a folder (of several,
            metadata.*).
        columns: Which column holds what, as in
            "path=file,label=class,location=lon+lat,gsd=resolution". Left of "=" is a metadata
            field, or path, label, split or id; right of it a column, or one per component. A path
            is relative to a folder or zip; its leading folders may be omitted if one image
            matches. The splits train, val and test may be written in any case. Columns with these
            names, or usual ones such as lat and lng, are found automatically, whatever their case;
            "gsd=" ignores one.
        splits: Shares to draw at random, such as "train=0.8,val=0.2", instead of a split column.
        years: First year of each split, such as "train=2002,val=2013,test=2016", instead of shares
            or a split column: a split has the images from its first year to that of the next.
            Images without a time, or before all, are left out.
        seed: Seed of the shares.
        dates: Order of dates such as 06/07/2017. With "auto" the whole column decides: the order in
            which every such date exists; if both or none are possible, these times are missing.
        cloud_cover: Unit of the cloud cover. With "auto" it is a fraction if all values of the
            table are from 0 to 1 and one lies between.

    Raises:
        SourceError: There is no table or there are several, a column or field does not exist, or
            the shares do not add up to 1.

    Example:
        >>> from satmip_jax.sources.folder import Folder
        >>> Path("chips").mkdir()
        >>> for name in ("a.png", "b.png"):
        ...     Path("chips", name).touch()
        >>> _ = Path("chips.csv").write_text("file,class\na.png,barn\nb.png,zoo\n")
        >>> source = Folder(
        ...     [Path("chips")], metadata="chips.csv", columns="label=class", splits="train=1"
        ... )
        >>> source.classes
        ('barn', 'zoo')
        >>> [ref.id for ref in source.refs()]
        ['a.png', 'b.png']
    """

    name = "folder"
    image_size = 64
    label_option = "--columns label=NAME takes a column of the table"

    def __init__(
        self,
        paths: Sequence[Path],
        metadata: str | Path | None = None,
        columns: str | Mapping[str, str | Sequence[str]] = "",
        splits: str = "",
        years: str = "",
        seed: int = 0,
        dates: Dates = "auto",
        cloud_cover: CloudCover = "auto",
    ) -> None:
        super().__init__(paths)
        self._archives = Archives(self.paths, ("",), follow_links=False, single=headers.SUFFIXES)
        self._outside: list[str] = []  # tables that are not read, and why
        self.table = self._find_table(metadata)
        table = Table(self.table)
        self.columns = match_columns(columns, table.header, self.table)
        self.shares = parse_shares(splits)
        self.years = parse_years(years)
        if self.shares and self.years:
            raise SourceError("give either shares (--splits) or years (--years), not both")
        if (self.shares or self.years) and "split" in self.columns:
            if "split" in parse_columns(columns):
                raise SourceError(
                    "give either a split column (--columns split=...) or shares "
                    "(--splits) or years (--years), not both"
                )
            del self.columns["split"]
        if self.years and "timestamp" not in self.columns:
            raise SourceError(
                f"{self.table}: --years needs times: name their column, --columns timestamp=..."
            )
        self._cells = CellReader(table, self.columns)
        notices = [*filter(None, [table.notice]), *self._cells.notices]
        if "location" not in parse_columns(columns) and not self._is_in_degrees():
            x_y = " and ".join(self.columns.pop("location"))
            notices.append(f"{x_y} are not degrees: ignored")
        self.seed = seed
        self.dates: Dates = dates
        self.cloud_cover: CloudCover = cloud_cover
        self.conventions = Conventions()
        if self.shares:
            self.splits_from = f"drawn with seed {self.seed}: {splits}"
        elif self.years:
            self.splits_from = (
                f"by year, from {', '.join(f'{n} {first}' for n, first in self.years)}"
            )
        elif "split" in self.columns:
            self.splits_from = f"the column {self.columns['split'][0]!r} of {self.table.name}"
        else:
            self.splits_from = "none: all is train"
        self.classes = self._classes()
        notices += _alike(self.classes)
        self.options = {
            "metadata": self.table.name,
            "columns": {ours: "+".join(theirs) for ours, theirs in self.columns.items()},
            "shares": dict(self.shares),
            "seed": self.seed,
            **({"years": dict(self.years)} if self.years else {}),
        }
        self.summary = [
            f"table: {self.table}",
            *describe_columns(self.columns, table.header),
            *notices,
            *self._outside,
        ]

    def refs(self) -> list[Ref]:
        """List every image that has a row, in the order of the ids."""
        self.skipped = Skipped()
        readable = (".zip", *headers.SUFFIXES)
        for path in self.paths:
            if not (path.is_dir() or path.suffix.lower() in readable or is_table(path)):
                raise SourceError(f"{path}: expected a folder, a zip, an image or a table")
        index = ImageIndex(self._archives, MAX_IMAGE_BYTES, self.skipped)
        files = index.files
        used: set[str] = set()
        refs: dict[str, Ref] = {}
        scan = TableScan()
        count = 0
        for row in self._cells.rows(self.skipped):
            count += 1
            try:
                key = index.find(row.get("path"))
                if key in used:
                    raise SkippedRow("another row of the same image")
                used.add(key)
                identity = cell_text(row.get("id")) if "id" in self.columns else key
                if not identity:
                    raise SkippedRow("row without an id")
                if identity in refs:
                    raise SkippedRow("another row of the same id")
                split = self._split(row.get("split"), identity)
                label = self._label(row.get("label"))
            except SkippedRow as reason:
                self.skipped.add(str(reason), cell_text(row.get("path")) or f"row {count}")
                continue
            raw = {name: value for name, value in row.items() if name not in SPECIAL}
            scan.add(raw)
            refs[identity] = Ref(identity, split, (*files[key], label, json.dumps(raw)))
        unlisted = sum(key.lower().endswith(headers.SUFFIXES) for key in files.keys() - used)
        if unlisted:
            self.skipped["image without a row"] = unlisted
        if not refs:
            reasons = "; ".join(f"{n} x {reason}" for reason, n in self.skipped.most_common(5))
            raise SourceError(
                f"none of the {count} rows of {self.table} can be used with the {len(files)} files "
                f"in {', '.join(map(str, self.paths))} ({reasons or 'there are none'}): values of "
                f"the column {self.columns['path'][0]!r} should look like "
                f"{min(files, default='a/b.jpg')!r}"
            )
        self.conventions = scan.decide(self.cloud_cover, self.dates)
        if conventions := self.conventions.to_json():
            self.options = {**self.options, "conventions": conventions}
        listed = [refs[key] for key in sorted(refs)]
        return self._split_by_year(listed, self.skipped) if self.years else listed

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read one image."""
        container, member, label, raw = ref.location
        image = self._archives.read(str(container), str(member), MAX_IMAGE_BYTES)
        values = self.conventions.apply(json.loads(str(raw)), problems)
        metadata = Metadata.parse(values, problems)
        return Example(ref.id, image, metadata, None if label is None else str(label))

    def _split_by_year(self, refs: Sequence[Ref], skipped: Counter[str]) -> list[Ref]:
        """Return the examples in the splits of their years, and count the others."""
        found = []
        for ref in refs:
            values = self.conventions.apply(json.loads(str(ref.location[-1])), Problems())
            time = Metadata.parse({"timestamp": values.get("timestamp")}).values.get("timestamp")
            split = split_of_year(self.years, time.year) if isinstance(time, datetime) else None
            if split:
                found.append(replace(ref, split=split))
            else:
                reason = "row of a year before all splits" if time else "row without a time"
                skipped[reason] += 1
        if not found:
            raise SourceError(
                f"{self.table}: none of the {len(refs)} images has a time from {self.years[0][1]} "
                "on: give other --years"
            )
        return found

    def _is_in_degrees(self) -> bool:
        """Whether all of x and y may be degrees, if these are the columns of the location."""
        if tuple(name.strip().casefold() for name in self.columns.get("location", ())) != PLANE:
            return True
        for row in self._cells.rows(Counter(), ("location",)):
            try:
                field("location").kind.parse(row["location"])
            except BadValueError as bad:
                if bad.reason != "missing":
                    return False
        return True

    def _classes(self) -> tuple[str, ...]:
        """Return the labels of the table: integers in numerical order, others alphabetically."""
        if "label" not in self.columns:
            return ()
        (column,) = self.columns["label"]
        labels: set[str] = set()
        for row in self._cells.rows(Counter(), ("label",)):
            try:
                text = self._label(row["label"])
            except SkippedRow:
                continue
            if text:
                labels.add(text)
            if len(labels) > MAX_CLASSES:
                raise SourceError(
                    f"{self.table}: the column {column!r} holds more than {MAX_CLASSES:,} "
                    'different labels: choose another with --columns "label=...", or none with '
                    '"label="'
                )
        numbers = all(re.fullmatch(r"[0-9]{1,9}", text) for text in labels)
        return tuple(sorted(labels, key=lambda text: (int(text) if numbers else 0, text)))

    def _label(self, value: Cell) -> str | None:
        if isinstance(value, list | dict):
            raise SkippedRow("label of a wrong type")
        text = cell_text(value)
        if text and len(text) > MAX_LABEL:
            raise SkippedRow(f"label of more than {MAX_LABEL} characters")
        return text and nfc(text)

    def _split(self, value: Cell, identity: str) -> str:
        if self.shares:
            return draw_split(self.shares, self.seed, identity)
        if "split" not in self.columns:
            return "train"
        text = cell_text(value)
        if not text or not SPLIT_NAME.fullmatch(text):
            raise SkippedRow("row without a split" if not text else "row with an unusable split")
        return text.lower() if text.lower() in _SPLITS else text

    # --- files ------------------------------------------------------------------------------------

    def _find_table(self, metadata: str | Path | None) -> Path:
        if metadata is not None:
            if not Path(metadata).is_file():
                raise SourceError(f"no table at {metadata}")
            return Path(metadata)
        given = [path for path in self.paths if path.is_file() and is_table(path)]
        candidates = given or [
            path
            for folder in self.paths
            if folder.is_dir()
            for path in sorted(folder.iterdir())
            if path.is_file()
            and is_table(path)
            and not is_macos(path.name)
            and not self._is_outside(path, folder)
        ]
        # GeoJSON beside another table is rather the outline of an area
        plain = [path for path in candidates if path.suffix.lower() != ".geojson"]
        candidates = given or plain or candidates
        usual = [path for path in candidates if path.name.lower().startswith("metadata.")]
        if len(usual) == 1 or len(candidates) == 1:
            return (usual or candidates)[0]
        names = ", ".join(path.name for path in candidates[:9])
        outside = "; ".join(self._outside)
        raise SourceError(
            f"{f'several tables ({names})' if names else 'no table'} in "
            f"{', '.join(map(str, self.paths))}{f' ({outside})' if outside else ''}: give a CSV, "
            "JSON or Parquet file with --metadata; it needs at least a column of image paths"
        )

    def _is_outside(self, table: Path, folder: Path) -> bool:
        if not leads_out(table, folder):
            return False
        self._outside.append(f"{LINK}: {table.name}")
        return True


def _alike(classes: Sequence[str]) -> list[str]:
    """Return a sentence for users if classes differ in case only."""
    by_name: dict[str, list[str]] = {}
    for name in classes:
        by_name.setdefault(name.casefold(), []).append(name)
    groups = [" and ".join(map(repr, names)) for names in by_name.values() if len(names) > 1]
    more = f" and {len(groups) - 5} more" if len(groups) > 5 else ""
    listed = ", ".join(groups[:5])
    return (
        [f"labels that differ in case only are different classes: {listed}{more}"] if groups else []
    )
