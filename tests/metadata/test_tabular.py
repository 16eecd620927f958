"""Statistics, schema, arrays and network inputs of metadata."""

import copy
import json
import math
import random
from datetime import UTC, datetime, timedelta

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.metadata import schema as schema_module
from satmip_jax.metadata import statistics as statistics_module
from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import FIELDS, field, select_fields
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.schema import Schema
from satmip_jax.metadata.statistics import FieldStats
from satmip_jax.metadata.tabular import SchemaError, StatsAccumulator

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


# --- statistics -----------------------------------------------------------------------------------


def test_statistics_are_those_of_numpy():
    stats = fit(RECORDS).finish()
    assert list(stats) == [f.name for f in FIELDS]
    for f in FIELDS:
        known = [r.values[f.name] for r in RECORDS if f.name in r.values]
        assert stats[f.name].count == len(known) < len(RECORDS)
        if f.kind == "category":
            assert stats[f.name].vocabulary == tuple(sorted(set(known)))
            continue
        if f.kind in ("angle", "location"):
            assert stats[f.name].mean == ()
            continue
        x = np.asarray([[v.year] for v in known] if f.kind == "time" else known, np.float64)
        x = np.log(x) if f.log else x
        np.testing.assert_allclose(stats[f.name].mean, x.mean(0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(stats[f.name].std, x.std(0), rtol=1e-9, atol=1e-9)


def test_merged_shards_equal_one_pass_to_the_bit():
    whole = fit(RECORDS)
    shuffled = random.Random(1).sample(RECORDS, len(RECORDS))
    merged = StatsAccumulator()
    for start in (150, 0, 60):  # shards of different sizes, out of order
        stop = {0: 60, 60: 150, 150: 200}[start]
        partial = json.loads(json.dumps(fit(shuffled[start:stop]).to_json()))
        merged.merge(StatsAccumulator.from_json(partial))
    assert merged.finish() == whole.finish()
    assert merged.to_json() == whole.to_json()


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("sums"),
        lambda d: d["sums"].update(gsd=[1]),
        lambda d: d["counts"].update(colour=1),
        lambda d: d["counts"].update(gsd="many"),
        lambda d: d["categories"].update(utm_zone={"18M": None}),
        lambda d: d.update(categories=3),
    ],
)
def test_damaged_partial_statistics_are_refused(damage):
    data = fit(RECORDS[:3]).to_json()
    damage(data)
    with pytest.raises(ValueError, match="not the partial statistics"):
        StatsAccumulator.from_json(data)


def test_constant_and_absent_fields():
    stats = fit([Metadata.parse({"wavelengths": [661.1, 545, 477]})] * 1000).finish()
    assert stats["wavelengths"].mean == pytest.approx((661.1, 545.0, 477.0))
    assert stats["wavelengths"].std == (1.0, 1.0, 1.0)
    assert stats["gsd"] == FieldStats(count=0, mean=(0.0, 0.0), std=(1.0, 1.0))
    assert stats["timestamp"] == FieldStats(count=0, mean=(0.0,), std=(1.0,))
    assert stats["utm_zone"] == stats["location"] == FieldStats()


def test_rare_categories_are_cut_and_counted(monkeypatch):
    monkeypatch.setattr(statistics_module, "MAX_VOCABULARY", 2)
    names = ["c", "b", "b", "a", "d", "d", "d"]
    stats = fit([Metadata.parse({"sensor_platform": n}) for n in names]).finish()
    assert stats["sensor_platform"] == FieldStats(
        count=7, vocabulary=("b", "d"), cut_categories=2, cut_examples=2
    )


# --- the schema -----------------------------------------------------------------------------------


def test_schema_round_trip(tmp_path):
    path = tmp_path / "schema.json"
    SCHEMA.save(path)
    assert Schema.load(path) == SCHEMA
    assert Schema.load(str(path)).fields["gsd"] == SCHEMA.fields["gsd"]
    assert hash(Schema.load(path)) == hash(SCHEMA)
    assert [p.name for p in tmp_path.iterdir()] == ["schema.json"]


