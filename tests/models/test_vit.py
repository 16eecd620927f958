"""The ViT against timm's; names, sizes and error messages."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from satmip_jax.models.vit import VARIANTS, ViT, parse_vit, vit
from tests.conftest import import_torchvision

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(7).standard_normal((3, 16, 24, 3), np.float32)


def import_timm():
    """Import timm, also beside a torchvision whose compiled operators do not load."""
    import_torchvision()
    return pytest.importorskip("timm.models.vision_transformer")


def from_timm(tensors, depth):
    """Convert timm's state or its gradients to our layout."""
    t = {name: tensor.detach().numpy() for name, tensor in tensors.items()}

    def stack(name):
        return np.stack([t[f"blocks.{i}.{name}"] for i in range(depth)])

    def linear(name):
        kernel = np.swapaxes(stack(f"{name}.weight"), 1, 2)
        return {"kernel": kernel, "bias": stack(f"{name}.bias")}

    def norm(name):
        return {"scale": stack(f"{name}.weight"), "bias": stack(f"{name}.bias")}

    final = "norm" if "norm.weight" in t else "fc_norm"
    patch = t["patch_embed.proj.weight"].transpose(2, 3, 1, 0)  # (o, c, y, x) -> (y, x, c, o)
    params = {
        "patch_embed": {
            "kernel": patch.reshape(-1, patch.shape[-1]),
            "bias": t["patch_embed.proj.bias"],
        },
        "position": t["pos_embed"][0],
        "encoder": {
            "blocks": {
                "norm1": norm("norm1"),
                "attention": {"qkv": linear("attn.qkv"), "out": linear("attn.proj")},
                "norm2": norm("norm2"),
                "mlp": {"fc1": linear("mlp.fc1"), "fc2": linear("mlp.fc2")},
            }
        },
        "norm": {"scale": t[f"{final}.weight"], "bias": t[f"{final}.bias"]},
    }
    if "cls_token" in t:
        params["cls"] = t["cls_token"][0, 0]
    return params


@pytest.mark.oracle
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_equals_timm(pool):
    timm = import_timm()
    import torch

    torch.manual_seed(0)
    theirs = timm.VisionTransformer(
        img_size=(32, 48),
        patch_size=8,
        embed_dim=96,
        depth=2,
        num_heads=3,
        num_classes=0,
        class_token=pool == "cls",
        global_pool="token" if pool == "cls" else "avg",
    ).eval()
    with torch.no_grad():  # norms, biases and the class token too: each must have an effect
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = ViT(width=96, depth=2, heads=3, mlp_dim=384, patch_size=8, pool=pool)
    params = from_timm(theirs.state_dict(), depth=2)
    images = np.random.default_rng(0).standard_normal((3, 32, 48, 3), np.float32)
    weights = np.random.default_rng(1).standard_normal((3, 96), np.float32)

    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    expected = theirs(x)
    (expected * torch.from_numpy(weights)).sum().backward()
    expected_grads = from_timm({n: p.grad for n, p in theirs.named_parameters()}, depth=2)

    def loss(params, images):
        out = ours.apply({"params": params}, images)
        return jnp.sum(out * weights), out

    (_, out), (grads, grad_images) = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    )(params, jnp.asarray(images))
    np.testing.assert_allclose(out, expected.detach().numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        grad_images, x.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()),
        grads,
        expected_grads,
    )


def test_bfloat16_is_close_and_parameters_are_float32():
    full = ViT(width=64, depth=2, heads=2, mlp_dim=128, patch_size=8, pool="mean")
    half = full.clone(dtype=jnp.bfloat16, remat=True)
    params = jax.jit(half.init)(KEY, IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.05 * rng.standard_normal(p.shape, np.float32), params)
    a, b = (jax.jit(m.apply)(params, IMAGES) for m in (full, half))
    assert a.shape == (3, 64)
    assert a.dtype == b.dtype == jnp.float32
    error = jnp.linalg.norm(a - b) / jnp.linalg.norm(a)
    assert 0 < error < 0.02


def test_the_position_of_a_patch_changes_the_output():
    model = ViT(width=32, depth=1, heads=2, mlp_dim=64, patch_size=8, pool="mean")
    params = jax.jit(model.init)(KEY, IMAGES)
    apply = jax.jit(model.apply)
    rolled = np.roll(IMAGES, 8, axis=2)  # the same patches, elsewhere
    assert not np.allclose(apply(params, IMAGES), apply(params, rolled), atol=1e-3)
    params["params"]["position"] = np.zeros_like(params["params"]["position"])
    np.testing.assert_allclose(apply(params, IMAGES), apply(params, rolled), rtol=1e-4, atol=1e-4)


