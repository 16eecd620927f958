"""Guided SimCLR: losses by hand in numpy, reversed gradients, equal norms, missing fields."""

import dataclasses
import math
from datetime import UTC, datetime

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import erf

from satmip_jax.distributed import sharding
from satmip_jax.errors import ConfigError
from satmip_jax.metadata import tabular
from satmip_jax.metadata.guides import FIRST_YEAR, guide
from satmip_jax.metadata.record import Metadata
from satmip_jax.metadata.regions import sub_region
from satmip_jax.models import Head, build_towers, example_batch
from satmip_jax.objectives import Forward, build_method
from satmip_jax.planning.dry_run import diagnose
from tests.conftest import forward_of_views

B = 16
COUNTRIES = ("FRA", "ITA", "KEN", "PER", "POL", "ATA")
NAMES = "sub_region,gsd"


@pytest.fixture(scope="module")
def schema(tiny_shards):
    """The tiny shards' schema with countries of five sub-regions, and Antarctica of none."""
    fields = dict(tiny_shards.schema.fields)
    fields["country_code"] = dataclasses.replace(
        fields["country_code"], vocabulary=tuple(sorted(COUNTRIES))
    )
    return dataclasses.replace(tiny_shards.schema, fields=fields)


def records(n, seed=0):
    """Metadata of which much is missing."""
    rng = np.random.default_rng(seed)
    found = []
    for row in range(n):
        raw = {
            "country_code": COUNTRIES[rng.integers(len(COUNTRIES))],
            "timestamp": datetime(int(rng.integers(2009, 2013)), 1 + row % 12, 28, 7, tzinfo=UTC),
            "gsd": rng.uniform(0.3, 10, 2).tolist(),
        }
        found.append(Metadata.parse({k: v for k, v in raw.items() if rng.random() < 0.7}))
    found[3] = Metadata({})
    return found


@dataclasses.dataclass
class Setting:
    """A tiny model and a batch."""

    config: object
    method: object
    towers: object
    params: dict
    batch: dict
    rows: list


@pytest.fixture(scope="module")
def make(schema, tiny_config):
    def setting(*overrides):
        common = (
            "metadata.fields=all",
            "method.guide_hidden=12",
            f"method.guide_auxiliary={NAMES}",
        )
        flags = [f"--config.{flag}" for flag in (*common, *overrides)]
        config = tiny_config("guided", *flags)
        method = build_method(config)
        towers = build_towers(config, schema, method)
        params = jax.jit(towers.init)(jax.random.key(0), *example_batch(config, schema))["params"]
        rows = records(B)
        views = np.random.default_rng(1).normal(size=(B, 2, 32, 32, 3)).astype(np.float32)
        batch = {"image": views, "metadata": tabular.encode(rows, schema)}
        return Setting(config, method, towers, params, batch, rows)

    return setting


def losses_of(s, schema, params=None, batch=None, devices=1, fsdp=1, **options):
    """Losses and metrics on a mesh, compiled."""
    mesh = sharding.make_mesh(jax.devices()[:devices], fsdp=fsdp)

    def compute(params, batch):
        forward = forward_of_views(s.towers, params, mesh, schema, B)
        return s.method.losses(dataclasses.replace(forward, **options), batch)

    spread = (sharding.replicated(mesh), sharding.batch_sharding(mesh))
    run = jax.jit(compute, in_shardings=spread)
    return run(s.params if params is None else params, s.batch if batch is None else batch)


# --- the formula ----------------------------------------------------------------------------------


def predict(head, x):
    """The head in float64."""
    for i in (1, 2, 3):
        layer = head[f"linear{i}"]
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        if i < 3:
            x = 0.5 * x * (1 + erf(x / math.sqrt(2)))
    return x


