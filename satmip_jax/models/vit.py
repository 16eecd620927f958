"""Vision Transformer: images -> pooled representations.

Equal to timm's VisionTransformer on the same weights: pre-norm blocks, exact GELU, learned
position embeddings, epsilon 1e-6; with `pre_norm` and epsilon 1e-5 to its variants for CLIP.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; timm, big_vision.
"""

import re
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from satmip_jax.distributed.target import Target
from satmip_jax.models.attention import Implementation
from satmip_jax.models.encoder import Encoder
from satmip_jax.models.layers import LayerNorm
from satmip_jax.models.patches import PatchEmbedding

# Name: width, depth, heads. The MLPs are four times as wide as the tokens.
VARIANTS: dict[str, tuple[int, int, int]] = {
    "mu": (32, 1, 2),  # for tests
    "nano": (128, 4, 4),  # for CPU
    "micro": (192, 6, 3),
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
}


class ViT(nn.Module):
    """Vision Transformer encoder.

    Initialization follows timm's `weight_init="moco"` (Chen et al. 2021, MoCo v3): Xavier's uniform
    for linear layers, with queries, keys and values each taken by itself, and zero biases;
    normal(0.02) for positions, normal(1e-6) for the class token, PyTorch's uniform for the patch
    embedding. timm's default, normal(0.02) for any width, leaves a narrow encoder nearly linear:
    an untrained one of width 128 scores 54.8 instead of 63.4 % by kNN on EuroSAT's spatial split.

    Attributes:
        width: of the tokens.
        depth: number of blocks.
        heads: number of attention heads.
        mlp_dim: hidden width of the MLPs.
        patch_size: side of a patch in pixels.
        pool: "cls": the class token after the final norm (timm's default). "mean": no class
            token; the mean over the patches, then the final norm (timm's
            `class_token=False, global_pool="avg"`, which norms after pooling).
        pre_norm: normalize the tokens before the first block, as CLIP does.
        activation: of the MLPs: "gelu", or "quick_gelu" of OpenAI's CLIP.
        remat: see `encoder.Encoder`.
        attention: see `attention.attend`.
        target: device that it is compiled for; None for JAX's default device.
        dtype: of the computation; parameters are float32.
    """

    width: int
    depth: int
    heads: int
    mlp_dim: int
    patch_size: int
    pool: Literal["cls", "mean"] = "cls"
    pre_norm: bool = False
    activation: str = "gelu"
    remat: bool = False
    attention: Implementation = "auto"
    target: Target | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float32[Array, "batch {self.width}"]:
        """Encode normalized images.

        Args:
            images: float32 or bfloat16, standardized per channel.

        Returns:
            One vector per image.

        Raises:
            ValueError: the images are not (batch, height, width, 3), a side is not a multiple of
                the patch size, the parameters were made for another image size, or `pool` is
                unknown.

        Example:
            >>> from satmip_jax.models.vit import vit
            >>> model = vit("nano/8", pool="mean")
            >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
            >>> model.apply(variables, jnp.zeros((2, 64, 64, 3))).shape
            (2, 128)
        """
        if self.pool not in ("cls", "mean"):
            raise ValueError(f'pool must be "cls" or "mean", not {self.pool!r}')
        self._check(images)
        target = self.target or Target.of()
        x = PatchEmbedding(
            self.width, self.patch_size, target.platform == "tpu", self.dtype, name="patch_embed"
        )(images)
        if self.pool == "cls":
            cls = self.param("cls", nn.initializers.normal(1e-6), (self.width,), jnp.float32)
            cls = jnp.broadcast_to(cls, (x.shape[0], 1, self.width))
            x = jnp.concatenate([cls, x.astype(jnp.float32)], axis=1)
        # In float32, so that the gradients of class token and positions are summed in float32.
        x = x.astype(jnp.float32) + self._positions(x.shape[1], images.shape)[None]
        epsilon = 1e-5 if self.pre_norm else 1e-6
        if self.pre_norm:
            x = LayerNorm(epsilon, name="pre_norm")(x)
        x = Encoder(
            self.depth,
            self.heads,
            self.mlp_dim,
            remat=self.remat,
            attention=self.attention,
            target=self.target,
            epsilon=epsilon,
            activation=self.activation,
            dtype=self.dtype,
            name="encoder",
        )(x, outputs=1 if self.pool == "cls" else None)
        pooled = x[:, 0] if self.pool == "cls" else jnp.mean(x.astype(jnp.float32), axis=1)
        return LayerNorm(epsilon, name="norm")(pooled)

    def _check(self, images: Array) -> None:
        """Raise a ValueError for images that do not divide into patches."""
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images must be (batch, height, width, 3), not {images.shape}")
        _, height, width, _ = images.shape
        p = self.patch_size
        if height % p or width % p or not height or not width:
            raise ValueError(
                f"images of {height}x{width} pixels do not divide into patches of {p}x{p}: "
                f"choose an image size that is a multiple of {p}, or another patch size"
            )

    def _positions(
        self, tokens: int, image_shape: tuple[int, ...]
    ) -> Float32[Array, "{tokens} {self.width}"]:
        """Return the position embedding, whose size the images at initialization decided."""
        if self.has_variable("params", "position"):
            made_for: int = self.get_variable("params", "position").shape[0]
            if made_for != tokens:
                raise ValueError(
                    f"the position embedding was made for {made_for} tokens, but images of "
                    f"{image_shape[1]}x{image_shape[2]} pixels give {tokens}: use the image size "
                    "that the parameters were initialized with"
                )
        return self.param(
            "position", nn.initializers.normal(0.02), (tokens, self.width), jnp.float32
        )


