"""Direct prediction: geo clusters, the loss on any number of devices, a run and its resumption."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.checkpoints.manager import Checkpoints
from satmip_jax.distributed import sharding
from satmip_jax.errors import ConfigError
from satmip_jax.metadata import tabular
from satmip_jax.metadata.fields import FIELDS, select_fields
from satmip_jax.metadata.geo_clusters import fit_centres, unit_vectors
from satmip_jax.metadata.kinds import Angle, Location, Timestamp
from satmip_jax.metadata.kinds.location import nearest_centre
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.schema import Schema, SchemaError
from satmip_jax.models import Head, build_towers, example_batch
from satmip_jax.objectives import build_method
from satmip_jax.training import loop, setup
from satmip_jax.training.setup import run_schema
from tests.conftest import forward_of_views, load_state, use_one_device

B = 16


# --- clusters of places ---------------------------------------------------------------------------


def random_places(seed, n):
    """Uniform on the sphere, with poles and date line among them."""
    rng = np.random.default_rng(seed)
    places = np.stack(
        [rng.uniform(-180, 180, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))], axis=1
    )
    places[:5] = [[180, 10], [-180, 10], [33, 90], [-120, 90], [7, -90]]
    return places


def great_circle(places, centre):
    """Haversine distance in radians, from degrees to a unit vector, in float64."""
    longitude, latitude = np.radians(np.asarray(places, np.float64)).T
    x, y, z = np.asarray(centre, np.float64)
    other_longitude, other_latitude = math.atan2(y, x), math.atan2(z, math.hypot(x, y))
    half = np.sin((latitude - other_latitude) / 2) ** 2
    half += (
        np.cos(latitude) * np.cos(other_latitude) * (np.sin((longitude - other_longitude) / 2) ** 2)
    )
    return 2 * np.arcsin(np.sqrt(half.clip(0, 1)))


def test_the_cluster_is_the_nearest_centre_on_the_sphere(tiny_shards):
    """Also where clusters are a few kilometres wide, which scalar products in float32 mix up."""
    city = np.array([2.35, 48.85]) + np.random.default_rng(1).normal(0, 0.05, (400, 2))
    for places in (random_places(0, 400), city):
        centres = fit_centres(places, 20, seed=0)
        records = [Metadata.parse({"location": place.tolist()}) for place in places]
        arrays = tabular.encode(records, tiny_shards.schema)
        points = tabular.featurize(arrays, tiny_shards.schema, select_fields("location"), 0)
        got = np.asarray(nearest_centre(points["location"], jnp.asarray(centres)))
        distances = np.stack([great_circle(places, centre) for centre in centres], axis=1)
        assert len(set(got.tolist())) == 20
        chosen = distances[np.arange(len(places)), got]
        assert (chosen - distances.min(axis=1)).max() * 6_371_000 < 20  # metres


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_centres_are_a_function_of_the_set_of_places(seed, k):
    places = random_places(seed, 40)
    centres = fit_centres(places, k, seed=3)
    assert centres.shape == (k, 3)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, rtol=1e-6)
    shuffled = np.random.default_rng(seed).permutation(places)
    np.testing.assert_array_equal(fit_centres(shuffled, k, seed=3), centres)


def test_date_line_and_poles_are_no_borders():
    line = [[179.99, 10], [-179.99, 10.01], [180, 10], [-180, 10.01]]
    pole = [[0, 89.99], [90, 89.99], [-170, 89.99], [12, 90]]
    east, north = fit_centres(np.array(line + pole), 2, seed=0)[
        np.argsort(fit_centres(np.array(line + pole), 2, seed=0)[:, 2])
    ]
    assert great_circle([[180, 10.005]], east) < 1e-3
    assert great_circle([[0, 90]], north) < 1e-3


def test_fewer_places_give_fewer_centres():
    places = [[180, 10], [-180, 10], [5, 90], [-60, 90], [2, 48], [2, 48]]  # three in truth
    assert len(fit_centres(np.array(places), 100, seed=0)) == 3
    assert fit_centres(np.zeros((0, 2)), 100, seed=0).shape == (0, 3)


@pytest.mark.parametrize(
    ("centres", "message"),
    [
        ("x", "geo_centres: 'x' should be a list"),
        ([[0, 0, 1], [0, 1]], "should be a list of 3 numbers"),
        ([[0, 0, 1], [0.5, 0, 0]], "should be of unit length"),
        ([[0, 0, float("nan")]], "should be a number"),
        ([[0, 0, 1]] * 5000, "at most 4096"),
    ],
)
def test_wrong_centres_in_a_schema_are_named(tiny_shards, centres, message):
    data = tiny_shards.schema.to_json() | {"geo_centres": centres}
    with pytest.raises(SchemaError, match=message):
        Schema.from_json(data)


# --- the loss -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema(tiny_shards):
    """The tiny shards' schema with centres, and a field that has but one value."""
    fields = dict(tiny_shards.schema.fields)
    one = dataclasses.replace(fields["scan_direction"], vocabulary=("Forward",))
    centres = tuple(map(tuple, fit_centres(random_places(5, 50), 6, seed=0).tolist()))
    return dataclasses.replace(
        tiny_shards.schema, fields=fields | {"scan_direction": one}, geo_centres=centres
    )


