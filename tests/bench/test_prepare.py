"""Benchmark of preparing images."""

import pytest

from satmip_jax.bench import prepare, synthetic_data
from satmip_jax.metadata.record import Problems


def test_synthetic_shards_hold_copies_of_each_image(tmp_path):
    dataset = synthetic_data.draw_shards(tmp_path, 3, 32, copies=2)
    assert len(dataset) == 6
    assert [dataset[i]["image"] for i in range(3)] == [dataset[i]["image"] for i in range(3, 6)]


def test_opencv_only_gives_the_bytes_of_prepare(tmp_path):
    source = synthetic_data.draw_scenes(tmp_path, 4, 48)
    for ref in source.refs():
        example = source.read(ref, Problems())
        square = prepare.make_square(example, 32, source.context_ratio)
        assert prepare.opencv_square(example.image, square, 32) == square.data
    measurements = prepare.bench(source, count=4, size=32, rounds=1)
    rates = [m for m in measurements if m.unit == "images/s"]
    assert [m.variant for m in rates] == ["prepare", "make_square", "OpenCV only"]
    assert {m.facts["images"] for m in measurements} == {4}
    shares = {m.variant: m.value for m in measurements if m.metric == "relative to OpenCV only"}
    for m in rates:
        assert shares[m.variant] == pytest.approx(100 * m.value / rates[-1].value)
