"""EuroSAT's JPEGs with locations from its georeferenced release, in archives made here."""

import json
import math
import pickle
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import rasterio.errors
import rasterio.io
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.cli import cli
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.metadata.record import Problems
from satmip_jax.quickstart import detect_source
from satmip_jax.sources import geotiff_fields
from satmip_jax.sources.base import SourceError, UnreadableExample
from satmip_jax.sources.eurosat import MAX_TIF_BYTES, EuroSAT
from satmip_jax.sources.registry import open_source

# chip -> zone of UTM, longitude, latitude of its middle; zones as in Romania, Portugal, Finland
CHIPS = {
    "AnnualCrop/AnnualCrop_1": (35, 28.559055, 44.03522),
    "AnnualCrop/AnnualCrop_2": (35, 24.6, 45.9),
    "Forest/Forest_1": (29, -8.25, 40.5),
    "Forest/Forest_2": (34, 22.75, 60.125),
}


def utm(zone: int, longitude: float, latitude: float) -> tuple[float, float]:
    """Easting and northing on WGS84: the series of Snyder, Map Projections (1987), p. 61."""
    a, f, k0 = 6_378_137.0, 1 / 298.257223563, 0.9996
    e2 = f * (2 - f)
    ep2 = e2 / (1 - e2)
    phi = math.radians(latitude)
    n = a / math.sqrt(1 - e2 * math.sin(phi) ** 2)
    t, c = math.tan(phi) ** 2, ep2 * math.cos(phi) ** 2
    x = math.radians(longitude - (6 * zone - 183)) * math.cos(phi)
    meridian = a * (
        (1 - e2 / 4 - 3 * e2**2 / 64 - 5 * e2**3 / 256) * phi
        - (3 * e2 / 8 + 3 * e2**2 / 32 + 45 * e2**3 / 1024) * math.sin(2 * phi)
        + (15 * e2**2 / 256 + 45 * e2**3 / 1024) * math.sin(4 * phi)
        - (35 * e2**3 / 3072) * math.sin(6 * phi)
    )
    east = x + (1 - t + c) * x**3 / 6 + (5 - 18 * t + t**2 + 72 * c - 58 * ep2) * x**5 / 120
    north = x**2 / 2 + (5 - t + 9 * c + 4 * c**2) * x**4 / 24
    north += (61 - 58 * t + t**2 + 600 * c - 330 * ep2) * x**6 / 720
    return k0 * n * east + 500_000, k0 * (meridian + n * math.tan(phi) * north)


def write_tif(zone: int, longitude: float, latitude: float, **changed) -> bytes:
    """13 bands of 64x64 pixels of 10 m around a place."""
    easting, northing = utm(zone, longitude, latitude)
    profile = {
        "driver": "GTiff",
        "count": 13,
        "width": 64,
        "height": 64,
        "dtype": "uint16",
        "crs": f"EPSG:{32600 + zone}",
        "transform": rasterio.Affine(10, 0, easting - 320, 0, -10, northing + 320),
    } | changed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.io.MemoryFile() as file:
            with file.open(**{k: v for k, v in profile.items() if v is not None}) as image:
                image.write(np.full((13, 64, 64), 700, np.uint16))
            return bytes(file.getbuffer())


