"""STAC items on disk: metadata, choice of the asset, and input that is broken or made to harm."""

import json
import os
import pickle
import socket
import sys
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.record import Problems
from satmip_jax.sources import stac_items
from satmip_jax.sources.base import Skipped, SourceError, UnreadableExample
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.stac import STAC
from tests.sources.geotiff_files import AFFINE, geotiff, picture

PROPERTIES = {
    "datetime": "2018-06-22T16:55:40Z",
    "gsd": 0.35173947,
    "platform": "WORLDVIEW03_VNIR",
    "eo:cloud_cover": 12.5,
    "view:off_nadir": 21.97336,
    "view:azimuth": 314.29373,
    "view:sun_azimuth": 58.571484,
    "view:sun_elevation": 71.182274,
    "land": "volcano",
}
BOX = [-90.9, 14.25, -90.7, 14.75]
RING = [[-90.9, 14.25], [-90.7, 14.25], [-90.7, 14.75], [-90.9, 14.75], [-90.9, 14.25]]


def item(name="a", href="./a.png", **changed):
    content = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [RING]},
        "bbox": BOX,
        "properties": dict(PROPERTIES),
        "links": [],
        "assets": {"image": {"href": href, "type": "image/png", "roles": ["data"]}},
    }
    return content | changed


def png():
    return cv2.imencode(".png", picture(32, 24).transpose(1, 2, 0))[1].tobytes()


