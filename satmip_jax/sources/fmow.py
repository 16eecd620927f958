"""fMoW-RGB, the Functional Map of the World (Christie et al. 2018), and data in its layout.

sensor       WorldView-2, WorldView-3, GeoEye-1, QuickBird-2
bands        RGB JPEG, 8 bit: `rgb` is pan-sharpened, `msrgb` has the multispectral resolution
ground size  0.3 to 0.8 m per pixel (`rgb`); images of 162x245 to 16,288x16,291 pixels
labels       62 classes, one for each labelled box; a box is one example
metadata     all 15 fields, in a JSON file beside each image
splits       by folder: train (363,571 rgb images), val (53,041), test and seq
licence      Functional Map of the World Challenge Public License
source       s3://spacenet-dataset/Hosted-Datasets/fmow/fmow-rgb (about 200 GB, public)

    train/<class>/<class>_<i>/<class>_<i>_<t>_rgb.{jpg,json}      and val/
    test/<id>/<id>_<t>_rgb.jpg                                    and seq/
    test_gt/<class>/<class>_<i>/<class>_<i>_<t>_rgb.json          and seq_gt/
    test_gt_mapping.json                 <id> to <class>_<i>; and seq_gt_mapping.json

The last two lines are in groundtruth.tar.bz2, the only file with labels and locations of test and
seq.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from satmip_jax.metadata.record import Metadata, Problems
from satmip_jax.runtime.files import read_json
from satmip_jax.sources.archives import is_macos
from satmip_jax.sources.base import (
    Box,
    Example,
    Ref,
    Source,
    SourceError,
    UnreadableExample,
    read_file,
)

# The alphabetical order of the challenge.
CLASSES = tuple(
    """
    airport airport_hangar airport_terminal amusement_park aquaculture archaeological_site barn
    border_checkpoint burial_site car_dealership construction_site crop_field dam debris_or_rubble
    educational_institution electric_substation factory_or_powerplant fire_station flooded_road
    fountain gas_station golf_course ground_transportation_station helipad hospital
    impoverished_settlement interchange lake_or_pond lighthouse military_facility
    multi-unit_residential nuclear_powerplant office_building oil_or_gas_facility park
    parking_lot_or_garage place_of_worship police_station port prison race_track railway_bridge
    recreational_facility road_bridge runway shipyard shopping_mall single-unit_residential
    smokestack solar_farm space_facility stadium storage_tank surface_mine swimming_pool toll_booth
    tower tunnel_opening waste_disposal water_treatment_facility wind_farm zoo
    """.split()  # noqa: SIM905
)

# Weights of the classes in the F1 score of the challenge, from its offline tester (Topcoder,
# FmowVisualizer 1.0, September 2017). The winning entry uses the same numbers.
CHALLENGE_WEIGHTS = dict.fromkeys(CLASSES, 1.0)
CHALLENGE_WEIGHTS |= dict.fromkeys(
    """
    airport crop_field debris_or_rubble flooded_road military_facility nuclear_powerplant
    single-unit_residential solar_farm tunnel_opening wind_farm
    """.split(),  # noqa: SIM905
    0.6,
)
CHALLENGE_WEIGHTS |= dict.fromkeys(
    """
    border_checkpoint construction_site educational_institution factory_or_powerplant fire_station
    gas_station police_station road_bridge smokestack tower
    """.split(),  # noqa: SIM905
    1.4,
)
CHALLENGE_WEIGHTS["false_detection"] = 0.0  # a box that shows none of the 62

MAX_RECORD_BYTES = 1 << 20  # a real record takes 3 KB
MAX_IMAGE_BYTES = 1 << 30
MAX_MAPPING_BYTES = 256 << 20
MAX_BOXES = 1000
MAX_WKT = 8192  # characters; a real footprint takes 200

_NAMED_SPLITS = ("train", "val")  # paths contain the class
_HIDDEN_SPLITS = ("test", "seq")

# Fields that are one value of the JSON record: our name -> fMoW's.
FIELD_NAMES = {
    "gsd": "gsd",
    "multispectral_gsd": "multi_resolution_dbl",
    "timestamp": "timestamp",
    "utm_zone": "utm",
    "country_code": "country_code",
    "cloud_cover": "cloud_cover",
    "scan_direction": "scan_direction",
    "wavelengths": "approximate_wavelengths",
    "target_azimuth_angle": "target_azimuth_dbl",
    "sun_azimuth_angle": "sun_azimuth_dbl",
    "sun_elevation_angle": "sun_elevation_dbl",
    "off_nadir_angle": "off_nadir_angle_dbl",
    "sensor_platform": "sensor_platform_name",
}


class FMoW(Source):
    """fMoW-RGB from its folders.

    Args:
        paths: Folders that hold train, val, test and seq; for test and seq also the unpacked
            ground truth, with test_gt, seq_gt and the mappings.
        variant: Images to use, pan-sharpened (rgb) or of the multispectral sensor (msrgb).
        classes: The 62 official classes, or the names of the class folders of train and val.

    Example:
        >>> from satmip_jax.sources.fmow import FMoW
        >>> Path("worldview/train/volcano/volcano_0").mkdir(parents=True)
        >>> FMoW([Path("worldview")], classes="folders").classes
        ('volcano',)
    """

    name = "fmow"
    license = "Functional Map of the World Challenge Public License"
    homepage = "https://github.com/fMoW/dataset"
    splits_from = "the publisher's folders"
    # NOTE[DIFF]: the challenge's baseline adds context per axis (a factor of 1.15 to 3, more
    # around small boxes) and squeezes the rectangle into a square. Here the region is a square
    # with one factor, so that the ground sampling distance stays equal in x and y.
    context_ratio = 1.5

    def __init__(
        self,
        paths: Sequence[Path],
        variant: Literal["rgb", "msrgb"] = "rgb",
        classes: Literal["official", "folders"] = "official",
    ) -> None:
        super().__init__(paths)
        self.variant = variant
        self.options = {"variant": variant, "classes": classes}
        self._set_classes(CLASSES if classes == "official" else self._category_folders())

    def _set_classes(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self._class_set = frozenset(classes)
        self.class_weights = {"challenge_f1": CHALLENGE_WEIGHTS} if classes == CLASSES else {}

    def refs(self) -> list[Ref]:
        """List every labelled box of every image, by path; reads all JSON records."""
        from tqdm import tqdm

        self.skipped: Counter[str] = Counter()
        images = dict(self._images())
        if not images:
            raise SourceError(
                f"no fMoW images in {', '.join(map(str, self.paths))}: expected "
                f"train/<class>/<class>_<i>/<class>_<i>_<t>_{self.variant}.jpg"
            )
        refs: list[Ref] = []
        for key in tqdm(sorted(images), desc="listing fmow", unit=" images", delay=2, leave=False):
            refs.extend(self._refs_of(key, *images[key]))
        if not refs:
            reasons = "; ".join(f"{n} x {reason}" for reason, n in self.skipped.most_common(5))
            raise SourceError(
                f"none of the {len(images)} images in {', '.join(map(str, self.paths))} can be "
                f"used: {reasons}. For classes other than the 62 of fMoW, use --classes folders"
            )
        return refs

    def read(self, ref: Ref, problems: Problems) -> Example:
        """Read the image and the record of one box."""
        path, record_path, position, label = ref.location
        record = _read_record(record_path)
        boxes = _boxes(record)
        if position is not None and int(position) >= len(boxes):
            raise UnreadableExample("its JSON record changed while it was read")
        box = None if position is None else _box(boxes[int(position)])
        metadata = Metadata.parse(_fields(record), problems)
        image = read_file(str(path), MAX_IMAGE_BYTES)
        return Example(ref.id, image, metadata, None if label is None else str(label), box)

    def files_of(self, ref: Ref) -> tuple[tuple[str, str | None], ...]:
        """Return the image and its record."""
        return tuple((str(path), None) for path in ref.location[:2] if path is not None)

    def row_of(self, ref: Ref) -> tuple[object, ...]:
        """Return the position of the box in its record, and the label."""
        return ref.location[2:]

    def _refs_of(
        self, key: str, path: str, record_path: str | None, category: str
    ) -> Iterator[Ref]:
        """Yield the examples of one image; if its record is bad, one that fails in `read`."""
        split = key.partition("/")[0]
        bad = Ref(key, split, (path, record_path, None, None))
        if self.options["classes"] == "official" and category not in self._class_set:
            self.skipped[f"image of category {category[:40]!r}"] += 1
            return
        try:
            boxes = _boxes(_read_record(record_path))
        except UnreadableExample:
            yield bad
            return
        if not boxes:
            yield Ref(key, split, (path, record_path, None, category))
            return
        # A list of several starts with the original annotation (ID -1), which is no label.
        labelled = [i for i, box in enumerate(boxes) if box.get("ID") != -1] or [0]
        names: set[str] = set()
        for i in labelled:
            label = boxes[i].get("category", category)
            if not isinstance(label, str) or label not in self._class_set:
                self.skipped[f"box of category {str(label)[:40]!r}"] += 1
                continue
            name = f"{key}#{_id(boxes[i])}"
            name = f"{name}.{i}" if name in names else name
            names.add(name)
            yield Ref(name, split, (path, record_path, i, label))

    def _images(self) -> Iterator[tuple[str, tuple[str, str | None, str]]]:
        """Yield (relative path, (image, its record or None, class)) for every image."""
        for split in _NAMED_SPLITS:
            records = dict(self._walk(f"{split}_gt", "json"))
            for key, path in self._walk(split, "jpg"):
                beside = f"{path[: -len('jpg')]}json"
                yield (
                    f"{split}/{key}.jpg",
                    (path, records.get(key) or beside, key.partition("/")[0]),
                )
        for split in _HIDDEN_SPLITS:
            folders = self._mapping(split)
            records = dict(self._walk(f"{split}_gt", "json"))
            for key, path in self._walk(split, "jpg"):
                folder, _, stem = key.rpartition("/")
                original = folders.get(folder)
                if original is None:
                    self.skipped[f"image of {split} without ground truth"] += 1
                    continue
                view = stem.removeprefix(folder)  # "_<t>_rgb"
                record = records.get(f"{original}/{original.rpartition('/')[2]}{view}")
                yield f"{split}/{key}.jpg", (path, record, original.partition("/")[0])

    def _walk(self, folder: str, suffix: str) -> Iterator[tuple[str, str]]:
        """Yield (path below `folder` without suffix, path) for each file of the variant."""
        ending = f"_{self.variant}.{suffix}"
        for root in self.paths:
            for place, folders, files in os.walk(root / folder):
                folders.sort()
                for name in files:
                    if name.endswith(ending) and not is_macos(name):
                        path = os.path.join(place, name)
                        below = os.path.relpath(path, root / folder).replace(os.sep, "/")
                        yield below[: -len(suffix) - 1], path

    def _mapping(self, split: str) -> dict[str, str]:
        """Return folder of a hidden split -> <class>/<class>_<i>; {} without a mapping file."""
        for root in self.paths:
            path = root / f"{split}_gt_mapping.json"
            if path.is_file():
                try:
                    pairs = read_json(path, max_bytes=MAX_MAPPING_BYTES)
                    # {"input": "test_gt/airport/airport_0", "output": "test/0011978"}
                    return {
                        pair["output"].removeprefix(f"{split}/"): pair["input"].removeprefix(
                            f"{split}_gt/"
                        )
                        for pair in pairs
                    }
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise SourceError(f"{path}: not a mapping of fMoW: {error!r}") from error
        return {}

    def _category_folders(self) -> tuple[str, ...]:
        names = {
            folder.name
            for root in self.paths
            for split in _NAMED_SPLITS
            if (root / split).is_dir()
            for folder in (root / split).iterdir()
            if folder.is_dir()
        }
        return tuple(sorted(names))


# --- a record -------------------------------------------------------------------------------------


def _read_record(path: object) -> dict[str, Any]:
    if path is None:
        raise UnreadableExample("no ground-truth record")
    try:
        record = json.loads(read_file(str(path), MAX_RECORD_BYTES))
    except UnreadableExample as error:
        raise UnreadableExample(f"its JSON record {error}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableExample("its JSON record is not JSON") from error
    if not isinstance(record, dict):
        raise UnreadableExample("its JSON record is not an object")
    return record


def _boxes(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return `bounding_boxes` as a list; in older releases it may be one object."""
    boxes = record.get("bounding_boxes")
    boxes = [] if boxes is None else [boxes] if isinstance(boxes, dict) else boxes
    if not isinstance(boxes, list) or not all(isinstance(box, dict) for box in boxes):
        raise UnreadableExample("bounding_boxes are not objects")
    if len(boxes) > MAX_BOXES:
        raise UnreadableExample(f"more than {MAX_BOXES} bounding boxes")
    return boxes