def test_class_weights_round_trip_and_are_left_out_when_empty(tmp_path):
    schema = make_schema(RECORDS, class_weights={"challenge_f1": (0.6, 1.4)})
    schema.save(tmp_path / "schema.json")
    assert Schema.load(tmp_path / "schema.json") == schema
    assert "class_weights" not in SCHEMA.to_json()
    assert SCHEMA.class_weights == {}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 1.0], "class_weights: list should be an object"),
        ({"": [1.0, 1.0]}, "class_weights.'': '' should be 1 to 256"),
        ({"f1": [1.0]}, "class_weights.f1: list should be a list of 2 numbers"),
        ({"f1": [1.0, -0.1]}, "class_weights.f1: -0.1 should be a number from 0"),
        ({"f1": [1.0, math.inf]}, "class_weights.f1: inf should be a number from 0"),
        ({"f1": [1.0, math.nan]}, "class_weights.f1: nan should be a number from 0"),
        ({f"f{i}": [1.0, 1.0] for i in range(65)}, "class_weights: 65 metrics; at most 64"),
    ],
)
def test_bad_class_weights_are_refused(weights, message):
    with pytest.raises(SchemaError, match=rf"^schema: {message}"):
        Schema.from_json({**SCHEMA.to_json(), "class_weights": weights})


def test_a_field_an_older_file_does_not_know_was_never_present():
    data = SCHEMA.to_json()
    del data["fields"]["gsd"], data["fields"]["utm_zone"]
    schema = Schema.from_json(data)
    assert schema.fields["gsd"] == FieldStats.never_present(field("gsd"))
    assert not tabular.encode(RECORDS, schema)["present"][:, 5].any()


def test_saving_what_could_not_be_loaded_fails_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "schema.json"
    SCHEMA.save(path)
    for bad in (
        {"image_std": (0.1, 0.0, 0.1)},
        {"classes": ("a", "a")},
        {"provenance": {"x": math.nan}},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 (two kinds, both tell)
            make_schema(RECORDS, **bad).save(path)
    assert Schema.load(path) == SCHEMA


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), 2, "format: 2 should be a whole number from 1 to 1"),
        (("name",), "", "name: '' should be 1 to 256 printable"),
        (("name",), 5, "name: 5 should be"),
        (("image_size",), 10**9, "image_size: 1000000000 should be a whole number"),
        (("image_size",), True, "image_size: True"),
        (("classes",), "airport", "classes: 'airport' should be a list"),
        (("classes",), ["a", 3], "classes: 3 should be"),
        (("classes",), ["a", None], "classes: '' should be"),
        (("classes",), ["a", "a"], "classes: holds a name twice"),
        (("classes",), ["a\x1b[2J"], r"classes: 'a\\x1b\[2J' should be"),
        (("classes",), ["a"] * 100_001, "classes: list should be a list of at most 100000"),
        (("image_mean",), [0.4, 0.4], "image_mean: list should be a list of 3 numbers"),
        (("image_mean",), [0.4, 0.4, 120.0], "image_mean: 120.0 should be a number from 0 to 1"),
        (("image_std",), [0.1, 0.1, 0.0], "image_std: .* must be above zero"),
        (("fields",), [], "fields: list should be an object"),
        (("fields", "colour"), {}, "fields.colour: no such metadata field"),
        (("fields", "gsd", "std"), [0.0, 1.0], "fields.gsd.std: 0.0 should be a number"),
        (("fields", "gsd", "std"), [1.0], "fields.gsd.std: list should be a list of 2"),
        (("fields", "gsd", "mean"), [math.nan, 1.0], "fields.gsd.mean: nan should be a number"),
        (("fields", "gsd", "mean"), ["1", 1.0], "fields.gsd.mean: '1' should be a number"),
        (("fields", "gsd", "count"), -1, "fields.gsd.count: -1 should be a whole number"),
        (("fields", "gsd", "vocabulary"), ["a"], "fields.gsd.vocabulary: should be empty"),
        (
            ("fields", "utm_zone", "vocabulary"),
            ["b", "a"],
            "fields.utm_zone.vocabulary: should be sorted",
        ),
        (
            ("fields", "utm_zone", "vocabulary"),
            ["x" * 65],
            "fields.utm_zone.vocabulary: 'xxx.*should be 1 to 64",
        ),
        (("splits",), {"train": 1.5}, "splits.train: 1.5 should be a whole number"),
        (("splits",), {"": 1}, "splits.'': '' should be 1 to 256"),
        (("provenance",), "here", "provenance: 'here' should be an object"),
    ],
)
def test_a_bad_schema_names_file_key_and_value(path, value, message):
    data = copy.deepcopy(SCHEMA.to_json())
    parent = data
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    with pytest.raises(SchemaError, match=rf"^some/schema\.json: {message}"):
        Schema.from_json(data, "some/schema.json")