def write(folder, content, name="a.json", image="a.png"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    if image:
        (folder / image).write_bytes(png())
    return folder


def read_all(source):
    problems = Problems()
    examples, rejected = [], 0
    for ref in source.refs():
        try:
            examples.append(source.read(ref, problems))
        except UnreadableExample:
            rejected += 1
    return examples, rejected, problems


def test_metadata_of_an_item_come_back_to_the_digit(tmp_path):
    source = open_source("stac", [write(tmp_path, item())], label="land")
    (example,), _, problems = read_all(pickle.loads(pickle.dumps(source)))
    values = example.metadata.values
    assert (example.id, example.label, example.image) == ("a", "volcano", png())
    assert source.classes == ("volcano",)
    assert values["timestamp"] == datetime(2018, 6, 22, 16, 55, 40, tzinfo=UTC)
    assert values["gsd"] == (0.35173947, 0.35173947)
    assert values["sensor_platform"] == "WORLDVIEW03_VNIR"
    assert values["cloud_cover"] == (12.5,)
    assert values["off_nadir_angle"] == (21.97336,)
    assert values["target_azimuth_angle"] == (314.29373,)
    assert values["sun_azimuth_angle"] == (58.571484,)
    assert values["sun_elevation_angle"] == (71.182274,)
    assert values["location"] == pytest.approx((-90.8, 14.5), abs=1e-12)
    assert not [reason for _, reason, _ in problems.rows() if reason != "missing"]


@pytest.mark.parametrize("version", ["0.9.0", "1.0.0", "1.1.0"])
def test_versions_of_stac(tmp_path, version):
    content = item(stac_version=version)
    (example,), _, _ = read_all(STAC([write(tmp_path, content)]))
    assert example.metadata.values["cloud_cover"] == (12.5,)


def test_values_of_the_asset_come_first_and_bands_have_wavelengths(tmp_path):
    centres = {"blue": 0.49, "green": 0.56, "red": 0.665}
    bands = [{"name": n, "common_name": n, "center_wavelength": w} for n, w in centres.items()]
    asset = {"href": "a.png", "type": "image/png", "gsd": 20, "eo:bands": bands}
    content = item(
        assets={"visual": asset},
        stac_extensions=["https://stac-extensions.github.io/eo/v1.1.0/schema.json"],
    )
    content["properties"]["proj:epsg"] = 32615
    (example,), _, _ = read_all(STAC([write(tmp_path, content)]))
    assert example.metadata.values["gsd"] == (20.0, 20.0)
    assert example.metadata.values["wavelengths"] == (665.0, 560.0, 490.0)
    assert example.metadata.values["utm_zone"] == "15"


def test_locations_over_the_180th_meridian(tmp_path):
    (example,), _, _ = read_all(STAC([write(tmp_path, item(bbox=[179, 0, -178, 2]))]))
    assert example.metadata.values["location"] == (-179.5, 1.0)
    ring = [[179, 0], [-178, 0], [-178, 2], [179, 2], [179, 0]]
    content = item(bbox=None, geometry={"type": "Polygon", "coordinates": [ring]})
    (example,), _, _ = read_all(STAC([write(tmp_path, content)]))
    assert example.metadata.values["location"] == (-179.5, 1.0)


def test_a_geotiff_knows_its_place_and_is_cut_into_tiles(tmp_path):
    size = 2.0**-18
    transform = AFFINE(size, 0, 10.0, 0, -size, 50.0)
    geotiff(picture(96, 32), None, tmp_path / "a.tif", crs="EPSG:4326", transform=transform)
    asset = {"href": "a.tif", "type": "image/tiff; application=geotiff"}
    write(tmp_path, item(assets={"x": asset}), image=None)
    source = STAC([tmp_path], tile=32)
    examples, _, _ = read_all(source)
    assert [example.id for example in examples] == ["a#0,0", "a#32,0", "a#64,0"]
    values = examples[1].metadata.values
    assert values["location"] == (round(10 + 48 * size, 7), round(50 - 16 * size, 7))
    assert values["pixel_size"] == (size, size)
    assert values["gsd"] == (0.35173947, 0.35173947)


def test_the_asset_is_chosen_by_key_role_or_because_it_is_the_only_one(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(
            np.frombuffer(png(), np.uint8).tobytes() + name.encode()
        )
    assets = {
        "thumbnail": {"href": "a.png", "type": "image/png"},
        "nir": {"href": "b.png", "type": "image/png", "roles": ["data", "reflectance"]},
        "pdf": {"href": "c.pdf", "type": "application/pdf"},
        "c": {"href": "c.png", "type": "image/png", "roles": ["overview"]},
    }
    write(tmp_path, item(assets=assets), image=None)

    def chosen(**options):
        (example,), _, _ = read_all(STAC([tmp_path], **options))
        return chr(example.image[-1])

    assert chosen() == "b"
    assert chosen(asset="thumbnail") == "a"
    assert chosen(asset="overview") == "c"
    with pytest.raises(SourceError, match="1 x item without the image asset 'pdf'"):
        STAC([tmp_path], asset="pdf").refs()
    assets["d"] = assets["nir"]
    write(tmp_path, item(assets=assets), image=None)
    with pytest.raises(SourceError, match="several image assets: choose one with --asset"):
        STAC([tmp_path]).refs()


def test_catalogues_collections_zips_and_item_collections(tmp_path):
    links = [
        {"rel": "item", "href": "./x/a.json"},
        {"rel": "child", "href": "https://x.org/c.json"},
    ]
    catalog = {"type": "Catalog", "id": "c", "description": "", "stac_version": "1.0.0"}
    write(tmp_path, {**catalog, "links": links}, name="catalog.json", image=None)
    write(tmp_path / "x", item())
    both = {"type": "FeatureCollection", "features": [item("b", "q/a.png"), item("c", "q/a.png")]}
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("s/search.json", json.dumps(both))
        archive.writestr("s/q/a.png", png())
    source = STAC([tmp_path], splits="train=0.5,val=0.5")
    examples, rejected, _ = read_all(source)
    assert ([example.id for example in examples], rejected) == (["a", "b", "c"], 0)
    assert source.skipped == {"link of a catalogue to a server, not followed": 1}


def test_a_catalogue_given_itself_is_followed_within_its_folder(tmp_path):
    links = [
        {"rel": "child", "href": "./sub/collection.json"},
        {"rel": "item", "href": "./gone.json"},
        {"rel": "item", "href": "../outside.json"},
        {"rel": "item", "href": "https://x.org/a.json"},
        {"rel": "self", "href": "./other.json"},
    ]
    back = [
        {"rel": "item", "href": "x/b.json"},
        {"rel": "item", "href": str(tmp_path / "in" / "sub" / "x" / "b.json")},
        {"rel": "child", "href": "../catalog.json"},
    ]
    head = {"id": "c", "description": "", "stac_version": "1.0.0"}
    root = tmp_path / "in"
    write(root, {**head, "type": "Catalog", "links": links}, "catalog.json", image=None)
    write(
        root / "sub", {**head, "type": "Collection", "links": back}, "collection.json", image=None
    )
    write(root / "sub" / "x", item("b", "../../a.png"), "b.json", image=None)
    write(root, item("unlinked"), "other.json")
    write(tmp_path, item("outside"), "outside.json")
    source = open_source("stac", [root / "catalog.json"])
    examples, rejected, _ = read_all(pickle.loads(pickle.dumps(source)))
    assert ([example.id for example in examples], rejected) == (["b"], 0)
    source.refs()
    assert source.skipped == {
        "JSON file: cannot be read: No such file or directory": 1,
        "link of a catalogue: file outside the folder or zip of its item": 1,
        "link of a catalogue to a server, not followed": 1,
    }
    # a collection's folder is the limit: its items' assets lie outside
    with pytest.raises(SourceError, match="asset outside the folder"):
        open_source("stac", [root / "sub" / "collection.json"]).refs()


def test_an_item_given_itself_is_read_alone(tmp_path):
    write(tmp_path, item())
    write(tmp_path, item("b"), "b.json")
    examples, _, _ = read_all(open_source("stac", [tmp_path / "b.json"]))
    assert [example.id for example in examples] == ["b"]
    assert examples[0].footprint == {"type": "Polygon", "coordinates": [RING]}


def test_nothing_is_fetched_and_nothing_outside_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    (tmp_path / "secret.png").write_bytes(png())
    folder = write(tmp_path / "in", item("good"))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    hrefs = [
        "https://x.org/a.png",
        "s3://bucket/a.png",
        "/vsicurl/https://x.org/a.tif",
        "//x.org/a.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        f"file://{tmp_path}/secret.png",
        "file://x.org/a.png",
        "link.png",
        "q/../../secret.png",
        "",
        "http://[x/a.png",
    ]
    for i, href in enumerate(hrefs):
        write(folder, item(f"bad{i}", href), name=f"{i}.json")
    source = STAC([folder])
    assert [ref.id for ref in source.refs()] == ["good"]
    assert sum(source.skipped.values()) == len(hrefs)
    assert all(reason.startswith("asset ") for reason in source.skipped)
    write(folder, item("local", (folder / "a.png").as_uri()), name="local.json")
    assert "local" in [ref.id for ref in STAC([folder]).refs()]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "JSON file that is not JSON"),
        ("[" * 100_000, "JSON file that is not JSON"),
        ("[]", "JSON that is no STAC item"),
        ('{"type": "Feature"}', "JSON that is no STAC item"),
        (item(properties=None), "STAC item that pystac cannot read"),
        (item(id=7), "STAC item that pystac cannot read"),
        (item(id="\ud800"), "STAC item that pystac cannot read"),
        (item(assets=[]), "STAC item that pystac cannot read"),
        (item(properties={"datetime": "noon"}), "STAC item that pystac cannot read"),
        (item(assets={}), "item without an image asset"),
    ],
)
def test_broken_items_are_counted_and_named(tmp_path, content, reason):
    write(tmp_path, item("good"))
    write(tmp_path, content, name="bad.json")
    source = STAC([tmp_path])
    assert [ref.id for ref in source.refs()] == ["good"]
    (name,) = source.skipped
    assert name.startswith(reason)


