"""Published weights in our ViT: features against those of timm, open_clip and transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from satmip_jax.checkpoints.published_file import read_pretrained
from satmip_jax.models.published_vit import from_timm
from satmip_jax.models.timm_weights import to_timm
from satmip_jax.models.vit import vit
from tests.conftest import import_torchvision
from tests.models.test_vit import import_timm

OURS = ((0.3, 0.4, 0.5), (0.25, 0.2, 0.15))  # mean and deviation of the pixels of a run
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
ENCODER = "32x2x2/8"


def randomized(module):
    """A PyTorch module in which no parameter is zero or one."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.eval()


def tensors_of(module):
    return {name: x.detach().numpy() for name, x in module.state_dict().items()}


def pixels(side=32):
    return np.random.default_rng(1).uniform(size=(3, side, side, 3)).astype(np.float32)


def features(module, images, statistics):
    """Features by PyTorch, of pixels that are normalized as its weights expect."""
    import torch

    mean, std = (np.float32(values) for values in statistics)
    with torch.no_grad():
        output = module(torch.from_numpy(((images - mean) / std).transpose(0, 3, 1, 2)))
    return getattr(output, "pooler_output", output).numpy()


def loaded(path, images, **options):
    """The weights in a file, and features of our ViT for pixels of another normalization."""
    model = vit(ENCODER, **options)
    weights = read_pretrained(path, model)
    params = from_timm(weights.state, model, images.shape[1], weights.statistics, OURS)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(images))["params"]
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, shapes)
    mean, std = (np.float32(values)[None, None, None] for values in OURS)
    params = jax.tree.map(jnp.asarray, params)
    return weights, model.apply({"params": params}, jnp.asarray((images - mean) / std))


def random_params(model):
    """Parameters of a ViT in which none is zero or one."""
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def test_the_first_layer_takes_pixels_of_another_normalization():
    model = vit(ENCODER)
    params = random_params(model)
    theirs = ((0.7, 0.1, 0.45), (0.1, 0.3, 0.2))
    loaded = from_timm(to_timm(params, model), model, 32, theirs, OURS)
    patch = pixels()[0, :8, :8].astype(np.float64)

    def layer(embedding, mean, std):
        return ((patch - mean) / std).ravel() @ embedding["kernel"] + embedding["bias"]

    got = layer(loaded["patch_embed"], *map(np.array, OURS))
    np.testing.assert_allclose(got, layer(params["patch_embed"], *map(np.array, theirs)), rtol=1e-4)
    for name in params.keys() - {"patch_embed"}:
        jax.tree.map(np.testing.assert_array_equal, loaded[name], params[name])


def test_layer_scales_multiply_what_their_layers_return():
    model = vit(ENCODER)
    params = random_params(model)
    scales = np.random.default_rng(2).uniform(0.1, 2, (2, 2, 32)).astype(np.float32)
    state = to_timm(params, model)
    for i, (first, second) in enumerate(scales):
        state |= {f"blocks.{i}.ls1.gamma": first, f"blocks.{i}.ls2.gamma": second}
    got = from_timm(state, model, 32, OURS, OURS)["encoder"]["blocks"]
    blocks = params["encoder"]["blocks"]
    for number, (module, layer) in enumerate((("attention", "out"), ("mlp", "fc2"))):
        old, new = blocks[module][layer], got[module][layer]
        rows = np.random.default_rng(3).normal(size=(2, 1, old["kernel"].shape[1]))
        want = (rows @ old["kernel"] + old["bias"][:, None]) * scales[:, number, None]
        np.testing.assert_allclose(rows @ new["kernel"] + new["bias"][:, None], want, rtol=1e-4)
    for module, layer in (("attention", "qkv"), ("mlp", "fc1")):
        jax.tree.map(np.testing.assert_array_equal, got[module][layer], blocks[module][layer])


