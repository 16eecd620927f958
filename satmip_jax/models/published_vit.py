"""Published weights under timm's names -> parameters of the ViT; the inverse of `to_timm`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from satmip_jax.models.layers import ACTIVATIONS
from satmip_jax.models.position_resize import resize_positions
from satmip_jax.models.timm_weights import LINEAR, NORMS
from satmip_jax.models.vit import VARIANTS, ViT

Shape = Sequence[int]
PATCHES = "patch_embed.proj"


def check_shapes(shapes: Mapping[str, Shape], model: ViT) -> list[str]:
    """Check that weights fit a ViT, by their names and shapes alone.

    Args:
        shapes: timm's name -> shape.
        model: the ViT.

    Returns:
        Notes on what the weights do not have and the ViT does without change of its features, and
        on what changes its features.

    Raises:
        ValueError: the architectures differ, parameters are missing or misshapen, or the ViT has no
            place for some; the message names them and the config that would fit.
    """
    _check_architecture(shapes, model)
    notes, wanted = [], _expected(model)
    if model.pool == "cls" and "cls_token" not in shapes:
        raise ValueError("they have no class token: give --config.image.pool=mean")
    final = final_norm(shapes, model)
    if model.pool == "mean" and "cls_token" in shapes:
        notes.append("their class token is left out (config.image.pool is mean): features differ")
    if model.pool == "mean" and final == "norm":
        notes.append("their final norm is before the pooling, and here after it: features differ")
    wanted |= {f"{final}.{kind}": (model.width,) for kind in ("weight", "bias")}
    notes += _missing(wanted, shapes)
    optional = {f"blocks.{i}.{ls}.gamma" for i in range(model.depth) for ls in ("ls1", "ls2")}
    optional |= {"cls_token", "pos_embed"}
    optional |= {f"{norm}.{kind}" for norm in ("norm", "fc_norm") for kind in ("weight", "bias")}
    if unknown := sorted(shapes.keys() - wanted.keys() - optional):
        raise ValueError(f"there is no place for {', '.join(unknown[:5])} in this ViT")
    for name in sorted(shapes.keys() - {"cls_token", "pos_embed"}):
        shape = wanted.get(name, (model.width,))
        if tuple(shapes[name]) != shape:
            raise ValueError(f"{name} has shape {[*shapes[name]]}, expected {[*shape]}")
    if "cls_token" in shapes and math.prod(shapes["cls_token"]) != model.width:
        raise ValueError(
            f"cls_token has shape {[*shapes['cls_token']]}, expected {[1, 1, model.width]}"
        )
    _positions_grid(shapes, model)
    return notes


def check_options(heads: int | None, activation: str | None, model: ViT) -> list[str]:
    """Compare what no shape tells; return notes on what is not known.

    Args:
        heads: number of attention heads of the weights, None if it is not known.
        activation: of their MLPs, None if it is not known.
        model: that the weights are for.

    Raises:
        ValueError: one differs from the model's; the message says what to give.
    """
    notes = []
    if heads is None:
        notes.append(f"their number of heads is not stated, and taken to be {model.heads}")
    elif heads != model.heads:
        raise ValueError(
            f"they have {heads} heads, and config.image.encoder asks for {model.heads}: give "
            f"--config.image.encoder={model.width}x{model.depth}x{heads}/{model.patch_size}"
        )
    if activation is None and model.pre_norm:
        notes.append(
            f"their activation is not stated, and taken to be {model.activation}: OpenAI's weights "
            "need --config.image.activation=quick_gelu"
        )
    elif activation not in (None, model.activation):
        raise ValueError(
            f"their activation is {activation}, and config.image.activation is {model.activation}: "
            f"give --config.image.activation={activation}"
            if activation in ACTIVATIONS
            else f"their activation is {activation}; supported are {', '.join(ACTIVATIONS)}"
        )
    return notes


def from_timm(
    state: Mapping[str, np.ndarray],
    model: ViT,
    image_size: int,
    weights_statistics: tuple[Sequence[float], Sequence[float]],
    statistics: tuple[Sequence[float], Sequence[float]],
) -> dict[str, Any]:
    """Return the parameters of a ViT from weights that `check_shapes` accepts.

    Layer scales are folded into the layers that they follow, and the difference of normalizations
    into the patch embedding, both exactly. Positions are interpolated to the images' grid.

    Args:
        state: timm's name -> float32 array.
        model: the ViT.
        image_size: side of its images, pixels.
        weights_statistics: mean and standard deviation of pixels that the weights expect.
        statistics: those that the images are normalized with here.

    Example:
        >>> from satmip_jax.models.published_vit import from_timm
        >>> from satmip_jax.models.timm_weights import to_timm
        >>> from satmip_jax.models.vit import vit
        >>> model, same = vit("mu/8"), ((0.5,) * 3, (0.2,) * 3)
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
        >>> loaded = from_timm(to_timm(params, model), model, 64, same, same)
        >>> loaded["position"].shape
        (65, 32)
    """
    width = model.width

    def linear(name: str, scale: str = "") -> tuple[np.ndarray, np.ndarray]:
        gamma = state.get(scale, np.ones((), np.float32))
        kernel = state[f"{name}.weight"].T * gamma
        return kernel, state.get(f"{name}.bias", np.zeros(kernel.shape[1], np.float32)) * gamma

    blocks: dict[str, Any] = {norm: {} for norm in NORMS} | {"attention": {}, "mlp": {}}
    for norm in NORMS:
        for ours, theirs in (("scale", "weight"), ("bias", "bias")):
            stacked = [state[f"blocks.{i}.{norm}.{theirs}"] for i in range(model.depth)]
            blocks[norm][ours] = np.stack(stacked)
    for ours, theirs in LINEAR.items():
        module, layer = ours.split(".")
        scale = {"attn.proj": "ls1", "mlp.fc2": "ls2"}.get(theirs, "no")
        pairs = [
            linear(f"blocks.{i}.{theirs}", f"blocks.{i}.{scale}.gamma") for i in range(model.depth)
        ]
        kernels, biases = zip(*pairs, strict=True)
        blocks[module][layer] = {"kernel": np.stack(kernels), "bias": np.stack(biases)}
    params: dict[str, Any] = {
        "patch_embed": _patches(state, width, weights_statistics, statistics),
        "position": _positions(state, model, image_size),
        "encoder": {"blocks": blocks},
    }
    if model.pool == "cls":
        params["cls"] = state["cls_token"].reshape(width)
    norms = {"norm": final_norm(state, model)} | (
        {"pre_norm": "norm_pre"} if model.pre_norm else {}
    )
    for ours, theirs in norms.items():
        params[ours] = {"scale": state[f"{theirs}.weight"], "bias": state[f"{theirs}.bias"]}
    return params


def final_norm(names: Mapping[str, Any], model: ViT) -> str:
    """Return timm's name of the norm that the pooled token or mean goes through.

    Raises:
        ValueError: there is none for this pooling.
    """
    if model.pool == "mean" and "fc_norm.weight" in names:
        return "fc_norm"
    if "norm.weight" in names:
        return "norm"
    if "fc_norm.weight" in names:
        raise ValueError("they pool by the mean over patches: give --config.image.pool=mean")
    raise ValueError("they have no final norm: norm.weight is missing")


def _patches(
    state: Mapping[str, np.ndarray],
    width: int,
    theirs: tuple[Sequence[float], Sequence[float]],
    ours: tuple[Sequence[float], Sequence[float]],
) -> dict[str, np.ndarray]:
    """Return the patch embedding for pixels that are normalized by other statistics.

    With x = (p - m) / s here and (p - m') / s' there, their input is x s/s' + (m - m')/s'.
    """
    (mean, std), (their_mean, their_std) = (np.asarray(pair, np.float64) for pair in (ours, theirs))
    kernel = state[f"{PATCHES}.weight"].transpose(2, 3, 1, 0).astype(np.float64)  # (y, x, c, o)
    offset = np.einsum("yxco,c->o", kernel, (mean - their_mean) / their_std)
    scaled = kernel * (std / their_std)[:, None]
    bias = state.get(f"{PATCHES}.bias", np.zeros(width, np.float32)) + offset
    return {
        "kernel": scaled.reshape(-1, width).astype(np.float32),
        "bias": bias.astype(np.float32),
    }


def _positions(state: Mapping[str, np.ndarray], model: ViT, image_size: int) -> np.ndarray:
    positions = state["pos_embed"].reshape(-1, model.width)
    old, prefix = _positions_grid({name: x.shape for name, x in state.items()}, model)
    cls, patches = positions[:prefix], positions[prefix:]
    new = image_size // model.patch_size
    patches = np.asarray(resize_positions(jnp.asarray(patches), (old, old), (new, new)))
    if model.pool != "cls":
        return patches
    if not prefix:  # of a model whose positions are those of the patches alone
        cls = np.zeros((1, model.width), np.float32)
    return np.concatenate([cls, patches])


def _positions_grid(shapes: Mapping[str, Shape], model: ViT) -> tuple[int, int]:
    """Return the side of the grid of the positions, and whether one row is the class token's."""
    *_, rows, width = (1, *shapes["pos_embed"])
    prefixes = (1, 0) if "cls_token" in shapes else (0,)
    for prefix in prefixes:
        side = math.isqrt(rows - prefix)
        if side and side * side == rows - prefix and width == model.width:
            return side, prefix
    raise ValueError(
        f"pos_embed has shape {[*shapes['pos_embed']]}: expected those of a square of patches"
    )


