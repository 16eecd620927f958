"""Plausibility of records against themselves."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from satmip_jax.metadata.countries import country_cells, country_lines, in_cells
from satmip_jax.metadata.plausibility import PlausibilityCheck
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.solar import solar_position
from satmip_jax.sources.synthetic.visits import utm_zone

# Boxes of land inside one country: west, east, south, north.
BOXES = {
    "USA": (-100, -96, 37.5, 39.5),
    "CAN": (-108, -103, 50, 53),
    "MEX": (-103, -100.5, 20.5, 23),
    "BRA": (-54, -49, -16, -11),
    "PER": (-76.2, -75, -8.5, -6),
    "ARG": (-63, -60, -36, -33),
    "FRA": (0.5, 4, 45.5, 48.5),
    "ESP": (-5, -2, 38.5, 41.5),
    "DEU": (9, 11.5, 49.5, 52.5),
    "POL": (18, 21, 51, 53),
    "UKR": (31, 34, 48.5, 50.5),
    "FIN": (24, 27, 61.5, 64.5),
    "RUS": (45, 50, 54, 57),
}


def records(n=60, seed=0):
    """Consistent records of the same hour of the day, in countries west of 90 degrees east."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        country, (west, east, south, north) = list(BOXES.items())[i % 13]
        longitude, latitude = rng.uniform(west, east), rng.uniform(south, north)
        longitude = max(longitude, -89.0)  # exchanged, it must still be a latitude
        when = datetime(2015, 1, 1, tzinfo=UTC) + timedelta(days=int(rng.integers(365)))
        when += timedelta(hours=10.5 - longitude / 15)
        azimuth, elevation = solar_position(longitude, latitude, when)
        out.append(
            {
                "location": [longitude, latitude],
                "timestamp": when.isoformat(),
                "sun_azimuth_angle": azimuth,
                "sun_elevation_angle": elevation,
                "utm_zone": utm_zone(longitude, latitude),
                "country_code": country if country not in OUTSIDE else None,
            }
        )
    return out


OUTSIDE = ("USA", "CAN", "MEX")  # moved to 89 degrees west


def check(raws):
    plausible = PlausibilityCheck()
    for i, raw in enumerate(raws):
        plausible.add(f"{i}.png", Metadata.parse(raw))
    return plausible


def sentences(raws):
    return [str(finding) for finding in check(raws).findings()]


def test_consistent_records_agree():
    counts = check(records()).to_json()
    assert {name: list(entry) for name, entry in counts.items()} == {
        name: ["checked"] for name in ("sun", "utm_zone", "country_code")
    }
    assert counts["sun"]["checked"] == counts["utm_zone"]["checked"] == 60
    assert sentences(records()) == []


def test_exchanged_coordinates_are_named():
    raws = [{**raw, "location": raw["location"][::-1]} for raw in records()]
    for text in sentences(raws):
        assert "records disagree: latitude and longitude look exchanged (for " in text
    assert len(sentences(raws)) == 3
    sun = check(raws).findings()[0]
    assert sun.checked == 60
    assert sun.disagree > 50
    assert sun.explained == sun.disagree
    assert "computed" in sun.example


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (2, "the times look 2 h ahead of UTC: a wrong time zone"),
        (-5, "the times look 5 h behind UTC: a wrong time zone"),
        (5.5, "the times look 5.5 h ahead of UTC: a wrong time zone"),
    ],
)
def test_wrong_time_zones_are_named(hours, words):
    def late(raw):
        when = datetime.fromisoformat(raw["timestamp"]) + timedelta(hours=hours)
        return {**raw, "timestamp": when.isoformat()}

    (text,) = sentences(map(late, records()))
    assert f"60 of 60 records disagree: {words} (for 60 of them)" in text


