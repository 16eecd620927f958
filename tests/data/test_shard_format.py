"""Records of shards: encoded as TFDS does it, and checked when they are read."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from satmip_jax.data import shard_format
from satmip_jax.data.shard_format import ShardError, shard_file, tfds_features
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.kinds import BadValueError
from satmip_jax.metadata.record import Metadata
from tests.data.tiny_records import example, plain, read, records


def test_a_record_is_written_as_tfds_writes_it():
    features = tfds_features(16, ["barn", "zoo"])
    for record in records(3):
        known = record.metadata.to_json()
        row = {"image": io.BytesIO(record.image), "label": record.label, "id": record.id}
        for field in FIELDS:
            n = field.kind.components
            shape = () if n == 1 else (n,)
            missing = "" if field.kind.stored_as_text else np.full(shape, np.nan)
            value = known.get(field.name, missing)
            row[field.name] = value if isinstance(value, str) else np.asarray(value, np.float32)
        theirs = tf_example_pb2.Example.FromString(features.serialize_example(row))
        assert shard_format.encode(record) == theirs.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "'image' holds 0 byte strings"),
        ({"image": 3}, "'image' holds 0 byte strings"),
        ({"label": None}, "'label' holds 0 integers"),
        ({"label": 2}, "label 2, of 2 classes"),
        ({"label": -2}, "label -2, of 2 classes"),
        ({"id": b"\xff"}, "'id' is not UTF-8"),
        ({"id": b"\x1b[2J"}, "'id' holds characters that cannot be printed"),
        ({"id": b"x" * 1025}, "'id' takes 1025 bytes"),
        ({"gsd": [1.0]}, "'gsd' holds 1 numbers instead of 2"),
        ({"gsd": []}, "'gsd' holds 0 numbers instead of 2"),
        ({"gsd": b"0.5"}, "'gsd' holds 0 numbers instead of 2"),
        ({"country_code": 3}, "'country_code' holds 0 byte strings"),
        ({"country_code": b"P" * 1000}, "'country_code' takes 1000 bytes"),
    ],
)
def test_bad_features_are_reported(changes, message):
    with pytest.raises(ShardError, match=f"file, record 0: {message}"):
        read(example(**plain(**changes)))


def test_fields_without_a_feature_are_missing():
    """A shard may have been written before a field was added."""
    rest = plain(cloud_cover=[14.0], country_code=None, gsd=None, timestamp=None)
    assert read(example(**rest))["metadata"].values == {"cloud_cover": (14.0,)}
    assert read(example(image=b"jpeg", label=0, id=b"x"))["metadata"].values == {}


def test_values_out_of_range_are_missing():
    bad = {
        "gsd": [-1.0, 1.0],
        "location": [0.0, 91.0],
        "cloud_cover": [np.inf],
        "country_code": b"ZZZ",
        "timestamp": b"yesterday",
        "utm_zone": b"99X",
        "wavelengths": [661.0, np.nan, 477.0],
    }
    assert read(example(**plain(**bad)))["metadata"].values == {}
    edge = read(example(**plain(cloud_cover=[100.0], target_azimuth_angle=[360.0])))
    assert edge["metadata"].values == {"cloud_cover": (100.0,), "target_azimuth_angle": (0.0,)}


number = st.floats(width=32) | st.sampled_from([0.0, 100.0, 360.0, -180.0, 180.0, 90.0])


text = st.sampled_from(["PER", "pe", "18M", "Reverse", "2015-09-21", "2015-09-21T10:00:00+02:00"])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_reading_agrees_with_parsing(data):
    """The quick checks of the reader are those of each kind; nothing stored is converted."""
    raw = {}
    for f in FIELDS:
        if f.kind.stored_as_text:
            raw[f.name] = data.draw(
                text | st.text(st.characters(categories=["L", "N"]), max_size=9)
            )
        else:
            raw[f.name] = tuple(data.draw(number) for _ in range(f.kind.components))
    features = {k: v.encode() if isinstance(v, str) else v for k, v in raw.items()}
    expected = {}
    for f in FIELDS:
        with contextlib.suppress(BadValueError):
            expected[f.name] = f.kind.parse(raw[f.name])
    assert read(example(**plain(**features)))["metadata"] == Metadata(expected)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_example_is_read_or_refused_with_a_reason(data):
    try:
        proto = tf_example_pb2.Example.FromString(data)
    except Exception:  # the reader turns it into a ShardError, see below
        return
    with pytest.raises(ShardError, match="record 0"):
        shard_format.decode(proto.features.feature, 2, "file, record 0")


@pytest.mark.parametrize(("name", "split"), [("a-b", "x"), ("../x", "x"), ("x", "all"), ("x", "")])
def test_invalid_names_are_refused(name, split):
    with pytest.raises(ValueError, match="cannot name"):
        shard_file(name, split, 0, 1)
