"""Losses and gradients against the naive global formula, on 1, 2 and 8 devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.distributed.sharding import batch_sharding, make_mesh, replicated
from satmip_jax.losses import contrastive, ring
from satmip_jax.losses.contrastive import info_nce, nt_xent, sigmoid_loss
from tests.conftest import import_torchvision

B, D = 16, 12


def embeddings(seed, rows=B):
    a, b = np.random.default_rng(seed).normal(size=(2, rows, D)).astype(np.float32)
    return jnp.asarray(a), jnp.asarray(a * 0.3 + b)


def unit(x):
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def naive_info_nce(a, b, scale):
    """Radford et al. 2021, the pseudo-code of figure 3."""
    logits = scale * jnp.matmul(unit(a), unit(b).T, precision="highest")
    i = jnp.arange(a.shape[0])
    rows = -jax.nn.log_softmax(logits, axis=1)[i, i]
    columns = -jax.nn.log_softmax(logits, axis=0)[i, i]
    return (rows.mean() + columns.mean()) / 2


def naive_nt_xent(first, second, temperature):
    """Chen et al. 2020, equation 1, without the anchor itself in its row."""
    z = unit(jnp.concatenate([first, second]))
    n = first.shape[0]
    similarity = jnp.matmul(z, z.T, precision="highest") / temperature
    others = np.array([[k for k in range(2 * n) if k != i] for i in range(2 * n)])
    partner = (np.arange(2 * n) + n) % (2 * n)
    rows = np.arange(2 * n)
    denominator = jax.nn.logsumexp(similarity[rows[:, None], others], axis=1)
    return (denominator - similarity[rows, partner]).mean()


def naive_sigmoid(a, b, scale, bias):
    """Zhai et al. 2023, algorithm 1."""
    logits = scale * jnp.matmul(unit(a), unit(b).T, precision="highest") + bias
    labels = 2 * jnp.eye(a.shape[0]) - 1
    return -jax.nn.log_sigmoid(labels * logits).sum() / a.shape[0]


def on_devices(devices, loss, *arrays):
    """Return value and gradients with rows sharded over the first `devices` devices."""
    mesh = make_mesh(jax.devices()[:devices], fsdp=min(devices, 2))
    placed = [
        jax.device_put(x, batch_sharding(mesh) if x.ndim else replicated(mesh)) for x in arrays
    ]
    every = tuple(range(len(arrays)))
    return jax.jit(jax.value_and_grad(lambda *xs: loss(*xs, mesh), argnums=every))(*placed)


def assert_same(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.fixture(params=["gather", "ring", "ring in tiles of 3"])
def exchange(request, monkeypatch):
    """Each exchange; tiles of 3 rows divide neither 16 nor 2: padding, several tiles per device."""
    if "tiles" in request.param:

        def pairs(x, y, reduction, period):
            return ring.ring_pairs(x, y, reduction, period, 3)

        def within(x, reduction, period):
            return ring.ring_self(x, reduction, period, 3)

        tiled = contrastive.Exchange(pairs, within)
        monkeypatch.setitem(contrastive.EXCHANGES, "ring", tiled)
    return request.param.split()[0]


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_losses_and_gradients_equal_the_naive_formulas(devices, exchange):
    a, b = embeddings(0)
    for scale in (14.3, 100.0):
        scale = jnp.float32(scale)
        want = jax.jit(jax.value_and_grad(naive_info_nce, argnums=(0, 1, 2)))(a, b, scale)
        got = on_devices(devices, lambda *xs: info_nce(*xs, exchange)[0], a, b, scale)
        assert_same(got, want)
    for temperature in (0.07, 1.0):
        want = jax.jit(jax.value_and_grad(naive_nt_xent, argnums=(0, 1)))(a, b, temperature)
        got = on_devices(
            devices,
            lambda a, b, mesh, t=temperature: nt_xent(a, b, t, mesh, exchange)[0],
            a,
            b,
        )
        assert_same(got, want)
    scale, bias = jnp.float32(10.0), jnp.float32(-3.0)
    want = jax.jit(jax.value_and_grad(naive_sigmoid, argnums=(0, 1, 2, 3)))(a, b, scale, bias)
    got = on_devices(devices, lambda *xs: sigmoid_loss(*xs, exchange)[0], a, b, scale, bias)
    assert_same(got, want)


def test_accuracy_equals_numpys(exchange):
    mesh = make_mesh()
    a, b = embeddings(9, rows=64)
    b = a + 0.8 * b  # some identify their partner, some do not
    similarity = np.asarray(unit(a) @ unit(b).T)
    correct = (similarity.argmax(axis=1) == np.arange(64)).mean()
    correct += (similarity.argmax(axis=0) == np.arange(64)).mean()
    metrics = jax.jit(lambda a, b: info_nce(a, b, jnp.float32(20.0), mesh, exchange)[1])(a, b)
    assert 0.2 < correct / 2 < 0.98
    assert float(metrics["accuracy"]) == pytest.approx(correct / 2)


def test_gradients_agree_with_finite_differences():
    a, b = embeddings(2, rows=8)
    mesh = make_mesh()
    for loss in (
        lambda a: info_nce(a, b, jnp.float32(5.0), mesh)[0],
        lambda a: nt_xent(a, b, 0.5, mesh)[0],
    ):
        loss = jax.jit(loss)
        gradient = jax.jit(jax.grad(loss))(a)
        direction = np.random.default_rng(3).normal(size=a.shape).astype(np.float32)
        step = 1e-2
        difference = (loss(a + step * direction) - loss(a - step * direction)) / (2 * step)
        np.testing.assert_allclose(
            float(difference), float((gradient * direction).sum()), rtol=2e-3
        )


def test_accuracy_is_the_fraction_of_identified_partners():
    mesh = make_mesh()
    clip = jax.jit(lambda a, b: info_nce(a, b, jnp.float32(10.0), mesh)[1]["accuracy"])
    simclr = jax.jit(lambda a, b: nt_xent(a, b, 0.1, mesh)[1]["accuracy"])
    a, _ = embeddings(4)
    mixed = jnp.concatenate([a[:4], -a[4:]])  # 4 of 16 identify their partner, the others cannot
    assert float(clip(a, a)) == float(simclr(a, a)) == 1.0
    assert float(clip(a, mixed)) == pytest.approx(0.25)


def test_a_zero_embedding_gives_finite_gradients():
    mesh = make_mesh()
    a, b = embeddings(5)
    a = a.at[0].set(0.0)
    function = jax.value_and_grad(lambda a: info_nce(a, b, jnp.float32(10.0), mesh)[0])
    loss, gradient = jax.jit(function)(a)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_bfloat16_embeddings_are_scored_in_float32():
    mesh = make_mesh()
    a, b = (x.astype(jnp.bfloat16) for x in embeddings(6))
    loss = jax.jit(lambda a, b: info_nce(a, b, jnp.float32(100.0), mesh)[0])(a, b)
    assert loss.dtype == jnp.float32
    want = naive_info_nce(a.astype(jnp.float32), b.astype(jnp.float32), jnp.float32(100.0))
    np.testing.assert_allclose(loss, want, rtol=1e-5)


def to_torch(x):
    return pytest.importorskip("torch").from_numpy(np.array(x))


@pytest.mark.oracle
def test_info_nce_equals_open_clips():
    import_torchvision()
    torch, oracle = pytest.importorskip("torch"), pytest.importorskip("open_clip.loss")
    a, b = embeddings(7)
    x, y = (torch.nn.functional.normalize(to_torch(z), dim=1) for z in (a, b))
    want = oracle.ClipLoss()(x, y, torch.tensor(14.3)).item()
    got, _ = info_nce(a, b, jnp.float32(14.3), make_mesh())
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.oracle
def test_nt_xent_equals_lightlys():
    import_torchvision()
    oracle = pytest.importorskip("lightly.loss.ntx_ent_loss")
    a, b = embeddings(7)
    want = oracle.NTXentLoss(temperature=0.1)(to_torch(a), to_torch(b)).item()
    np.testing.assert_allclose(nt_xent(a, b, 0.1, make_mesh())[0], want, rtol=1e-5)