def _id(box: dict[str, Any]) -> str:
    number = box.get("ID", 0)
    return str(number) if isinstance(number, int) else re.sub(r"[^\w-]", "", str(number))[:40]


def _box(entry: dict[str, Any]) -> Box:
    box = entry.get("box")
    if not isinstance(box, list) or len(box) != 4:
        raise UnreadableExample("box is not four numbers")
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in box):
        raise UnreadableExample("box is not four numbers")
    try:
        x, y, width, height = (float(v) for v in box)
    except OverflowError as error:  # JSON integers have no bound
        raise UnreadableExample("box is not finite") from error
    return x, y, width, height


def _fields(record: dict[str, Any]) -> dict[str, object]:
    """Return fields by our names; `Metadata.parse` checks the values."""
    raw: dict[str, object] = {ours: record.get(theirs) for ours, theirs in FIELD_NAMES.items()}
    pixel = record.get("mean_pixel_width"), record.get("mean_pixel_height")
    raw["pixel_size"] = None if pixel == (None, None) else pixel
    footprint = record.get("raw_location")
    other = footprint if footprint is None or isinstance(footprint, str) else "not WKT"
    raw["location"] = polygon_centre(footprint) or other
    return raw


_POLYGON = re.compile(r"\s*POLYGON\s*\(\s*\(([-+.,eE\d\s]*)\)\s*\)\s*", re.IGNORECASE)


