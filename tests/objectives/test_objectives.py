"""Losses of the methods against their definitions, on a tiny model."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.config.loading import load_config
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.errors import ConfigError
from satmip_jax.losses.contrastive import info_nce, nt_xent
from satmip_jax.models import Towers, build_towers, example_batch
from satmip_jax.objectives import METHODS, build_method
from tests.conftest import forward_of_views
from tests.losses.test_contrastive import naive_sigmoid

SIZE, B = 16, 8


def tiny_config(method, *overrides):
    return load_config(
        f"configs/eurosat.py:{method},runlocal",
        [
            f"--config.image.size={SIZE}",
            "--config.metadata.width=16",
            "--config.metadata.heads=2",
            "--config.method.ssl_dim=8",
            "--config.method.embed_dim=8",
            "--config.metadata.field_dropout=0.0",
            "--config.metadata.attention_dropout=0.0",
            "--config.metadata.ffn_dropout=0.0",
            *overrides,
        ],
    )


def setting(schema, method_name, *overrides):
    """Config, method, forward and inputs of a tiny model of a method."""
    config = tiny_config(method_name, *overrides)
    method = build_method(config)
    towers = build_towers(config, schema, method)
    inputs = example_batch(config, schema)
    params = jax.jit(towers.init)(jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(0)
    views = [
        jnp.asarray(rng.normal(size=(B, SIZE, SIZE, 3)), jnp.float32) for _ in range(method.views)
    ]
    _, metadata = example_batch(config, schema)
    metadata = {name: jnp.repeat(x, B // 2, axis=0) for name, x in metadata.items()}
    values = rng.uniform(1, 50, metadata["values"].shape)
    metadata |= {"values": jnp.asarray(values, jnp.float32)}
    metadata["present"] = jnp.asarray(rng.random(metadata["present"].shape) < 0.7)
    label = jnp.asarray([-1, *rng.integers(0, len(schema.classes), B - 1)], jnp.int32)
    mesh = make_mesh(jax.devices()[:1])
    forward = forward_of_views(towers, params, mesh, schema, B)
    return config, method, forward, views, {"metadata": metadata, "label": label}


def evaluate(method, forward, views, batch):
    """Losses and metrics, compiled: op by op is slow."""
    return jax.jit(lambda batch: method.losses(forward, batch))(
        batch | {"image": jnp.stack(views, axis=1)}
    )


def test_satmips_is_the_sum_of_both_on_one_shared_view(tiny_shards):
    """Coupled: the SatMIP loss sees the first of SimCLR's two views and nothing else."""
    config, method, forward, views, batch = setting(
        tiny_shards.schema, "satmips", "--config.method.metadata_weight=0.25"
    )
    assert method.views == 2

    @jax.jit
    def by_hand(views, batch):
        def apply(kind, *inputs):
            return forward.towers.apply({"params": forward.params}, *inputs, method=kind)

        features = [apply("encode_image", view) for view in views]
        # batch norm: statistics over both views at once, as in SimCLR
        projected = apply("head", "image_ssl", jnp.concatenate(features))
        temperature = config.method.temperature
        simclr, _ = nt_xent(projected[:B], projected[B:], temperature, forward.mesh)
        metadata = apply("head", "metadata", forward.metadata(batch["metadata"]))
        image = apply("head", "image", features[0])
        scale = jnp.float32(config.method.logit_scale_init)
        satmip, _ = info_nce(image, metadata, scale, forward.mesh)
        return {"simclr": simclr, "satmip": 0.25 * satmip}

    losses, _ = evaluate(method, forward, views, batch)
    want = by_hand(views, batch)
    for name in ("simclr", "satmip"):
        np.testing.assert_allclose(losses[name], want[name], rtol=1e-5)


def test_uncoupled_satmips_takes_a_third_view(tiny_shards):
    _, method, forward, views, batch = setting(
        tiny_shards.schema, "satmips", "--config.method.coupled=False"
    )
    assert (method.views, method.metadata_view) == (3, 2)
    losses, _ = evaluate(method, forward, views, batch)
    other, _ = evaluate(method, forward, [*views[:2], views[2] + 1.0], batch)
    np.testing.assert_allclose(losses["simclr"], other["simclr"], rtol=1e-6)
    assert abs(float(losses["satmip"] - other["satmip"])) > 1e-4


def test_satmip_with_the_sigmoid_loss_is_siglips_formula(tiny_shards):
    _, method, forward, views, batch = setting(
        tiny_shards.schema,
        "satmip",
        "--config.method.loss=sigmoid",
        "--config.method.logit_scale_init=10",
        "--config.method.logit_bias_init=-3",
    )

    @jax.jit
    def by_hand(view, batch):
        variables = {"params": forward.params}
        image = forward.towers.apply(variables, view, method="encode_image")
        metadata = forward.metadata(batch["metadata"])
        image, metadata = (
            forward.towers.apply(variables, name, features, method="head")
            for name, features in (("image", image), ("metadata", metadata))
        )
        return naive_sigmoid(image, metadata, jnp.float32(10.0), jnp.float32(-3.0))

    losses, metrics = evaluate(method, forward, views, batch)
    np.testing.assert_allclose(losses["satmip"], by_hand(views[0], batch), rtol=1e-5)
    assert float(metrics["logit_scale"]) == pytest.approx(10.0)
    assert float(metrics["logit_bias"]) == -3.0