def test_missing_and_impossible_values_cost_the_field_alone(tmp_path):
    properties = PROPERTIES | {"gsd": -1, "eo:cloud_cover": "much", "view:azimuth": None}
    write(tmp_path, item(properties=properties, bbox=[1e300, 0, 5, 5], geometry=None))
    (example,), _, problems = read_all(STAC([tmp_path]))
    values = example.metadata.values
    assert not {"gsd", "cloud_cover", "target_azimuth_angle", "location"} & set(values)
    assert values["sun_azimuth_angle"] == (58.571484,)
    assert (problems.count("gsd"), problems.count("cloud_cover")) == (1, 1)


NESTED = ("geometry", "properties", "links", "assets")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.dictionaries(
        st.sampled_from(
            ["type", "stac_version", "id", "geometry", "bbox", "properties", "links", "assets"]
        ),
        JSON,
    ),
    properties=st.dictionaries(
        st.sampled_from([*PROPERTIES, "bands", "eo:bands", "proj:code", "proj:epsg"]), JSON
    ),
    href=st.text(max_size=12),
    tile=st.sampled_from([0, 8]),
)
def test_any_json_is_read_or_counted(tmp_path, changes, properties, href, tile):
    geotiff(picture(8, 8), None, tmp_path / "good.tif")
    good = item("good", "good.tif")
    good["assets"]["image"]["type"] = "image/tiff"
    write(tmp_path, good, name="good.json", image=None)
    bad = item("bad", href, properties=PROPERTIES | properties) | changes
    write(tmp_path, bad, name="bad.json", image=None)
    source = STAC([tmp_path], tile=tile, label="land", splits="train=0.5,val=0.5")
    examples, rejected, _ = read_all(source)
    assert examples[-1].id.startswith("good")
    assert len(examples) + rejected + sum(source.skipped.values()) >= 2


def test_a_pipe_and_a_long_file_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("satmip_jax.sources.stac_items.MAX_JSON_BYTES", 4000)
    write(tmp_path, item())
    write(tmp_path, json.dumps(item("long")) + " " * 4000, name="long.json")
    os.mkfifo(tmp_path / "pipe.json")
    source = STAC([tmp_path])
    assert [ref.id for ref in source.refs()] == ["a"]
    assert source.skipped == {
        "JSON file: more than 4,000 bytes": 1,
        "JSON file: not a regular file": 1,
    }


def test_no_items_are_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no JSON files"):
        open_source("stac", [tmp_path / "empty"]).refs()


def test_threads_read_items_at_the_same_time():
    """No item is lost, and the process still shows warnings."""

    def read(_):
        skipped = Skipped()
        content = item(properties=PROPERTIES | {"deprecated": True})  # pystac warns of it
        parts = [stac_items._items_of("", "", content | {}, skipped) for _ in range(100)]
        return sum(len(list(part)) for part in parts), dict(skipped)

    before, interval = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(read, range(4))) == [(100, {})] * 4
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == before
