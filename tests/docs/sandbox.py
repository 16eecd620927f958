"""A folder with the files that the pages speak of, small and synthetic."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from satmip_jax import pretrained
from tests.sources.geotiff_files import AFFINE, geotiff, picture


def fill(folder: Path, shards: Path, code: str) -> None:
    """Write the files.

    Args:
        folder: an empty one.
        shards: prepared data with the splits train and val.
        code: what will be run; what it writes itself is left out.
    """
    chips = pretrained.copy_examples(folder / "examples")
    (folder / "data").mkdir()
    for name in ("mine", "eurosat"):
        if f"--out data/{name}" not in code:
            (folder / "data" / name).symlink_to(shards)
    shutil.copytree(pretrained.folder("eurosat-satmips"), folder / "runs/eurosat_satmips")
    with Image.open(chips[0]) as image:
        image.save(folder / "a.jpg")
    for name in ("b.tif", "harbour.tif"):
        shutil.copy(chips[1], folder / name)
    _scenes(folder, chips, wide="prepare geotiff" in code)
    _images_with_table(folder)
    _catalogue(folder / "catalog", chips[:4])
    if "models --examples" not in code:
        with zipfile.ZipFile(folder / "chips.zip", "w") as archive:
            for chip in chips[4:8]:
                archive.write(chip, chip.name)


def _images_with_table(folder: Path) -> None:
    """`images` and `images.zip` with 40 images, and `table.csv`."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        pixels = rng.integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{number}.png")
        rows.append(
            {
                "file": f"{number}.png",
                "label": ("field", "forest")[number % 2],
                "datetime_utc": f"2020-{1 + number % 12:02}-03T10:30:00",
                "longitude": 2 + number / 10,
                "latitude": 48 - number / 20,
            }
        )
    shutil.make_archive(str(folder / "images"), "zip", folder / "images")
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _scenes(folder: Path, chips: list[Path], *, wide: bool) -> None:
    """`scene.tif` of four bands of 16 bits, and `scenes`: such ones if `wide`, else chips."""
    for number in range(6 if wide else 1):
        place = {"transform": AFFINE(10, 0, 500_000 + 9_000 * number, 0, -10, 5_000_000)}
        path = folder / (f"scenes/{number}.tif" if wide else "scene.tif")
        geotiff(picture(448, 224, 4, "uint16"), path=path, **place)
    if not wide:
        (folder / "scenes").mkdir()
        for name, chip in zip("abcd", chips, strict=False):
            shutil.copy(chip, folder / "scenes" / f"{name}.tif")


def _catalogue(folder: Path, images: list[Path]) -> None:
    """A STAC catalogue of items with a GeoTIFF each."""
    folder.mkdir()
    links = []
    for number, image in enumerate(images):
        shutil.copy(image, folder / f"{number}.tif")
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"scene-{number}",
            "geometry": None,
            "properties": {"datetime": "2020-07-01T10:30:00Z", "eo:cloud_cover": 3.0},
            "links": [],
            "assets": {"visual": {"href": f"./{number}.tif", "roles": ["visual"]}},
        }
        (folder / f"{number}.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{number}.json"})
    catalogue = {"type": "Catalog", "stac_version": "1.0.0", "id": "scenes", "description": "Some"}
    (folder / "catalog.json").write_text(json.dumps({**catalogue, "links": links}))
