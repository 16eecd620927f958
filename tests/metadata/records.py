"""Random metadata, and a schema made of it."""

from datetime import datetime, timedelta

import numpy as np
from hypothesis import strategies as st

from satmip_jax.metadata.fields import FIELDS
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.schema import Schema
from satmip_jax.metadata.statistics import StatsAccumulator

NAMES = [f.name for f in FIELDS]
SCALES = ["gsd", "multispectral_gsd", "pixel_size"]
F32 = np.float32


def random_records(n: int, seed: int = 0, missing: float = 0.2) -> list[Metadata]:
    """Records whose numbers are float32, as shards store them."""
    rng = np.random.default_rng(seed)
    numbers = {
        "gsd": lambda: np.exp(rng.normal(0, 1, 2)),
        "multispectral_gsd": lambda: np.exp(rng.normal(1, 1)),
        "pixel_size": lambda: 1e-5 * np.exp(rng.normal(0, 1, 2)),
        "location": lambda: (rng.uniform(-180, 180), np.degrees(np.arcsin(rng.uniform(-1, 1)))),
        "cloud_cover": lambda: rng.integers(0, 101),
        "wavelengths": lambda: rng.normal([661, 545, 477], 5),
        "target_azimuth_angle": lambda: rng.uniform(0, 360),
        "sun_azimuth_angle": lambda: rng.uniform(0, 360),
        "sun_elevation_angle": lambda: rng.uniform(-5, 90),
        "off_nadir_angle": lambda: rng.uniform(0, 45),
    }
    others = {
        "timestamp": lambda: (
            datetime(2000, 1, 1) + timedelta(seconds=int(rng.integers(0, 20 * 365 * 86_400)))
        ),
        "utm_zone": lambda: f"{rng.integers(1, 61)}N",
        "country_code": lambda: str(rng.choice(["PER", "CHE", "FRA"])),
        "scan_direction": lambda: str(rng.choice(["Forward", "Reverse"])),
        "sensor_platform": lambda: str(rng.choice(["GEOEYE01", "QUICKBIRD02"])),
    }
    records = []
    for _ in range(n):
        raw = {k: np.asarray(make(), F32).tolist() for k, make in numbers.items()}
        raw |= {k: make() for k, make in others.items()}
        known = {k: v for k, v in raw.items() if rng.uniform() >= missing}
        records.append(Metadata.parse(known))
        assert set(records[-1].values) == set(known)
    return records


def fit(records) -> StatsAccumulator:
    stats = StatsAccumulator()
    for record in records:
        stats.add(record)
    return stats


def make_schema(records, **changes) -> Schema:
    parts = {
        "name": "test",
        "image_size": 64,
        "classes": ("airport", "fountain"),
        "image_mean": (0.4, 0.41, 0.39),
        "image_std": (0.28, 0.27, 0.26),
        "fields": fit(records).finish(),
        "splits": {"train": len(records)},
        "provenance": {"source": "random"},
    }
    return Schema(**(parts | changes))


RECORDS = random_records(200)
SCHEMA = make_schema(RECORDS)

# raw values that are valid, with any of the fields missing
valid = st.fixed_dictionaries(
    {},
    optional={
        "gsd": st.tuples(*[st.floats(0.1, 100)] * 2),
        "multispectral_gsd": st.floats(0.1, 100),
        "pixel_size": st.tuples(*[st.floats(1e-7, 1e-3)] * 2),
        "timestamp": st.datetimes(datetime(1957, 1, 1), datetime(2100, 12, 31)),
        "location": st.tuples(st.floats(-180, 180), st.floats(-90, 90)),
        "utm_zone": st.from_regex(r"([1-9]|[1-5][0-9]|60)[C-HJ-NP-X]?", fullmatch=True),
        "country_code": st.sampled_from(["PER", "CHE", "XKX"]),
        "cloud_cover": st.floats(0, 100),
        "scan_direction": st.sampled_from(["Forward", "Reverse"]),
        "wavelengths": st.tuples(*[st.floats(300, 2500)] * 3),
        "target_azimuth_angle": st.floats(0, 360),
        "sun_azimuth_angle": st.floats(0, 360),
        "sun_elevation_angle": st.floats(-90, 90),
        "off_nadir_angle": st.floats(0, 90),
        "sensor_platform": st.from_regex(r"[ -~]{0,62}[!-~]", fullmatch=True),
    },
)