def test_other_errors_of_a_whole_table_are_named():
    def changed(**change):
        return sentences({**raw, **{k: f(raw) for k, f in change.items()}} for raw in records())

    local = changed(
        timestamp=lambda raw: (
            datetime.fromisoformat(raw["timestamp"])
            + timedelta(hours=round(raw["location"][0] / 15))
        ).isoformat()
    )
    assert "local times instead of UTC" in local[0]
    days = changed(timestamp=lambda raw: raw["timestamp"][:10])
    assert "the times look like dates without the time of day" in days[0]
    zenith = changed(sun_elevation_angle=lambda raw: 90 - raw["sun_elevation_angle"])
    assert "looks like the zenith angle" in zenith[0]
    south = changed(sun_azimuth_angle=lambda raw: raw["sun_azimuth_angle"] - 180)
    assert "counted from the south" in south[0]
    west = changed(location=lambda raw: [-raw["location"][0], raw["location"][1]])
    assert all("positive towards the west" in text for text in west)
    letters = changed(
        utm_zone=lambda raw: raw["utm_zone"][:-1] + ("N" if raw["location"][1] > 0 else "S")
    )
    assert "look like hemispheres" in letters[0]


def test_single_wrong_values_have_no_explanation():
    raws = records()
    raws[7]["sun_azimuth_angle"] = (raws[7]["sun_azimuth_angle"] + 90) % 360
    raws[8]["country_code"] = "NZL"
    plausible = check(raws).findings()
    assert [(f.check, f.disagree, f.explanation) for f in plausible] == [
        ("sun", 1, ""),
        ("country_code", 1, ""),
    ]
    assert plausible[0].example.startswith("7.png: sun azimuth ")
    assert plausible[1].example.startswith("8.png: country NZL at longitude ")


def test_partial_records_are_checked_by_what_they_have():
    raws = records(3)
    del raws[0]["sun_azimuth_angle"], raws[1]["sun_elevation_angle"], raws[2]["location"]
    counts = check(raws).to_json()
    assert counts["sun"] == {"checked": 2}
    raws[0]["sun_elevation_angle"] -= 20
    raws[1]["sun_azimuth_angle"] = (raws[1]["sun_azimuth_angle"] + 20) % 360
    assert check(raws).to_json()["sun"]["disagree"] == 2
    assert check([{}, {"location": [0, 0]}]).to_json() == {}


def test_counts_merge_and_survive_json():
    raws = records(40) + [{**raw, "location": raw["location"][::-1]} for raw in records(30)]
    parts = PlausibilityCheck()
    for start in range(0, 70, 9):
        part = check(raws[start : start + 9])
        parts.merge(PlausibilityCheck.from_json(json.loads(json.dumps(part.to_json()))))
    whole = check(raws)
    merged, counts = parts.to_json(), whole.to_json()
    for check_of in (*merged.values(), *counts.values()):
        check_of.pop("example")  # the names of the records differ
    assert merged == counts
    assert counts["sun"]["disagree"] == 30


def test_records_at_the_poles_and_the_date_line():
    """Nothing fails or warns at the edges of the arrays."""
    raws = [
        {
            "location": [longitude, latitude],
            "timestamp": "2020-06-21T12:00:00Z",
            "sun_azimuth_angle": 0,
            "sun_elevation_angle": elevation,
            "utm_zone": zone,
            "country_code": "RUS",
        }
        for longitude in (-180, 0, 179.99)
        for latitude in (-90, 0, 90)
        for elevation in (-90, 90)
        for zone in ("1X", "60C", "32")
    ]
    assert len(sentences(raws)) == 3


def test_cells_of_countries():
    assert len(country_lines()) > 230
    for country, (west, east, south, north) in BOXES.items():
        x, y = np.array([west, east]), np.array([south, north])
        assert in_cells(country_cells(country), x, y).all()
    assert not in_cells(country_cells("DEU"), np.array([-100.0]), np.array([50.0])).any()
    fiji = country_cells("FJI")  # on both sides of the date line
    assert in_cells(fiji, np.array([-179.9, 179.9]), np.array([-17.0, -17.0])).all()
