"""Files of published weights: what is found beside them, accounted for, and refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from satmip_jax.checkpoints.published_file import file_identity, find_file, read_pretrained
from satmip_jax.checkpoints.safetensors_file import WeightsError
from satmip_jax.models.published_names import CLIP, IMAGENET, map_names
from satmip_jax.models.timm_weights import to_timm
from satmip_jax.models.vit import vit


@pytest.fixture
def weights(tmp_path):
    """A folder of a model hub with a ViT mu/8 for images of 32 px, under timm's names."""
    model = vit("mu/8")
    params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    write(tmp_path, to_timm(params, model))
    return tmp_path


def write(folder, state):
    save_file({n: np.ascontiguousarray(x) for n, x in state.items()}, folder / "model.safetensors")


def change(folder, **changes):
    """Replace, add or (None) remove tensors; "__" in names stands for "."."""
    state = load_file(folder / "model.safetensors")
    for name, value in changes.items():
        state.pop(name.replace("__", "."), None)
        if value is not None:
            state[name.replace("__", ".")] = np.float32(value)
    write(folder, state)


def test_every_tensor_is_used_or_left_out_for_a_reason(weights):
    change(weights, head__weight=np.ones((3, 32)), mask_token=np.ones((1, 1, 32)))
    change(weights, decoder_pos_embed=np.ones((1, 17, 16)))
    read = read_pretrained(weights, vit("mu/8"))
    stored = load_file(weights / "model.safetensors")
    used = [name for sources in read.sources.values() for name in sources]
    assert sorted([*used, *read.left_out]) == sorted(stored)
    assert read.left_out == {
        "head.weight": "classifier",
        "mask_token": "part of the pretraining",
        "decoder_pos_embed": "part of the pretraining",
    }
    for name in used:
        np.testing.assert_array_equal(read.state[name], stored[name])
    assert read.identity == file_identity(weights / "model.safetensors")


HALF = [0.5, 0.5, 0.5]
MEAN, STD = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]
BESIDE = {
    "config.json": {"pretrained_cfg": {"mean": MEAN, "std": STD}, "model_args": {"num_heads": 2}},
    "preprocessor_config.json": {"image_mean": MEAN, "image_std": STD},
    "open_clip_config.json": {"preprocess_cfg": {"mean": MEAN, "std": STD}},
}


@pytest.mark.parametrize("file", BESIDE)
def test_statistics_are_stated_beside_the_weights(weights, file):
    (weights / file).write_text(json.dumps(BESIDE[file]))
    read = read_pretrained(weights, vit("mu/8"))
    assert read.statistics == (tuple(MEAN), tuple(STD))
    assert read.statistics_from == f"by {file}"
    (weights / "model.safetensors").rename(weights / "other.safetensors")
    read = read_pretrained(weights / "other.safetensors", vit("mu/8"))
    assert read.statistics == IMAGENET  # those files may be of another model
    assert read.statistics_from.startswith("assumed")
    assert CLIP != IMAGENET


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"num_attention_heads": 4}, r"4 heads.*asks for 2: give .*encoder=32x1x4/8"),
        ({"hidden_act": "quick_gelu"}, r"give --config.image.activation=quick_gelu"),
        ({"hidden_act": "relu"}, r"their activation is relu; supported are gelu, quick_gelu"),
        ({"mean": HALF, "std": [0.5, 0.5, 0.0]}, "a deviation of"),
        ({"mean": HALF, "std": [0.5, float("nan"), 0.5]}, "a deviation of"),
        ({"mean": 0.5, "std": HALF}, "a mean of 0.5"),
        ({"num_attention_heads": "2"}, "states '2' heads"),
    ],
)
def test_what_is_stated_must_fit(weights, stated, message):
    (weights / "config.json").write_text(json.dumps(stated))
    with pytest.raises(WeightsError, match=message):
        read_pretrained(weights, vit("mu/8"))


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("nano/8", {}, r"width 32, depth 1, patch 8 .*asks for width 128.*encoder=mu/8"),
        ("mu/16", {}, r"encoder=mu/8 and a --config.image.size that is a multiple of 8"),
        ("32x2x2/8", {}, r"depth 1, .*asks for .*depth 2"),
        ("mu/8", {"pre_norm": True}, "--config.image.pre_norm=False"),
    ],
)
def test_another_architecture_is_refused(weights, encoder, options, message):
    with pytest.raises(WeightsError, match=message):
        read_pretrained(weights, vit(encoder, **options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cls_token": None}, "no class token: give --config.image.pool=mean"),
        ({"norm__weight": None, "norm__bias": None}, "no final norm"),
        ({"norm__bias": None}, "1 parameters are missing: norm.bias"),
        ({"blocks__0__norm1__bias": None}, "missing: blocks.0.norm1.bias"),
        ({"blocks__0__attn__qkv__weight": np.ones((96, 31))}, r"\[96, 31\], expected \[96, 32\]"),
        ({"pos_embed": np.ones((1, 16, 31))}, "square of patches"),
        ({"pos_embed": np.ones((1, 14, 32))}, "square of patches"),
        ({"pos_embed": None}, "learned position embeddings"),
        ({"cls_token": np.ones((1, 1, 31))}, r"\[1, 1, 31\], expected \[1, 1, 32\]"),
        ({"reg_token": np.ones((1, 4, 32))}, "has register tokens"),
        ({"blocks__0__attn__q_norm__weight": np.ones(32)}, "norms of queries and keys"),
        ({"blocks__0__gamma_9": np.ones(32)}, "1 tensors have no place.*gamma_9"),
        ({"blocks__3__norm1__weight": np.ones(32)}, "depth 4"),
        ({"patch_embed__proj__weight": np.ones((32, 13, 8, 8))}, "13 channels, not for RGB"),
        ({"norm__bias": np.full(32, np.nan)}, "not finite in norm.bias"),
    ],
)
def test_weights_that_are_not_those_of_this_vit_are_refused(weights, changes, message):
    change(weights, **changes)
    with pytest.raises(WeightsError, match=message):
        read_pretrained(weights, vit("mu/8"))


def test_files_that_execute_code_are_not_opened(tmp_path):
    for name in ("vit.pth", "pytorch_model.bin", "vit.npz"):
        (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
        with pytest.raises(WeightsError, match=r"can execute code.*python -c .*save_file"):
            find_file(tmp_path / name)
    with pytest.raises(WeightsError, match=r"has no \.safetensors file"):
        find_file(tmp_path)
    with pytest.raises(WeightsError, match="no file or folder"):
        find_file(tmp_path / "nothing.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match="not an intact safetensors file"):
        read_pretrained(tmp_path, vit("mu/8"))


def test_pooling_that_differs_is_noted(weights):
    read = read_pretrained(weights, vit("mu/8", pool="mean"))
    assert [note for note in read.notes if "class token is left out" in note]
    assert [note for note in read.notes if "before the pooling" in note]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["embeddings.register_tokens", "layer.0.attention.q_proj.weight"], "register tokens"),
        (["student.patch_embed.proj.weight", "teacher.patch_embed.proj.weight"], "2 encoders"),
        (["conv1.weight", "layer1.0.conv1.weight", "patch_embed.proj.weight"], "encoders"),
        (["unet.down.weight"], "no ViT of a known family"),
        (
            [
                "embeddings.patch_embeddings.projection.weight",
                "encoder.layer.0.attention.attention.query.weight",
            ],
            "blocks.0.attn.k.weight is not",
        ),
    ],
)
def test_names_of_no_single_vit_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        map_names(names)
