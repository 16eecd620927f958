"""Values of other conventions: converted and counted, or named."""

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.countries import OTHER_COUNTRY_CODES, country_code
from satmip_jax.metadata.fields import FIELDS, field
from satmip_jax.metadata.kinds import BadValueError
from satmip_jax.metadata.record import Metadata, Problems, describe

WRAPPED = "in -180..180: wrapped to 0..360"
LONGITUDE = "longitude in 180..360: wrapped to -180..180"


def read(name, raw):
    """(value as JSON or None, notes, reasons) of one field."""
    problems = Problems()
    metadata = Metadata.parse({name: raw}, problems)
    notes = [note for f, note, _ in problems.note_rows() if f == name]
    reasons = list(problems.to_json().get(name, {}))
    return metadata.to_json().get(name), notes, reasons


@pytest.mark.parametrize(
    ("name", "raw", "value", "note"),
    [
        ("target_azimuth_angle", -90, 270.0, WRAPPED),
        ("sun_azimuth_angle", "-180", 180.0, WRAPPED),
        ("sun_azimuth_angle", -1e-20, 0.0, WRAPPED),
        ("sun_azimuth_angle", 360.0001, pytest.approx(0.0001), "slightly above 360: wrapped"),
        ("off_nadir_angle", -21.5, 21.5, "negative: only the size was kept"),
        ("location", [254.5, 20], [-105.5, 20.0], LONGITUDE),
        ("location", ["360", "-20"], [0.0, -20.0], LONGITUDE),
        (
            "location",
            [-180.001, 5],
            [pytest.approx(179.999), 5.0],
            "longitude slightly beyond -180 or 360: wrapped",
        ),
        ("utm_zone", 18, "18", ""),
        ("utm_zone", 18.0, "18", ""),
        ("utm_zone", np.int64(7), "7", ""),
        ("utm_zone", "18.0", "18", ""),
        ("utm_zone", "UTM zone 18 t", "18T", ""),
        ("utm_zone", "18N", "18N", ""),  # the band, as in fMoW
        ("utm_zone", "18 South", "18", "North or South: the hemisphere was left out"),
        ("utm_zone", "EPSG:32718", "18", "EPSG code: read as its zone"),
        ("utm_zone", 32618, "18", "EPSG code: read as its zone"),
        ("country_code", "UK", "GBR", "UK: read as GBR"),
        ("country_code", " el ", "GRC", "EL: read as GRC"),
        ("country_code", "ROM", "ROU", "ROM: read as ROU"),
        ("country_code", "ZAR", "COD", "ZAR: read as COD"),
        ("country_code", "TMP", "TLS", "TMP: read as TLS"),
        ("country_code", "BUR", "MMR", "BUR: read as MMR"),
    ],
)
def test_converted_values(name, raw, value, note):
    assert read(name, raw) == (value, [note] if note else [], [])


SECONDS = "2017-06-13T10:10:31Z"


