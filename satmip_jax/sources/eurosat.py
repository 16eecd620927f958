"""EuroSAT (Helber et al. 2019): 27,000 chips of 64x64 pixels in 10 classes of land use and cover.

sensor       Sentinel-2 MSI (A and B), level 1C
bands        the RGB release: B4, B3, B2 (665, 560, 490 nm), 8 bit, JPEG
ground size  10 m per pixel, 640 m per chip
labels       10 classes, in alphabetical order
metadata     the location of a chip's centre, from one of two places: a CSV made from the
             georeferenced release, which may also have the country; or that release itself,
             13-band GeoTIFFs in UTM zones (AnnualCrop/AnnualCrop_1.tif for
             AnnualCrop/AnnualCrop_1.jpg). Neither time nor angles
splits       one of three:
             - A column of that CSV. `split` is random, 60/20/20 within each class, as in TorchGeo
               and most published transfer results. `split_spatial` assigns 1-degree cells: with
               `split`, neighbouring chips of one scene are in both train and test, and the location
               alone predicts much of the class. Report which one a number used.
             - The lists `eurosat-{train,val,test}.txt` (60/20/20, Neumann et al. 2019), which
               TorchGeo downloads from https://hf.co/datasets/torchgeo/eurosat.
             - A random draw. It is also used for GeoTIFFs with neither CSV nor lists.
             Lists and draw need no CSV. Without it the country is missing, and without GeoTIFFs
             the location, too.
licence      MIT (the data set); contains modified Copernicus Sentinel data (free, full and open)
source       https://github.com/phelber/EuroSAT, https://zenodo.org/records/7711810 (EuroSAT_RGB.zip
             and the georeferenced EuroSAT_MS.zip, elsewhere EuroSATallBands.zip); EuroSAT.zip of
             http://madm.dfki.de/files/sentinel has MD5 c8fa014336c82ac7804f0398fcb19387, SHA-256
             8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from satmip_jax.metadata.record import Absent, Metadata, Problems
from satmip_jax.sources import geotiff_fields
from satmip_jax.sources.archives import Archives, is_macos, leads_out, nfc
from satmip_jax.sources.base import Example, Ref, Source, SourceError, UnreadableExample
from satmip_jax.sources.cells import CellReader
from satmip_jax.sources.columns import PLANE, describe_columns, find_column, match_columns
from satmip_jax.sources.splits import SIXTY_TWENTY_TWENTY, Splits
from satmip_jax.sources.tables import Table

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

MAX_CHIP_BYTES = 4 << 20  # a 64x64 JPEG takes 3 KB
MAX_TIF_BYTES = 4 << 20  # 13 bands of 64x64 pixels in 16 bit take 107 KB
MAX_CSV_BYTES = 256 << 20
DRAWN = "drawn"  # name of the random split, in place of a column
_SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")


class EuroSAT(Source):
    r"""EuroSAT from its zip archives or class folders, with locations from a CSV or GeoTIFFs.

    Pixels always come from the JPEGs. If the CSV has no location for a chip, it is read from the
    GeoTIFF of the same class and number (the first, if there are several).

    Args:
        paths: Zips, and folders that hold zips or class folders at any depth, with JPEGs and
            optionally GeoTIFFs; optionally the CSV.
        metadata: CSV with the columns filename, label, a split column, and optionally longitude,
            latitude, country_code. Without it, the CSV is found by its header.
        split_column: Column of the CSV that names the split, in whatever archive a chip is.
            "drawn" draws 60/20/20 within each class instead.
        splits_folder: Folder of the lists eurosat-train.txt and so on, which then decide the split.
            Lists beside the data are used if there is no CSV.
        seed: Seed of the random split.

    Raises:
        SourceError: There is no JPEG; there is no CSV, nor GeoTIFFs or lists instead; there are
            several CSVs, or a column is missing; or the lists are unusable.

    Example:
        >>> from satmip_jax.metadata.record import Problems
        >>> from satmip_jax.sources.eurosat import EuroSAT
        >>> chip = Path("eurosat/AnnualCrop/AnnualCrop_1.jpg")
        >>> chip.parent.mkdir(parents=True)
        >>> _ = chip.write_bytes(b"...")
        >>> _ = Path("eurosat/places.csv").write_text(
        ...     "filename,label,split,longitude,latitude\n"
        ...     "AnnualCrop/AnnualCrop_1.jpg,AnnualCrop,val,28.56,44.04\n"
        ... )
        >>> source = EuroSAT([Path("eurosat")])
        >>> (ref,) = source.refs()
        >>> ref.split
        'val'
        >>> source.read(ref, Problems()).metadata.values["location"]
        (28.56, 44.04)
    """

    name = "eurosat"
    classes = CLASSES
    license = "MIT (EuroSAT); contains modified Copernicus Sentinel data"
    homepage = "https://github.com/phelber/EuroSAT"
    image_size = 64
    facts: Mapping[str, Any] = {
        "gsd": (10.0, 10.0),
        "wavelengths": (665.0, 560.0, 490.0),
        "sensor_platform": "SENTINEL2",
    }
    list_name = "eurosat"
    list_checksums: Mapping[str, str] = {
        "train": "908f142e73d6acdf3f482c5e80d851b1",
        "val": "95de90f2aa998f70a3b2416bfe0687b4",
        "test": "7ae5ab94471417b6e315763121e67c5f",
    }
    shares = SIXTY_TWENTY_TWENTY
    tfds_name = "eurosat/rgb"

    def __init__(
        self,
        paths: Sequence[Path],
        metadata: str | Path | None = None,
        split_column: str = "split",
        splits_folder: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(paths)
        self.archives = Archives(self.paths, (".jpg", ".jpeg"))
        self.tifs = Archives(self.paths, (".tif", ".tiff"))
        self.georeferenced = any(True for _ in self.tifs.files())
        self.split_column = split_column
        find = partial(
            Splits.find, self.list_name, self.shares, seed, checksums=self.list_checksums
        )
        table = Path(metadata) if metadata else None
        self.splits: Splits | None = None  # the column decides
        if splits_folder is not None or split_column == DRAWN:
            self.splits = find((), folder=splits_folder)
        elif not any(_has(path, {"filename"}) for path in self._candidates(table)):
            beside = find(self.paths)
            self.splits = beside if beside.lists or self.georeferenced else None
        self.metadata = self._find_csv(table)
        self._cells = self._read_csv(self.metadata) if self.metadata else None
        options: dict[str, Any]
        if self.splits:
            options = {"splits": self.splits.description}
            self.splits_from = self.splits.description
        else:
            options = {"split_column": split_column}
            self.splits_from = f"the column {split_column!r} of the CSV"
        if self.georeferenced:
            options["geotiffs"] = True  # without them the same chips are different data
        self.options = options

    def refs(self) -> list[Ref]:
        """List every chip that has both an image and a split, in alphabetical order."""
        self.skipped: Counter[str] = Counter()
        chips: dict[str, tuple[str, str]] = {}
        for container, member, name in self.archives.files():
            key = _key(name)
            if key in chips:
                self.skipped["the same chip again, in another archive"] += 1
            chips.setdefault(key, (container, member))
        self.skipped.update(self.archives.skipped)
        if not chips and self.georeferenced:
            raise SourceError(
                f"only GeoTIFFs in {', '.join(map(str, self.paths))}: locations come from "
                "GeoTIFFs, pixels from JPEGs. Give both releases: --source EuroSAT_RGB.zip "
                "--source EuroSAT_MS.zip"
            )
        if not chips:
            raise self.archives.nothing_found(
                "EuroSAT chips",
                "<class>/*.jpg in folders or zip files, such as EuroSAT_RGB/AnnualCrop/"
                "AnnualCrop_1.jpg",
            )
        refs = self._by_splits(chips, self.splits) if self.splits else self._by_column(chips)
        tifs: dict[str, tuple[str, str]] = {}
        for container, member, name in self.tifs.files():
            tifs.setdefault(_stem(_key(name)), (container, member))
        return [_with_tif(refs[key], tifs) for key in sorted(refs)]

    def _by_column(self, chips: Mapping[str, tuple[str, str]]) -> dict[str, Ref]:
        refs: dict[str, Ref] = {}
        listed, rows = set(), 0
        for row in self._rows():
            rows += 1
            key, label, split = _key(row["path"]), row["label"], row["split"]
            if key in listed:
                self.skipped["the same row again"] += 1
                continue
            listed.add(key)
            if key not in chips:
                self.skipped["row without an image"] += 1
            elif label not in CLASSES:
                self.skipped[f"unknown label {label[:40]!r}"] += 1
            elif not _SPLIT.fullmatch(split):
                self.skipped[f"unusable split {split[:40]!r}"] += 1
            else:
                refs[key] = Ref(key, split, (*chips[key], label, *_place(row)))
        if unlisted := len(chips.keys() - listed):
            self.skipped["image without a row"] = unlisted
        if not refs:
            raise SourceError(
                f"{self.metadata}: none of its {rows} rows names one of the {len(chips)} chips: "
                f"values of the column filename should look like {next(iter(chips))!r}"
            )
        return refs

    def _by_splits(self, chips: Mapping[str, tuple[str, str]], splits: Splits) -> dict[str, Ref]:
        places = {_key(row["path"]): _place(row) for row in self._rows()}
        labels: dict[str, str] = {}
        for key in chips:
            label = key.rpartition("/")[0]
            if label in CLASSES:
                labels[key] = label
            else:
                self.skipped[f"image in {label[:40]!r}, which is no class"] += 1
        return {
            key: Ref(key, split, (*chips[key], labels[key], *places.get(key, _place({}))))
            for key, split in splits.assign(labels, self.skipped).items()
        }

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read one chip."""
        container, member, label, longitude, latitude, country, *tif = ref.location
        image = self.archives.read(str(container), str(member), MAX_CHIP_BYTES)
        location = _location(longitude, latitude)
        if location is None and self.georeferenced:
            location = self._from_tif(*tif)
        metadata = Metadata.parse(
            {**self.facts, "location": location, "country_code": country or None}, problems
        )
        return Example(ref.id, image, metadata, str(label), box=None)

    def files_of(self, ref: Ref) -> tuple[tuple[str, str | None], ...]:
        """Return the JPEG, and the GeoTIFF if it has the location."""
        pairs = (ref.location[:2], ref.location[6:8])
        return tuple((str(pair[0]), str(pair[1])) for pair in pairs if pair and pair[0])

    def row_of(self, ref: Ref) -> tuple[object, ...]:
        """Return the label, and location and country as the CSV has them."""
        return ref.location[2:6]

    def _from_tif(self, container: object, member: object) -> object:
        if not container:
            return Absent("no GeoTIFF of the chip")
        try:
            return geotiff_fields.centre(self.tifs.read(str(container), str(member), MAX_TIF_BYTES))
        except UnreadableExample as reason:
            return Absent(f"GeoTIFF: {reason}")

    def _rows(self) -> Iterator[dict[str, str]]:
        """Yield the rows of the CSV by our names; missing cells are ""."""
        if self._cells is not None:
            for row in self._cells.rows(self.skipped):
                place = row.pop("location", None)
                longitude, latitude = place if isinstance(place, list) else (None, None)
                cells = {**row, "longitude": longitude, "latitude": latitude}
                yield {name: str(cell or "") for name, cell in cells.items()}

    def _read_csv(self, path: Path) -> CellReader:
        if path.stat().st_size > MAX_CSV_BYTES:
            raise SourceError(f"{path}: more than {MAX_CSV_BYTES >> 20} MiB, not EuroSAT metadata")
        table = Table(path, "csv", pad_rows=True)
        ours = ("path", "location", "country_code", *(() if self.splits else ("label", "split")))
        names = {"path": "filename"} | ({} if self.splits else {"split": self.split_column})
        columns = match_columns(names, table.header, path)
        columns = {name: columns[name] for name in ours if name in columns}
        if not set(columns.get("location", ())) - {*PLANE, "location", "geometry"}:
            columns.pop("location", None)  # the release has longitude and latitude
        cells = CellReader(table, columns)
        self.summary = [
            f"table: {path}",
            *describe_columns(columns, table.header),
            *filter(None, [table.notice]),
            *cells.notices,
        ]
        return cells

    def _folders(self) -> set[Path]:
        return {path if path.is_dir() else path.parent for path in self.paths}

    def _columns(self) -> set[str]:
        """Return the columns that the CSV must have."""
        return {"filename"} if self.splits else {"filename", "label", self.split_column}

    def _candidates(self, table: Path | None) -> list[Path]:
        given = [table] if table else [path for path in self.paths if path.suffix.lower() == ".csv"]
        return given or [
            path
            for folder in sorted(self._folders())
            for path in sorted(folder.glob("*.csv"))
            if not is_macos(path.name) and not leads_out(path, folder)
        ]

    def _find_csv(self, table: Path | None) -> Path | None:
        """Return the one CSV with the columns: `table`, or one among the paths or beside them."""
        candidates, columns = self._candidates(table), self._columns()
        fitting = [path for path in candidates if _has(path, columns)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise SourceError(
                f"several files could be the EuroSAT metadata: {', '.join(map(str, fitting))}: "
                "choose one with --metadata"
            )
        if self.splits and table is None:
            return None
        found = [f"{path} has {', '.join(_header(path)) or 'no'} columns" for path in candidates]
        headers = "; ".join(found or ["no CSV among the paths or beside them"])
        headers = "; ".join([headers, *self.tifs.skipped])
        raise SourceError(
            f"no EuroSAT metadata CSV with the columns {', '.join(sorted(columns))} "
            f"({headers}). Give the CSV with --metadata "
            "and the column of the split with --split-column; or use no CSV, but lists "
            f"(--splits-folder) or a random split (--split-column {DRAWN}). EuroSAT_MS.zip, as "
            "another --source, also has the locations"
        )


def _key(name: str) -> str:
    """Return the last two parts of a path: "Forest/Forest_1.jpg"."""
    return "/".join(PurePosixPath(nfc(name).replace("\\", "/")).parts[-2:])


def _stem(key: str) -> str:
    """Return a key without its suffix: "Forest/Forest_1"."""
    return key.rpartition(".")[0]


def _with_tif(ref: Ref, tifs: Mapping[str, tuple[str, str]]) -> Ref:
    """Return the reference with the GeoTIFF of the chip, if its location is not in the CSV."""
    *_, longitude, latitude, _ = ref.location
    located = longitude and latitude
    tif = (None, None) if located else tifs.get(_stem(ref.id), (None, None))
    return replace(ref, location=(*ref.location, *tif))


def _place(row: Mapping[str, str]) -> tuple[str | None, ...]:
    return row.get("longitude"), row.get("latitude"), row.get("country_code")


def _location(longitude: object, latitude: object) -> object:
    """Return numbers, or text that is no number, for `Metadata.parse` to reject and count."""
    if not longitude or not latitude:
        return None
    try:
        return float(str(longitude)), float(str(latitude))
    except ValueError:
        return str(longitude), str(latitude)


def _header(path: Path) -> list[str]:
    """Return the columns of a CSV; [] if it cannot be read."""
    try:
        return Table(path, "csv").header
    except SourceError:
        return []


def _has(path: Path, columns: set[str]) -> bool:
    header = _header(path)
    return all(find_column(name, header) is not None for name in columns)
