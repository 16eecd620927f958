"""fMoW-WILDS v1.1 (Koh et al. 2021): fMoW-RGB as crops of 224x224 pixels, split by time.

sensor       WorldView-2, WorldView-3, GeoEye-1, QuickBird-2
bands        RGB, 8 bit, PNG
ground size  not known: each crop shows one labelled box, resized to 224x224 pixels. `gsd` is that
             of the sensor, not of the crop
labels       the 62 classes of fMoW
metadata     one CSV, with fMoW's names; columns that it lacks are missing fields
splits       by year: train is the training part before 2013, id_val and id_test are val and test
             before 2013, val is val from 2013 to 2015, and test is test from 2016. Other rows, and
             those of seq, belong to none
licence      Functional Map of the World Challenge Public License
source       https://wilds.stanford.edu/datasets/#fmow

    rgb_metadata_v2.csv          one row an image, in the order of their numbers from 0
    images/rgb_img_<row>.png
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from satmip_jax.metadata.fields import field
from satmip_jax.metadata.kinds import BadValueError
from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.sources.base import Example, Ref, Source, SourceError, read_file
from satmip_jax.sources.cells import CellReader
from satmip_jax.sources.fmow import CHALLENGE_WEIGHTS, CLASSES, FIELD_NAMES
from satmip_jax.sources.image_index import cell_text
from satmip_jax.sources.tables import Cell, Table

TABLE = "rgb_metadata_v2.csv"
MAX_IMAGE_BYTES = 4 << 20  # of 224x224 pixels
MAX_TABLE_BYTES = 1 << 30

# (split of fMoW, first year, year after the last) -> split of WILDS
_SPLITS = {
    ("train", 0, 2013): "train",
    ("val", 0, 2013): "id_val",
    ("test", 0, 2013): "id_test",
    ("val", 2013, 2016): "val",
    ("test", 2016, 10_000): "test",
}
_COLUMNS = {
    **{ours: (theirs,) for ours, theirs in FIELD_NAMES.items() if ours != "wavelengths"},
    "location": ("lon", "lat"),
    "pixel_size": ("mean_pixel_width", "mean_pixel_height"),
}
_NEEDED = {"split": ("split",), "label": ("category",), "timestamp": ("timestamp",)}


class WildsFMoW(Source):
    """fMoW-WILDS from its folder.

    Args:
        paths: Folders with rgb_metadata_v2.csv and images, such as fmow_v1.1, or the one above.

    Raises:
        SourceError: There is no such table, or it lacks a column.
    """

    name = "wilds_fmow"
    classes = CLASSES
    license = "Functional Map of the World Challenge Public License"
    homepage = "https://wilds.stanford.edu/datasets/#fmow"
    image_size = 224
    splits_from = "the publisher's, by year"
    class_weights: Mapping[str, Mapping[str, float]] = {"challenge_f1": CHALLENGE_WEIGHTS}

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        self.root = self._find_root()
        path = self.root / TABLE
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise SourceError(f"{path}: more than {MAX_TABLE_BYTES >> 30} GiB, not fMoW-WILDS")
        # rows are numbers of images, so that none may be left out
        table = Table(path, "csv", pad_rows=True)
        absent = [name for (name,) in _NEEDED.values() if name not in table.header]
        if absent:
            raise SourceError(
                f"{path}: no column {', '.join(absent)}: expected the table of fMoW-WILDS v1.1"
            )
        columns = {
            ours: theirs
            for ours, theirs in (_COLUMNS | _NEEDED).items()
            if set(theirs) <= set(table.header)
        }
        self._cells = CellReader(table, columns)
        self.summary = [f"table: {path}", *self._cells.notices]

    def refs(self) -> list[Ref]:
        """List the images of a split, by row."""
        skipped: Counter[str] = Counter()
        self.skipped = skipped
        try:
            present = set(os.listdir(self.root / "images"))
        except OSError as error:
            raise SourceError(f"{self.root / 'images'}: {error.strerror}: no images") from error
        refs = []
        damaged: Counter[str] = Counter()
        for number, row in enumerate(self._cells.rows(damaged)):
            name = f"rgb_img_{number}.png"
            split, reason = _split(row.pop("split"), row.get("timestamp"))
            label = cell_text(row.pop("label")) or ""
            if reason:
                skipped[reason] += 1
            elif label not in CHALLENGE_WEIGHTS or label not in CLASSES:
                skipped[f"row of category {label[:40]!r}"] += 1
            elif name not in present:
                skipped["row without an image"] += 1
            else:
                refs.append(Ref(name, split, (str(self.root), label, json.dumps(row))))
        if damaged:
            raise SourceError(
                f"{self.root / TABLE}: {sum(damaged.values())} rows cannot be read, and images are "
                "named by their row: download the table again"
            )
        if not refs:
            reasons = "; ".join(f"{n} x {reason}" for reason, n in skipped.most_common(5))
            raise SourceError(
                f"none of the rows of {self.root / TABLE} can be used ({reasons or 'it is empty'}):"
                " expected images/rgb_img_<row>.png beside it"
            )
        return refs

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read one image."""
        root, label, raw = ref.location
        image = read_file(Path(str(root)) / "images" / ref.id, MAX_IMAGE_BYTES)
        return Example(ref.id, image, Metadata.parse(json.loads(str(raw)), problems), str(label))

    def files_of(self, ref: Ref) -> tuple[tuple[str, str | None], ...]:
        """Return the image."""
        return ((str(Path(str(ref.location[0])) / "images" / ref.id), None),)

    def row_of(self, ref: Ref) -> tuple[object, ...]:
        """Return the label and the fields as the table has them."""
        return ref.location[1:]

    def _find_root(self) -> Path:
        for path in self.paths:
            folders = [path, *sorted(path.iterdir())] if path.is_dir() else []
            for folder in folders:
                if (folder / TABLE).is_file():
                    return folder
        raise SourceError(
            f"no {TABLE} in {', '.join(map(str, self.paths))}: unpack fMoW-WILDS v1.1, and give "
            "its folder"
        )


def _split(split: Cell, time: Cell) -> tuple[str, str]:
    """Return the split of WILDS, or "" and why there is none."""
    text = cell_text(split) or ""
    if text == "seq":
        return "", "row of seq, which WILDS leaves out"
    try:
        year = field("timestamp").kind.parse(time).year
    except BadValueError:
        return "", "row without a time, and so without a split"
    for (theirs, first, end), name in _SPLITS.items():
        if text == theirs and first <= year < end:
            return name, ""
    if text in ("train", "val", "test"):
        return "", f"row of {text} in a year that WILDS leaves out"
    return "", f"row of an unknown split {text[:40]!r}"
