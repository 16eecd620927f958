"""What a calibration keeps of the training, and that its scores are of images it was not fitted on.

The toy model's features are points on the sphere, so every probability has a closed form.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

from satmip_jax.evaluation.features import Features
from satmip_jax.evaluation.spatial_blocks import cells, folds
from satmip_jax.geography.grid import Grid, great_circle, unit
from satmip_jax.geography.land import countries, rasterize
from satmip_jax.geolocation import calibrate as module
from satmip_jax.geolocation.calibration import BIN, Choice, bin_centres, bin_places
from satmip_jax.geolocation.candidates import choice_vectors, place_vectors
from satmip_jax.geolocation.locate import Locator
from tests.geolocation.test_locate import OSLO, ROME, calibration
from tests.geolocation.toy import ToyModel, vectors

RNG = np.random.default_rng(4)


def test_each_place_is_counted_in_the_bin_around_it():
    places = RNG.uniform((-180, -90), (180, 90), (500, 2)).round(1)
    places[:3] = (180, 0), (-180, 90), (0, -90)
    centres, counts = bin_centres(bin_places(places))
    east = (places[:, None, 0] - centres[:, 0] + BIN / 2 + 180) % 360 - 180
    north = places[:, None, 1] - centres[:, 1] + BIN / 2
    inside = (east >= 0) & (east < BIN) & (north >= 0) & (north < BIN)
    inside |= (east >= 0) & (east < BIN) & (places[:, None, 1] == 90) & (north == BIN)
    assert (inside.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(inside.sum(axis=0), counts)


def test_each_prior_has_its_own_scale():
    known = calibration([ROME, OSLO], train_scale=700.0, train_weight=0.5, uniform_scale=90.0)
    locator = Locator(ToyModel(), known)
    image = vectors([(ROME, 7, "A")])
    for prior, scale, weight in (("uniform", 90.0, 0.0), ("train", 700.0, 0.5)):
        search = locator.search(prior=prior, cell=2.0)
        cosines = image @ vectors([(place, None, None) for place in search.grid.places]).T
        odds = scale * cosines[0] + weight * search.candidates.density + np.log(search.grid.areas)
        found = search.posterior(image)[0]
        np.testing.assert_allclose(found, softmax(odds), rtol=1e-2, atol=1e-9)


def test_months_have_the_weight_of_their_prior():
    january, july = ("2015-01-15",), ("2015-07-15",)
    month = Choice(0.0, 2.0, ("Jan", "Jul"), (3, 1), (january, july))
    (found,) = Locator(ToyModel(), calibration([ROME], month=month)).locate([(ROME, 7, "A")])
    assert found.months == pytest.approx({"Jan": 0.8, "Jul": 0.2})  # (3 + 1)^2 : (1 + 1)^2


def test_the_examples_of_a_choice_stand_for_it_by_their_mean_direction():
    examples = [("2015-01-15", "2016-04-15"), ("2015-12-15",), ("2015-06-15", "2015-06-15")]
    found = choice_vectors(ToyModel(), "timestamp", examples)
    angle = np.radians([75, 360, 180])  # a month is 30 degrees
    np.testing.assert_allclose(found[:, 3], np.cos(angle), atol=1e-6)
    np.testing.assert_allclose(found[:, 4], np.sin(angle), atol=1e-6)


def test_cells_are_described_by_their_own_place_and_country():
    described = []

    class Recorder(ToyModel):
        def embed_metadata(self, records, *, progress=True):
            described.extend(records)
            return super().embed_metadata(records)

    grid = Grid.of_land((0, 42, 24, 54), 3.0)
    place_vectors(Recorder(), grid, "location+country_code", progress=False)
    assert [record["location"] for record in described] == grid.places.tolist()
    for record in described:
        x, y = record["location"]
        (country,) = rasterize(x - 1.5, y + 1.5, 3.0, 1, 1)[0]
        assert record["country_code"] == countries()[country].code


class Located(module._Examples):
    """Examples whose image features are those of the toy model."""

    @classmethod
    def at(cls, places, shown):
        image = vectors([(place, None, None) for place in shown])
        n = len(places)
        labels = np.zeros(n, np.int32)
        features = Features({"image": image}, labels, np.float32(places), np.arange(n))
        return cls(SimpleNamespace(schema=SimpleNamespace(name="toys")), features, image)

    def colour(self):
        return self.features.by_kind["image"]

    def values(self, name):
        assert name == "gsd"
        return [None, (9.0, 16.0), *[(10.0, 10.0)] * (len(self.places) - 2)]


def test_scores_are_of_the_half_that_was_not_fitted(monkeypatch):
    """The images of one half show where they are, and those of the other half a wrong place."""
    places = RNG.uniform((8.5, 48.5), (12.5, 51.5), (80, 2))  # Germany
    block = cells(np.float32(places), module.BLOCK)
    _, (_, scored) = folds(block, block, 2)
    shown, wrong = places.copy(), (10.25, 53.25)  # on land, with land around it
    shown[scored] = wrong
    examples = {"val": Located.at(places, shown)}
    train = np.concatenate([places + 0.5, [[10.0, 48.0], [9.0, 56.0]]])
    examples["train"] = Located.at(train, train)
    monkeypatch.setattr(module._Examples, "read", lambda _, data, split, limit: examples[split])
    monkeypatch.setattr(module, "BANDWIDTHS", (100.0,))
    model = ToyModel(("location",))
    model.model.config = SimpleNamespace(data=SimpleNamespace(train_split="train"))
    known, _ = module.calibrate(model, "toys", progress=False)
    assert (known.images, known.gsd) == (len(places), (10.0, 10.0))
    assert known.uniform_scale > 500  # of images that show their place: the fitted half
    rows = {row["method"]: row for row in known.scores}
    row = rows["this model, prior: uniform"]
    assert row["images"] == len(scored)
    errors = great_circle(np.array(wrong), places[scored])
    assert row["median km"] == pytest.approx(np.median(errors), rel=0.15)
    assert row["within 200 km"] == pytest.approx(np.mean(errors <= 200), abs=0.15)

    search = Locator(model, known).search(prior="uniform")
    chord = np.linalg.norm(unit(places[scored])[:, None] - search.grid.points[None], axis=2)
    true = chord.argmin(axis=1)
    p = search.posterior(examples["val"].vectors[scored])[np.arange(len(scored)), true]
    density = np.log(p / search.grid.areas[true])  # per km2
    assert row["log-likelihood"] == pytest.approx(density.mean(), abs=1e-3)