@pytest.fixture(scope="module")
def model(schema, tiny_config):
    """Config, method, towers, parameters, a view, and arrays of metadata with much missing."""
    config = tiny_config("metapred", "--config.metadata.fields=all")
    method = build_method(config)
    towers = build_towers(config, schema, method)
    params = jax.jit(towers.init)(jax.random.key(0), *example_batch(config, schema))["params"]
    rng = np.random.default_rng(0)
    view = rng.normal(size=(B, 32, 32, 3)).astype(np.float32)
    slices, columns = tabular.value_slices(), tabular.category_index()
    arrays = tabular.encode([Metadata({})] * B, schema)
    for f in FIELDS:
        if f.kind.has_vocabulary:
            kinds = len(schema.fields[f.name].vocabulary)
            arrays["categories"][:, columns[f.name]] = rng.integers(0, kinds, B)
        elif isinstance(f.kind, Location):
            arrays["values"][:, slices[f.name]] = random_places(1, B)
        elif isinstance(f.kind, Timestamp):
            arrays["values"][:, slices[f.name]] = rng.random((B, 3)) * [30, 1, 1] + [1995, 0, 0]
        else:
            arrays["values"][:, slices[f.name]] = rng.uniform(0.5, 60, (B, f.kind.size))
    present = rng.random((B, len(FIELDS))) < 0.6
    present[3] = False  # a row without metadata
    position = tabular.field_index()
    present[:, position["cloud_cover"]] = False  # a field that no row has
    present[:, position["gsd"]] = np.arange(B) < 2  # one that only the first device has
    arrays["present"] = present
    return config, method, towers, params, view, arrays


@pytest.fixture(scope="module")
def expected(model, schema):
    """Loss and gradients of the naive formula."""
    return jax.jit(jax.value_and_grad(naive(model, schema)))(model[3])