def jpeg(name: str) -> bytes:
    image = np.random.default_rng(list(name.encode())).integers(0, 256, (64, 64, 3), np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def rgb(tmp_path):
    return write_zip(
        tmp_path / "EuroSAT_RGB.zip", {f"EuroSAT_RGB/{name}.jpg": jpeg(name) for name in CHIPS}
    )


@pytest.fixture
def ms(tmp_path):
    return write_zip(
        tmp_path / "EuroSAT_MS.zip",
        {f"EuroSAT_MS/{name}.tif": write_tif(*place) for name, place in CHIPS.items()},
    )


def read_all(source):
    """Chip -> values, and what was wrong."""
    problems = Problems()
    examples = [source.read(ref, problems) for ref in source.refs()]
    return {e.id.removesuffix(".jpg"): e.metadata.values for e in examples}, problems


def test_the_oracle_is_right():
    assert utm(32, 9.0, 0.0) == (500_000, 0)
    easting, northing = utm(32, 9.0, 45.0)  # the meridian's arc to 45 degrees is 4984944.378 m
    assert easting == 500_000
    assert northing == pytest.approx(0.9996 * 4_984_944.378, abs=1e-3)


@pytest.mark.parametrize(
    "prefix", ["EuroSAT_MS/", "ds/images/remote_sensing/otherDatasets/sentinel_2/tif/"]
)
@pytest.mark.parametrize("unpacked", [False, True])
def test_pixels_of_the_jpegs_and_places_of_the_geotiffs(rgb, tmp_path, prefix, unpacked):
    files = {f"{prefix}{name}.tif": write_tif(*place) for name, place in CHIPS.items()}
    ms = write_zip(tmp_path / "EuroSATallBands.zip", files)
    if unpacked:
        with zipfile.ZipFile(ms) as archive:
            archive.extractall(tmp_path / "bands")
        ms.unlink()
        ms = tmp_path / "bands"
    source = open_source("eurosat", [rgb, ms])
    refs = source.refs()
    assert [ref.id for ref in refs] == [f"{name}.jpg" for name in sorted(CHIPS)]
    assert source.skipped == {}
    found, problems = read_all(source)
    for name, (_, longitude, latitude) in CHIPS.items():
        # 1e-6 degrees are a decimetre: a corner instead of the middle is 450 m away
        assert found[name]["location"] == pytest.approx((longitude, latitude), abs=1e-6)
    assert [source.read(ref, problems).image for ref in refs] == [jpeg(n) for n in sorted(CHIPS)]
    assert problems.count("location") == 0


def test_the_same_metadata_as_by_a_csv(rgb, ms, tmp_path):
    rows = [f"{name}.jpg,{x},{y}\n" for name, (_, x, y) in CHIPS.items()]
    table = tmp_path / "elsewhere.txt"
    table.write_text("filename,longitude,latitude\n" + "".join(rows))
    by_csv, csv_problems = read_all(EuroSAT([rgb], metadata=table, split_column="drawn"))
    by_tif, tif_problems = read_all(EuroSAT([rgb, ms]))
    assert by_tif.keys() == by_csv.keys()
    for name, values in by_tif.items():
        expected = by_csv[name]
        assert values.pop("location") == pytest.approx(expected.pop("location"), abs=1e-6)
        assert values == expected
        assert values["gsd"] == (10.0, 10.0)
    assert tif_problems == csv_problems


def test_a_csv_wins_and_geotiffs_fill_in(rgb, ms, tmp_path):
    names = sorted(CHIPS)
    (tmp_path / "meta.csv").write_text(
        "filename,label,split,longitude,latitude\n"
        f"{names[0]}.jpg,AnnualCrop,val,1.5,2.5\n"
        f"{names[1]}.jpg,AnnualCrop,train,,\n"
        f"{names[2]}.jpg,Forest,train,1.5,95\n"
    )
    source = EuroSAT([rgb, ms])
    assert [ref.split for ref in source.refs()] == ["val", "train", "train"]
    assert source.splits_from == "the column 'split' of the CSV"
    found, problems = read_all(source)
    assert found[names[0]]["location"] == (1.5, 2.5)
    assert found[names[1]]["location"] == pytest.approx(CHIPS[names[1]][1:], abs=1e-6)
    assert "location" not in found[names[2]]  # a wrong value in the CSV is not replaced
    assert problems.to_json()["location"] == {"out of range": 1}
    with pytest.raises(SourceError, match="--metadata and the column of the split"):
        EuroSAT([rgb, ms], split_column="fold")  # a misspelt column never becomes a draw


def test_the_split_without_a_csv(rgb, ms, tmp_path):
    (tmp_path / "accounts.csv").write_text("date,amount\n")  # an unrelated file in the same folder
    source = EuroSAT([rgb, ms], seed=3)
    assert source.splits_from == (
        "drawn within each class with seed 3: train 60%, val 20%, test 20%"
    )
    assert source.options == {"splits": source.splits_from, "geotiffs": True}
    drawn = EuroSAT([rgb], split_column="drawn", seed=3)
    assert [r.split for r in source.refs()] == [r.split for r in drawn.refs()]
    assert drawn.options == {"splits": source.splits_from}
    lists = tmp_path / "lists"
    lists.mkdir()
    for split, name in {"train": "Forest_1", "val": "Forest_2", "test": "AnnualCrop_2"}.items():
        (lists / f"eurosat-{split}.txt").write_text(f"{name}.jpg\n")
    source = EuroSAT([rgb, ms], splits_folder=lists)
    assert [(r.id, r.split) for r in source.refs()] == [
        ("AnnualCrop/AnnualCrop_2.jpg", "test"),
        ("Forest/Forest_1.jpg", "train"),
        ("Forest/Forest_2.jpg", "val"),
    ]
    assert source.skipped == {"image on no list": 1}
    assert all("location" in values for values in read_all(source)[0].values())


# --- bad GeoTIFFs ---------------------------------------------------------------------------------

PLACE = (34, 22.75, 60.125)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "no GeoTIFF of the chip"),
        (lambda: write_tif(*PLACE, crs=None), "GeoTIFF: no coordinates"),
        (lambda: write_tif(*PLACE, transform=None), "GeoTIFF: no coordinates"),
        (lambda: write_tif(*PLACE, crs=None, transform=None), "GeoTIFF: no coordinates"),
        (lambda: write_tif(*PLACE)[:200], "GeoTIFF: damaged"),
        (lambda: b"", "GeoTIFF: damaged"),
        (lambda: b"<VRTDataset rasterXSize='64' rasterYSize='64'/>", "GeoTIFF: damaged"),
        (lambda: jpeg("a"), "GeoTIFF: damaged"),
        (
            lambda: write_tif(*PLACE, transform=rasterio.Affine(10, 0, 1e12, 0, -10, 5e6)),
            "GeoTIFF: impossible coordinates",
        ),
        (
            lambda: write_tif(*PLACE, transform=rasterio.Affine(10, 0, math.nan, 0, -10, 5e6)),
            "GeoTIFF: impossible coordinates",
        ),
        (lambda: bytes(MAX_TIF_BYTES + 1), f"GeoTIFF: more than {MAX_TIF_BYTES:,} bytes"),
    ],
)
def test_a_bad_geotiff_costs_the_location_alone(rgb, tmp_path, data, reason):
    name = "Forest/Forest_2"
    files = {f"{other}.tif": write_tif(*place) for other, place in CHIPS.items() if other != name}
    if data is not None:
        files[f"{name}.tif"] = data()
    source = EuroSAT([rgb, write_zip(tmp_path / "EuroSAT_MS.zip", files)])
    found, problems = read_all(source)
    assert problems.to_json()["location"] == {reason: 1}
    assert {chip for chip, values in found.items() if "location" in values} == CHIPS.keys() - {name}
    assert found[name]["gsd"] == (10.0, 10.0)