def test_errors_say_what_is_wrong_with_the_images(no_type_checks):
    def shapes(model, *size):
        return jax.eval_shape(model.init, KEY, jnp.zeros(size))

    model = vit("mu/8")
    with pytest.raises(ValueError, match="20x16 pixels do not divide into patches of 8x8"):
        shapes(model, 1, 20, 16, 3)
    with pytest.raises(ValueError, match=r"\(1, 16, 16, 4\)"):
        shapes(model, 1, 16, 16, 4)
    with pytest.raises(ValueError, match="'max'"):
        shapes(vit("mu/8", pool="max"), 1, 16, 16, 3)
    params = shapes(model, 1, 16, 16, 3)
    with pytest.raises(ValueError, match="made for 5 tokens, but images of 24x16 pixels give 7"):
        jax.eval_shape(model.apply, params, jnp.zeros((1, 24, 16, 3)))


def test_numbers_of_parameters_equal_timms():
    def millions(name, side=224):
        shapes = jax.eval_shape(vit(name).init, KEY, jnp.zeros((1, side, side, 3)))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6

    # timm's counts (5.72, 22.05, 86.57, 304.33 million) without the head of 1000 classes.
    assert millions("Ti/16") == pytest.approx(5.717 - 0.193, abs=2e-3)
    assert millions("S/16") == pytest.approx(22.051 - 0.385, abs=2e-3)
    assert millions("B/16") == pytest.approx(86.568 - 0.769, abs=2e-3)
    assert millions("L/16") == pytest.approx(304.327 - 1.025, abs=2e-3)


@given(
    st.sampled_from(list(VARIANTS)),
    st.integers(1, 999),
    st.sampled_from(["", "/", "-", "_"]),
    st.sampled_from(["", "ViT-", "vit_", "vit"]),
    st.sampled_from([str, str.lower, str.upper]),
)
def test_names_are_parsed_in_every_spelling(variant, patch, separator, prefix, case):
    assert parse_vit(case(f"{prefix}{variant}{separator}{patch}")) == (variant, patch)


@given(st.integers(1, 64), st.integers(1, 99), st.integers(1, 12), st.integers(1, 99))
def test_a_shape_is_a_valid_name(width, depth, heads, patch):
    model = vit(f"{width * heads}x{depth}x{heads}/{patch}")
    assert (model.width, model.depth, model.heads, model.patch_size) == (
        *(width * heads, depth, heads),
        patch,
    )
    assert model.mlp_dim == 4 * width * heads


@given(st.text(max_size=12))
def test_unknown_names_are_rejected_with_the_list_of_variants(name):
    valid = re.fullmatch(r"\s*(vit[-_/]?)?(mu|nano|micro|ti|s|b|l)[-_/]?0*[1-9]0*\s*", name, re.I)
    assume(valid is None and not re.search("[0-9]{2}", name))
    with pytest.raises(ValueError, match="nano") as error:
        parse_vit(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "S/0",
        "S",
        "/16",
        "XXL/16",
        "S/1600",
        "S/16/16",
        "",
        "nano/８",
        "64x4/8",
        "64x0x2/8",
        "0x1x1/8",
        "64x4x3/8",
        "64x4x2",
    ],
)
def test_names_that_are_almost_valid_are_rejected(name):
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        parse_vit(name)


def test_linear_layers_are_initialised_at_xaviers_scale():
    """Smaller initial weights leave a narrow encoder nearly linear, and it learns less."""
    params = vit("nano/8").init(KEY, jnp.zeros((1, 64, 64, 3)))["params"]["encoder"]["blocks"]
    for path, fan in {
        ("attention", "qkv"): 2 * 128,  # each of the three is 128 x 128
        ("attention", "out"): 2 * 128,
        ("mlp", "fc1"): 5 * 128,
        ("mlp", "fc2"): 5 * 128,
    }.items():
        kernel = np.asarray(params[path[0]][path[1]]["kernel"])
        bound = np.sqrt(6 / fan)
        assert np.abs(kernel).max() <= bound
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
        assert not np.asarray(params[path[0]][path[1]]["bias"]).any()
