"""What stands where in the synthetic world, and what Bayes' rule makes of it."""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import norm

from satmip_jax.metadata.solar import solar_position
from satmip_jax.sources.fmow import CLASSES as FMOW_CLASSES
from satmip_jax.sources.synthetic import bayes
from satmip_jax.sources.synthetic.layouts import LAYOUTS
from satmip_jax.sources.synthetic.visits import draw, place, plan
from satmip_jax.sources.synthetic.world import CLASSES, HABITATS, aridity, summer, world


def test_classes_are_those_of_fmow_and_have_layouts():
    assert set(CLASSES) == set(LAYOUTS) <= set(FMOW_CLASSES)


def test_climate():
    dry = aridity(np.array([[10.0, 23.0], [48.0, 25.0], [-62.0, -5.0], [20.0, 0.0], [5.0, 50.0]]))
    assert np.all(dry[:2] > 0.9)
    assert np.all(dry[2:4] < 0.1)
    assert 0.05 < dry[4] < 0.3
    assert summer(np.array(50.0), np.array(200)) > 0.8 > -0.8 > summer(np.array(50.0), np.array(17))
    assert summer(np.array(-50.0), np.array(17)) > 0.8
    assert summer(np.array(0.0), np.array(17)) == 0


def test_places_are_drawn_as_the_world_says():
    spots = [place(1, "train", index) for index in range(4000)]
    frequency = Counter(spot.category for spot in spots)
    assert all(abs(frequency[name] - 400) < 5 * 400**0.5 for name in CLASSES)
    earth = world()
    expected = earth.classes[[spot.cell for spot in spots]].sum(axis=0)
    chosen = np.array([frequency[name] for name in CLASSES])
    assert np.all(np.abs(chosen - expected) < 5 * np.sqrt(expected))
    for spot in spots:
        west, south = earth.corners[spot.cell]
        assert west <= spot.longitude <= west + 1
        assert south <= spot.latitude <= south + 1


def test_seasons_and_ground_widths_follow_the_class():
    days: dict[str, list[float]] = {name: [] for name in CLASSES}
    widths: dict[str, list[float]] = {name: [] for name in CLASSES}
    for index in range(1500):
        spot = place(2, "train", index)
        scene, _ = draw(2, "train", index, 0, 64)
        widths[spot.category].append(scene.gsd * 64)
        if abs(spot.latitude) > 35:
            days[spot.category].append(float(summer(np.array(spot.latitude), np.array(scene.day))))
    for name, habitat in HABITATS.items():
        ratio = np.median(widths[name]) / habitat.ground
        assert ratio == pytest.approx(1, rel=0.15), name
    assert np.mean(days["crop_field"]) > np.mean(days["airport"]) + 0.1
    assert np.mean(days["airport"]) > np.mean(days["wind_farm"]) + 0.1


@pytest.mark.parametrize(("country", "latitude"), [("FIN", 62), ("IND", 21), ("AUS", -33)])
def test_bayes_rule_is_prior_times_season_times_ground_width(country, latitude):
    """In plain Python, with the calendar that visits are drawn by."""
    earth = world()
    cell = next(
        i
        for i, (_, south) in enumerate(earth.corners)
        if earth.country[i] == country and round(south) == latitude
    )
    noon = [datetime(2015, 1, 1, 10, 30, tzinfo=UTC) + timedelta(days=i) for i in range(365)]
    sunny = [solar_position(0.0, float(latitude), when)[1] >= 18 for when in noon]
    for day, ground in ((196, 120.0), (196, 260.0), (75, 150.0), (75, None)):
        weights = []
        for name, prior in zip(CLASSES, earth.classes[cell].tolist(), strict=True):
            habitat = HABITATS[name]
            chances = [
                math.exp(habitat.summer * float(summer(np.array(latitude), np.array(d)))) * there
                for d, there in enumerate(sunny, start=1)
            ]
            weight = prior * chances[day - 1] / sum(chances)
            if ground is not None:
                weight *= norm.pdf(math.log(ground), math.log(habitat.ground), 0.25)
            weights.append(weight)
        found = bayes.class_probabilities(cell, latitude=float(latitude), day=day, ground=ground)
        assert found.tolist() == pytest.approx([w / sum(weights) for w in weights], rel=1e-3)
    assert (sum(sunny) < 365) == (country == "FIN")


@pytest.mark.slow
def test_bayes_rule_is_calibrated():
    """Of records with probability p for the best class, a share p has it: the formula is right."""
    expected, right = [], []
    for index, visit in plan(7, "train", 3000):
        spot = place(7, "train", index)
        scene, _ = draw(7, "train", index, visit, 96)
        for ground in (scene.gsd * 96, None):
            p = bayes.class_probabilities(
                spot.cell, latitude=spot.latitude, day=int(scene.day), ground=ground
            )
            expected.append(p.max())
            right.append(CLASSES[int(p.argmax())] == spot.category)
    table = np.array([expected, right]).T.reshape(-1, 2, 2)  # (record, ground or not, p | right)
    for column, stated in enumerate((0.72, 0.63)):  # as the data set's description says
        p, hit = table[:, column].T
        assert hit.mean() == pytest.approx(p.mean(), abs=0.03)  # visits of a place are alike
        assert hit.mean() == pytest.approx(stated, abs=0.03)
        sure = p > np.quantile(p, 0.7)
        assert hit[sure].mean() == pytest.approx(p[sure].mean(), abs=0.04)
        assert hit[sure].mean() > hit[~sure].mean() + 0.15