def _expected(model: ViT) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all parameters that do not depend on the pooling, but positions."""
    width, patch = model.width, model.patch_size
    sizes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    sizes |= {"mlp.fc1": (model.mlp_dim, width), "mlp.fc2": (width, model.mlp_dim)}
    shapes: dict[str, tuple[int, ...]] = {f"{PATCHES}.weight": (width, 3, patch, patch)}
    shapes[f"{PATCHES}.bias"] = (width,)
    for index in range(model.depth):
        for name, size in sizes.items():
            shapes[f"blocks.{index}.{name}.weight"] = size
            shapes[f"blocks.{index}.{name}.bias"] = size[:1]
        for norm in NORMS:
            shapes |= {f"blocks.{index}.{norm}.{kind}": (width,) for kind in ("weight", "bias")}
    if model.pre_norm:
        shapes |= {f"norm_pre.{kind}": (width,) for kind in ("weight", "bias")}
    return shapes


def _missing(wanted: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> list[str]:
    """Return notes on biases that no block has (zeros); raise if anything else is missing."""
    missing = sorted(wanted.keys() - shapes.keys())
    kinds = {name.split(".", 2)[-1] if name.startswith("blocks.") else name for name in wanted}
    without = {
        kind
        for kind in kinds
        if kind.endswith(".bias") and "norm" not in kind and not any(kind in n for n in shapes)
    }
    if lost := [name for name in missing if not any(name.endswith(kind) for kind in without)]:
        raise ValueError(f"{len(lost)} parameters are missing: {', '.join(lost[:5])}")
    return [f"they have no {kind}, which is zero" for kind in sorted(without)]


def _check_architecture(shapes: Mapping[str, Shape], model: ViT) -> None:
    """Raise a ValueError that names both architectures, and the options that fit the weights."""
    kernel, fc1 = shapes.get(f"{PATCHES}.weight", ()), shapes.get("blocks.0.mlp.fc1.weight", ())
    if len(kernel) != 4 or len(fc1) != 2 or "pos_embed" not in shapes:
        raise ValueError("they are not those of a ViT with learned position embeddings")
    width, channels, patch, _ = kernel
    if channels != 3:
        raise ValueError(f"they are for images of {channels} channels, not for RGB")
    numbers = [int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")]
    depth = max(numbers) + 1
    theirs = (width, depth, fc1[0], patch, "norm_pre.weight" in shapes)
    ours = (model.width, model.depth, model.mlp_dim, model.patch_size, model.pre_norm)
    if theirs == ours:
        return
    if fc1[0] != 4 * width:
        raise ValueError(
            f"their MLPs are {fc1[0] / width:g} times as wide as the tokens; only 4 is supported"
        )
    remedy = f"give --config.image.encoder={_encoder_name(width, depth)}/{patch}"
    if patch != model.patch_size:
        remedy += f" and a --config.image.size that is a multiple of {patch}"
    if theirs[4] != ours[4]:
        remedy += f" and --config.image.pre_norm={theirs[4]}"
    raise ValueError(
        f"they are of a ViT of {_described(theirs)}, and config.image asks for "
        f"{_described(ours)}: {remedy}"
    )


def _described(sizes: tuple[int, int, int, int, bool]) -> str:
    width, depth, _, patch, pre_norm = sizes
    norm = "a" if pre_norm else "no"
    return f"width {width}, depth {depth}, patch {patch} and {norm} norm before the first block"


def _encoder_name(width: int, depth: int) -> str:
    """Return our name of a variant; one without has the usual heads of width 64."""
    for name, (its_width, its_depth, _) in VARIANTS.items():
        if (width, depth) == (its_width, its_depth):
            return name
    return f"{width}x{depth}x{max(1, width // 64)}"
