"""Columns of tables: names in any case, usual variants, and the order of a location."""

from pathlib import Path

import pytest

from satmip_jax.sources.base import SourceError
from satmip_jax.sources.columns import describe_columns, match_columns
from satmip_jax.sources.folder import Folder
from tests.sources.pictures import read_all, write_csv, write_images

TABLE = Path("t.csv")


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (
            ["File", "Latitude", " Longitude ", "CLASS"],
            {"path": "File", "label": "CLASS", "location": " Longitude +Latitude"},
        ),
        (["Image_Path", "lat", "lng"], {"path": "Image_Path", "location": "lng+lat"}),
        (["img", "LAT", "Long"], {"path": "img", "location": "Long+LAT"}),
        (["path", "y", "x"], {"path": "path", "location": "x+y"}),
        (["path", "x", "y", "lat", "lon"], {"path": "path", "location": "lon+lat"}),
        (["filename", "path", "Category"], {"path": "path", "label": "Category"}),
        (["path", "class", "label", "Label"], {"path": "path", "label": "label"}),
        (["path", "GSD", "Cloud_Cover"], {"path": "path", "gsd": "GSD", "cloud_cover": None}),
    ],
)
def test_usual_names_in_any_case(header, columns):
    matched = match_columns("", header, TABLE)
    for ours, theirs in columns.items():
        assert matched[ours] == (tuple(theirs.split("+")) if theirs else ("Cloud_Cover",))
    assert matched.keys() == columns.keys()


def test_given_names_in_any_case():
    header = ["Tile ", "LAT", "LON"]
    matched = match_columns("path=tile,location=lon+lat", header, TABLE)
    assert matched == {"path": ("Tile ",), "location": ("LON", "LAT")}


def test_names_that_differ_in_case_only():
    with pytest.raises(SourceError, match="'Label', 'LABEL' differ in case, spaces and"):
        match_columns("", ["path", "Label", "LABEL"], TABLE)
    assert match_columns("label=LABEL", ["path", "Label", "LABEL"], TABLE)["label"] == ("LABEL",)


@pytest.mark.parametrize("given", ["lat+lon", "Latitude+Longitude", "centre_lat+centre_lon", "y+x"])
def test_latitude_before_longitude_is_rejected(given):
    first, second = given.split("+")
    header = ["path", *given.split("+")]
    with pytest.raises(SourceError, match=f"write location={second}\\+{first}"):
        match_columns(f"location={given}", header, TABLE)
    advised = match_columns(f"location={second}+{first}", header, TABLE)
    assert advised["location"] == (second, first)


def test_one_column_in_the_order_latitude_longitude_is_rejected():
    with pytest.raises(SourceError, match="its name says latitude, longitude"):
        match_columns("location=lat_lon", ["path", "lat_lon"], TABLE)


def test_names_that_say_nothing_are_taken_as_given():
    assert match_columns("location=a+b", ["path", "a", "b"], TABLE)["location"] == ("a", "b")
    assert match_columns("location=plate+slon", ["path", "plate", "slon"], TABLE)["location"]


def test_columns_are_described():
    header = ["path", "lon", "lat", "notes"]
    assert describe_columns(match_columns("", header, TABLE), header) == [
        "columns: path <- path, location <- lon + lat",
        "ignored columns: notes",
    ]


def test_x_and_y_in_pixels_are_no_location(tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "b.png"])
    rows = [{"path": "a.png", "X": 11.5, "Y": 48.1}, {"path": "b.png", "X": 30, "Y": 60}]
    found, _ = read_all(Folder([root], write_csv(tmp_path / "t.csv", rows)))
    assert found["a.png"].metadata.values["location"] == (11.5, 48.1)
    rows[1]["Y"] = 512
    source = Folder([root], write_csv(tmp_path / "t.csv", rows))
    assert "location" not in read_all(source)[0]["a.png"].metadata.values
    assert "X and Y are not degrees: ignored" in source.summary
    assert "ignored columns: X, Y" in source.summary
    given = Folder([root], tmp_path / "t.csv", "location=X+Y")
    assert read_all(given)[0]["a.png"].metadata.values["location"] == (11.5, 48.1)


def test_spaces_hyphens_and_underscores_are_equal():
    header = ["Image Path", "Class-Name", "Sun  Azimuth_Angle"]
    assert match_columns("", header, Path("t.csv")) == {
        "path": ("Image Path",),
        "label": ("Class-Name",),
        "sun_azimuth_angle": ("Sun  Azimuth_Angle",),
    }
    assert match_columns("path=image-path", header, Path("t.csv"))["path"] == ("Image Path",)
    with pytest.raises(SourceError, match="'class name', 'Class_Name' differ in case, spaces"):
        match_columns("", ["path", "class name", "Class_Name"], Path("t.csv"))
