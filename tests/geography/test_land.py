"""Land, countries and lines from the shipped file, against places that are known."""

import numpy as np
import pytest

from satmip_jax.geography.land import countries, lines, rasterize

PLACES = {  # longitude, latitude -> country; "" for water
    (12.5, 41.9): "ITA",
    (2.35, 48.85): "FRA",
    (-0.1, 51.5): "GBR",
    (-74.0, -12.0): "PER",
    (139.7, 35.7): "JPN",
    (178.0, -17.8): "FJI",  # beside the antimeridian
    (179.5, 68.5): "RUS",
    (-179.5, 68.5): "RUS",  # across it
    (77.0, -80.0): "ATA",
    (0.0, -89.9): "ATA",  # the pole
    (21.0, 42.6): "XKX",
    (-157.9, 21.45): "USA",
    (-30.0, 30.0): "",
    (-10.0, 0.0): "",
    (170.0, 0.0): "",
    (0.0, 89.9): "",
    (5.0, 42.0): "",  # the Mediterranean
}


@pytest.mark.parametrize(("place", "code"), PLACES.items())
def test_the_country_of_a_known_place(place, code):
    cell = 0.1
    found = rasterize(place[0] - cell / 2, place[1] + cell / 2, cell, 1, 1)[0, 0]
    assert (countries()[found].code if found >= 0 else "") == code


def test_a_grid_beyond_the_antimeridian_is_that_of_both_sides():
    across = rasterize(170, -10, 1, 10, 20)
    sides = rasterize(170, -10, 1, 10, 10), rasterize(-180, -10, 1, 10, 10)
    np.testing.assert_array_equal(across, np.hstack(sides))
    assert (across >= 0).any()


def test_rows_go_south_and_columns_east():
    found = rasterize(-10, 70, 10, 4, 5)
    cells = [
        [rasterize(-10 + 10 * x, 70 - 10 * y, 10, 1, 1)[0, 0] for x in range(5)] for y in range(4)
    ]
    np.testing.assert_array_equal(found, cells)
    assert len(np.unique(found)) > 8


def test_a_small_island_is_land_though_no_centre_of_a_cell_is():
    cell = rasterize(-6.0, 0.0, 6.0, 3, 1)  # Saint Helena and Ascension, of 400 km2 and less
    names = {countries()[i].name for i in cell.ravel() if i >= 0}
    assert names == {"Saint Helena"} or "St. Helena" in " ".join(names)


def test_lines_are_split_at_the_antimeridian():
    for kind in ("coasts", "borders"):
        assert all(np.abs(np.diff(line[:, 0])).max() < 180 for line in lines(kind))
    border = np.concatenate(lines("borders"))
    coast = np.concatenate(lines("coasts"))

    def nearest(line, place):
        return np.abs(line - np.array(place)).sum(axis=1).min()

    assert nearest(border, (7.6, 47.6)) < 0.3  # Basel
    assert nearest(coast, (7.6, 47.6)) > 2
    assert nearest(coast, (-9.2, 38.7)) < 0.5  # Lisbon
