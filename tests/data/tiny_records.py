"""Tiny shards: records, a schema, and tf.train.Examples made by hand."""

import io

import numpy as np
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from satmip_jax.data import shard_format
from satmip_jax.data.shard_format import Record, shard_file
from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.schema import Schema
from satmip_jax.metadata.statistics import StatsAccumulator

FULL = {
    "gsd": [11.4546, 9.1344],
    "multispectral_gsd": 41.1896,
    "pixel_size": [1.03e-04, 8.23e-05],
    "timestamp": "2015-09-21T15:30:08Z",
    "location": [-73.310776, -3.785814],
    "utm_zone": "18M",
    "country_code": "PER",
    "cloud_cover": 14,
    "scan_direction": "Reverse",
    "wavelengths": [661, 545, 477],
    "target_azimuth_angle": 39.12,
    "sun_azimuth_angle": 77.28,
    "sun_elevation_angle": 70.44,
    "off_nadir_angle": 27.70,
    "sensor_platform": "GEOEYE01",
}


def jpeg(seed: int, size: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=60 + seed % 30)
    return file.getvalue()


def records(n: int, start: int = 0) -> list[Record]:
    """Return records with all, half and none of the fields, in turn."""
    raws = [FULL, {k: FULL[k] for k in list(FULL)[::2]}, {}]
    return [
        Record(f"folder/é{i}.jpg", jpeg(i), Metadata.parse(raws[i % 3]), i % 3 - 1)
        for i in range(start, start + n)
    ]


def schema(classes=("barn", "zoo"), **splits: int) -> Schema:
    return Schema(
        name="tiny",
        image_size=16,
        classes=classes,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.2, 0.2, 0.2),
        fields=StatsAccumulator().finish(),
        splits=splits,
        provenance={"license": "none", "homepage": "https://example.org"},
    )


def close(a: Metadata, b: Metadata) -> bool:
    """Return whether two records are equal up to rounding to float32."""
    if a.values.keys() != b.values.keys():
        return False
    return all(
        np.allclose(x, b.values[k], rtol=1e-7, atol=0) if isinstance(x, tuple) else x == b.values[k]
        for k, x in a.values.items()
    )


def example(**features) -> bytes:
    """Return a serialized tf.train.Example of some features."""
    proto = tf_example_pb2.Example()
    for name, value in features.items():
        feature = proto.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.extend(value)
    return proto.SerializeToString()


def plain(**changes) -> dict:
    missing = {
        f.name: b"" if f.kind.stored_as_text else [np.nan] * f.kind.components for f in FIELDS
    }
    features = {"image": b"jpeg", "label": 0, "id": b"x", **missing, **changes}
    return {k: v for k, v in features.items() if v is not None}


def read(data: bytes) -> dict:
    feature = tf_example_pb2.Example.FromString(data).features.feature
    return shard_format.decode(feature, 2, "file, record 0")


def first_shard(folder):
    return folder / shard_file("tiny", "train", 0, 3)
