"""EuroSAT (Helber et al. 2019): 27,000 chips of 64x64 pixels in 10 classes of land use and cover.

sensor       Sentinel-2 MSI (A and B), level 1C
bands        the RGB release: B4, B3, B2 (665, 560, 490 nm), 8 bit, JPEG
ground size  10 m per pixel, 640 m per chip
labels       10 classes, in alphabetical order
metadata     a CSV made from the georeferenced release: centre longitude and latitude, and the
             country; neither time nor angles
splits       a column of that CSV. `split` is random, 60/20/20 within each class, as TorchGeo
             and the transfer tables of the literature use it. `split_spatial` puts whole
             1-degree cells on one side: on `split` neighbours share scenes, and the location
             alone gives away much of the class. State which one a number used.
licence      MIT (the data set); contains modified Copernicus Sentinel data (free, full and open)
source       https://github.com/phelber/EuroSAT, https://zenodo.org/records/7711810
"""

from __future__ import annotations

import csv
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources import Example, Ref, SourceError, UnreadableExample, read_file

CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)

MAX_CHIP_BYTES = 4 << 20  # a 64x64 JPEG takes 3 KB; more than this is no chip
MAX_CSV_BYTES = 256 << 20
_SUFFIXES = (".jpg", ".jpeg")
_SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")