@pytest.mark.parametrize(
    ("raw", "value", "note"),
    [
        ("2017:06:13 10:10:31", SECONDS, ""),  # EXIF
        ("2017:06:13 10:10:31.25", "2017-06-13T10:10:31.250000Z", ""),
        ("2017:06:13 12:10:31+02:00", SECONDS, ""),
        ("2017-06-13 10:10:31 UTC", SECONDS, ""),
        ("2017-06-13 10:10:31 Z", SECONDS, ""),
        ("2017-06-13T10:10:31.5 utc", "2017-06-13T10:10:31.500000Z", ""),
        ("2017-06-13 12:10:31 +0200", SECONDS, ""),
        ("20170613T101031 GMT", SECONDS, ""),
        ("2017/06/13", "2017-06-13T00:00:00Z", ""),
        ("2017/6/13 10:10:31", SECONDS, ""),
        ("2017/06/13 10:10:31 PM", "2017-06-13T22:10:31Z", ""),
        ("2017.06.13 12:10 am", "2017-06-13T00:10:00Z", ""),
        (1497348631, SECONDS, "epoch seconds"),
        ("1497348631", SECONDS, "epoch seconds"),
        ("1497348631.0", SECONDS, "epoch seconds"),
        (1497348631.5, "2017-06-13T10:10:31.500000Z", "epoch seconds"),
        (np.int64(1497348631250), "2017-06-13T10:10:31.250000Z", "epoch milliseconds"),
        ("1512010112345", "2017-11-30T02:48:32.345000Z", "epoch milliseconds"),  # no year 1512
        (1497348631250000, "2017-06-13T10:10:31.250000Z", "epoch microseconds"),
        (1497348631250000000, "2017-06-13T10:10:31.250000Z", "epoch nanoseconds"),
        (20170613, "2017-06-13T00:00:00Z", "number read as year, month, day"),
        ("20170613101031", SECONDS, ""),
        (
            "2017-12-31T24:00:00Z",
            "2018-01-01T00:00:00Z",
            "24:00:00: read as 00:00:00 of the next day",
        ),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z", "leap second: read as the next second"),
        (
            "2017-01-01 08:59:60.5+09:00",
            "2017-01-01T00:00:00.500000Z",
            "leap second: read as the next second",
        ),
    ],
)
def test_converted_times(raw, value, note):
    assert read("timestamp", raw) == (value, [note] if note else [], [])


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("timestamp", "06/07/2017", "ambiguous date"),
        ("timestamp", "13/06/2017 10:10:31", "ambiguous date"),  # never decided by one row
        ("timestamp", "06/13/2017", "ambiguous date"),
        ("timestamp", "13.06.2017", "ambiguous date"),
        ("timestamp", 201706131010, "ambiguous date"),  # or milliseconds of 1976
        ("timestamp", "2017061310", "ambiguous date"),  # or seconds of 2033
        ("timestamp", "2017-06-13 10:10:31 CET", "wrong type"),
        ("timestamp", "2017:02:30 10:10:31", "wrong type"),
        ("timestamp", "2017-06-13 24:00:01", "wrong type"),
        ("timestamp", "13-Jun-2017", "wrong type"),
        ("timestamp", "13/06/17", "wrong type"),
        ("timestamp", 2017, "wrong type"),
        ("timestamp", 42899.5, "wrong type"),  # days of a spreadsheet
        ("timestamp", -1497348631, "wrong type"),
        ("timestamp", 10**400, "wrong type"),
        ("country_code", "YUG", "unknown category"),
        ("country_code", "SCG", "unknown category"),
        ("country_code", "ANT", "unknown category"),
        ("utm_zone", 0, "wrong type"),
        ("utm_zone", 18.5, "wrong type"),
        ("utm_zone", 32661, "unknown category"),
        ("utm_zone", 10**400, "wrong type"),
        ("sun_azimuth_angle", 360.02, "out of range"),
        ("sensor_platform", 8, "wrong type"),
    ],
)
def test_refused_values(name, raw, reason):
    assert read(name, raw) == (None, [], [reason])


def test_other_country_codes_are_free_and_lead_to_current_ones():
    for other, code in OTHER_COUNTRY_CODES.items():
        assert country_code(other) is None
        assert country_code(code) == code


def test_conversions_and_bad_values_are_counted_with_examples():
    problems, other = Problems(), Problems()
    for raw in ("-10", -10, 400, 500, 500, 600, 700, "\x1b[2J" + "x" * 50, None):
        Metadata.parse({"sun_azimuth_angle": raw}, problems)
    Metadata.parse({"sun_azimuth_angle": -20, "gsd": "half a metre"}, other)
    problems.merge(other)
    assert problems.note_rows() == [("sun_azimuth_angle", WRAPPED, 3)]
    assert problems.examples["sun_azimuth_angle", "out of range"] == ["400", "500", "600"]
    (shown,) = problems.examples["sun_azimuth_angle", "wrong type"]
    assert shown.isprintable()
    assert len(shown) <= 64
    assert problems.examples["gsd", "wrong type"] == ["'half a metre'"]
    assert not any(reason == "missing" for _, reason in problems.examples)
    details = json.loads(json.dumps(problems.details_to_json()))
    again = Problems.from_json(json.loads(json.dumps(problems.to_json())), details)
    assert again == problems
    assert again.examples == problems.examples


