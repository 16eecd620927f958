"""Places found by a model that knows them, with and without a calibration."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from satmip_jax.geography.grid import Grid, great_circle
from satmip_jax.geolocation.calibration import Calibration, CalibrationError, Choice, bin_places
from satmip_jax.geolocation.candidates import GeolocationError, land_grid, train_density
from satmip_jax.geolocation.estimate import DISC, distances, likeliest_places
from satmip_jax.geolocation.locate import Locator, read_calibration
from satmip_jax.geolocation.output import print_locations, to_geojson, to_json
from satmip_jax.geolocation.pictures import draw_maps, draw_reliability
from tests.geolocation.toy import ToyModel

ROME, FIJI, OSLO = (12.25, 41.75), (178.25, -17.75), (10.75, 60.25)


def calibration(places, **changes):
    known = Calibration(
        model="toy",
        step=7,
        data="toys",
        split="val",
        fields="location",
        train_scale=3000.0,
        train_weight=1.0,
        bandwidth=100.0,
        uniform_scale=3000.0,
        region=(-12.0, 34.0, 32.0, 66.0),
        bins=bin_places(np.array(places)),
        month=Choice(20.0, 0.0, ("Jan", "Jul"), (3, 1), (("2015-01-15",), ("2015-07-15",))),
    )
    return dataclasses.replace(known, **changes)


def test_the_planted_places_months_and_sensors_are_found():
    model = ToyModel()
    locator = Locator(model, None)
    images = [(ROME, 3, "A"), None, (FIJI, 9, "B")]
    found = locator.locate(images, cell=1.0)
    assert found[1] is None
    for location, (place, month, sensor) in zip(found[::2], images[::2], strict=True):
        assert not location.search.calibrated
        assert (
            great_circle(np.array(location.place), np.array(place)) < 800
        )  # scale 14: a wide peak
        assert (
            list(location.months).index(max(location.months, key=location.months.get)) == month - 1
        )
        assert max(location.sensors, key=location.sensors.get) == sensor
        for p in (
            location.probabilities,
            [*location.months.values()],
            [*location.sensors.values()],
        ):
            assert np.sum(p, dtype=np.float64) == pytest.approx(1, abs=1e-5)
    encoded = model.encoded
    locator.locate(images, cell=1.0)
    assert model.encoded == encoded  # candidates are encoded once


def test_a_calibrated_search_lies_where_the_training_was():
    locator = Locator(ToyModel(), calibration([ROME, OSLO]))
    found, second = locator.locate([(ROME, 7, "A"), (OSLO, 1, "A")])
    assert found.search.grid.region == (-12.0, 34.0, 32.0, 66.0)
    assert great_circle(np.array(found.place), np.array(ROME)) < 80
    assert found.places[0].country == "Italy"
    assert found.within[200] > 0.9
    assert found.within[200] == pytest.approx(found.places[0].probability, abs=1e-6)
    assert found.radius[0.5] <= found.radius[0.9] < 500
    assert found.months["Jul"] > 0.99
    assert second.places[0].code == "NOR"
    assert "prior: density" in str(found.search)
    flat = locator.search(prior="uniform")
    assert flat.weight == 0
    far = locator.locate([(FIJI, 1, "A")], region=(170.0, -25.0, 190.0, -10.0))[0]
    assert great_circle(np.array(far.place), np.array(FIJI)) < 60


def test_a_region_without_training_is_not_calibrated(caplog):
    locator = Locator(ToyModel(), calibration([ROME, OSLO]))
    for region in ((170.0, -25.0, 190.0, -10.0), (20.0, 40.0, 30.0, 50.0)):
        caplog.clear()
        search = locator.search(region=region)
        assert (search.prior, search.calibrated) == ("uniform", False)
        assert "not calibrated" in str(search)
        assert "no place of the training lies there" in caplog.text
    caplog.clear()
    around_rome = locator.search(region=(10.0 + 360, 40.0, 15.0 + 360, 45.0))
    assert (around_rome.prior, around_rome.calibrated) == ("train", True)
    assert not locator.search(region=(170.0, -25.0, 190.0, -10.0), prior="train").calibrated
    assert locator.search().calibrated


def test_the_prior_decides_where_the_image_says_nothing():
    munich, minsk = (11.75, 48.25), (27.75, 53.75)  # far from the sea
    known = calibration([munich] * 9 + [minsk], train_scale=0.0)
    search = Locator(ToyModel(), known).search()
    p = search.posterior(np.zeros((1, 7), np.float32))[0]
    near = [p[distances(search.grid, *place) < 300].sum() for place in (munich, minsk)]
    assert near[0] == pytest.approx(0.98 * 0.9 * 0.989, abs=0.01)  # 3 deviations; 2 % is uniform
    assert near[1] == pytest.approx(0.98 * 0.1 * 0.989, abs=0.01)
    flat = dataclasses.replace(search, weight=0.0)
    areas = search.grid.areas
    np.testing.assert_allclose(flat.posterior(np.zeros((1, 7)))[0], areas / areas.sum(), rtol=1e-9)


def test_the_density_is_the_sum_of_gaussians():
    grid = Grid.of_land((5, 40, 15, 50), 1.0)
    places, counts = np.array([ROME, (9.0, 45.0)]), np.array([3.0, 1.0])
    found = np.exp(train_density(grid, places, counts, 150.0))
    away = great_circle(grid.places[:, None], places[None])
    naive = (counts * np.exp(-0.5 * (away / 150.0) ** 2)).sum(axis=1)
    uniform = 1 / grid.areas.sum()
    naive = 0.98 * naive / (naive * grid.areas).sum() + 0.02 * uniform
    np.testing.assert_allclose(found, naive, rtol=0.02)


def test_the_likeliest_places_do_not_overlap():
    grid = Grid.of_land((-10, 36, 30, 60), 1.0)
    p = np.random.default_rng(0).dirichlet(np.full(len(grid), 0.02))
    places = likeliest_places(grid, p, 6)
    assert [place.probability for place in places[:1]] == [
        pytest.approx(p[distances(grid, places[0].longitude, places[0].latitude) <= DISC].sum())
    ]
    centres = np.array([(place.longitude, place.latitude) for place in places])
    apart = great_circle(centres[:, None], centres[None]) + 1e9 * np.eye(len(places))
    assert apart.min() > DISC
    assert sum(place.probability for place in places) <= 1 + 1e-6


def test_images_unlike_the_calibration_are_not_called_calibrated(tmp_path, caplog):
    """Of 1024 px; of 0.5 m; of Guatemala; of three scenes like those of the training."""
    model = ToyModel()
    locator = Locator(model, calibration([ROME, OSLO], images=4050, gsd=(10.0, 10.0)))
    scope = locator.search().scope
    line = "calibrated on 4,050 images of toys, 64 x 64 px of 10 m, 12 W to 32 E, 34 N to 66 N"
    assert str(scope) == f"{line}: it holds for images like these"
    for alike in ((64, 64), (128, 32)):
        assert scope.differences(alike, 10.0, ROME) == {}
    assert len(scope.differences((64, 64), 4.9, (-90.5, 14.6))) == 2
    assert len(scope.differences((64, 64), 10.0, (372.0, 41.0))) == 0  # 12 E
    assert not dataclasses.replace(scope, cut=True).differences((1024, 1024))

    images = [(ROME, 3, "A"), None, (OSLO, 9, "B")]
    assert all(one.calibrated for one in locator.locate(images) if one)
    assert not caplog.text
    model.size = 1024, 1024
    found = locator.locate(images)[0]
    assert found.search.calibrated
    assert not found.calibrated
    assert (
        "2 of 2 images differ from 64 x 64 px by more than a factor of 2, and their "
        "probabilities are not calibrated; the first: image 0, 1024 x 1024 px" in caplog.text
    )
    stated = to_json(found)
    assert (stated["calibrated"], stated["calibrated_for"]) == (False, str(scope))
    assert stated["unlike_calibration"][0].endswith("factor of 2: 1024 x 1024 px")
    console = Console(file=io.StringIO(), width=200)
    print_locations([found], console)
    assert "not calibrated for this image: 1024 x 1024 px" in console.file.getvalue()
    assert line in console.file.getvalue()


def test_requests_that_cannot_be_answered():
    with pytest.raises(GeolocationError, match="takes in no locations"):
        Locator(ToyModel(("timestamp",)), None)
    locator = Locator(ToyModel(), None)
    with pytest.raises(GeolocationError, match="no prior 'x'"):
        locator.search(prior="x")
    with pytest.raises(GeolocationError, match="run `satmip calibrate`"):
        locator.search(prior="train")
    with pytest.raises(GeolocationError, match=r"cells of 0\.7 degrees do not divide"):
        locator.search(cell=0.7)
    with pytest.raises(GeolocationError, match="too many"):
        locator.search(cell=0.01)
    with pytest.raises(GeolocationError, match="has 0 cells of land"):
        land_grid((-40, 20, -30, 30), 1.0)


def test_a_calibration_survives_its_file_and_bad_files_are_named(tmp_path):
    path = tmp_path / "locate.json"
    known = calibration([ROME, OSLO], images=7, gsd=(0.3, 0.5))
    known.save(path)
    assert Calibration.load(path) == known
    good = json.loads(path.read_text())
    for key, value in {
        "format": 2,
        "step": "x",
        "bins": [[0, 0]],
        "region": [0, 0, 0, 0],
        "train_scale": -1,
        "fields": "gsd",
        "scores": {},
        "month": {"labels": []},
        "bandwidth": None,
        "gsd": [10, 5],
    }.items():
        path.write_text(json.dumps({**good, key: value}))
        with pytest.raises(CalibrationError, match=r"locate\.json is no calibration"):
            Calibration.load(path)
    path.write_text(json.dumps({key: value for key, value in good.items() if key != "bins"}))
    with pytest.raises(CalibrationError, match="'bins' is missing"):
        Calibration.load(path)
    old = {key: value for key, value in good.items() if key not in ("images", "gsd")}
    path.write_text(json.dumps(old))
    assert Calibration.load(path) == dataclasses.replace(known, images=0, gsd=None)


def test_the_calibration_of_another_checkpoint_is_not_used(tmp_path, caplog):
    model = ToyModel().model
    model.folder = tmp_path
    assert read_calibration(model) is None
    calibration([ROME]).save(tmp_path / "locate.json")
    assert read_calibration(model) == calibration([ROME])
    model.step = 8
    assert read_calibration(model) is None
    assert "step 7, and the model is toy of step 8: it is not used" in caplog.text


def test_geojson_and_json_of_a_location():
    import rasterio.features

    region = (170.0, -25.0, 190.0, -10.0)  # across the antimeridian
    locator = Locator(ToyModel(), calibration([FIJI], region=region))
    found = locator.locate([(FIJI, 1, "A")])
    data = json.loads(json.dumps(to_geojson(found), allow_nan=False))
    point, *cells = data["features"]
    assert point["geometry"]["type"] == "Point"
    assert point["properties"]["calibrated"] is True
    assert sum(cell["properties"]["probability"] for cell in cells) >= 0.9
    for cell in cells:
        assert rasterio.features.is_valid_geom(cell["geometry"])
        ring = np.array(cell["geometry"]["coordinates"][0])
        assert (np.abs(ring[:, 0]) <= 180).all()
        turn = np.diff(ring, axis=0)  # counterclockwise, as RFC 7946 demands
        assert (turn[:-1, 0] * turn[1:, 1] - turn[:-1, 1] * turn[1:, 0] > 0).all()
    assert rasterio.features.bounds(data)[1] > -25.1
    flat = to_json(found[0])
    assert flat["places"][0]["country_code"] == "FJI"
    json.dumps(flat, allow_nan=False)


@pytest.mark.slow
def test_pictures_are_drawn_for_any_number_of_images():
    locator = Locator(ToyModel(), calibration([ROME]))
    images = [(ROME, 1, "A"), (OSLO, 7, "B")]
    found = locator.locate(images)
    true = [dataclasses.replace(found[0], true_place=OSLO), found[1]]
    pixels = np.zeros((8, 8, 3), np.uint8)
    for locations in (true[:1], true * 7):
        data = draw_maps(locations, [pixels] * len(locations))
        assert data.startswith(b"\x89PNG")
    data = draw_reliability([("within 200 km", [(0.1, 0.2, 5), (0.9, 0.8, 10)])])
    assert data.startswith(b"\x89PNG")