def parse_vit(name: str) -> tuple[str, int]:
    """Split the name of a ViT into its variant and its patch size.

    Args:
        name: variant and patch size, such as "S/16", "s16", "ViT-B/16", "256x8x4/16". A variant is
            a key of `VARIANTS`, or width x depth x heads.

    Returns:
        The variant, and the side of a patch in pixels.

    Raises:
        ValueError: the name is not understood; the message lists the variants.

    Example:
        >>> from satmip_jax.models.vit import parse_vit
        >>> parse_vit("vit-s16")
        ('S', 16)
        >>> parse_vit("256x8x4/16")
        ('256x8x4', 16)
    """
    variants = {variant.lower(): variant for variant in VARIANTS}
    pattern = r"(?:vit[-_/]?)?(?:([a-z]+)[-_/]?|(\d{1,4}x\d{1,3}x\d{1,3})/)(\d{1,3})"
    match = re.fullmatch(pattern, name.strip().lower(), re.ASCII)
    if match is None or int(match[3]) == 0 or (match[1] and match[1] not in variants):
        raise ValueError(
            f'unknown ViT {name!r}: give a variant and a patch size, such as "S/16"; '
            f"the variants are {', '.join(VARIANTS)}, or width x depth x heads: 256x8x4/16"
        )
    variant = variants[match[1]] if match[1] else match[2]
    width, depth, heads = shape_of(variant)
    if not depth or not heads or not width or width % heads:
        raise ValueError(
            f"{name!r}: width, depth and heads must be positive, the width a multiple of the heads"
        )
    return variant, int(match[3])


def shape_of(variant: str) -> tuple[int, int, int]:
    """Return width, depth and heads of a variant.

    Args:
        variant: as returned by `parse_vit`.

    Example:
        >>> from satmip_jax.models.vit import shape_of
        >>> shape_of("S")
        (384, 12, 6)
    """
    if variant in VARIANTS:
        return VARIANTS[variant]
    width, depth, heads = map(int, variant.split("x"))
    return width, depth, heads


def vit(name: str, **options: Any) -> ViT:
    """Build a ViT by name.

    Args:
        name: variant and patch size; see `parse_vit`.
        **options: other attributes of `ViT`.

    Returns:
        The module, without parameters.

    Raises:
        ValueError: the name is not understood; the message lists the variants.

    Example:
        >>> from satmip_jax.models.vit import vit
        >>> vit("S/16", pool="mean").width
        384
    """
    variant, patch_size = parse_vit(name)
    width, depth, heads = shape_of(variant)
    return ViT(width, depth, heads, 4 * width, patch_size, **options)