@pytest.mark.parametrize("key", list(SCHEMA.to_json()))
def test_a_missing_key_is_named(key):
    data = SCHEMA.to_json()
    del data[key]
    with pytest.raises(SchemaError, match=f"schema: {key}: is missing"):
        Schema.from_json(data)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"name": NaN}', b"\xff\xfe\x00", b"[" * 100_000, b"9" * 10_000],
    ids=lambda c: repr(c[:8]),
)
def test_a_file_that_is_no_schema(tmp_path, content):
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=r"schema\.json: "):
        Schema.load(path)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "schema.json"
    with path.open("wb") as file:
        file.truncate(schema_module.MAX_SCHEMA_BYTES + 1)  # sparse
    with pytest.raises(SchemaError, match="bytes; a schema has at most"):
        Schema.load(path)
    with pytest.raises(FileNotFoundError):
        Schema.load(tmp_path / "none.json")


def leaves(node, path=()):
    yield path
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            yield from leaves(child, (*path, key))


SMALL = make_schema(RECORDS[:5]).to_json()
PATHS = [p for p in leaves(SMALL) if p]
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(PATHS), value=junk)
def test_junk_anywhere_is_refused_or_harmless(path, value):
    data = copy.deepcopy(SMALL)
    parent = data
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    try:
        schema = Schema.from_json(data)
    except SchemaError:
        return
    tabular.encode(RECORDS[:3], schema)
    again = Schema.from_json(schema.to_json())
    assert again.fields == schema.fields
    assert again.classes == schema.classes
    assert all(s > 0 and math.isfinite(s) for v in schema.fields.values() for s in v.std)


# --- encode ---------------------------------------------------------------------------------------


def test_encode_layout():
    slices, columns = tabular.value_slices(), tabular.category_index()
    assert [s.stop - s.start for s in slices.values()] == [2, 1, 2, 3, 2, 1, 3, 1, 1, 1, 1]
    assert list(columns) == ["utm_zone", "country_code", "scan_direction", "sensor_platform"]
    arrays = tabular.encode(RECORDS, SCHEMA)
    assert {k: (v.dtype, v.shape) for k, v in arrays.items()} == {
        "values": (np.float32, (200, 18)),
        "categories": (np.int32, (200, 4)),
        "present": (np.bool_, (200, 15)),
    }
    for row, record in enumerate(RECORDS):
        for f in FIELDS:
            value = record.values.get(f.name)
            assert arrays["present"][row, tabular.field_index()[f.name]] == (value is not None)
            if f.kind == "category":
                number = arrays["categories"][row, columns[f.name]]
                assert number == (SCHEMA.fields[f.name].vocabulary.index(value) if value else 0)
            elif f.kind != "time":
                np.testing.assert_array_equal(
                    arrays["values"][row, slices[f.name]], F32(value or (0,) * f.size)
                )