def test_damage_in_the_zip_is_counted(rgb, ms):
    data = bytearray(ms.read_bytes())
    at = data.find(b"Forest_2.tif") + len(b"Forest_2.tif")
    data[at + 3] ^= 255  # in its compressed bytes
    ms.write_bytes(data)
    _, problems = read_all(EuroSAT([rgb, ms]))
    assert problems.to_json()["location"] == {"GeoTIFF: damaged zip member": 1}
    ms.write_bytes(data[:-30])
    with pytest.raises(SourceError, match=r"EuroSAT_MS\.zip: cannot be read as a zip"):
        EuroSAT([rgb, ms]).refs()


FINE = write_tif(*PLACE)
HEADER = 1100  # bytes, of about 1,000 that are not pixels; the directory may be at either end


@settings(max_examples=80, deadline=None)
@given(
    st.binary(max_size=200)
    | st.lists(
        st.tuples(st.integers(-HEADER, HEADER - 1), st.integers(0, 255)), min_size=1, max_size=6
    )
)
def test_any_bytes_are_a_place_or_unreadable(changes):
    data = bytearray(FINE)
    if isinstance(changes, bytes):
        data = bytearray(changes)
    else:
        for at, value in changes:
            data[at] = value
    try:
        longitude, latitude = geotiff_fields.centre(bytes(data))
    except UnreadableExample:
        return
    assert math.isfinite(longitude)
    assert math.isfinite(latitude)


# --- what users do --------------------------------------------------------------------------------


def test_the_quickstart_knows_the_two_releases(rgb, ms):
    assert isinstance(detect_source(rgb.parent), EuroSAT)


def test_georeferenced_release_alone(ms):
    with pytest.raises(SourceError, match=r"only GeoTIFFs in .*EuroSAT_MS.*EuroSAT_RGB\.zip"):
        EuroSAT([ms]).refs()


def test_survives_pickling(rgb, ms):
    source = EuroSAT([rgb, ms])
    expected, _ = read_all(source)  # archives are open now
    assert read_all(pickle.loads(pickle.dumps(source)))[0] == expected


def test_the_command_of_the_readme(tmp_path):
    places = {f"Forest/Forest_{i}": (34, 21 + i / 100, 60.0) for i in range(10)}
    rgb = {f"EuroSAT_RGB/{name}.jpg": jpeg(name) for name in places}
    ms = {f"EuroSAT_MS/{name}.tif": write_tif(*place) for name, place in places.items()}
    del ms["EuroSAT_MS/Forest/Forest_7.tif"]
    arguments = ["prepare", "eurosat", "--workers", "0", "--out", str(tmp_path / "out")]
    arguments += ["--source", str(write_zip(tmp_path / "EuroSAT_RGB.zip", rgb))]
    arguments += ["--source", str(write_zip(tmp_path / "EuroSAT_MS.zip", ms))]
    run = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert run.exit_code == 0
    assert "no GeoTIFF of the chip" in run.output
    assert "splits: drawn within each class with seed 0" in run.output
    report = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert report["splits"] == {"test": 2, "train": 6, "val": 2}
    assert report["bad"] == []
    assert report["problems"]["location"] == {"no GeoTIFF of the chip": 1}
    seen = 0
    for split in report["splits"]:
        for example in ShardDataset(tmp_path / "out", split):
            name = example["id"].removesuffix(".jpg")
            location = example["metadata"].values.get("location")
            if name == "Forest/Forest_7":
                assert location is None
            else:
                assert location == pytest.approx(places[name][1:], abs=1e-5)
            seen += 1
    assert seen == 10
