"""Metadata that follow a crop and resize."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from satmip_jax.metadata.record import Metadata, Problems
from tests.metadata.records import SCALES, valid

side = st.integers(64, 2048)  # with the crops below no scale leaves its range


@settings(max_examples=100, deadline=None)
@given(valid, side)
def test_cropping_to_the_full_image_changes_nothing(raw, n):
    metadata = Metadata.parse(raw)
    assert metadata.crop_resize((0, 0, n, n), (n, n), n) == metadata


fraction = st.floats(0.05, 1.0)


@settings(max_examples=150, deadline=None)
@given(
    raw=valid,
    size=st.tuples(side, side),
    first=st.tuples(*[fraction] * 4),
    second=st.tuples(*[fraction] * 4),
    outs=st.tuples(side, side),
)
@example(  # across the antimeridian
    raw={"location": (179.999, 10.0), "pixel_size": (1e-3, 1e-3)},
    size=(64, 64),
    first=(1.0, 0.5, 0.5, 0.5),
    second=(1.0, 0.1, 0.5, 0.5),
    outs=(64, 64),
)
def test_two_crops_equal_their_composition(raw, size, first, second, outs):
    def box(parts, width, height):
        x, y, w, h = parts
        w, h = w * width, h * height
        return x * (width - w), y * (height - h), w, h

    # by gsd alone the second step would start from the latitude of the first
    raw = {k: v for k, v in raw.items() if k != "location" or "pixel_size" in raw}
    if "gsd" not in raw:  # the mean of two factors alone does not compose, see crop_resize
        raw.pop("multispectral_gsd", None)
    metadata = Metadata.parse(raw)
    a = box(first, *size)
    b = box(second, outs[0], outs[0])
    twice = metadata.crop_resize(a, size, outs[0]).crop_resize(b, (outs[0], outs[0]), outs[1])
    fx, fy = a[2] / outs[0], a[3] / outs[0]
    both = (a[0] + b[0] * fx, a[1] + b[1] * fy, b[2] * fx, b[3] * fy)
    once = metadata.crop_resize(both, size, outs[1])
    assert set(once.values) == set(twice.values) == set(metadata.values)
    for name, value in once.values.items():
        if name == "location":
            # a step that ends beyond a pole stops there, and the next starts from the pole
            d_longitude = (value[0] - twice.values[name][0] + 180) % 360 - 180
            assert abs(d_longitude) < 1e-9
            if abs(metadata.values["location"][1]) < 84:
                assert twice.values[name][1] == pytest.approx(value[1], abs=1e-9)
        elif name in SCALES:
            assert twice.values[name] == pytest.approx(value, rel=1e-9)
        else:
            assert twice.values[name] == value


def test_scales_follow_the_resize():
    metadata = Metadata.parse({"gsd": 2.0, "multispectral_gsd": 8, "pixel_size": [2e-5, 1e-5]})
    values = metadata.crop_resize((10, 20, 600, 200), (1000, 500), 200).values
    assert values["gsd"] == (6.0, 2.0)
    assert values["multispectral_gsd"] == (16.0,)  # 8 x mean(3, 1)
    assert values["pixel_size"] == pytest.approx((6e-5, 1e-5))


def test_the_ratio_of_the_papers_example_holds():
    """multispectral_gsd / mean(gsd) = 4.001 in the paper's resized example: the sensor's ratio."""
    paper = Metadata.parse({"gsd": [11.4546, 9.1344], "multispectral_gsd": 41.1896})
    values = paper.crop_resize((0, 0, 100, 30), (224, 224), 224).values
    assert values["multispectral_gsd"][0] / np.mean(values["gsd"]) == pytest.approx(4.001, abs=1e-3)


def test_location_moves_with_pixel_size_else_gsd_else_not():
    box, size = (0, 0, 100, 100), (300, 500)  # the centre moves by (-100, -200) pixels
    at = {"location": (10.0, 60.0)}

    def moved(**scale):
        return Metadata.parse({**at, **scale}).crop_resize(box, size, 100).values["location"]

    assert moved() == (10.0, 60.0)
    assert moved(pixel_size=[2e-5, 1e-5]) == pytest.approx((9.998, 60.002))
    # 111,320 m are a degree of latitude, and at 60 degrees two of longitude
    assert moved(gsd=[111.32, 55.66]) == pytest.approx((10 - 0.2, 60 + 0.1))
    assert moved(gsd=5.0, pixel_size=[2e-5, 1e-5]) == pytest.approx((9.998, 60.002))


def test_location_wraps_at_the_antimeridian_and_stops_at_the_poles():
    size = (100, 100)
    right, up = (100, 0, 100, 100), (0, -100, 100, 100)

    def moved(location, box, **scale):
        metadata = Metadata.parse({"location": location, **scale})
        return metadata.crop_resize(box, size, 100).values["location"]

    assert moved((179.95, 0), right, pixel_size=1e-3) == pytest.approx((-179.95, 0))
    assert moved((-180, 0), (-100, 0, 100, 100), pixel_size=1e-3) == pytest.approx((179.9, 0))
    assert moved((5, 89.95), up, pixel_size=1e-3) == pytest.approx((5, 90))
    assert moved((5, -89.95), (0, 100, 100, 100), pixel_size=1e-3) == pytest.approx((5, -90))
    for latitude in (90, -90):
        longitude, _ = moved((5, latitude), right, gsd=10.0)
        assert -180 <= longitude < 180
        assert longitude == pytest.approx(5 + 1000 / (111_320 * 0.01))


@pytest.mark.parametrize(
    ("box", "size", "out"),
    [
        ((0, 0, 0, 10), (10, 10), 8),
        ((0, 0, 10, -1), (10, 10), 8),
        ((0, math.nan, 10, 10), (10, 10), 8),
        ((0, 0, math.inf, 10), (10, 10), 8),
        ((0, 0, 10, 10), (10, 0), 8),
        ((0, 0, 10, 10), (10, 10), 0),
    ],
)
def test_invalid_boxes_are_refused(box, size, out):
    with pytest.raises(ValueError, match="every side must be above zero"):
        Metadata({}).crop_resize(box, size, out)


def test_a_scale_that_leaves_its_range_is_counted():
    problems = Problems()
    metadata = Metadata.parse({"gsd": 9000.0, "cloud_cover": 3})
    assert metadata.crop_resize((0, 0, 64, 8), (64, 64), 8, problems).values == {
        "cloud_cover": (3.0,)
    }
    assert problems.to_json() == {"gsd": {"out of range": 1}}
