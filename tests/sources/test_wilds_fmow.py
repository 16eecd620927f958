"""fMoW-WILDS, in a folder made here."""

import csv
import pickle
from datetime import UTC, datetime

import cv2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import SourceError, UnreadableExample
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.wilds_fmow import WildsFMoW
from tests.sources.geotiff_files import picture

HEADER = [
    "split",
    "category",
    "country_code",
    "timestamp",
    "cloud_cover",
    "visible",
    "lat",
    "lon",
    "gsd",
    "off_nadir_angle_dbl",
    "sun_elevation_dbl",
]
REST = ["FRA", "2011-05-06T10:11:12Z", "3", "True", "48.25", "2.5", "0.5", "12.5", "61.25"]
ROWS = [
    ["train", "airport", *REST],
    ["seq", "airport", *REST],
    ["train", "zoo", "USA", "2013-01-01T00:00:00Z", *REST[2:]],
    ["val", "zoo", "USA", "2012-12-31T23:59:59Z", *REST[2:]],
    ["val", "zoo", "USA", "2013-01-01T00:00:00Z", *REST[2:]],
    ["val", "zoo", "USA", "2016-01-01T00:00:00Z", *REST[2:]],
    ["test", "dam", "BRA", "2010-01-01T00:00:00Z", *REST[2:]],
    ["test", "dam", "BRA", "2015-12-31T00:00:00Z", *REST[2:]],
    ["test", "dam", "BRA", "2016-01-01T00:00:00Z", *REST[2:]],
    ["test", "dam", "BRA", "", *REST[2:]],
    ["train", "moon", *REST],
    ["train", "airport", *REST],
]


def write(folder, rows, header=HEADER, images=None):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "rgb_metadata_v2.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    png = cv2.imencode(".png", picture(16, 16).transpose(1, 2, 0))[1].tobytes()
    for i in range(len(rows)) if images is None else images:
        (folder / f"images/rgb_img_{i}.png").write_bytes(png)
    return folder


def test_splits_of_wilds_are_by_year_and_images_by_row(tmp_path):
    write(tmp_path / "fmow_v1.1", ROWS, images=range(11))
    source = pickle.loads(pickle.dumps(open_source("wilds-fmow", [tmp_path])))
    assert {ref.id: ref.split for ref in source.refs()} == {
        "rgb_img_0.png": "train",
        "rgb_img_3.png": "id_val",
        "rgb_img_4.png": "val",
        "rgb_img_6.png": "id_test",
        "rgb_img_8.png": "test",
    }
    assert source.skipped == {
        "row of seq, which WILDS leaves out": 1,
        "row of train in a year that WILDS leaves out": 1,
        "row of val in a year that WILDS leaves out": 1,
        "row of test in a year that WILDS leaves out": 1,
        "row without a time, and so without a split": 1,
        "row of category 'moon'": 1,
        "row without an image": 1,
    }


def test_metadata_of_a_row(tmp_path):
    source = WildsFMoW([write(tmp_path, ROWS)])
    example = source.read(source.refs()[0], Problems())
    assert example.label == "airport"
    assert example.metadata.values == {
        "gsd": (0.5, 0.5),
        "timestamp": datetime(2011, 5, 6, 10, 11, 12, tzinfo=UTC),
        "location": (2.5, 48.25),
        "country_code": "FRA",
        "cloud_cover": (3.0,),
        "off_nadir_angle": (12.5,),
        "sun_elevation_angle": (61.25,),
    }


def test_more_of_fmows_columns_are_read(tmp_path):
    extra = ["sensor_platform_name", "utm", "mean_pixel_width", "mean_pixel_height"]
    row = ["train", "airport", *REST, "WORLDVIEW02", "31U", "1e-5", "2e-5"]
    source = WildsFMoW([write(tmp_path, [row], [*HEADER, *extra])])
    values = source.read(source.refs()[0], Problems()).metadata.values
    assert (values["sensor_platform"], values["utm_zone"]) == ("WORLDVIEW02", "31U")
    assert values["pixel_size"] == (1e-5, 2e-5)


def test_what_is_missing_is_one_sentence(tmp_path):
    with pytest.raises(SourceError, match=r"no rgb_metadata_v2\.csv in"):
        open_source("wilds-fmow", [tmp_path])
    with pytest.raises(SourceError, match="no column category"):
        WildsFMoW([write(tmp_path, [], ["split", "timestamp"])])
    with pytest.raises(SourceError, match="it is empty"):
        WildsFMoW([write(tmp_path, [])]).refs()
    (tmp_path / "images/rgb_img_0.png").write_bytes(bytes(5 << 20))
    source = WildsFMoW([write(tmp_path, ROWS, images=())])
    with pytest.raises(UnreadableExample, match="more than"):
        source.read(source.refs()[0], Problems())


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cells=st.lists(
        st.lists(
            st.sampled_from(["", "train", "airport", "nan", "1e999", "-1", "2012-01-01", "é,\n"])
            | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6),
            max_size=14,
        ),
        max_size=6,
    )
)
def test_broken_rows_are_counted_and_never_shift_the_images(tmp_path, cells):
    cells = [row for row in cells if any(row)]
    rows = [ROWS[0], *cells, ["test", "dam", "BRA", "2017-01-01", *REST[2:]]]
    source = WildsFMoW([write(tmp_path, rows)])
    refs = {ref.id: ref for ref in source.refs()}
    last = refs[f"rgb_img_{len(cells) + 1}.png"]
    assert source.read(last, Problems()).label == "dam"
    assert len(refs) + sum(source.skipped.values()) == len(rows)
