"""JSON records of fMoW, damaged ones included, and their footprints."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.record import Problems
from satmip_jax.sources.base import UnreadableExample
from satmip_jax.sources.fmow import FMoW, polygon_centre
from tests.sources.fmow_files import FOOTPRINT, RECORD, box, listed, write

# --- records --------------------------------------------------------------------------------------

UNUSABLE = [
    (b"", "its JSON record is not JSON"),
    (b"{", "its JSON record is not JSON"),
    (b"[1, 2]", "its JSON record is not an object"),
    (b"null", "its JSON record is not an object"),
    (b"\xff\xfe", "its JSON record is not JSON"),
    (b"[" * 100_000, "its JSON record is not JSON"),
    (b'{"a": ' + b"9" * 5000 + b"}", "its JSON record is not JSON"),
    (b'"' + b"x" * (1 << 20) + b'"', "its JSON record more than 1,048,576 bytes"),
]


@pytest.mark.parametrize(("content", "reason"), UNUSABLE)
def test_unusable_records_have_a_reason(tmp_path, content, reason):
    write(tmp_path, "train/zoo/zoo_1/zoo_1_0_rgb", [box(1)])
    (tmp_path / "train/zoo/zoo_1/zoo_1_0_rgb.json").write_bytes(content)
    assert listed(FMoW([tmp_path])) == [("train", "train/zoo/zoo_1/zoo_1_0_rgb.jpg", reason)]


def test_missing_records_and_images(tmp_path):
    write(tmp_path, "train/zoo/zoo_1/zoo_1_0_rgb", [box(1)])
    source = FMoW([tmp_path])
    (ref,) = source.refs()
    (tmp_path / "train/zoo/zoo_1/zoo_1_0_rgb.jpg").unlink()
    with pytest.raises(UnreadableExample, match="cannot be read: No such file"):
        source.read(ref, Problems())
    write(tmp_path, "train/zoo/zoo_1/zoo_1_0_rgb", [box(1)])
    (tmp_path / "train/zoo/zoo_1/zoo_1_0_rgb.json").unlink()
    with pytest.raises(UnreadableExample, match="its JSON record cannot be read: No such file"):
        source.read(source.refs()[0], Problems())


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"mean_pixel_height": -4e-6}, "pixel_size", "out of range"),
        ({"mean_pixel_height": None}, "pixel_size", "missing"),
        ({"mean_pixel_width": None, "mean_pixel_height": None}, "pixel_size", "missing"),
        ({"country_code": "???"}, "country_code", "unknown category"),
        ({"raw_location": None}, "location", "missing"),
        ({"raw_location": "LINESTRING (0 0, 1 1)"}, "location", "wrong type"),
        ({"raw_location": 7}, "location", "wrong type"),
        ({"raw_location": FOOTPRINT.replace("50.", "95.")}, "location", "out of range"),
        ({"gsd": "NaN"}, "gsd", "not finite"),
        ({"approximate_wavelengths": [661]}, "wavelengths", "wrong length"),
    ],
)
def test_bad_fields_are_missing_and_counted(tmp_path, changes, field, reason):
    write(tmp_path, "train/zoo/zoo_1/zoo_1_0_rgb", [box(1)], **changes)
    source = FMoW([tmp_path])
    problems = Problems()
    metadata = source.read(source.refs()[0], problems).metadata
    assert problems.to_json() == {field: {reason: 1}}
    assert len(metadata.values) == 14
    assert field not in metadata.values


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.sampled_from(["ID", "box", "category", "x"]), children, max_size=4)
    ),
    max_leaves=12,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.sampled_from([*RECORD, "bounding_boxes"]), json_values))
def test_any_record_reads_or_says_why(tmp_path, record):
    write(tmp_path, "train/zoo/zoo_1/zoo_1_0_rgb", [box(1)])
    write(tmp_path, "train/zoo/zoo_2/zoo_2_0_rgb")
    (tmp_path / "train/zoo/zoo_2/zoo_2_0_rgb.json").write_text(json.dumps(record))
    rows = listed(FMoW([tmp_path]))
    assert rows[0][2] == "zoo"
    assert all(isinstance(label, str) for _, _, label in rows)


# --- footprints -----------------------------------------------------------------------------------


def test_polygons_by_hand():
    assert polygon_centre("POLYGON((0 0,2 0,2 4,0 4,0 0))") == (1, 2)
    assert polygon_centre(" polygon ( ( -1e1 1, +10.5 1, 3 2.5 ) ) ") == (0.25, 1.75)
    # across the 180th meridian, from 179 to 181 and to 183 degrees
    assert polygon_centre("POLYGON ((179 0, -179 0, -179 1, 179 1, 179 0))") == (180, 0.5)
    assert polygon_centre("POLYGON ((179 0, -177 0, -177 1, 179 1, 179 0))") == (-179, 0.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "POINT (1 2)",
        "POLYGON EMPTY",
        "POLYGON ((1 2, 3 4))",
        "POLYGON ((1 2 3, 4 5 6, 7 8 9))",
        "POLYGON ((1 2, 3 4, 5))",
        "POLYGON ((1 2, 3 4, 5 e))",
        "POLYGON ((1 2, 3 4, 5 1e999))",
        "POLYGON ((0 0, 2 0, 2 4), (0 0, 1 0, 1 1))",
        "POLYGON ((0 0, 2 0, 2 4)) x",
        "POLYGON ((0 0, 2 0, " + "1 1, " * 3000 + "2 4))",
        None,
        7,
    ],
)
def test_other_texts_are_no_polygons(text):
    assert polygon_centre(text) is None


@given(st.text(st.sampled_from("POLYGN( ),.-+e0123456789nai"), max_size=60))
def test_any_text_is_a_polygon_or_not(text):
    for candidate in (text, f"POLYGON (({text}))"):
        centre = polygon_centre(candidate)
        assert centre is None or all(np.isfinite(centre))


degrees = st.floats(-80, 80, width=32)


@given(degrees, degrees, st.floats(0.001, 1), st.floats(0.001, 1))
def test_centre_of_a_footprint(longitude, latitude, width, height):
    west, east = longitude - width, longitude + width
    south, north = latitude - height, latitude + height
    points = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    text = "POLYGON ((" + ", ".join(f"{x!r} {y!r}" for x, y in points) + "))"
    np.testing.assert_allclose(polygon_centre(text), (longitude, latitude), atol=1e-9)