def polygon_centre(text: object) -> tuple[float, float] | None:
    """Return the centre of the bounding box of a WKT polygon.

    The footprint of an image is a rectangle along the axes, so this is the centre of the image. A
    polygon wider than half the globe is taken to cross the 180th meridian.

    Returns:
        (longitude, latitude), degrees; None if `text` is no polygon.

    Example:
        >>> from satmip_jax.sources.fmow import polygon_centre
        >>> polygon_centre("POLYGON ((8.0 47.0, 8.2 47.0, 8.2 47.1, 8.0 47.1, 8.0 47.0))")
        (8.1, 47.05)
    """
    if not isinstance(text, str) or len(text) > MAX_WKT:
        return None
    match = _POLYGON.fullmatch(text)
    if not match:
        return None
    try:
        points = [tuple(map(float, point.split())) for point in match[1].split(",")]
    except ValueError:
        return None
    if len(points) < 3 or any(len(p) != 2 or not all(map(math.isfinite, p)) for p in points):
        return None
    longitudes, latitudes = zip(*points, strict=True)
    if max(longitudes) - min(longitudes) > 180:
        longitudes = tuple(x + 360 if x < 0 else x for x in longitudes)
    longitude = (min(longitudes) + max(longitudes)) / 2
    longitude = longitude - 360 if 180 < longitude <= 360 else longitude
    return longitude, (min(latitudes) + max(latitudes)) / 2