def naive(model, schema):
    """params -> loss, field by field over the rows that have it; targets in plain Python."""
    _, _, towers, _, view, arrays = model
    slices, columns = tabular.value_slices(), tabular.category_index()
    centres = np.array(schema.geo_centres)

    def target(f, row):
        x = [float(v) for v in arrays["values"][row, slices[f.name]]] if f.kind.size else []
        mean, std = schema.fields[f.name].mean, schema.fields[f.name].std
        if f.kind.has_vocabulary:
            return int(arrays["categories"][row, columns[f.name]])
        if isinstance(f.kind, Location):
            return int(np.argmin([great_circle([x], centre)[0] for centre in centres]))
        turns = x[1:] if isinstance(f.kind, Timestamp) else [v / 360 for v in x]
        waves = [[math.sin(2 * math.pi * t), math.cos(2 * math.pi * t)] for t in turns]
        if isinstance(f.kind, Timestamp):
            return [(x[0] - mean[0]) / std[0], *waves[0], *waves[1]]
        if isinstance(f.kind, Angle):
            return waves[0]
        x = [math.log(v) for v in x] if f.kind.log else x
        return [(v - m) / s for v, m, s in zip(x, mean, std, strict=True)]

    def loss(params):
        def apply(kind, *inputs):
            return towers.apply({"params": params}, *inputs, method=kind)

        features = apply("encode_image", jnp.asarray(view))
        means = []
        for i, f in enumerate(FIELDS):
            head = "geo_cluster" if f.name == "location" else f.name
            rows = np.flatnonzero(arrays["present"][:, i])
            if head not in towers.heads or not len(rows):
                continue
            out = apply("head", head, features)[rows]
            targets = [target(f, row) for row in rows]
            if isinstance(targets[0], int):
                p = jax.nn.softmax(out)[np.arange(len(rows)), np.array(targets)]
                means.append(-jnp.log(p).mean())
            else:
                error = jnp.abs(out - jnp.array(targets, jnp.float32))
                small = jnp.minimum(error, 1.0)
                means.append((small * (error - small / 2)).mean(axis=1).mean())
        return sum(means) / len(means)

    return loss


def on_devices(devices, model, schema):
    """The compiled function (params, batch) -> ((loss, metrics), gradients), rows sharded."""
    _, method, towers, _, _, _ = model
    mesh = sharding.make_mesh(jax.devices()[:devices])

    def loss(params, batch):
        forward = forward_of_views(towers, params, mesh, schema, B)
        losses, metrics = method.losses(forward, batch)
        return losses["metapred"], metrics

    spread = (sharding.replicated(mesh), sharding.batch_sharding(mesh))
    return jax.jit(jax.value_and_grad(loss, has_aux=True), in_shardings=spread)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_loss_and_gradients_are_the_naive_formula(model, schema, expected, devices):
    _, _, _, params, view, arrays = model
    want, want_gradients = expected
    function = on_devices(devices, model, schema)
    (got, metrics), gradients = function(params, {"image": view[:, None], "metadata": arrays})
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert {"geo_cluster_accuracy", "geo_cluster_loss", "gsd_loss"} <= metrics.keys()
    largest = max(float(np.abs(g).max()) for g in jax.tree.leaves(want_gradients))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * largest),
        gradients,
        want_gradients,
    )
    # no metadata in the batch: nothing to learn, and everything finite
    nothing = arrays | {"present": np.zeros_like(arrays["present"])}
    (got, metrics), gradients = function(params, {"image": view[:, None], "metadata": nothing})
    assert float(got) == 0
    assert all(float(value) == 0 for value in metrics.values())
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(gradients))


def test_fields_without_values_in_the_train_split_are_no_targets(model, schema, tiny_config):
    _, method, *_ = model
    assert (method.views, method.metadata_view) == (1, 0)  # the targets follow its crop
    heads = method.heads(schema)
    assert heads["geo_cluster"] == Head("image", "affine", out=6)
    widths = [heads[name].out for name in ("gsd", "timestamp", "sun_azimuth_angle")]
    assert widths == [2, 5, 2]
    assert "scan_direction" not in heads  # has one value only
    bare = dataclasses.replace(schema, geo_centres=())
    assert "geo_cluster" not in method.heads(bare)
    only = build_method(tiny_config("metapred", "--config.metadata.fields=location"))
    assert list(only.heads(schema)) == ["geo_cluster"]
    with pytest.raises(ConfigError, match=r"nothing to predict.*fields='location'"):
        only.heads(bare)
    with pytest.raises(ConfigError, match="geo_clusters is 1; it must be from 2"):
        tiny_config("metapred", "--config.method.geo_clusters=1")


# --- a run ----------------------------------------------------------------------------------------

