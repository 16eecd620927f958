"""Reading metadata, and following a crop."""

import csv
import decimal
import gzip
import json
import math
import pickle
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.fields import FIELDS, GROUPS, field, select_fields
from satmip_jax.metadata.record import Absent, Metadata, Problems

REASONS = {
    "missing",
    "wrong type",
    "not finite",
    "out of range",
    "unknown category",
    "wrong length",
}
NAMES = [f.name for f in FIELDS]
SCALES = ["gsd", "multispectral_gsd", "pixel_size"]


def parse_one(name: str, raw: object):
    """(value or None, reason or None) of one field."""
    problems = Problems()
    metadata = Metadata.parse({name: raw}, problems)
    reasons = problems.to_json().get(name, {})
    assert sum(reasons.values()) == (name not in metadata.values)
    return metadata.values.get(name), next(iter(reasons), None)


# --- the fields -----------------------------------------------------------------------------------


def test_fields_are_the_fifteen_of_the_paper():
    assert len(FIELDS) == len(set(NAMES)) == 15
    assert set(GROUPS) == {"GSD", "Time", "Location", "Angles", "Other"}
    assert [f.name for f in FIELDS if f.leak] == SCALES
    for f in FIELDS:
        low, high = f.bounds
        assert len(low) == len(high) == f.size
        # a value stored in float32 must still be inside when it is read back
        assert all(float(np.float32(v)) == v for v in (*low, *high))
        assert (f.validator is not None) == (f.kind == "category") == (f.size == 0)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("all", NAMES),
        ("Location", ["location", "utm_zone", "country_code"]),
        ("cloud_cover+gsd", ["gsd", "cloud_cover"]),
        ("GSD", SCALES),
        ("GSD-leak+gsd", ["gsd"]),
        ("all-leak", [n for n in NAMES if n not in SCALES]),
        ("all-leak-Angles-Other", ["timestamp", "location", "utm_zone", "country_code"]),
        (["Time", "off_nadir_angle", "Time"], ["timestamp", "off_nadir_angle"]),
        ("Time + gsd", ["gsd", "timestamp"]),
    ],
)
def test_select_fields(spec, names):
    assert [f.name for f in select_fields(spec)] == names


def test_selecting_what_does_not_exist_says_what_does():
    with pytest.raises(
        ValueError, match=r"'Angle'.*GSD, Time, Location, Other, Angles.*sensor_platform"
    ):
        select_fields("Time+Angle")
    with pytest.raises(ValueError, match="leaves no field"):
        select_fields("GSD-leak")
    with pytest.raises(ValueError, match="leaves no field"):
        select_fields([])
    with pytest.raises(ValueError, match=r"'sun'.*sun_azimuth_angle"):
        field("sun")
    assert field("gsd") is FIELDS[0]


# --- reading good and bad values ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("gsd", 0.5, (0.5, 0.5)),
        ("gsd", [0.5, 0.6], (0.5, 0.6)),
        ("gsd", np.asarray([0.5, 0.25], np.float32), (0.5, 0.25)),
        ("pixel_size", "1e-6", (1e-6, 1e-6)),
        ("cloud_cover", "14", (14.0,)),
        ("cloud_cover", np.int64(0), (0.0,)),
        ("cloud_cover", [7], (7.0,)),
        ("wavelengths", (661, "545", 477.0), (661.0, 545.0, 477.0)),
        ("target_azimuth_angle", 360, (0.0,)),
        ("sun_elevation_angle", -10, (-10.0,)),
        ("location", (-73.310776, -3.785814), (-73.310776, -3.785814)),
        ("location", [180, 90], (-180.0, 90.0)),
        ("utm_zone", "18M", "18M"),
        ("utm_zone", "08m", "8M"),
        ("utm_zone", " 60 ", "60"),
        ("country_code", "PER", "PER"),
        ("country_code", "pe", "PER"),
        ("country_code", "XKX", "XKX"),
        ("scan_direction", "reverse", "Reverse"),
        ("sensor_platform", "WORLDVIEW03_VNIR", "WORLDVIEW03_VNIR"),
        ("timestamp", "2015-09-21T15:30:08Z", datetime(2015, 9, 21, 15, 30, 8, tzinfo=UTC)),
        ("timestamp", "2015-09-21 17:30:08+02:00", datetime(2015, 9, 21, 15, 30, 8, tzinfo=UTC)),
        ("timestamp", "2015-09-21T15:30", datetime(2015, 9, 21, 15, 30, tzinfo=UTC)),
        ("timestamp", datetime(2015, 9, 21, 15), datetime(2015, 9, 21, 15, tzinfo=UTC)),
        ("timestamp", date(2015, 9, 21), datetime(2015, 9, 21, tzinfo=UTC)),
        (
            "timestamp",
            datetime(2016, 1, 1, 1, tzinfo=timezone(timedelta(hours=3))),
            datetime(2015, 12, 31, 22, tzinfo=UTC),
        ),
    ],
)
def test_good_values(name, raw, value):
    read, reason = parse_one(name, raw)
    assert reason is None
    assert read == value
    assert type(read) is type(value)
    if isinstance(value, tuple):
        assert all(type(v) is float for v in read)
    if isinstance(value, datetime):
        assert read.utcoffset() == timedelta(0)


