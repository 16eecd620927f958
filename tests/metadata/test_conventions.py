"""Conventions that only a whole table tells."""

import pytest

from satmip_jax.metadata.conventions import FRACTION, HEMISPHERE, Conventions, TableScan
from satmip_jax.metadata.record import Metadata, Problems


def read(rows, **options):
    """Values of the fields as JSON, and the problems, of rows read by the table's conventions."""
    scan, problems = TableScan(), Problems()
    for row in rows:
        scan.add(row)
    conventions = scan.decide(**options)
    values = [Metadata.parse(conventions.apply(row, problems), problems).to_json() for row in rows]
    return values, problems, conventions


def times(texts, **options):
    values, problems, _ = read([{"timestamp": text} for text in texts], **options)
    return [value.get("timestamp", "")[:10] for value in values], problems


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["06/07/2017", "23/07/2017"], ["2017-07-06", "2017-07-23"]),
        (["06/07/2017 10:10:31 AM", "07/23/2017"], ["2017-06-07", "2017-07-23"]),
        (["6.7.2017 10:10", "31.12.2017"], ["2017-07-06", "2017-12-31"]),
        (["06/07/2017", "08/09/2017"], ["", ""]),  # both are possible
        (["06/07/2017", "23/07/2017", "07/23/2017"], ["", "", ""]),  # neither is
        (["06/07/2017", "23/07/2017", "soon"], ["2017-07-06", "2017-07-23", ""]),
    ],
)
def test_the_column_decides_the_order_of_dates(texts, expected):
    found, problems = times(texts)
    assert found == expected
    refused = sum(not day for day in expected) - ("soon" in texts)
    assert problems.count("timestamp", "ambiguous date") == refused
    read_so = sum(n for field, _, n in problems.note_rows() if field == "timestamp")
    assert read_so == (0 if refused else 2)


def test_the_order_of_dates_can_be_given():
    assert times(["06/07/2017"], dates="day-first")[0] == ["2017-07-06"]
    assert times(["06/07/2017"], dates="month-first")[0] == ["2017-06-07"]
    found, problems = times(["23/07/2017"], dates="month-first")
    assert found == [""]
    assert problems.examples["timestamp", "wrong type"] == ["'2017-23-07'"]


def covers(raws, **options):
    values, problems, conventions = read([{"cloud_cover": raw} for raw in raws], **options)
    return [value.get("cloud_cover") for value in values], problems, conventions


def test_the_range_of_the_column_decides_the_unit_of_cloud_cover():
    found, problems, conventions = covers(["0", "0.25", None, 1, "x"])
    assert found == [0.0, 25.0, None, 100.0, None]
    assert problems.note_rows() == [("cloud_cover", FRACTION, 3)]
    assert conventions.to_json() == {"cloud_cover": "fraction"}
    for percent in (["0", "0.25", 1.5], [0, 1, 1, 0], [12, 0.5]):
        found, problems, conventions = covers(percent)
        assert found == [float(x) for x in percent]
        assert problems.note_rows() == []
        assert conventions.to_json() == {}


def test_the_unit_of_cloud_cover_can_be_given():
    assert covers([0.25, 0.5], cloud_cover="percent")[0] == [0.25, 0.5]
    found, problems, _ = covers([1, 0, 30], cloud_cover="fraction")
    assert found == [100.0, 0.0, None]
    assert problems.count("cloud_cover", "out of range") == 1


def zones(*rows):
    raws = [{"utm_zone": zone, "location": [9, latitude]} for zone, latitude in rows]
    values, problems, _ = read(raws)
    return [value["utm_zone"] for value in values], problems


def test_latitudes_decide_whether_letters_are_hemispheres():
    found, problems = zones(("32N", 48), ("32 s", -20), ("32N", 3))
    assert found == ["32", "32", "32"]
    assert problems.note_rows() == [("utm_zone", HEMISPHERE, 3)]
    for bands in (
        [("32N", 3), ("32S", 35)],
        [("32N", 48), ("32T", 44)],  # another band: so N is one, if a wrong one
        [("32S", 35), ("32N", 48)],  # neither fits all
        [("32N", None)],
        [("32N", 3), ("32N", 5), ("32N", 48)],  # a single wrong latitude
    ):
        found, problems = zones(*bands)
        assert found == [zone for zone, _ in bands]
        assert problems.note_rows() == []


def test_usual_rows_are_not_touched():
    row = {"timestamp": "2017-06-13", "cloud_cover": 14, "utm_zone": "32T", "gsd": "0.5"}
    scan = TableScan()
    scan.add(row)
    scan.add({})
    assert scan.decide() == Conventions()
    assert scan.decide().apply(row, Problems()) is row
