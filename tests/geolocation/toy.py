"""A model whose images show their place: the features of an image are the point on the sphere."""

import math
from types import SimpleNamespace

import numpy as np

from satmip_jax.geography.grid import unit
from satmip_jax.metadata.field_stats import FieldStats

SENSORS = ("A", "B")


class ToySpace:
    def images(self, features):
        return features

    def metadata(self, features):
        return features


class ToyModel:
    """An image is (place, month, sensor), or None for a bad one."""

    fields = ("location", "timestamp", "sensor_platform")

    def __init__(self, fields=fields):
        self.fields = fields
        self.joint_space = ToySpace()
        self.problems = []
        self.size = 64, 64
        self.image_sizes = []
        self.encoded = 0
        stats = {
            "timestamp": FieldStats(5, (2015.0,), (1.0,), (), 0, 0),
            "sensor_platform": FieldStats(5, (), (), SENSORS, 0, 0),
        }
        self.model = SimpleNamespace(
            name="toy",
            step=7,
            folder=None,
            params={"log_scale": np.log(14.0)},
            schema=SimpleNamespace(fields=stats, image_size=64, provenance={}),
        )

    def embed_metadata(self, records, *, progress=True):
        self.encoded += len(records)
        return vectors([self.parts(record) for record in records])

    @staticmethod
    def parts(record):
        time = record.get("timestamp")
        return record.get("location"), time and int(time[5:7]), record.get("sensor_platform")

    def embed_images(self, images, *, progress=True):
        self.image_sizes = [self.size] * len(images)
        return vectors(images)


def vectors(items):
    rows = np.zeros((len(items), 7), np.float32)
    for row, item in zip(rows, items, strict=True):
        if item is None:
            row[:] = np.nan
            continue
        place, month, sensor = item
        if place is not None:
            row[:3] = unit(np.array(place))
        if month is not None:
            angle = 2 * math.pi * month / 12
            row[3:5] = math.cos(angle), math.sin(angle)
        if sensor is not None:
            row[5 + SENSORS.index(sensor)] = 1
        row /= np.linalg.norm(row)
    return rows
