"""Arrays as network inputs."""

import math
from datetime import UTC, datetime

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import FIELDS, field, select_fields
from satmip_jax.metadata.kinds import Angle, Numeric, Timestamp
from satmip_jax.metadata.record import Metadata
from tests.metadata.records import RECORDS, SCHEMA, make_schema


def naive_features(record: Metadata, f, frequencies: int) -> list[float]:
    """Straight from the record, in Python's float64."""
    value = record.values.get(f.name)
    stats = SCHEMA.fields[f.name]
    if isinstance(f.kind, Numeric):
        if value is None:
            return [0.0] * f.kind.size
        logs = [math.log(v) if f.kind.log else v for v in value]
        return [(v - m) / s for v, m, s in zip(logs, stats.mean, stats.std, strict=True)]
    if isinstance(f.kind, Angle):
        if value is None:
            return [0.0] * 2
        return [math.sin(math.radians(value[0])), math.cos(math.radians(value[0]))]
    if isinstance(f.kind, Timestamp):
        if value is None:
            return [0.0] * 5
        start, end = (datetime(value.year + i, 1, 1, tzinfo=UTC) for i in (0, 1))
        turns = (
            (value - start) / (end - start),
            (value.hour + value.minute / 60 + value.second / 3600) / 24,
        )
        waves = [w(2 * math.pi * t) for t in turns for w in (math.sin, math.cos)]
        return [(value.year - stats.mean[0]) / stats.std[0], *waves]
    if value is None:
        return [0.0] * (3 + 6 * frequencies)
    lon, lat = map(math.radians, value)
    point = [math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)]
    waves = [
        w(math.pi * 2**k * p)
        for w in (math.sin, math.cos)
        for k in range(frequencies)
        for p in point
    ]
    return point + waves


@pytest.mark.parametrize("frequencies", [0, 6])
def test_featurize_equals_the_naive_formula(frequencies):
    arrays = tabular.encode(RECORDS, SCHEMA)
    features = jax.jit(lambda a: tabular.featurize(a, SCHEMA, FIELDS, frequencies))(arrays)
    assert set(features) == {f.name for f in FIELDS if not f.kind.has_vocabulary}
    for name, array in features.items():
        expected = [naive_features(r, field(name), frequencies) for r in RECORDS]
        assert array.dtype == jnp.float32
        np.testing.assert_allclose(array, expected, atol=5e-5, err_msg=name)
        if isinstance(field(name).kind, Numeric):  # standardized
            known = np.asarray(array)[arrays["present"][:, tabular.field_index()[name]]]
            np.testing.assert_allclose(known.mean(0), 0, atol=1e-3)
            np.testing.assert_allclose(known.std(0), 1, atol=1e-3)


def test_featurize_returns_only_the_selected_fields():
    arrays = tabular.encode(RECORDS[:4], SCHEMA)
    assert set(tabular.featurize(arrays, SCHEMA, select_fields("Location+gsd"))) == {
        "location",
        "gsd",
    }


def test_raw_features():
    fields = select_fields("location+utm_zone+country_code+cloud_cover")
    arrays = tabular.encode([*RECORDS, Metadata({})], SCHEMA)
    features = np.asarray(jax.jit(lambda a: tabular.raw_features(a, SCHEMA, fields))(arrays))
    zones, countries = (SCHEMA.fields[n].vocabulary for n in ("utm_zone", "country_code"))
    assert features.dtype == np.float32
    assert features.shape == (201, 3 + len(zones) + len(countries) + 1)
    assert not features[-1].any()
    for row, record in zip(features, RECORDS, strict=False):
        expected = [
            *naive_features(record, field("location"), 0),
            *[float(record.values.get("utm_zone") == z) for z in zones],
            *[float(record.values.get("country_code") == c) for c in countries],
            *naive_features(record, field("cloud_cover"), 0),
        ]
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_raw_numbers():
    fields = select_fields("gsd+timestamp+location+country_code")
    numbers = tabular.raw_numbers(tabular.encode([*RECORDS, Metadata({})], SCHEMA), fields)
    countries = SCHEMA.fields["country_code"].vocabulary
    assert numbers.dtype == np.float32
    assert not numbers[-1].any()
    for row, record in zip(numbers, RECORDS, strict=False):
        gsd, time, place, country = (record.values.get(f.name) for f in fields)
        expected = [
            *(gsd or (0.0, 0.0)),
            *((time.year,) if time else (0.0,)),
            *(place or (0.0, 0.0)),
            countries.index(country) + 1 if country else 0.0,
        ]
        np.testing.assert_allclose(np.delete(row, [3, 4]), expected, rtol=1e-6)
        day = (time.timetuple().tm_yday - 1) / 366 if time else 0.0
        assert day - 1e-6 <= row[3] <= day + 2 / 365  # the elapsed part of the year


def test_features_without_any_metadata_are_zeros():
    schema = make_schema([])
    arrays = tabular.encode(RECORDS[:3], schema)
    features = jax.jit(lambda a: tabular.raw_features(a, schema, FIELDS))(arrays)
    assert features.shape == (3, 3 + 2 * 4 + 5 + 2 + 1 + 2 + 1 + 3)
    assert np.isfinite(features).all()
    assert tabular.raw_features(arrays, schema, select_fields("utm_zone")).shape == (3, 0)
    empty = tabular.encode([Metadata({})] * 2, schema)
    inputs = jax.jit(lambda a: tabular.featurize(a, schema, FIELDS))(empty)
    assert all(not np.any(v) for v in inputs.values())
