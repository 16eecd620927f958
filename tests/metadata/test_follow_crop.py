"""Arrays that follow the crop of a view on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.metadata import tabular
from satmip_jax.metadata.record import Metadata
from tests.metadata.records import RECORDS, SCHEMA, random_records


def follow_on_both(records, crops, stored, view):
    """(arrays after the device's follow_crop, arrays of the host's crop_resize)."""
    arrays = tabular.encode(records, SCHEMA)
    follow = jax.jit(tabular.follow_crop, static_argnums=(2, 3))
    device = follow(arrays, jnp.asarray(crops, jnp.float32), stored, view)
    boxes = np.asarray(crops, np.float32).astype(np.float64)[:, [1, 0, 3, 2]] * stored
    host = tabular.encode(
        [
            r.crop_resize(tuple(b), (stored, stored), view)
            for r, b in zip(records, boxes, strict=True)
        ],
        SCHEMA,
    )
    return jax.tree.map(np.asarray, device), host


def assert_same(device, host):
    assert device["values"].dtype == np.float32
    np.testing.assert_array_equal(device["present"], host["present"])
    np.testing.assert_array_equal(device["categories"], host["categories"])
    lon, lat = range(*tabular.value_slices()["location"].indices(99))
    others = [i for i in range(host["values"].shape[1]) if i not in (lon, lat)]
    np.testing.assert_allclose(device["values"][:, others], host["values"][:, others], rtol=1e-6)
    # a float32 longitude has steps of 1.5e-5 degrees; both sides of the antimeridian are one
    apart = device["values"][:, lon].astype(np.float64) - host["values"][:, lon]
    np.testing.assert_allclose((apart + 180) % 360 - 180, 0, atol=5e-5)
    np.testing.assert_allclose(device["values"][:, lat], host["values"][:, lat], atol=2e-5)
    assert (np.abs(device["values"][:, lon]) <= 180).all()
    assert (np.abs(device["values"][:, lat]) <= 90).all()


@pytest.mark.parametrize(("stored", "view"), [(64, 64), (256, 224), (96, 128)])
def test_follow_crop_equals_crop_resize(stored, view):
    records = random_records(300, seed=stored, missing=0.3)
    rng = np.random.default_rng(view)
    size = rng.uniform(0.1, 1.0, (300, 2))
    crops = np.concatenate([rng.uniform(0, 1, (300, 2)) * (1 - size), size], 1)
    device, host = follow_on_both(records, crops, stored, view)
    assert_same(device, host)
    before = tabular.encode(records, SCHEMA)
    assert not np.allclose(device["values"], before["values"], rtol=1e-3)
    missing = ~before["present"][:, tabular.field_index()["location"]]
    assert not device["values"][missing][:, tabular.value_slices()["location"]].any()


def test_follow_crop_of_the_full_image_changes_nothing():
    arrays = tabular.encode(RECORDS, SCHEMA) | {"caption": np.zeros((200, 15, 48), np.uint8)}
    crops = jnp.tile(jnp.asarray([[0.0, 0.0, 1.0, 1.0]], jnp.float32), (200, 1))
    after = tabular.follow_crop(arrays, crops, 64, 64)
    assert set(after) == set(arrays)  # what else there is passes through
    np.testing.assert_allclose(after["values"], arrays["values"], rtol=2e-7)


def test_follow_crop_at_the_antimeridian_and_the_poles():
    places = [(179.9999, 10), (-180, -10), (179.99, 89.99), (0, 90), (77, -90), (-179.9999, -89.9)]
    scales = [{"pixel_size": 1e-3}, {"gsd": 50.0}, {}]
    records = [Metadata.parse({"location": p, **s}) for p in places for s in scales]
    for y, x in [(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5)]:
        device, host = follow_on_both(records, [[y, x, 0.5, 0.5]] * len(records), 64, 32)
        assert_same(device, host)
    east = follow_on_both(records[:1], [[0, 0.5, 0.5, 0.5]], 64, 32)[0]["values"]
    assert east[0, tabular.value_slices()["location"]][0] == pytest.approx(-179.9841, abs=1e-4)
