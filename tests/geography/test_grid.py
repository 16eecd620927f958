"""Distances, grids and regions, at the antimeridian and the poles as well."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from satmip_jax.geography.grid import RADIUS, Grid, great_circle, parse_region, region_of

LONGITUDE, LATITUDE = st.floats(-180, 180), st.floats(-90, 90)


@given(LONGITUDE, LATITUDE, LONGITUDE, LATITUDE)
def test_distances_are_those_of_vincentys_formula(a, b, c, d):
    x, y, dl = math.radians(b), math.radians(d), math.radians(c - a)
    up = math.hypot(
        math.cos(y) * math.sin(dl),
        math.cos(x) * math.sin(y) - math.sin(x) * math.cos(y) * math.cos(dl),
    )
    down = math.sin(x) * math.sin(y) + math.cos(x) * math.cos(y) * math.cos(dl)
    expected = RADIUS * math.atan2(up, down)
    found = float(great_circle(np.array([a, b]), np.array([c, d])))
    assert found == pytest.approx(expected, abs=1e-3, rel=1e-6)


def test_the_areas_of_a_world_add_up():
    fine = Grid.of_land((-180, -90, 180, 90), 0.1)
    assert 147e6 < fine.areas.sum() < 152e6  # km2: 149 million, and cells that coasts cross
    grid = Grid.of_land((-180, -90, 180, 90), 0.5)
    assert grid.shape == (360, 720)
    assert len(np.unique(grid.places, axis=0)) == len(grid)
    polar = grid.areas[grid.places[:, 1] == -89.75]
    assert polar.sum() == pytest.approx(2 * math.pi * RADIUS**2 * (1 - math.cos(math.radians(0.5))))


def test_a_grid_across_the_antimeridian():
    grid = Grid.of_land(parse_region("176,-20,-178,-15"), 0.5)
    assert grid.region == (176, -20, 182, -15)
    assert grid.places[:, 0].min() < -179
    assert grid.places[:, 0].max() > 177
    assert {grid.country_of(i)[1] for i in range(len(grid))} >= {"FJI"}
    image = grid.image(np.arange(len(grid), dtype=float))
    assert np.isfinite(image).sum() == len(grid)
    assert np.nanmax(image) == len(grid) - 1


def test_corners_surround_the_centre():
    grid = Grid.of_land((0, 40, 10, 50), 2.5)
    west, south, east, north = grid.corners(0)
    assert (west + east) / 2 == grid.places[0, 0]
    assert (south + north) / 2 == grid.places[0, 1]
    assert east - west == north - south == 2.5


@given(st.lists(st.tuples(LONGITUDE, st.floats(-80, 80)), min_size=1, max_size=20))
def test_a_region_holds_its_places(places):
    places = np.array(places)
    west, south, east, north = region_of(places, 1.0)
    inside = (places[:, 0] - west) % 360 <= east - west + 1e-6
    assert (inside | np.isclose((places[:, 0] - west) % 360, 360)).all()
    assert (places[:, 1] >= south).all()
    assert (places[:, 1] <= north).all()
    assert east - west <= 360 + 1e-9
    around = np.sort(places[:, 0] % 360)  # it leaves out the widest gap between longitudes
    gap = np.diff([*around, around[0] + 360]).max()
    assert east - west == pytest.approx(360 if gap <= 2 else 362 - gap)


@pytest.mark.parametrize(
    "text", ["1,2,3", "a,b,c,d", "0,50,10,40", "0,-100,10,0", "-200,0,0,10", "0,0,nan,10"]
)
def test_regions_that_are_none(text):
    with pytest.raises(ValueError, match=r"."):
        parse_region(text)