def test_fields_are_dropped_in_training_for_each_example_anew(tiny_shards):
    _, _, forward, _, batch = setting(
        tiny_shards.schema,
        "satmip",
        "--config.metadata.fields=all",
        "--config.metadata.depth=1",
        "--config.metadata.field_dropout=0.5",
    )
    same = {name: jnp.repeat(x[:1], B, axis=0) for name, x in batch["metadata"].items()}
    same["present"] = jnp.ones_like(same["present"])
    other = replace(forward, keys=jax.random.split(jax.random.key(2), B))
    encode = jax.jit(lambda metadata: (forward.metadata(metadata), other.metadata(metadata)))
    features = np.concatenate(encode(same))
    assert len(np.unique(features.round(3), axis=0)) > 1.5 * B


@pytest.mark.parametrize("encoder", ["tabular", "text"])
def test_satmip_trains_both_towers(tiny_shards, encoder):
    _, method, forward, views, batch = setting(
        tiny_shards.schema, "satmip", f"--config.metadata.encoder={encoder}"
    )
    if encoder == "text":
        caption = np.random.default_rng(1).integers(97, 122, batch["metadata"]["caption"].shape)
        batch["metadata"]["caption"] = jnp.asarray(caption, jnp.uint8)

    def loss(params):
        inner = replace(forward, params=params)
        return method.losses(inner, batch | {"image": jnp.stack(views, axis=1)})[0]["satmip"]

    gradients = jax.jit(jax.grad(loss))(forward.params)
    for tower in ("image_encoder", "metadata_encoder", "heads_image", "heads_metadata"):
        norms = [float(jnp.abs(g).max()) for g in jax.tree.leaves(gradients[tower])]
        assert max(norms) > 0, tower
    assert float(jnp.abs(gradients["log_scale"])) > 0


def test_supervised_is_cross_entropy_over_known_labels(tiny_shards):
    _, method, forward, views, batch = setting(tiny_shards.schema, "supervised")
    losses, metrics = evaluate(method, forward, views, batch)

    @jax.jit
    def classify(view):
        variables = {"params": forward.params}
        features = forward.towers.apply(variables, view, method="encode_image")
        return forward.towers.apply(variables, "classifier", features, method="head")

    logits = np.asarray(classify(views[0]), np.float64)
    label = np.asarray(batch["label"])
    rows = [i for i in range(B) if label[i] >= 0]
    assert 0 < len(rows) < B
    each = [np.log(np.exp(logits[i]).sum()) - logits[i, label[i]] for i in rows]
    np.testing.assert_allclose(losses["supervised"], np.mean(each), rtol=1e-5)
    right = np.mean([logits[i].argmax() == label[i] for i in rows])
    np.testing.assert_allclose(metrics["supervised_accuracy"], right, rtol=1e-6)


def test_supervised_without_labels_is_refused(tiny_shards):
    with pytest.raises(ConfigError, match="0 classes"):
        build_method(tiny_config("supervised")).heads(replace(tiny_shards.schema, classes=()))


def test_the_logit_scale_is_clamped_after_the_update():
    for wild, want in ((9.0, 100.0), (-3.0, 1.0), (2.0, np.exp(2.0))):
        params = Towers.constrain({"log_scale": jnp.float32(wild), "other": 1})
        assert params["other"] == 1
        assert float(jnp.exp(params["log_scale"])) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("method", "negatives"),
    [
        ("simclr", {"simclr": 510}),
        ("satmip", {"satmip": 255}),
        ("satmips", {"simclr": 510, "satmip": 255}),
        ("supervised", {}),
        ("metapred", {}),
        ("guided", {"simclr": 510}),
    ],
)
def test_the_number_of_negatives_is_the_true_one(method, negatives):
    assert build_method(tiny_config(method)).negatives(256) == negatives


def test_geo_clusters_are_needed_only_to_predict_the_location():
    needed = {
        (method, fields): build_method(
            tiny_config(method, f"--config.metadata.fields={fields}")
        ).needs_geo_clusters
        for method in METHODS
        for fields in ("location", "gsd")
    }
    assert [key for key, value in needed.items() if value] == [("metapred", "location")]


def test_the_metadata_encoder_exists_only_if_a_head_takes_its_output(tiny_shards):
    schema = tiny_shards.schema
    methods = {name: build_method(tiny_config(name)) for name in METHODS}
    encodes = {name for name, method in methods.items() if method.encodes_metadata(schema)}
    assert encodes == {"satmip", "satmips"}
    for name, method in methods.items():
        assert build_towers(tiny_config(name), schema, method).has_metadata == (name in encodes)