class EuroSAT:
    """EuroSAT from its zip archives or class folders, and a CSV of locations and splits.

    Args:
      paths: Zip files, folders that hold zips or class folders (at any depth, so with or without
        a leading `EuroSAT_RGB/` or `2750/`), and optionally the CSV.
      metadata: The CSV with the columns filename, label, a split column, and optionally
        longitude, latitude, country_code. Found by its header when not given.
      split_column: The column that names the split. It decides alone: it does not matter in which
        archive a chip lies.

    Raises:
      SourceError: No chip, no CSV or several of them, or a column is missing.

    Example:
      >>> source = EuroSAT([Path("eurosat")], split_column="split_spatial")
      >>> example = source.read(source.refs()[0], Problems())
      >>> example.label
      'AnnualCrop'
    """

    name = "eurosat"
    classes = CLASSES
    license = "MIT (EuroSAT); contains modified Copernicus Sentinel data"
    homepage = "https://github.com/phelber/EuroSAT"
    context_ratio = None

    def __init__(
        self,
        paths: Sequence[Path],
        metadata: str | Path | None = None,
        split_column: str = "split",
    ) -> None:
        self.paths = [Path(path) for path in paths]
        self.split_column = split_column
        self.options: dict[str, Any] = {"split_column": split_column}
        self.skipped: Counter[str] = Counter()
        self.metadata = self._find_csv(Path(metadata) if metadata else None)
        self._archives: dict[str, zipfile.ZipFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archives": {}}  # open files do not travel between processes

    def refs(self) -> list[Ref]:
        """Every chip that has both a row in the CSV and an image, in alphabetical order."""
        self.skipped = Counter()
        chips: dict[str, tuple[str, str]] = {}
        for key, container, member in self._chips():
            if key in chips:
                self.skipped["the same chip again, in another archive"] += 1
            chips.setdefault(key, (container, member))
        if not chips:
            raise SourceError(
                f"no EuroSAT chips in {', '.join(map(str, self.paths))}: expected <class>/*.jpg in "
                "folders or zip files, such as EuroSAT_RGB/AnnualCrop/AnnualCrop_1.jpg"
            )
        refs: dict[str, Ref] = {}
        named, rows = set(), 0
        for row in _read_csv(self.metadata):
            rows += 1
            key, label, split = _key(row["filename"]), row["label"], row[self.split_column]
            if key in named:
                self.skipped["the same row again"] += 1
                continue
            named.add(key)
            if key not in chips:
                self.skipped["row without an image"] += 1
            elif label not in CLASSES:
                self.skipped[f"unknown label {label[:40]!r}"] += 1
            elif not _SPLIT.fullmatch(split):
                self.skipped[f"unusable split {split[:40]!r}"] += 1
            else:
                place = (row.get("longitude"), row.get("latitude"), row.get("country_code"))
                refs[key] = Ref(key, split, (*chips[key], label, *place))
        if unlisted := len(chips.keys() - named):
            self.skipped["image without a row"] = unlisted
        if not refs:
            raise SourceError(
                f"{self.metadata}: none of its {rows} rows names one of the {len(chips)} chips "
                f"found; the column filename should read like {next(iter(chips))!r}"
            )
        return [refs[key] for key in sorted(refs)]

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Reads one chip; raises `UnreadableExample` when its file cannot be read."""
        container, member, label, longitude, latitude, country = ref.location
        metadata = Metadata.parse(
            {
                "gsd": (10.0, 10.0),
                "location": _location(longitude, latitude),
                "country_code": country or None,
                "wavelengths": (665.0, 560.0, 490.0),
                "sensor_platform": "SENTINEL2",
            },
            problems,
        )
        image = self._read_chip(str(container), str(member))
        return Example(ref.id, image, metadata, str(label), box=None)

    def _chips(self) -> Iterator[tuple[str, str, str]]:
        """(key, container, member) of every chip; the container is a zip or a folder."""
        for path in self.paths:
            if path.is_dir():
                archives = sorted(p for p in path.iterdir() if p.suffix.lower() == ".zip")
                for folder, folders, files in os.walk(path):
                    folders.sort()
                    for name in sorted(files):
                        member = os.path.relpath(os.path.join(folder, name), path)
                        if name.lower().endswith(_SUFFIXES):
                            yield _key(member), str(path), member
            else:
                archives = [path] if path.suffix.lower() == ".zip" else []
            for archive in archives:
                try:
                    with zipfile.ZipFile(archive) as opened:
                        members = sorted(opened.namelist())
                except (zipfile.BadZipFile, OSError) as error:
                    raise SourceError(
                        f"{archive}: cannot be read as a zip ({error}): download it again"
                    ) from error
                for member in members:
                    if member.lower().endswith(_SUFFIXES):
                        yield _key(member), str(archive), member

    def _read_chip(self, container: str, member: str) -> bytes:
        if os.path.isdir(container):
            return read_file(os.path.join(container, member), MAX_CHIP_BYTES)
        try:
            # Read in place: a name such as ../../x in a zip never becomes a path on this disk.
            if container not in self._archives:
                self._archives[container] = zipfile.ZipFile(container)
            with self._archives[container].open(member) as file:
                # The size that a zip states is a claim: stop reading at the bound instead.
                data = file.read(MAX_CHIP_BYTES + 1)
        except (OSError, EOFError, KeyError, RuntimeError, ValueError) as error:
            raise UnreadableExample(f"cannot be read: {type(error).__name__}") from error
        except (zipfile.BadZipFile, zlib.error) as error:
            raise UnreadableExample("damaged zip member") from error
        if len(data) > MAX_CHIP_BYTES:
            raise UnreadableExample(f"more than {MAX_CHIP_BYTES:,} bytes")
        return data

    def _find_csv(self, given: Path | None) -> Path:
        """The one CSV, given, among the paths, or beside them, that has the columns."""
        named = [given] if given else [path for path in self.paths if path.suffix.lower() == ".csv"]
        folders = {path if path.is_dir() else path.parent for path in self.paths}
        beside = [p for f in sorted(folders) for p in sorted(f.glob("*.csv"))]
        need = {"filename", "label", self.split_column}
        found = [path for path in named or beside if need <= set(_header(path))]
        if len(found) == 1:
            return found[0]
        if found:
            raise SourceError(
                f"several files could be the EuroSAT metadata: {', '.join(map(str, found))}: "
                "choose one with metadata="
            )
        seen = "; ".join(
            f"{p} has {', '.join(_header(p)) or 'no'} columns" for p in named or beside
        )
        raise SourceError(
            f"no EuroSAT metadata CSV with the columns {', '.join(sorted(need))} "
            f"({seen or 'no CSV among the paths or beside them'}): name one with metadata= and "
            "the split's column with split_column="
        )


def _key(name: str) -> str:
    """The last two parts of a name, whatever folders lead to it: "Forest/Forest_1.jpg"."""
    return "/".join(PurePosixPath(name.replace("\\", "/")).parts[-2:])


def _location(longitude: object, latitude: object) -> object:
    """Numbers where they parse; text stays text, for `Metadata.parse` to refuse and count."""
    if not longitude or not latitude:
        return None
    try:
        return float(str(longitude)), float(str(latitude))
    except ValueError:
        return str(longitude), str(latitude)


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader([file.readline(1 << 16)]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _read_csv(path: Path) -> Iterator[dict[str, str]]:
    """Rows as text; short rows read as "" in the columns they lack."""
    try:
        if path.stat().st_size > MAX_CSV_BYTES:
            raise SourceError(f"{path}: more than {MAX_CSV_BYTES >> 20} MiB, not EuroSAT metadata")
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, restval=""):
                yield {key: value.strip() for key, value in row.items() if isinstance(key, str)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: cannot be read as CSV: {error}") from error