def plain_losses(s, schema):
    """Name -> features -> the mean over the rows that have the field, row by row."""
    regions = sorted({sub_region(code) for code in COUNTRIES} - {""})
    stats = schema.fields["gsd"]

    def target(name, row):
        values = s.rows[row].values
        if name == "sub_region":
            place = sub_region(values.get("country_code", ""))
            return regions.index(place) if place else None
        if name == "year":
            return values["timestamp"].year - FIRST_YEAR if "timestamp" in values else None
        if "gsd" not in values:
            return None
        logs = np.log(values["gsd"])
        return [(v - m) / d for v, m, d in zip(logs, stats.mean, stats.std, strict=True)]

    def loss(name, features):
        each = []
        out = predict(s.params[f"heads_guide_{name}"], features)
        for row in range(B):
            truth = target(name, row)
            if truth is None:
                continue
            if isinstance(truth, int):
                each.append(math.log(np.exp(out[row]).sum()) - out[row, truth])
            else:
                error = np.abs(out[row] - truth)
                each.append(np.where(error <= 1, error**2 / 2, error - 0.5).mean())
        assert 3 < len(each) < B
        return np.mean(each)

    return loss


def slopes(function, x, step=1e-5):
    """The gradient by central differences."""
    gradient = np.zeros_like(x)
    for at in np.ndindex(*x.shape):
        there = np.zeros_like(x)
        there[at] = step
        gradient[at] = (function(x + there) - function(x - there)) / (2 * step)
    return gradient


@pytest.mark.parametrize(("devices", "fsdp"), [(1, 1), (2, 2), (8, 1)])
def test_losses_and_norms_are_the_naive_formula(make, schema, devices, fsdp):
    s = make("method.guide_weight=0.25")
    losses, metrics = losses_of(s, schema, devices=devices, fsdp=fsdp)
    encode = jax.jit(lambda x: s.towers.apply({"params": s.params}, x, method="encode_image"))
    features = np.asarray(encode(s.batch["image"][:, 0]), np.float64)
    plain = plain_losses(s, schema)
    names = ["sub_region", "gsd", "year"]
    norms = {}
    for name in names:
        np.testing.assert_allclose(metrics[f"{name}_loss"], plain(name, features), rtol=1e-5)
        norms[name] = np.linalg.norm(slopes(lambda x, name=name: plain(name, x), features))
        np.testing.assert_allclose(metrics[f"{name}_gradient_norm"], norms[name], rtol=1e-4)
    mean = np.prod(list(norms.values())) ** (1 / 3)
    assert max(norms.values()) > 1.3 * min(norms.values())
    for name in names:
        want = 0.25 * mean / norms[name] * plain(name, features)
        np.testing.assert_allclose(losses[f"guide_{name}"], want, rtol=1e-4)
    assert losses.keys() == {"simclr", *(f"guide_{name}" for name in names)}
    guess = predict(s.params["heads_guide_year"], features).argmax(axis=1)
    times = [r.values.get("timestamp") for r in s.rows]
    right = [g == t.year - FIRST_YEAR for g, t in zip(guess, times, strict=True) if t]
    np.testing.assert_allclose(metrics["year_accuracy"], np.mean(right), rtol=1e-5)


@pytest.mark.parametrize("options", [{"micro_batch": 2}, {"exchange": "ring"}])
def test_micro_batches_and_the_ring_change_nothing(make, schema, options):
    s = make()

    def total(params, devices, **options):
        losses, _ = losses_of(s, schema, params, devices=devices, **options)
        return sum(losses.values())

    want = jax.grad(lambda p: total(p, 1))(s.params)
    got = jax.grad(lambda p: total(p, 4, **options))(s.params)
    largest = max(float(np.abs(g).max()) for g in jax.tree.leaves(want))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest), got, want
    )


# --- gradients of the encoder ---------------------------------------------------------------------


def gradients(s, schema, only=None):
    """By the parameters, of all losses or of one."""

    def total(params):
        losses, _ = losses_of(s, schema, params)
        return losses[only] if only else sum(losses.values())

    return jax.jit(jax.grad(total))(s.params)