TIMM = {
    "class token": ({}, {}),
    "mean": ({"class_token": False, "global_pool": "avg"}, {"pool": "mean"}),
    "layer scale": ({"init_values": 0.1}, {}),
    "positions of patches alone": ({"no_embed_class": True}, {}),
    "no bias of queries, keys and values": ({"qkv_bias": False}, {}),
    "classifier": ({"num_classes": 7}, {}),
}


@pytest.mark.oracle
@pytest.mark.parametrize("side", [32, 48])
@pytest.mark.parametrize("kind", TIMM)
def test_features_equal_timms(kind, side, tmp_path):
    timm = import_timm()
    theirs, ours = TIMM[kind]
    module = randomized(timm.VisionTransformer(**SIZES, **{"num_classes": 0} | theirs))
    save_file(tensors_of(module), tmp_path / "vit.safetensors")
    weights, got = loaded(tmp_path / "vit.safetensors", pixels(side), **ours)
    assert weights.family == "timm"
    assert [*weights.left_out] == (["head.bias", "head.weight"] if "num_classes" in theirs else [])
    larger = timm.VisionTransformer(**SIZES | {"img_size": side}, **{"num_classes": 0} | theirs)
    larger.load_state_dict(timm.checkpoint_filter_fn(module.state_dict(), larger))
    larger.reset_classifier(0)
    want = features(larger.eval(), pixels(side), weights.statistics)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_features_equal_those_of_clip_in_timm(activation, tmp_path):
    import_timm()
    import timm

    name = f"vit_base_patch16_clip_{'quickgelu_' * (activation == 'quick_gelu')}224"
    module = randomized(timm.create_model(name, num_classes=0, **SIZES))
    save_file(tensors_of(module), tmp_path / "clip.safetensors")
    options = {"pre_norm": True, "activation": activation}
    weights, got = loaded(tmp_path / "clip.safetensors", pixels(), **options)
    np.testing.assert_allclose(got, features(module, pixels(), weights.statistics), atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_features_equal_those_of_open_clip(activation, tmp_path):
    """The image tower of a CLIP model, without the projection to the space of the texts."""
    import_torchvision()
    open_clip = pytest.importorskip("open_clip")
    model = open_clip.model.CLIP(
        16,
        {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
        {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
        quick_gelu=activation == "quick_gelu",
    )
    tensors = tensors_of(randomized(model))
    save_file(
        {name: np.ascontiguousarray(x) for name, x in tensors.items()},
        tmp_path / "clip.safetensors",
    )
    options = {"pre_norm": True, "activation": activation}
    weights, got = loaded(tmp_path / "clip.safetensors", pixels(), **options)
    assert weights.family == "open_clip"
    assert weights.statistics[0] == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert {"visual.proj", "logit_scale", "token_embedding.weight"} < weights.left_out.keys()
    assert not any("resblocks" in name and "visual" in name for name in weights.left_out)
    model.visual.proj = None
    want = features(model.visual, pixels(), weights.statistics)
    np.testing.assert_allclose(got, want, atol=1e-4)


def transformers_model(kind):
    transformers = pytest.importorskip("transformers")
    shape = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "intermediate_size": 128}
    if kind == "vit":
        return transformers.ViTModel(transformers.ViTConfig(**shape))
    if kind == "dinov2":
        del shape["intermediate_size"]
        return transformers.Dinov2Model(transformers.Dinov2Config(**shape))
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**shape))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip"])
def test_features_equal_those_of_transformers(kind, tmp_path):
    import_torchvision()
    module = randomized(transformers_model(kind))
    module.save_pretrained(tmp_path)
    options = {"pre_norm": True, "activation": "quick_gelu"} if kind == "clip" else {}
    weights, got = loaded(tmp_path, pixels(), **options)
    module.pooler = None

    def pooled(images):
        hidden = module(images)
        return hidden.pooler_output if kind == "clip" else hidden.last_hidden_state[:, 0]

    np.testing.assert_allclose(got, features(pooled, pixels(), weights.statistics), atol=1e-4)