def test_examples_are_short_and_safe():
    class Hostile:
        def __repr__(self):
            raise RuntimeError("no")

    assert describe(Hostile()) == "(Hostile)"
    assert describe([1.5, None, "a"]) == "[1.5, None, 'a']"
    assert describe(np.float32(0.5)) == "0.5"
    assert describe(datetime(2017, 6, 13)) == "2017-06-13T00:00:00"
    assert describe([[1]] * 3) == "(list)"
    assert describe(10**5000) == "(int)"
    assert describe(math.nan) == "nan"
    assert describe("x" * 10_000) == f"'{'x' * 40}...'"
    assert describe(None) == describe(" ") == ""


numbers = st.floats(-400, 400) | st.integers(-400, 400)
clock = st.datetimes(datetime(1958, 1, 1), datetime(2100, 12, 30))
formats = st.sampled_from(
    ["%Y:%m:%d %H:%M:%S", "%Y/%m/%d", "%Y-%m-%d %H:%M:%S UTC", "%d/%m/%Y", "%Y%m%d%H%M%S", "%s0"]
)
likely = {
    "location": st.tuples(numbers, numbers),
    "utm_zone": st.integers(0, 62) | st.floats(0, 62) | st.from_regex(r"[0-6][0-9] ?[A-Z]?"),
    "country_code": st.text("ABELKORUZ", min_size=2, max_size=3),
    "timestamp": st.builds(datetime.strftime, clock, formats)
    | st.integers(0, 10**19)
    | st.from_regex(r"20[0-9]{2}[-:/][01][0-9][-:/][0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]"),
    **dict.fromkeys([f.name for f in FIELDS if f.group == "Angles"], numbers | numbers.map(str)),
}


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional=likely))
def test_converted_records_are_read_or_counted_once_and_then_stay(raw):
    problems, again = Problems(), Problems()
    metadata = Metadata.parse(raw, problems)
    for name in raw:
        assert (name in metadata.values) == (problems.count(name) == 0)
        assert (name, "ambiguous date") not in problems.counts or name == "timestamp"
    assert Metadata.from_json(json.loads(json.dumps(metadata.to_json())), again) == metadata
    assert not again.notes  # what was converted is in the convention of the field


@settings(max_examples=200, deadline=None)
@given(clock)
@example(datetime(2033, 9, 11, 0, 9))  # its milliseconds look like a date and a clock
def test_a_time_is_the_same_in_every_format(when):
    when = when.replace(microsecond=0, tzinfo=UTC)
    seconds = int(when.timestamp())
    for raw in (
        f"{when:%Y:%m:%d %H:%M:%S}",
        f"{when:%Y/%m/%d %H:%M:%S} UTC",
        *((seconds, seconds * 1000, str(seconds * 1000)) if seconds > 10**8 else ()),
    ):
        problems = Problems()
        value = Metadata.parse({"timestamp": raw}, problems).values.get("timestamp")
        ambiguous = problems.count("timestamp", "ambiguous date")
        assert value == when or (ambiguous and str(raw).isdigit())


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FIELDS), st.text(max_size=70) | numbers | st.integers() | st.floats())
def test_values_that_are_read_as_they_are_are_never_converted(f, raw):
    try:
        value = f.kind.parse(raw)
    except BadValueError:
        return
    problems = Problems()
    assert Metadata.parse({f.name: raw}, problems).values[f.name] == value
    assert not problems.notes


def test_shards_are_read_without_conversions():
    """A damaged shard may hold any number; only tables and records are converted."""
    with pytest.raises(BadValueError):
        field("sun_azimuth_angle").kind.parse((-10.0,))