def flat(tree):
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def test_an_adversarial_guide_reverses_the_encoders_gradient_and_no_other(make, schema):
    fixed = ("method.guide_equalize=False", "method.guide_auxiliary=sub_region")
    attracted = make(*fixed, "method.guide_auxiliary=sub_region,year", "method.guide_adversarial=")
    repelled = make(*fixed, "method.guide_adversarial=year", "method.guide_reversal=0.5")
    helps = gradients(attracted, schema, "guide_year")
    hinders = gradients(repelled, schema, "guide_year")
    encoder, head = "image_encoder", "heads_guide_year"
    assert np.abs(flat(helps[encoder])).max() > 1e-5
    np.testing.assert_allclose(
        flat(hinders[encoder]), -0.5 * flat(helps[encoder]), rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(flat(hinders[head]), flat(helps[head]), rtol=1e-4, atol=1e-7)

    # and the auxiliary gradient is that of the loss, by differences along a direction
    rng = np.random.default_rng(5)
    direction = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), attracted.params[encoder]
    )

    def moved(step):
        encoder_ = jax.tree.map(lambda x, d: x + step * d, attracted.params[encoder], direction)
        losses, _ = losses_of(attracted, schema, attracted.params | {encoder: encoder_})
        return float(losses["guide_year"])

    slope = (moved(1e-3) - moved(-1e-3)) / 2e-3
    np.testing.assert_allclose(slope, flat(helps[encoder]) @ flat(direction), rtol=0.03)


def test_equalized_guides_pull_with_the_same_force(make, schema, monkeypatch):
    s = make("method.guide_weight=0.5", "method.guide_reversal=2.0")
    features = jnp.asarray(np.random.default_rng(2).normal(size=(2, B, 128)), jnp.float32)
    mesh = sharding.make_mesh(jax.devices()[:1])
    forward = forward_of_views(s.towers, s.params, mesh, schema, B)
    monkeypatch.setattr(Forward, "images", lambda _, images, views: [images[v] for v in views])
    width = s.params["heads_guide_year"]["linear1"]["kernel"].shape[0]

    metadata = jax.tree.map(jnp.asarray, s.batch["metadata"])

    def loss(features, name):
        batch = {"image": features, "metadata": metadata}
        return s.method.losses(forward, batch)[0][f"guide_{name}"]

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    norms = {
        name: np.linalg.norm(gradient(features[..., :width], name))
        for name in ("sub_region", "gsd", "year")
    }
    assert norms["sub_region"] == pytest.approx(norms["gsd"], rel=1e-4)
    assert norms["year"] == pytest.approx(2 * norms["gsd"], rel=1e-4)  # guide_reversal


# --- what is missing ------------------------------------------------------------------------------


def test_a_missing_field_contributes_nothing(make, schema):
    s = make("method.guide_adversarial=", "method.guide_auxiliary=sub_region")
    nothing = s.batch["metadata"] | {"present": np.zeros_like(s.batch["metadata"]["present"])}
    losses, metrics = losses_of(s, schema, batch=s.batch | {"metadata": nothing})
    assert float(losses["guide_sub_region"]) == float(metrics["sub_region_gradient_norm"]) == 0
    assert np.isfinite(float(losses["simclr"]))

    # of the rows without a country, or of one without a region, the pixels do not matter
    def of(images):
        return losses_of(s, schema, batch=s.batch | {"image": images})[0]["guide_sub_region"]

    missing = [not sub_region(r.values.get("country_code", "")) for r in s.rows]
    assert 2 < sum(missing) < B - 2
    changed = np.where(np.array(missing)[:, None, None, None, None], 5.0, s.batch["image"])
    np.testing.assert_allclose(of(changed.astype(np.float32)), of(s.batch["image"]), rtol=1e-6)


def test_guides_without_values_are_left_out(make, schema, tiny_config):
    s = make()
    heads = s.method.heads(schema)
    assert heads["guide_sub_region"] == Head("image", "predictor", hidden=12, out=5)
    assert heads["guide_year"].out == 64
    assert heads["guide_gsd"].out == 2
    fields = schema.fields | {"timestamp": dataclasses.replace(schema.fields["timestamp"], count=0)}
    assert "guide_year" not in s.method.heads(dataclasses.replace(schema, fields=fields))
    location = build_method(tiny_config("guided"))  # config.metadata.fields is Location
    assert [g.name for g in location.guides(schema)] == ["sub_region"]
    with pytest.raises(ConfigError, match="has nothing to learn for sub_region, year"):
        build_method(tiny_config("guided", "--config.metadata.fields=gsd")).heads(schema)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("guide_auxiliary=subregion", "no guide 'subregion': choose from region, sub_region"),
        ("guide_auxiliary=year", "guides year are named twice"),
        ("guide_hidden=0", "at least 1"),
    ],
)
def test_wrong_guides_are_named(tiny_config, schema, flag, message):
    with pytest.raises(ConfigError, match=message):
        build_method(tiny_config("guided", f"--config.method.{flag}")).heads(schema)


