"""Small data sets in the layouts of fMoW, WILDS-fMoW and the paper's six transfer sets."""

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from satmip_jax.prepare.run import prepare
from satmip_jax.sources.registry import open_source
from tests.sources.test_so2sat import one_hot, patches
from tests.sources.test_so2sat import write as write_h5
from tests.sources.test_wilds_fmow import HEADER


def picture(label: int, number: int, form: str = "JPEG", side: int = 40) -> bytes:
    """An image whose colour depends on its class."""
    noise = np.random.default_rng(100 * label + number).integers(0, 60, (side, side, 3), np.uint8)
    noise[..., label % 3] += 150
    file = io.BytesIO()
    Image.fromarray(noise).save(file, form)
    return file.getvalue()


def write_files(root: Path, names: dict[str, bytes]) -> Path:
    for name, data in names.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def fmow(root: Path) -> Path:
    """Synthetic scenes, in the folders of fMoW-RGB."""
    scenes = open_source("synthetic", [root / "scenes"], train=64, val=24, size=40, seed=0)
    scenes.refs()
    return shards(root, "fmow", root / "scenes", classes="folders")


def wilds(root: Path) -> Path:
    """fMoW-WILDS with all of its splits."""
    classes, rows = ("airport", "zoo", "dam"), []
    for split, year, count in (("train", 2011, 48), ("val", 2012, 12), ("val", 2014, 12)):
        for i in range(count):
            place = [f"{-20 + 3 * (i % 20) + i / 50}", f"{10 + i % 13}.5"]
            time = f"{year}-0{1 + i % 9}-06T1{i % 10}:11:12Z"
            country = ("FRA", "USA", "BRA")[i % 3]
            angles = [f"{i % 30}", f"{20 + i % 50}"]
            row = [split, classes[i % 3], country, time, str(i % 10), "True", *place]
            rows.append([*row, f"{0.3 + i % 7 / 10}", *angles])
    files = {f"images/rgb_img_{i}.png": picture(i % 3, i, "PNG") for i in range(len(rows))}
    write_files(root / "wilds", files)
    with (root / "wilds" / "rgb_metadata_v2.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return shards(root, "wilds-fmow", root / "wilds")


def by_class(names, pattern: str, form: str = "JPEG") -> dict[str, bytes]:
    """Ten images of each class."""
    return {
        pattern.format(name=name, i=i): picture(c, i, form)
        for c, name in enumerate(names)
        for i in range(1, 11)
    }


SIX = ("resisc45", "optimal31", "ucmerced", "fgsc23", "eurosat", "so2sat")


def transfer_sets(root: Path, wanted: Sequence[str] = SIX) -> dict[str, Path]:
    """Some of the paper's six sets: name -> prepared folder."""

    two = ("airplane", "lake")
    fields = ("agricultural", "forest")
    ships = {
        f"FGSC-23/{split}/{c}/{c}_{i}_1.jpg": picture(c, i)
        for split, count in (("train", 8), ("test", 3))
        for c in (0, 7)
        for i in range(count)
    }
    files = {
        "resisc45": by_class(two, "NWPU-RESISC45/{name}/{name}_{i:03d}.jpg"),
        "optimal31": by_class(two, "Images/{name}/{name}_{i}.jpg"),
        "ucmerced": by_class(fields, "UCMerced_LandUse/Images/{name}/{name}{i:02d}.tif", "TIFF"),
        "fgsc23": ships,
    }
    paths = {name: write_files(root / name, made) for name, made in files.items()}
    chips = by_class(("Forest", "River"), "{name}/{name}_{i}.jpg")
    (root / "e").mkdir()
    with zipfile.ZipFile(root / "e" / "EuroSAT_RGB.zip", "w") as archive:
        for name, data in chips.items():
            archive.writestr(f"EuroSAT_RGB/{name}", data)
    with (root / "e" / "meta.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "label", "split", "longitude", "latitude", "country_code"])
        for number, name in enumerate(chips):
            split = ("train", "train", "train", "val", "test")[number % 5]
            where = [str(5 + number % 7), str(45 + number % 5), ("FRA", "DEU")[number % 2]]
            writer.writerow([name, name.split("/")[0], split, *where])
    paths["eurosat"] = root / "e"
    (root / "s").mkdir()
    for name, n in (("training", 12), ("validation", 4), ("testing", 4)):
        labels = one_hot(*[i % 2 for i in range(n)])
        write_h5(root / "s" / f"{name}.h5", patches(n, n), labels)
    paths["so2sat"] = root / "s"
    return {name: shards(root, name, paths[name]) for name in wanted}


def shards(root: Path, name: str, path: Path, **options) -> Path:
    out = root / f"{name}-shards"
    source = open_source(name, [path], **options)
    prepare(source, out, image_size=32, workers=0, progress=False)
    return out
