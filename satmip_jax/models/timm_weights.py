"""The ViT's parameters under timm's names and in its layout, and timm's description of the ViT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from satmip_jax.models.vit import ViT

# ours -> timm's name within a block, for linear layers and norms
LINEAR = {
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
NORMS = ("norm1", "norm2")
# Width -> timm's architecture; its other sizes are given by `model_args`.
ARCHITECTURES = {192: "vit_tiny", 384: "vit_small", 768: "vit_base", 1024: "vit_large"}


def to_timm(params: Mapping[str, Any], model: ViT) -> dict[str, np.ndarray]:
    """Return the parameters of a ViT as the state of timm's VisionTransformer.

    Args:
        params: parameters of the ViT.
        model: the ViT.

    Returns:
        timm's name -> float32 array. It loads with `strict=True` into a model without a classifier,
        see `timm_arguments`.

    Example:
        >>> from satmip_jax.models.timm_weights import to_timm
        >>> from satmip_jax.models.vit import vit
        >>> model = vit("mu/8")
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
        >>> to_timm(params, model)["patch_embed.proj.weight"].shape
        (32, 3, 8, 8)
    """
    patch, blocks = model.patch_size, params["encoder"]["blocks"]
    kernel = np.asarray(params["patch_embed"]["kernel"]).reshape(patch, patch, 3, model.width)
    state = {
        "patch_embed.proj.weight": kernel.transpose(3, 2, 0, 1),  # (y, x, c, o) -> (o, c, y, x)
    }
    bias, position = np.asarray(params["patch_embed"]["bias"]), np.asarray(params["position"])
    if model.pre_norm:  # then timm's patch embedding has no bias: each patch's position takes it
        position = position.copy()
        position[int(model.pool == "cls") :] += bias
        for ours, theirs in (("scale", "weight"), ("bias", "bias")):
            state[f"norm_pre.{theirs}"] = np.asarray(params["pre_norm"][ours])
    else:
        state["patch_embed.proj.bias"] = bias
    state["pos_embed"] = position[None]
    if model.pool == "cls":
        state["cls_token"] = np.asarray(params["cls"])[None, None]
    for index in range(model.depth):
        for ours, theirs in LINEAR.items():
            module, layer = ours.split(".")
            linear = blocks[module][layer]
            prefix = f"blocks.{index}.{theirs}"
            state[f"{prefix}.weight"] = np.asarray(linear["kernel"])[index].T
            state[f"{prefix}.bias"] = np.asarray(linear["bias"])[index]
        for norm in NORMS:
            prefix = f"blocks.{index}.{norm}"
            state[f"{prefix}.weight"] = np.asarray(blocks[norm]["scale"])[index]
            state[f"{prefix}.bias"] = np.asarray(blocks[norm]["bias"])[index]
    final = "norm" if model.pool == "cls" else "fc_norm"  # timm's norm after the mean has its own
    state[f"{final}.weight"] = np.asarray(params["norm"]["scale"])
    state[f"{final}.bias"] = np.asarray(params["norm"]["bias"])
    return state


def timm_arguments(model: ViT, image_size: int) -> dict[str, Any]:
    """Return the arguments of `timm.models.vision_transformer.VisionTransformer`, as JSON.

    Args:
        model: the ViT.
        image_size: side of its images, pixels.
    """
    return {
        "img_size": image_size,
        "patch_size": model.patch_size,
        "embed_dim": model.width,
        "depth": model.depth,
        "num_heads": model.heads,
        "mlp_ratio": model.mlp_dim / model.width,
        "class_token": model.pool == "cls",
        "global_pool": "token" if model.pool == "cls" else "avg",
        "num_classes": 0,
        **({"pre_norm": True} if model.pre_norm else {}),
        **({"act_layer": model.activation} if model.activation != "gelu" else {}),
    }


def timm_config(
    model: ViT, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """Return the config.json with which timm loads the ViT from a folder or a model hub.

    Args:
        model: the ViT.
        image_size: side of its images, pixels.
        mean: of each channel of pixels in [0, 1], subtracted before the ViT.
        std: of each channel, divided by.
    """
    arguments = timm_arguments(model, image_size)
    name = f"{ARCHITECTURES.get(model.width, 'vit_tiny')}_patch16_224"
    if model.pre_norm:
        name = "vit_base_patch16_clip_224"  # whose norms have our epsilon
    return {
        "architecture": name,
        "num_classes": arguments.pop("num_classes"),
        "num_features": model.width,
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "satmip",
            "input_size": [3, image_size, image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": [*mean],
            "std": [*std],
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