def test_targets_of_a_time_are_those_of_the_calendar(schema):
    moments = [
        datetime(2016, 2, 29, 23, 30, tzinfo=UTC),
        datetime(2012, 12, 30, 0, 10, tzinfo=UTC),
        datetime(1960, 7, 15, 12, 0, tzinfo=UTC),
        *(datetime(2015, month, day, 5, tzinfo=UTC) for month in range(1, 13) for day in (2, 27)),
    ]
    arrays = tabular.encode([Metadata.parse({"timestamp": m}) for m in moments], schema)
    got = {name: guide(name, schema).of(arrays, schema) for name in ("year", "month", "hour")}
    assert all(np.asarray(has).all() for _, has in got.values())
    years = [max(m.year - FIRST_YEAR, 0) for m in moments]
    assert np.asarray(got["year"][0]).tolist() == years
    months = [m.month - 1 for m in moments]
    months[0] = 2  # 29 February is the 60th day
    assert np.asarray(got["month"][0]).tolist() == months
    assert np.asarray(got["hour"][0]).tolist() == [m.hour for m in moments]


def test_the_location_and_the_country_can_guide(tiny_config, schema):
    flags = "--config.metadata.fields=all", "--config.method.guide_auxiliary=location,country"
    method = build_method(tiny_config("guided", *flags, "--config.method.geo_clusters=7"))
    assert method.needs_geo_clusters
    heads = method.heads(method.planning_schema(schema))
    assert (heads["guide_location"].out, heads["guide_country"].out) == (7, len(COUNTRIES))


def test_the_doctor_plans_a_guided_run(tiny_config):
    diagnosis = diagnose(tiny_config("guided", "--config.metadata.fields=all"))
    assert not diagnosis.problems


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_encoder_shows_what_helps_and_hides_what_hinders(make, schema):
    """Colour shows the sub-region and brightness the year: one stays visible, the other not."""
    rng = np.random.default_rng(7)
    n, codes = 64, COUNTRIES[:4]
    place, year = rng.integers(4, size=n), rng.integers(2, size=n)
    tints = 2 * rng.normal(size=(4, 3))
    tints -= tints.mean(axis=1, keepdims=True)
    images = 0.3 * rng.normal(size=(n, 2, 32, 32, 3)) + tints[place][:, None, None, None]
    images += (2 * year - 1)[:, None, None, None, None]
    rows = [
        Metadata.parse(
            {"country_code": codes[p], "timestamp": datetime(2010 + int(y), 6, 1, tzinfo=UTC)}
        )
        for p, y in zip(place, year, strict=True)
    ]
    batch = {
        "image": jnp.asarray(images, jnp.float32),
        "metadata": jax.tree.map(jnp.asarray, tabular.encode(rows, schema)),
    }
    mesh = sharding.make_mesh(jax.devices()[:1])

    def train(*overrides):
        s = make("method.guide_weight=3.0", "method.guide_hidden=32", *overrides)
        tx = optax.adam(1e-2)

        @jax.jit
        def step(params, state):
            def total(params):
                forward = forward_of_views(s.towers, params, mesh, schema, n)
                losses, metrics = s.method.losses(forward, batch)
                return sum(losses.values()), metrics

            gradient, metrics = jax.grad(total, has_aux=True)(params)
            with jax.numpy_dtype_promotion("standard"):
                updates, state = tx.update(gradient, state, params)
            return optax.apply_updates(params, updates), state, metrics

        params, state = s.params, tx.init(s.params)
        for _ in range(40):
            params, state, metrics = step(params, state)
        return [float(metrics[f"{name}_accuracy"]) for name in ("sub_region", "year")]

    both = "method.guide_auxiliary=sub_region,year", "method.guide_adversarial="
    assert min(train(*both)) > 0.9
    sub_region_, year_ = train("method.guide_auxiliary=sub_region")
    assert sub_region_ > 0.9
    assert year_ < 0.7