@pytest.mark.parametrize(
    ("moment", "clock"),
    [
        (datetime(2015, 1, 1), (2015, 0, 0)),
        (datetime(2015, 9, 21, 15, 30, 8), (2015, (263 + 55808 / 86400) / 365, 55808 / 86400)),
        (datetime(2016, 12, 31, 12), (2016, 365.5 / 366, 0.5)),
        (datetime(2016, 12, 31, 23, 59, 59, 999999), (2016, 1, 1)),
    ],
)
def test_encode_time(moment, clock):
    arrays = tabular.encode([Metadata({"timestamp": moment.replace(tzinfo=UTC)})], SCHEMA)
    year, season, hour = arrays["values"][0, tabular.value_slices()["timestamp"]]
    assert (year, season, hour) == pytest.approx(clock, rel=1e-6)
    assert 0 <= season < 1
    assert 0 <= hour < 1


def test_a_category_that_train_never_had_is_missing():
    zone = SCHEMA.fields["utm_zone"].vocabulary[0]
    arrays = tabular.encode([Metadata.parse({"country_code": "JPN", "utm_zone": zone})], SCHEMA)
    index = tabular.field_index()
    assert not arrays["present"][0, index["country_code"]]
    assert arrays["present"][0, index["utm_zone"]]
    assert arrays["categories"][0, tabular.category_index()["country_code"]] == 0


# --- featurize ------------------------------------------------------------------------------------


def naive_features(record: Metadata, f, frequencies: int) -> list[float]:
    """Straight from the record, in Python's float64."""
    value = record.values.get(f.name)
    stats = SCHEMA.fields[f.name]
    if f.kind == "numeric":
        if value is None:
            return [0.0] * f.size
        logs = [math.log(v) if f.log else v for v in value]
        return [(v - m) / s for v, m, s in zip(logs, stats.mean, stats.std, strict=True)]
    if f.kind == "angle":
        if value is None:
            return [0.0] * 2
        return [math.sin(math.radians(value[0])), math.cos(math.radians(value[0]))]
    if f.kind == "time":
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
def test_featurize_is_the_naive_formula(frequencies):
    arrays = tabular.encode(RECORDS, SCHEMA)
    features = jax.jit(lambda a: tabular.featurize(a, SCHEMA, FIELDS, frequencies))(arrays)
    assert set(features) == {f.name for f in FIELDS if f.kind != "category"}
    for name, array in features.items():
        expected = [naive_features(r, field(name), frequencies) for r in RECORDS]
        assert array.dtype == jnp.float32
        np.testing.assert_allclose(array, expected, atol=5e-5, err_msg=name)
        if field(name).kind == "numeric":  # standardised
            known = np.asarray(array)[arrays["present"][:, tabular.field_index()[name]]]
            np.testing.assert_allclose(known.mean(0), 0, atol=1e-3)
            np.testing.assert_allclose(known.std(0), 1, atol=1e-3)


def test_featurize_only_the_chosen_fields():
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


def test_a_data_set_without_any_metadata_is_all_zeros():
    schema = make_schema([])
    arrays = tabular.encode(RECORDS[:3], schema)
    features = jax.jit(lambda a: tabular.raw_features(a, schema, FIELDS))(arrays)
    assert features.shape == (3, 3 + 2 * 4 + 5 + 2 + 1 + 2 + 1 + 3)
    assert np.isfinite(features).all()
    assert tabular.raw_features(arrays, schema, select_fields("utm_zone")).shape == (3, 0)
    empty = tabular.encode([Metadata({})] * 2, schema)
    inputs = jax.jit(lambda a: tabular.featurize(a, schema, FIELDS))(empty)
    assert all(not np.any(v) for v in inputs.values())


# --- follow_crop ----------------------------------------------------------------------------------


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
def test_follow_crop_is_crop_resize(stored, view):
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


def test_follow_crop_of_everything_changes_nothing():
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