RUN = (
    "metapred",
    "--config.metadata.fields=gsd+location",
    "--config.method.geo_clusters=8",
    "--config.optimizer.images=1440",
    "--config.optimizer.learning_rate=1e-2",
    "--config.augment.crop_scale=(0.9, 1.0)",
    "--config.augment.rot90=False",
    "--config.augment.hflip=False",
    "--config.augment.jitter_p=0.0",
    "--config.augment.grey_p=0.0",
    "--config.checkpoint.every=45",
)


@pytest.fixture(scope="module")
def one_device():
    """Training on one device: quicker."""
    with pytest.MonkeyPatch.context() as patch:
        use_one_device(patch)
        yield


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory, one_device):
    """Workdir of a finished run of 90 steps, and the descriptions that it logged."""
    workdir = tmp_path_factory.mktemp("metapred")
    described = []

    def describe(*args):
        described.append(setup.describe(*args))
        return described[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "describe", describe)
        loop.train(tiny_config(*RUN), workdir)
    return workdir, described


def load(workdir):
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.run()[1], load_state(workdir)


def rows_of(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k not in ("images_per_second", "time")} for row in rows
    ]


def test_a_run_learns_where_its_images_are(run, tiny_shards):
    workdir, described = run
    rows = rows_of(workdir)

    def mean(key, part):
        return np.mean([row[key] for row in part])

    first, last = rows[:10], rows[-10:]
    assert mean("metapred_loss", last) < 0.7 * mean("metapred_loss", first)
    schema, _ = load(workdir)
    places = [tiny_shards[i]["metadata"].values.get("location") for i in range(64)]
    points = unit_vectors(np.array([place for place in places if place]))
    clusters = np.bincount((points @ np.array(schema.geo_centres).T).argmax(axis=1))
    chance = clusters.max() / clusters.sum()  # always predicting the largest
    assert mean("geo_cluster_accuracy", last) > chance + 0.1
    assert "targets and their outputs: gsd 2, geo_cluster 8" in described[0]


def test_a_resumed_run_keeps_its_centres_and_ends_bit_for_bit(
    run, tiny_config, tmp_path, monkeypatch
):
    workdir = tmp_path / "cut"
    shutil.copytree(run[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / "90")
    monkeypatch.setattr(setup, "fit_centres", None)  # not fitted again
    loop.train(tiny_config(*RUN), workdir)
    (schema, state), (want_schema, want_state) = load(workdir), load(run[0])
    assert schema.geo_centres == want_schema.geo_centres
    assert len(schema.geo_centres) == 8
    jax.tree.map(np.testing.assert_array_equal, state, want_state)
    assert rows_of(workdir) == rows_of(run[0])


def test_the_same_data_and_seed_give_the_same_centres(run, tiny_config, tiny_shards, tmp_path):
    fresh = run_schema(tiny_config(*RUN), tiny_shards, tmp_path)
    assert fresh.geo_centres == load(run[0])[0].geo_centres
    assert run_schema(tiny_config("satmips"), tiny_shards, tmp_path) is tiny_shards.schema


def test_real_records_with_missing_fields(real_data, tiny_config, tmp_path):
    """WorldView scenes of five acquisitions: few places, some unknown; fields without values."""
    from satmip_jax.data.shard_dataset import ShardDataset
    from satmip_jax.prepare.run import prepare
    from satmip_jax.sources.registry import open_source

    source = open_source("fmow", [real_data / "worldview"], classes="folders")
    prepare(source, tmp_path / "shards", image_size=32, workers=0, progress=False)
    data = ShardDataset(tmp_path / "shards", "train")
    config = tiny_config(
        "metapred", f"--config.data.dir={tmp_path / 'shards'}", "--config.metadata.fields=all"
    )
    schema = run_schema(config, data, tmp_path / "run")
    located = sum("location" in data[i]["metadata"].values for i in range(len(data)))
    assert 2 <= len(schema.geo_centres) <= located < 100
    heads = build_method(config).heads(schema)
    assert {"gsd", "timestamp", "geo_cluster", "sensor_platform", "sun_azimuth_angle"} <= set(heads)
    assert not {"cloud_cover", "scan_direction", "wavelengths"} & set(heads)