class Hostile:
    def __float__(self):
        raise MemoryError("no")

    def __len__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        *[(name, raw, "missing") for name in NAMES for raw in (None, "", "  ")],
        *[(n, raw, "wrong type") for n in NAMES for raw in (True, {"a": 1}, Hostile(), b"14")],
        ("location", [None, None], "missing"),
        ("cloud_cover", "x", "wrong type"),
        ("cloud_cover", "1_4", "wrong type"),
        pytest.param("cloud_cover", "9" * 5000, "wrong type", id="many digits"),
        ("cloud_cover", 1 + 2j, "wrong type"),
        ("cloud_cover", float("nan"), "not finite"),
        ("cloud_cover", "-inf", "not finite"),
        pytest.param("cloud_cover", 10**5000, "out of range", id="huge int"),
        ("cloud_cover", 100.001, "out of range"),
        ("cloud_cover", [1, 2], "wrong length"),
        ("gsd", 0, "out of range"),
        ("gsd", [0.5, -0.5], "out of range"),
        ("gsd", 10_001, "out of range"),
        ("gsd", [[0.5], [0.5]], "wrong type"),
        ("gsd", [True, 0.5], "wrong type"),
        ("pixel_size", [-4.6e-06, 4.6e-06], "out of range"),
        ("location", 5, "wrong length"),
        ("location", [1, 2, 3], "wrong length"),
        ("location", [181, 0], "out of range"),
        ("location", [0, -90.1], "out of range"),
        ("location", [0, math.nan], "not finite"),
        ("wavelengths", [0.661, 0.545, 0.477], "out of range"),
        pytest.param("wavelengths", [661] * 100_000, "wrong length", id="long"),
        ("off_nadir_angle", 91, "out of range"),
        ("sun_azimuth_angle", -1, "out of range"),
        ("sun_azimuth_angle", 360.1, "out of range"),
        ("timestamp", "yesterday", "wrong type"),
        ("timestamp", "2015-13-01T00:00:00Z", "wrong type"),
        ("timestamp", 1442849408, "wrong type"),
        ("timestamp", "1956-12-31T23:59:59Z", "out of range"),
        ("timestamp", "2101-01-01", "out of range"),
        ("timestamp", "0001-01-01T00:00:00+23:00", "out of range"),
        pytest.param("timestamp", "2" * 100_000, "wrong type", id="long time"),
        ("country_code", "ZZZ", "unknown category"),
        ("country_code", "Peru", "unknown category"),
        ("country_code", 604, "wrong type"),
        ("utm_zone", "61A", "unknown category"),
        ("utm_zone", "18I", "unknown category"),
        ("utm_zone", "0", "unknown category"),
        ("utm_zone", "1٨", "unknown category"),  # an Arabic digit
        ("scan_direction", "Sideways", "unknown category"),
        ("sensor_platform", "GEOEYE\x0001", "unknown category"),
        pytest.param("sensor_platform", "\ud800", "unknown category", id="surrogate"),
        ("sensor_platform", "W" * 65, "wrong length"),
    ],
)
def test_bad_values(name, raw, reason):
    assert parse_one(name, raw) == (None, reason)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=80)
    | st.sampled_from([10**400, "1e400", "NaN", "2015-09-21", "PER", "18M", "Forward"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
python_values = st.one_of(
    st.binary(max_size=8),
    st.datetimes(),
    st.dates(),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.just(decimal.Decimal("sNaN")),
    st.just(np.zeros((2, 2))),
    st.just(np.float32("nan")),
    st.just(np.datetime64("NaT", "s")),
    st.just({1, 2}),
    st.just(Hostile()),
)


@settings(max_examples=150, deadline=None)
@given(
    raw=st.dictionaries(st.sampled_from(NAMES), json_values | python_values),
    others=st.dictionaries(
        st.text(max_size=70).filter(lambda k: k not in NAMES) | st.integers(), json_values
    ),
)
def test_any_junk_is_read_or_counted(raw, others):
    problems = Problems()
    metadata = Metadata.parse({**raw, **others}, problems)
    for f in FIELDS:  # exactly one of: a value, a reason
        assert problems.count(f.name) == (f.name not in metadata.values)
        assert set(problems.to_json().get(f.name, {})) <= REASONS
    assert sum(n for _, reason, n in problems.rows() if reason == "unknown field") == len(others)
    for name, value in metadata.values.items():
        if isinstance(value, tuple):
            assert len(value) == field(name).size
            assert all(math.isfinite(v) for v in value)
    assert Metadata.parse(metadata.to_json()) == metadata


def test_what_is_absent_is_counted_by_its_own_reason():
    problems = Problems()
    assert Metadata.parse({"location": Absent("no file"), "gsd": 2.0}, problems).values == {
        "gsd": (2.0, 2.0)
    }
    assert problems.to_json()["location"] == {"no file": 1}


@pytest.mark.parametrize("raw", [None, [1, 2], "junk", 3])
def test_a_record_that_is_no_mapping_is_all_missing(raw):
    problems = Problems()
    assert Metadata.parse(raw, problems).values == {}
    assert problems.count("(record)", "wrong type") == 1
    assert problems.count("gsd", "missing") == 1


valid = st.fixed_dictionaries(
    {},
    optional={
        "gsd": st.tuples(*[st.floats(0.1, 100)] * 2),
        "multispectral_gsd": st.floats(0.1, 100),
        "pixel_size": st.tuples(*[st.floats(1e-7, 1e-3)] * 2),
        "timestamp": st.datetimes(datetime(1957, 1, 1), datetime(2100, 12, 31)),
        "location": st.tuples(st.floats(-180, 180), st.floats(-90, 90)),
        "utm_zone": st.from_regex(r"([1-9]|[1-5][0-9]|60)[C-HJ-NP-X]?", fullmatch=True),
        "country_code": st.sampled_from(["PER", "CHE", "XKX"]),
        "cloud_cover": st.floats(0, 100),
        "scan_direction": st.sampled_from(["Forward", "Reverse"]),
        "wavelengths": st.tuples(*[st.floats(300, 2500)] * 3),
        "target_azimuth_angle": st.floats(0, 360),
        "sun_azimuth_angle": st.floats(0, 360),
        "sun_elevation_angle": st.floats(-90, 90),
        "off_nadir_angle": st.floats(0, 90),
        "sensor_platform": st.from_regex(r"[ -~]{0,62}[!-~]", fullmatch=True),
    },
)


@settings(max_examples=100, deadline=None)
@given(valid)
def test_json_round_trip(raw):
    problems = Problems()
    metadata = Metadata.parse(raw, problems)
    assert set(metadata.values) == set(raw)  # valid values are read
    again = Metadata.from_json(json.loads(json.dumps(metadata.to_json(), allow_nan=False)))
    assert again == metadata == pickle.loads(pickle.dumps(metadata))
    assert list(metadata.to_json()) == [n for n in NAMES if n in raw]


def test_problems_merge_and_stay_bounded():
    one, two = Problems(), Problems()
    one.add("gsd", "missing")
    two.add("gsd", "missing", 2)
    two.add("gsd", "out of range")
    two.add("x" * 1000 + "\x1b[31m", "unknown field")
    two.add("\x1b[31m", "unknown field")
    one.merge(two)
    assert one.to_json()["gsd"] == {"missing": 3, "out of range": 1}
    assert one.rows()[0] == ("gsd", "missing", 3)
    assert all(len(name) <= 64 and name.isprintable() for name, _, _ in one.rows())
    assert Problems.from_json(json.loads(json.dumps(one.to_json()))) == one
    for i in range(100_000):
        one.add(f"key {i}", "unknown field")
    assert len(one.counts) < 400
    assert sum(n for _, reason, n in one.rows() if reason == "unknown field") == 100_002


# --- following a crop -----------------------------------------------------------------------------

side = st.integers(64, 2048)  # with the crops below no scale leaves its range


@settings(max_examples=100, deadline=None)
@given(valid, side)
def test_the_whole_image_at_its_size_changes_nothing(raw, n):
    metadata = Metadata.parse(raw)
    assert metadata.crop_resize((0, 0, n, n), (n, n), n) == metadata


fraction = st.floats(0.05, 1.0)


@settings(max_examples=150, deadline=None)
@given(
    raw=valid,
    size=st.tuples(side, side),
    first=st.tuples(*[fraction] * 4),
    second=st.tuples(*[fraction] * 4),
    outs=st.tuples(side, side),
)
@example(  # across the antimeridian
    raw={"location": (179.999, 10.0), "pixel_size": (1e-3, 1e-3)},
    size=(64, 64),
    first=(1.0, 0.5, 0.5, 0.5),
    second=(1.0, 0.1, 0.5, 0.5),
    outs=(64, 64),
)
def test_a_crop_of_a_crop_is_one_crop(raw, size, first, second, outs):
    def box(parts, width, height):
        x, y, w, h = parts
        w, h = w * width, h * height
        return x * (width - w), y * (height - h), w, h

    # by gsd alone the second step would start from the latitude of the first
    raw = {k: v for k, v in raw.items() if k != "location" or "pixel_size" in raw}
    if "gsd" not in raw:  # the mean of two factors alone does not compose, see crop_resize
        raw.pop("multispectral_gsd", None)
    metadata = Metadata.parse(raw)
    a = box(first, *size)
    b = box(second, outs[0], outs[0])
    twice = metadata.crop_resize(a, size, outs[0]).crop_resize(b, (outs[0], outs[0]), outs[1])
    fx, fy = a[2] / outs[0], a[3] / outs[0]
    both = (a[0] + b[0] * fx, a[1] + b[1] * fy, b[2] * fx, b[3] * fy)
    once = metadata.crop_resize(both, size, outs[1])
    assert set(once.values) == set(twice.values) == set(metadata.values)
    for name, value in once.values.items():
        if name == "location":
            # a step that ends beyond a pole stops there, and the next starts from the pole
            d_longitude = (value[0] - twice.values[name][0] + 180) % 360 - 180
            assert abs(d_longitude) < 1e-9
            if abs(metadata.values["location"][1]) < 84:
                assert twice.values[name][1] == pytest.approx(value[1], abs=1e-9)
        elif name in SCALES:
            assert twice.values[name] == pytest.approx(value, rel=1e-9)
        else:
            assert twice.values[name] == value


def test_scales_follow_the_resize():
    metadata = Metadata.parse({"gsd": 2.0, "multispectral_gsd": 8, "pixel_size": [2e-5, 1e-5]})
    values = metadata.crop_resize((10, 20, 600, 200), (1000, 500), 200).values
    assert values["gsd"] == (6.0, 2.0)
    assert values["multispectral_gsd"] == (16.0,)  # 8 x mean(3, 1)
    assert values["pixel_size"] == pytest.approx((6e-5, 1e-5))


def test_the_ratio_of_the_papers_example_holds():
    """multispectral_gsd / mean(gsd) = 4.001 in the paper's resized example: the sensor's ratio."""
    paper = Metadata.parse({"gsd": [11.4546, 9.1344], "multispectral_gsd": 41.1896})
    values = paper.crop_resize((0, 0, 100, 30), (224, 224), 224).values
    assert values["multispectral_gsd"][0] / np.mean(values["gsd"]) == pytest.approx(4.001, abs=1e-3)


def test_location_moves_with_pixel_size_else_gsd_else_not():
    box, size = (0, 0, 100, 100), (300, 500)  # the centre moves by (-100, -200) pixels
    at = {"location": (10.0, 60.0)}

    def moved(**scale):
        return Metadata.parse({**at, **scale}).crop_resize(box, size, 100).values["location"]

    assert moved() == (10.0, 60.0)
    assert moved(pixel_size=[2e-5, 1e-5]) == pytest.approx((9.998, 60.002))
    # 111,320 m are a degree of latitude, and at 60 degrees two of longitude
    assert moved(gsd=[111.32, 55.66]) == pytest.approx((10 - 0.2, 60 + 0.1))
    assert moved(gsd=5.0, pixel_size=[2e-5, 1e-5]) == pytest.approx((9.998, 60.002))


def test_location_wraps_at_the_antimeridian_and_stops_at_the_poles():
    size = (100, 100)
    right, up = (100, 0, 100, 100), (0, -100, 100, 100)

    def moved(location, box, **scale):
        metadata = Metadata.parse({"location": location, **scale})
        return metadata.crop_resize(box, size, 100).values["location"]

    assert moved((179.95, 0), right, pixel_size=1e-3) == pytest.approx((-179.95, 0))
    assert moved((-180, 0), (-100, 0, 100, 100), pixel_size=1e-3) == pytest.approx((179.9, 0))
    assert moved((5, 89.95), up, pixel_size=1e-3) == pytest.approx((5, 90))
    assert moved((5, -89.95), (0, 100, 100, 100), pixel_size=1e-3) == pytest.approx((5, -90))
    for latitude in (90, -90):
        longitude, _ = moved((5, latitude), right, gsd=10.0)
        assert -180 <= longitude < 180
        assert longitude == pytest.approx(5 + 1000 / (111_320 * 0.01))


@pytest.mark.parametrize(
    ("box", "size", "out"),
    [
        ((0, 0, 0, 10), (10, 10), 8),
        ((0, 0, 10, -1), (10, 10), 8),
        ((0, math.nan, 10, 10), (10, 10), 8),
        ((0, 0, math.inf, 10), (10, 10), 8),
        ((0, 0, 10, 10), (10, 0), 8),
        ((0, 0, 10, 10), (10, 10), 0),
    ],
)
def test_impossible_boxes_are_refused(box, size, out):
    with pytest.raises(ValueError, match="every side must be above zero"):
        Metadata({}).crop_resize(box, size, out)


def test_a_scale_that_leaves_its_range_is_counted():
    problems = Problems()
    metadata = Metadata.parse({"gsd": 9000.0, "cloud_cover": 3})
    assert metadata.crop_resize((0, 0, 64, 8), (64, 64), 8, problems).values == {
        "cloud_cover": (3.0,)
    }
    assert problems.to_json() == {"gsd": {"out of range": 1}}


# --- real records ---------------------------------------------------------------------------------


def from_vendor(record: dict) -> dict:
    """A record in fMoW's schema under our names; the reader of fMoW does this with more care."""
    raw = {
        "gsd": record.get("gsd"),
        "multispectral_gsd": record.get("multi_resolution_dbl"),
        "pixel_size": [record.get("mean_pixel_width"), record.get("mean_pixel_height")],
        "timestamp": record.get("timestamp"),
        "utm_zone": record.get("utm"),
        "country_code": record.get("country_code"),
        "cloud_cover": record.get("cloud_cover"),
        "scan_direction": record.get("scan_direction"),
        "wavelengths": record.get("approximate_wavelengths"),
        "target_azimuth_angle": record.get("target_azimuth_dbl"),
        "sun_azimuth_angle": record.get("sun_azimuth_dbl"),
        "sun_elevation_angle": record.get("sun_elevation_dbl"),
        "off_nadir_angle": record.get("off_nadir_angle_dbl"),
        "sensor_platform": record.get("sensor_platform_name"),
    }
    if "raw_location" in record:
        raw["location"] = centre(record["raw_location"])
    return raw


def centre(polygon: str) -> tuple[float, float]:
    points = [tuple(map(float, p.split())) for p in polygon[10:-2].split(",")]
    longitudes, latitudes = zip(*points, strict=True)
    return (min(longitudes) + max(longitudes)) / 2, (min(latitudes) + max(latitudes)) / 2


def test_a_real_fmow_record(real_data):
    record = json.loads((real_data / "fmow" / "fountain_514_1_rgb.json").read_text())
    problems = Problems()
    metadata = Metadata.parse(from_vendor(record), problems)
    assert problems.rows() == []
    assert metadata.to_json() == {
        "gsd": [0.468074887991] * 2,
        "multispectral_gsd": 1.87378120422,
        "pixel_size": [4.597314657113e-06, 4.595430769222e-06],
        "timestamp": "2012-04-02T10:32:22Z",
        "location": pytest.approx([8.5830818, 47.4490394778]),
        "utm_zone": "32T",
        "country_code": "CHE",
        "cloud_cover": 0.0,
        "scan_direction": "Reverse",
        "wavelengths": [661.0, 545.0, 477.0],
        "target_azimuth_angle": 31.2082061768,
        "sun_azimuth_angle": 159.207946777,
        "sun_elevation_angle": 46.1834640503,
        "off_nadir_angle": 21.8978748322,
        "sensor_platform": "GEOEYE01",
    }
    # the fountain: 72 x 60 pixels of 977 x 663, stored as a square of 224
    stored = metadata.crop_resize((466, 299, 72, 60), (977, 663), 224).values
    assert stored["gsd"] == pytest.approx((0.150452642568, 0.125377202140))
    assert stored["multispectral_gsd"] == pytest.approx((0.552096247672,))
    # where the vendor itself says the fountain is, within about a pixel
    longitude, latitude = centre(record["bounding_boxes"][0]["raw_location"])
    assert stored["location"][0] == pytest.approx(longitude, abs=1.5 * 4.6e-6)
    assert stored["location"][1] == pytest.approx(latitude, abs=1.5 * 4.6e-6)
    assert abs(stored["location"][0] - metadata.values["location"][0]) > 10 * 4.6e-6


def test_the_real_worldview_records(real_data):
    problems = Problems()
    files = sorted((real_data / "worldview").rglob("*_rgb.json"))
    records = [json.loads(f.read_text()) for f in files]
    parsed = [Metadata.parse(from_vendor(r), problems) for r in records]
    assert len(parsed) >= 20
    assert {reason for _, reason, _ in problems.rows()} == {"missing"}
    for name in ("cloud_cover", "scan_direction", "wavelengths"):
        assert problems.count(name, "missing") == len(files)
    without = sum("raw_location" not in r for r in records)
    assert problems.count("location") == without > 0
    for record, metadata in zip(records, parsed, strict=True):
        assert metadata.values["off_nadir_angle"] == (record["off_nadir_angle_dbl"],)
        assert metadata.values["timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ") == record["timestamp"]


def test_the_real_maxar_records(real_data):
    """Thousands of records of a table, where everything is text."""
    columns = {
        "gsd": "gsd",
        "timestamp": "datetime",
        "utm_zone": "utm_zone",
        "cloud_cover": "tile:clouds_percent",
        "off_nadir_angle": "view:off_nadir",
        "target_azimuth_angle": "view:azimuth",
        "sun_azimuth_angle": "view:sun_azimuth",
        "sun_elevation_angle": "view:sun_elevation",
        "sensor_platform": "platform",
    }
    problems, n = Problems(), 0
    with gzip.open(real_data / "maxar" / "maxar_open_data_tiles.csv.gz", "rt") as file:
        for n, row in enumerate(csv.DictReader(file), 1):
            if n % 8:
                continue
            metadata = Metadata.parse({k: row[c] for k, c in columns.items()}, problems)
            for name in columns:
                assert (name in metadata.values) == bool(row[columns[name]])
    assert n > 30_000
    assert {reason for _, reason, _ in problems.rows()} == {"missing"}
