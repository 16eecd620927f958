"""The kinds of metadata values."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import FIELDS, field
from satmip_jax.metadata.kinds import Angle, Category, Location, Numeric, Timestamp
from satmip_jax.metadata.record import Metadata
from tests.metadata.records import RECORDS, SCHEMA, valid

CENTRES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@settings(max_examples=100, deadline=None)
@given(valid)
def test_values_survive_storage(raw):
    """`dump` keeps every value, and `recognize` knows it or leaves it to `parse`."""
    for name, value in Metadata.parse(raw).values.items():
        kind = field(name).kind
        stored = kind.dump(value)
        assert isinstance(stored, str) == kind.stored_as_text
        if not isinstance(stored, str):
            assert len(stored) == kind.components
        assert kind.parse(stored) == value
        assert kind.parse(kind.to_json(value)) == value
        assert kind.recognize(stored) in (None, value)


@pytest.mark.parametrize("frequencies", [0, 6])
def test_declared_sizes_are_those_of_the_arrays(frequencies):
    arrays = tabular.encode(RECORDS[:20], SCHEMA)
    for f in FIELDS:
        stats = SCHEMA.fields[f.name]
        assert len(stats.mean) == len(stats.std) == f.kind.n_standardized
        n = f.kind.n_features(stats, frequencies)
        if f.kind.has_vocabulary:
            assert n == len(stats.vocabulary) == f.kind.n_outputs(stats, CENTRES)
            assert tabular.raw_features(arrays, SCHEMA, [f]).shape == (20, n)
        else:
            assert tabular.featurize(arrays, SCHEMA, [f], frequencies)[f.name].shape == (20, n)


def test_targets_of_direct_prediction():
    """Numbers are regressed, categories and nearest centres are classified."""
    points = jnp.asarray([[0.9, 0.1, 0.0], [0.0, 0.2, 0.8]], jnp.float32)
    assert Location().target(points, CENTRES).tolist() == [0, 2]
    assert Location().n_outputs(SCHEMA.fields["location"], CENTRES) == 3
    assert Location().n_outputs(SCHEMA.fields["location"], CENTRES[:1]) == 0  # no choice
    numbers = jnp.asarray([[0.5, 0.5]], jnp.float32)
    for name, outputs in (("gsd", 2), ("sun_azimuth_angle", 2), ("timestamp", 5)):
        kind, stats = field(name).kind, SCHEMA.fields[name]
        assert not kind.is_classified
        assert kind.n_outputs(stats, ()) == outputs
        np.testing.assert_array_equal(kind.target(numbers, ()), numbers)
    assert [f.name for f in FIELDS if f.kind.needs_geo_centres] == ["location"]


def test_kinds_with_the_same_options_are_equal():
    assert Numeric(2, log=True) == Numeric(2, log=True) != Numeric(2)
    assert Angle(0.0, 360.0).is_cyclic
    assert not Angle(0.0, 90.0).is_cyclic
    assert Timestamp(1957, 2100) != Timestamp(1957, 2000)
    assert Category(str.upper) == Category(str.upper)
    assert len({f.kind for f in FIELDS}) < len(FIELDS)  # hashable


def test_a_worker_of_a_preparation_does_not_import_jax():
    code = (
        "import sys; from satmip_jax.prepare import shard_job;"
        "from satmip_jax.metadata.record import Metadata;"
        "from satmip_jax.data.shard_format import Record, encode;"
        "stats = shard_job.StatsAccumulator();"
        "record = Metadata.parse({'gsd': 1, 'timestamp': '2020-01-01', 'location': [1, 2]});"
        "stats.add(record); stats.finish(); encode(Record('x', b'jpeg', record));"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
