"""Pixels of synthetic scenes follow the metadata; the class shows in the layout only."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.regions import sub_region
from satmip_jax.sources.synthetic import render as render_module
from satmip_jax.sources.synthetic.layouts import LAYOUTS, Layout, rectangle
from satmip_jax.sources.synthetic.render import ROOFS, SENSORS, Scene, climate, render
from satmip_jax.sources.synthetic.visits import PLATFORMS, draw
from satmip_jax.sources.synthetic.world import world

TOWER = 24.0, 30.0  # side and height, metres
PLAIN = Scene("storage_tank", place=(0, 1), visit=(0, 2), off_nadir=0.0, sun_elevation=40.0)


@pytest.fixture
def tower(monkeypatch):
    """Renders a scene of a single tower in the middle, and the same without the tower."""

    def pair(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        pictures = []
        for standing in (True, False):
            layout = Layout()
            if standing:
                layout.solid(rectangle(0, 0, TOWER[0], TOWER[0]), TOWER[1], "roof_white")
            monkeypatch.setattr(render_module, "layout_of", lambda *_, layout=layout: layout)
            pictures.append(render(scene).astype(float).mean(axis=-1))
        return pictures[0], pictures[1]

    return pair


def east_north(mask: np.ndarray, gsd: float) -> np.ndarray:
    """Positions of the pixels of a mask, metres east and north of the middle."""
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    return np.stack([columns - (width - 1) / 2, (height - 1) / 2 - rows], axis=1) * gsd


def towards(azimuth: float) -> np.ndarray:
    return np.array([np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))])


@pytest.mark.parametrize("azimuth", [20.0, 110.0, 200.0, 290.0])
@pytest.mark.parametrize("elevation", [30.0, 55.0])
def test_shadows_have_the_direction_and_length_of_the_sun(tower, azimuth, elevation):
    scene = replace(PLAIN, sun_azimuth=azimuth, sun_elevation=elevation, gsd=1.5, width=128)
    with_tower, without = tower(scene)
    shadow = east_north(without - with_tower > 20, scene.gsd)
    away = -towards(azimuth)
    center = shadow.mean(axis=0)
    assert np.dot(center, away) / np.linalg.norm(center) > np.cos(np.radians(6))
    side = TOWER[0] / 2 * np.abs(away).sum()  # half the tower's extent along the shadow
    expected = side + TOWER[1] / np.tan(np.radians(elevation))
    assert np.quantile(shadow @ away, 0.999) == pytest.approx(expected, abs=2 * scene.gsd)


@pytest.mark.parametrize("category", ["storage_tank", "multi-unit_residential", "stadium"])
def test_the_opposite_sun_casts_shadows_to_the_opposite_side(category):
    scene = replace(PLAIN, category=category, sun_azimuth=90.0, sun_elevation=35.0)
    high = render(replace(scene, sun_elevation=88.0)).astype(float).mean(axis=-1)
    dark = []
    for azimuth in (90.0, 270.0):
        image = render(replace(scene, sun_azimuth=azimuth)).astype(float).mean(axis=-1)
        dark.append(np.clip(high * image.mean() / high.mean() - image, 0, None))
    # the columns by which the shadows of the eastern sun must move to lie on the western sun's
    shifts = np.arange(-40, 41)
    scores = [np.sum(np.roll(dark[0], shift, axis=1) * dark[1]) for shift in shifts]
    assert shifts[np.argmax(scores)] >= 3


@pytest.mark.parametrize("azimuth", [0.0, 75.0, 160.0, 280.0])
def test_towers_lean_away_from_the_satellite(tower, azimuth):
    scene = replace(PLAIN, sun_elevation=80.0, gsd=1.5, width=128, height=128, sensor="GEOEYE01")
    roofs = []
    for off_nadir in (0.0, 30.0):
        # with the sun behind the tower, the wall in sight is dark and the roof stands out
        view = replace(scene, off_nadir=off_nadir, target_azimuth=azimuth, sun_azimuth=azimuth)
        with_tower, without = tower(view)
        gain = with_tower - without
        roofs.append(east_north(gain > 0.7 * gain.max(), scene.gsd).mean(axis=0))
    expected = towards(azimuth) * TOWER[1] * np.tan(np.radians(30))
    np.testing.assert_allclose(roofs[1] - roofs[0], expected, atol=2.5)


def test_halving_the_gsd_doubles_the_size_of_objects(tower):
    scene = replace(PLAIN, sun_elevation=85.0)
    area = {}
    for gsd in (1.0, 2.0):
        with_tower, without = tower(replace(scene, gsd=gsd))
        area[gsd] = np.sum(with_tower - without > 15)
    assert np.sqrt(area[1.0] / area[2.0]) == pytest.approx(2.0, rel=0.06)
    assert np.sqrt(area[1.0]) == pytest.approx(TOWER[0], rel=0.08)


def test_the_same_ground_at_another_gsd():
    scene = replace(PLAIN, category="airport", sensor="WORLDVIEW03_VNIR")
    fine = render(replace(scene, gsd=1.0, width=192, height=192)).astype(float)
    coarse = render(replace(scene, gsd=2.0)).astype(float)
    shrunk = fine.reshape(96, 2, 96, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(shrunk.ravel(), coarse.ravel())[0, 1] > 0.95


def test_clouds_cover_their_share_and_brighten():
    scene = replace(PLAIN, category="lake_or_pond", sun_elevation=60.0)
    clear = render(scene).astype(float).mean(axis=-1)
    means = [clear.mean()]
    for cover in (10, 30, 60):
        for visit in (1, 2, 3):
            cloudy = render(replace(scene, cloud_cover=cover, visit=(visit,))).astype(float)
            share = np.mean(cloudy.mean(axis=-1) > clear + 60) * 100
            assert share == pytest.approx(cover, abs=6)
        means.append(cloudy.mean())
    assert means == sorted(means)


def test_seasons():
    scene = replace(PLAIN, category="wind_farm", latitude=50.0, aridity=0.1)

    def greenness(**change):
        image = render(replace(scene, **change)).astype(float)
        return (image[..., 1] - (image[..., 0] + image[..., 2]) / 2).mean()

    summer, winter = greenness(day=200), greenness(day=15)
    assert summer > winter + 10
    assert greenness(latitude=-50.0, day=15) == pytest.approx(summer, abs=4)  # southern hemisphere
    assert greenness(day=200, aridity=1.0) < summer - 10
    assert render(replace(scene, latitude=62.0, day=20)).mean() > render(scene).mean() + 40  # snow
    assert climate(62, 20, 0.1)[1] > 0.9
    assert climate(0, 20, 0.1)[1] < 0.01


def test_sensors_have_their_own_colours():
    ratios = {}
    for sensor in SENSORS:
        red, _, blue = render(replace(PLAIN, sensor=sensor)).astype(float).mean(axis=(0, 1))
        ratios[sensor] = blue / red
    assert set(SENSORS) == set(PLATFORMS)
    assert ratios["QUICKBIRD02"] > ratios["WORLDVIEW02"] + 0.05 > ratios["GEOEYE01"] + 0.1


def test_roofs_have_the_colour_of_their_part_of_the_world(monkeypatch):
    layout = Layout()
    layout.solid(rectangle(0, 0, 60, 60), 5, "roof_grey")
    monkeypatch.setattr(render_module, "layout_of", lambda *_: layout)

    def red_minus_blue(region: str) -> float:
        scene = replace(PLAIN, region=region, sun_elevation=85.0, sensor="WORLDVIEW02")
        middle = render(scene)[40:56, 40:56].astype(float).mean(axis=(0, 1))
        return float(middle[0] - middle[2])

    grey = red_minus_blue("Central Asia")
    assert red_minus_blue("Southern Europe") > grey + 15
    assert red_minus_blue("Eastern Asia") < grey - 15
    elsewhere = {sub_region(code) for code in world().country} - set(ROOFS)
    assert elsewhere == {"Melanesia", "Micronesia", "Polynesia"}  # of all colours


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        Scene,
        category=st.sampled_from(sorted(LAYOUTS)),
        place=st.tuples(st.integers(0, 2**63)),
        visit=st.tuples(st.integers(0, 2**63)),
        width=st.integers(16, 64),
        height=st.integers(16, 64),
        gsd=st.floats(0.3, 10),
        latitude=st.floats(-90, 90),
        day=st.floats(1, 366),
        aridity=st.floats(0, 1),
        sun_azimuth=st.floats(0, 360),
        sun_elevation=st.floats(-5, 90),
        off_nadir=st.floats(0, 60),
        target_azimuth=st.floats(0, 360),
        cloud_cover=st.floats(0, 100),
        sensor=st.sampled_from(sorted(SENSORS)),
    )
)
def test_any_scene_renders(scene):
    image = render(scene)
    assert image.dtype == np.uint8
    assert image.shape == (scene.height, scene.width, 3)


@pytest.mark.slow
def test_of_one_climate_classes_show_in_the_layout_and_not_in_the_colours():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def pictures(split: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        scenes = [draw(0, split, index, 0, 64)[0] for index in range(n)]
        equal = {"latitude": 45.0, "day": 180.0, "aridity": 0.2, "region": "", "gsd": 3.2}
        squares = [render(replace(s, width=64, height=64, cloud_cover=0, **equal)) for s in scenes]
        return np.array(squares, np.float64), np.array([s.category for s in scenes])

    def colours(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x.mean(axis=(1, 2)), x.std(axis=(1, 2))], axis=1)

    rng = np.random.default_rng(0)
    train, test = pictures("train", 450), pictures("val", 200)
    grey = train[0].mean(axis=-1)
    size = 7
    filters = np.stack(
        [
            grey[i, r : r + size, c : c + size].ravel()
            for i, r, c in zip(*(rng.integers(0, n, 150) for n in (450, 57, 57)), strict=True)
        ]
    )
    filters -= filters.mean(axis=1, keepdims=True)
    filters /= np.linalg.norm(filters, axis=1, keepdims=True) + 1

    def shapes(x: np.ndarray) -> np.ndarray:
        """Responses to patches of grey images, blind to colour, brightness and contrast."""
        out = []
        for image in x.mean(axis=-1):
            patches = np.lib.stride_tricks.sliding_window_view(image, (size, size))[::3, ::3]
            patches = patches.reshape(-1, size * size)
            patches = patches - patches.mean(axis=1, keepdims=True)
            patches /= np.linalg.norm(patches, axis=1, keepdims=True) + 20
            out.append(np.maximum(patches @ filters.T - 0.2, 0).mean(axis=0))
        return np.array(out)

    def score(features) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=2000))
        return model.fit(features(train[0]), train[1]).score(features(test[0]), test[1])

    by_colour, by_shape = score(colours), score(shapes)
    assert by_colour < 0.45
    assert by_shape > by_colour + 0.1
