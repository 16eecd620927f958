"""Reading metadata: good and bad values, junk, JSON, and the counts of problems."""

import decimal
import json
import math
import pickle
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.fields import FIELDS, field
from satmip_jax.metadata.record import Absent, Metadata, Problems
from tests.metadata.records import NAMES, valid

REASONS = {
    "missing",
    "wrong type",
    "not finite",
    "out of range",
    "unknown category",
    "wrong length",
    "ambiguous date",
}


def parse_one(name: str, raw: object):
    """(value or None, reason or None) of one field."""
    problems = Problems()
    metadata = Metadata.parse({name: raw}, problems)
    reasons = problems.to_json().get(name, {})
    assert sum(reasons.values()) == (name not in metadata.values)
    return metadata.values.get(name), next(iter(reasons), None)


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
        ("location", [-181, 0], "out of range"),
        ("location", [360.1, 0], "out of range"),
        ("location", [200, 91], "out of range"),
        ("location", [0, -90.1], "out of range"),
        ("location", [0, math.nan], "not finite"),
        ("wavelengths", [0.661, 0.545, 0.477], "out of range"),
        pytest.param("wavelengths", [661] * 100_000, "wrong length", id="long"),
        ("off_nadir_angle", 91, "out of range"),
        ("sun_azimuth_angle", -180.1, "out of range"),
        ("sun_elevation_angle", -90.1, "out of range"),
        ("off_nadir_angle", -91, "out of range"),
        ("sun_azimuth_angle", 360.1, "out of range"),
        ("timestamp", "yesterday", "wrong type"),
        ("timestamp", "2015-13-01T00:00:00Z", "wrong type"),
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
def test_arbitrary_input_is_read_or_counted(raw, others):
    problems = Problems()
    metadata = Metadata.parse({**raw, **others}, problems)
    for f in FIELDS:  # exactly one of: a value, a reason
        assert problems.count(f.name) == (f.name not in metadata.values)
        assert set(problems.to_json().get(f.name, {})) <= REASONS
    assert sum(n for _, reason, n in problems.rows() if reason == "unknown field") == len(others)
    for name, value in metadata.values.items():
        if isinstance(value, tuple):
            assert len(value) == field(name).kind.size
            assert all(math.isfinite(v) for v in value)
    assert Metadata.parse(metadata.to_json()) == metadata


def test_an_absent_value_is_counted_by_its_own_reason():
    problems = Problems()
    assert Metadata.parse({"location": Absent("no file"), "gsd": 2.0}, problems).values == {
        "gsd": (2.0, 2.0)
    }
    assert problems.to_json()["location"] == {"no file": 1}


@pytest.mark.parametrize("raw", [None, [1, 2], "junk", 3])
def test_a_record_that_is_not_a_mapping_is_all_missing(raw):
    problems = Problems()
    assert Metadata.parse(raw, problems).values == {}
    assert problems.count("(record)", "wrong type") == 1
    assert problems.count("gsd", "missing") == 1


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
