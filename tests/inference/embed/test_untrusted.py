"""`satmip embed` of damaged files of all kinds: each is named, and none stops the others."""

import csv
import io
import json
import zipfile

import cv2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import satmip_jax as sm
from satmip_jax.errors import SatmipError
from satmip_jax.inference.embed.run import embed_files
from satmip_jax.inference.embed.table import EmbeddingTable
from tests.sources.geotiff_files import geotiff, picture

PNG = cv2.imencode(".png", picture(40, 30).transpose(1, 2, 0))[1].tobytes()
TIFF = geotiff(picture(64, 48), {None: {"cloud_cover": "12.5", "datetime": "2020-01-01"}})
SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return buffer.getvalue()


ITEM = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": "a",
    "geometry": {"type": "Point", "coordinates": [12.5, 41.9]},
    "bbox": [12, 41, 13, 42],
    "properties": {"datetime": "2020-01-01T00:00:00Z"},
    "links": [],
    "assets": {"visual": {"href": "../good.png", "type": "image/png"}},
}
SOUND = {
    "x.png": PNG,
    "t.tif": TIFF,
    "z.zip": zipped(a_png=PNG, b_tif=TIFF),
    "item.json": json.dumps(ITEM | {"assets": {"x": {"href": "good.png"}}}).encode(),
    "m.csv": b"path,longitude,latitude,timestamp,label\ngood.png,12.5,41.9,2020-01-01,zoo\n",
    "m.jsonl": b'{"path": "good.png", "gsd": [1, 2], "label": 7}\n',
}


@pytest.fixture(scope="module")
def model(tiny_run):
    return sm.load(tiny_run, batch_size=8)


@st.composite
def damaged(draw, names):
    """A file of a kind, cut or with other bytes, and its name."""
    name = draw(st.sampled_from(names))
    content = bytearray(SOUND[name])
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content) - 1)) :]
    for _ in range(draw(st.integers(0, 4)) if content else 0):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return name, bytes(content)


def embed(model, paths, out, options):
    embed_files(model, paths, out, options=options, progress=False, announce=lambda _: None)
    rows = EmbeddingTable.open(out)
    listed = out.with_name(f"{out.stem}.left_out.csv")
    left_out = []
    if listed.exists():
        with listed.open(newline="", encoding="utf-8") as file:
            left_out = [name for name, _ in csv.reader(file)][1:]
    return [row["path"] for row in rows.rows(range(rows.count))], left_out


@pytest.mark.slow
@SETTINGS
@given(
    files=st.lists(damaged(["x.png", "t.tif", "z.zip"]), max_size=3, unique_by=lambda x: x[0]),
    tile=st.sampled_from([0, 32]),
)
def test_damaged_files_are_named_and_stop_no_other(model, tmp_path_factory, files, tile):
    folder = tmp_path_factory.mktemp("d")
    (folder / "good.png").write_bytes(PNG)
    for name, content in files:
        (folder / name).write_bytes(content)
    paths = [folder / name for name in ("good.png", *(name for name, _ in files))]
    read, left_out = embed(model, paths, folder / "e.parquet", {"tile": tile} if tile else {})
    assert str(folder / "good.png") in read
    for path in paths:
        assert any(name.startswith(str(path)) for name in read + left_out), path


@pytest.mark.slow
@SETTINGS
@given(
    files=st.lists(damaged(sorted(SOUND)), min_size=1, max_size=3, unique_by=lambda x: x[0]),
    together=st.booleans(),
)
def test_any_mixture_is_a_file_or_one_sentence(model, tmp_path_factory, files, together):
    folder = tmp_path_factory.mktemp("d")
    (folder / "good.png").write_bytes(PNG)
    for name, content in files:
        (folder / name).write_bytes(content)
    paths = [folder] if together else [folder / "good.png", *(folder / name for name, _ in files)]
    message = ""
    try:
        read, _ = embed(model, paths, folder / "e.parquet", {})
        assert read
    except SatmipError as error:
        message = str(error)
    assert "\n" not in message
    assert not list(folder.glob("*.tmp"))
