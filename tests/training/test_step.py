"""The training step by hand: what a method is given, the update, and what is logged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.augmentation.views import augment
from satmip_jax.data.loaders import InMemoryBatches
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.metadata import tabular
from satmip_jax.objectives import Method
from satmip_jax.objectives.options import MethodOptions
from satmip_jax.training.step import augmentation, build_program, make_loss, view_keys
from tests.metadata.test_follow_crop import assert_same
from tests.training.test_optimizer import AdamWByHand, by_name, warmup_cosine

VIEWS = 3


class Recorder(Method):
    """Two losses that are constants; its metrics are all that a method is given."""

    title = "Recorder"
    metadata_view = 2

    def heads(self, schema):
        return {}

    def losses(self, forward, batch):
        views = [forward.draw(batch["image"], forward.keys, view) for view in range(VIEWS)]
        given = {"views": jnp.stack(views), "metadata": batch["metadata"], "keys": forward.keys}
        return {"one": jnp.float32(1), "ten": jnp.float32(10)}, given


@pytest.fixture(scope="module")
def batch(tiny_shards):
    with InMemoryBatches(
        tiny_shards, make_mesh(jax.devices()[:1]), batch_size=16, seed=0
    ) as batches:
        return next(batches)


@pytest.fixture(scope="module")
def recorded(tiny_config, tiny_shards):
    """Make the jitted loss of a Recorder with views of half the stored side."""

    def make(*overrides):
        config = tiny_config("satmips", "--config.image.size=16", *overrides)
        mesh, method = make_mesh(jax.devices()[:1]), Recorder(MethodOptions())
        return config, jax.jit(make_loss(config, None, method, tiny_shards.schema, mesh))

    return make


def test_a_method_is_given_normalized_views_and_the_metadata_of_one_of_them(
    recorded, tiny_shards, batch
):
    """Gsd and location change with the crop and with the size."""
    config, loss = recorded()
    total, given = loss({}, batch, jax.random.key(3))
    assert (float(total), float(given["one_loss"]), float(given["ten_loss"])) == (11, 1, 10)
    schema, draw = tiny_shards.schema, jax.jit(augment, static_argnums=2)
    boxes = []
    for view, got in enumerate(np.asarray(given["views"])):
        keys = view_keys(given["keys"], view)
        pixels, crop = draw(keys, batch["image"], augmentation(config))
        want = (np.asarray(pixels) - schema.image_mean) / np.array(schema.image_std)
        np.testing.assert_allclose(got, want, atol=1e-5)
        boxes.append(np.float64(crop)[:, [1, 0, 3, 2]] * 32)
    assert min(np.abs(boxes[2] - boxes[view]).max() for view in (0, 1)) > 1
    records = [tiny_shards[number]["metadata"] for number in np.asarray(batch["index"])]
    followed = [
        record.crop_resize(tuple(box), (32, 32), 16)
        for record, box in zip(records, boxes[2], strict=True)
    ]
    assert_same(jax.device_get(given["metadata"]), tabular.encode(followed, schema))

    # one image sixteen times, and another key: every view of every row differs
    same = batch | {"image": jnp.repeat(batch["image"][:1], 16, axis=0)}
    views = [loss({}, same, jax.random.key(seed))[1]["views"] for seed in (3, 4)]
    flat = np.concatenate(views).reshape(2 * VIEWS * 16, -1)
    assert len(np.unique(flat.round(3), axis=0)) == len(flat)


def test_metadata_are_those_of_the_stored_image_if_they_do_not_follow(recorded, tiny_shards, batch):
    _, loss = recorded("--config.metadata.follow_crop=False")
    metadata = jax.jit(lambda *args: loss(*args)[1]["metadata"])({}, batch, jax.random.key(3))
    records = [tiny_shards[number]["metadata"] for number in np.asarray(batch["index"])]
    assert_same(jax.device_get(metadata), tabular.encode(records, tiny_shards.schema))


def test_steps_equal_those_by_hand(tiny_config, tiny_shards):
    """Gradients of each step's key, clipping, AdamW on a warm-up, the clamp, and the metrics."""
    config = tiny_config(
        "satmip",
        "--config.method.loss=sigmoid",
        "--config.method.logit_scale_init=150",  # above the bound
        "--config.optimizer.images=640",  # 40 steps, of which an epoch of 4 warms up
        "--config.optimizer.eps=1e-3",  # gradients of 0 are rounding errors
        "--config.optimizer.clip_norm=0.5",
        "--config.augment.jitter_p=0",
        "--config.augment.grey_p=0",
        "--config.optimizer.weight_decay=0.5",
    )
    mesh = make_mesh(jax.devices()[:1])
    program = build_program(config, tiny_shards.schema, len(tiny_shards), mesh)
    loss = make_loss(config, program.towers, program.method, program.schema, mesh)
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    state = program.init()
    start = by_name(state.params)
    matrices = {name for name in start if name.endswith("/kernel") and "/tokenizer/" not in name}
    hand = AdamWByHand(start, matrices, config.optimizer)
    with InMemoryBatches(tiny_shards, mesh, batch_size=16, seed=0) as batches:
        for step in range(3):
            batch, before = next(batches), jax.tree.map(jnp.copy, state.params)
            key = jax.random.fold_in(jax.random.key(config.seed), step)
            (value, _), gradients = gradient(before, batch, key)
            rate = warmup_cosine(step, config.optimizer.learning_rate, 4, 40)
            hand.step(by_name(gradients), rate)
            hand.params["log_scale"] = min(hand.params["log_scale"], np.log(100))
            state, metrics = program.step(state, batch)
            for name, got in by_name(state.params).items():
                np.testing.assert_allclose(
                    got, hand.params[name], rtol=1e-4, atol=1e-5, err_msg=name
                )
            norm = hand.norm(by_name(gradients))
            assert norm > config.optimizer.clip_norm
            logged = {name: float(metric) for name, metric in metrics.items()}
            assert logged == {
                "satmip_loss": pytest.approx(float(value), rel=1e-5),
                "loss": pytest.approx(float(value), rel=1e-5),
                "grad_norm": pytest.approx(norm, rel=1e-4),
                "learning_rate": pytest.approx(rate, rel=1e-5),
                "logit_scale": pytest.approx(np.exp(before["log_scale"]), rel=1e-4),
                "logit_bias": pytest.approx(float(before["logit_bias"]), rel=1e-5),
                "satmip_accuracy": pytest.approx(logged["satmip_accuracy"]),
            }
            assert before["log_scale"] == pytest.approx(np.log(150 if step == 0 else 100), abs=1e-3)
    assert int(state.step) == 3
    moved = max(np.abs(got - start[name]).max() for name, got in by_name(state.params).items())
    assert moved > 1e-4
