"""Files in the layout of fMoW for tests."""

import io
import json
from pathlib import Path

from PIL import Image

from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import UnreadableExample
from satmip_jax.sources.fmow import FMoW

FOOTPRINT = "POLYGON ((10.0 50.0, 10.02 50.0, 10.02 50.01, 10.0 50.01, 10.0 50.0))"
RECORD = {
    "gsd": 0.5,
    "multi_resolution_dbl": 2.0,
    "mean_pixel_width": 5e-6,
    "mean_pixel_height": 4e-6,
    "timestamp": "2015-09-21T15:30:08Z",
    "raw_location": FOOTPRINT,
    "utm": "32U",
    "country_code": "DEU",
    "cloud_cover": 3,
    "scan_direction": "Forward",
    "approximate_wavelengths": [661, 545, 477],
    "target_azimuth_dbl": 10.0,
    "sun_azimuth_dbl": 20.0,
    "sun_elevation_dbl": 30.0,
    "off_nadir_angle_dbl": 40.0,
    "sensor_platform_name": "WORLDVIEW02",
}


def jpeg(width: int = 40, height: int = 30) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 199)).save(file, "JPEG")
    return file.getvalue()


def write(root: Path, path: str, boxes=..., image=True, **changes) -> None:
    """An image at `path`.jpg with its record at `path`.json."""
    record = {**RECORD, "bounding_boxes": boxes, **changes}
    if boxes is ...:
        del record["bounding_boxes"]
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(target.name + ".json").write_text(json.dumps(record))
    if image:
        target.with_name(target.name + ".jpg").write_bytes(jpeg())


def box(number: int, category: str = "zoo", where=(1, 2, 20, 10), **more) -> dict:
    return {"ID": number, "box": list(where), "category": category, **more}


def listed(source: FMoW) -> list[tuple[str, str, object]]:
    """(split, id, label or the reason why there is none)."""
    rows = []
    for ref in source.refs():
        try:
            rows.append((ref.split, ref.id, source.read(ref, Problems()).label))
        except UnreadableExample as error:
            rows.append((ref.split, ref.id, str(error)))
    return rows
