"""AdamW against its formulas in float64; weight decay of matrices, for every method and encoder."""

import math

import jax
import numpy as np
import optax
import pytest

from satmip_jax.models import build_towers, example_batch
from satmip_jax.objectives import METHODS, build_method
from satmip_jax.training.optimizer import decays, make_optimizer


def warmup_cosine(step, peak, warmup, steps):
    """Linear from 0 to the peak, then half a cosine down to 0 after the last step."""
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


class AdamWByHand:
    """Loshchilov and Hutter 2019, algorithm 2, after Pascanu et al. 2013's clipping; in float64.

    Parameters are a dict, name -> array; weight decay applies to those in `decayed`.
    """

    def __init__(self, params, decayed, optimizer):
        self.params = {name: np.float64(x) for name, x in params.items()}
        self.decayed, self.optimizer = decayed, optimizer
        self.first, self.second = dict.fromkeys(params, 0.0), dict.fromkeys(params, 0.0)
        self.count = 0

    @staticmethod
    def norm(gradients):
        return math.sqrt(sum(np.square(np.float64(g)).sum() for g in gradients.values()))

    def step(self, gradients, rate):
        o, norm = self.optimizer, self.norm(gradients)
        factor = min(1.0, o.clip_norm / norm) if o.clip_norm else 1.0
        self.count += 1
        for name, gradient in gradients.items():
            g = factor * np.float64(gradient)
            self.first[name] = m = o.b1 * self.first[name] + (1 - o.b1) * g
            self.second[name] = v = o.b2 * self.second[name] + (1 - o.b2) * g * g
            m, v = m / (1 - o.b1**self.count), v / (1 - o.b2**self.count)
            decay = o.weight_decay * self.params[name] if name in self.decayed else 0.0
            self.params[name] = self.params[name] - rate * (m / (np.sqrt(v) + o.eps) + decay)


SHAPES = {
    "image_encoder": {"patch": {"kernel": (4, 3), "bias": (3,)}, "norm": {"scale": (3,)}},
    "metadata_encoder": {"tokenizer": {"gsd": {"kernel": (2, 3)}}, "missing": (5, 3)},
    "heads_image": {"linear": {"kernel": (3, 2)}},
    "log_scale": (),
}
MATRICES = {"image_encoder/patch/kernel", "heads_image/linear/kernel"}


def by_name(tree):
    """Leaves by the names on their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): np.asarray(x) for path, x in leaves}


@pytest.mark.parametrize("clip_norm", [0.0, 2.0])
@pytest.mark.parametrize(("steps", "warmup"), [(4, 0), (20, 2), (60, 4)])  # an epoch is 4 steps
def test_steps_equal_those_by_hand(steps, warmup, clip_norm, tiny_config):
    config = tiny_config(
        "simclr",
        f"--config.optimizer.images={16 * steps}",
        "--config.optimizer.learning_rate=0.02",
        "--config.optimizer.weight_decay=0.5",
        f"--config.optimizer.clip_norm={clip_norm}",
    )
    rng = np.random.default_rng(0)

    def draw(scale):
        is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
        normal = lambda shape: np.float32(rng.normal(scale=scale, size=shape))  # noqa: E731
        return jax.tree.map(normal, SHAPES, is_leaf=is_shape)

    params = draw(1.0)
    optimizer, schedule = make_optimizer(config, examples=64)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    hand = AdamWByHand(by_name(params), MATRICES, config.optimizer)
    clipped = set()
    for step in range(steps):
        gradients = draw(10.0 ** rng.uniform(-2, 1))
        rate = warmup_cosine(step, 0.02, warmup, steps)
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-9)
        clipped.add(hand.norm(by_name(gradients)) > clip_norm)
        hand.step(by_name(gradients), rate)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name, got in by_name(params).items():
            np.testing.assert_allclose(got, hand.params[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert float(schedule(steps)) == pytest.approx(0.0, abs=1e-9)
    assert clipped == ({True, False} if clip_norm else {True})


def decayed_by_name(path):
    """The rule of version 0.1, with which published runs were trained."""
    names = [str(key.key) for key in path]
    return names[-1] == "kernel" and not any("token" in name for name in names)


@pytest.mark.parametrize("encoder", ["tabular", "text"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_weight_decay_applies_to_the_same_parameters_as_ever(
    method, encoder, pool, tiny_config, tiny_shards
):
    config = tiny_config(
        method,
        f"--config.metadata.encoder={encoder}",
        f"--config.image.pool={pool}",
        "--config.metadata.fields=all",
        "--config.metadata.depth=3",
        "--config.method.loss=sigmoid",
    )
    towers = build_towers(config, tiny_shards.schema, build_method(config))

    def init():
        inputs = example_batch(config, tiny_shards.schema)
        return towers.init(jax.random.key(0), *inputs)["params"]

    params = jax.eval_shape(init)
    mask = decays(params)
    assert any(jax.tree.leaves(mask))
    expected = jax.tree_util.tree_map_with_path(lambda path, _: decayed_by_name(path), params)
    assert mask == expected
