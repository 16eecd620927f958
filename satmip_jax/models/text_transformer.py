"""Bidirectional Transformer encoder over tokens: the caption of a record -> one vector.

NOTE[DIFF]: CLIP's text encoder is causal, and its output is that of the last token. Captions are
short lists of fields in any order: here every token attends to every other, and the output is their
mean.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021, for the initialization.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float32, Int32

from satmip_jax.distributed.target import Target
from satmip_jax.models.attention import Implementation
from satmip_jax.models.encoder import Encoder
from satmip_jax.models.layers import LayerNorm

PADDING = 0


class TextTransformer(nn.Module):
    """Pre-norm Transformer encoder with learned positions and mean pooling.

    Initialization is CLIP's: tokens normal(0.02), positions normal(0.01), and normal with
    deviations width^-0.5 for attention, (2 width)^-0.5 for the MLP, and a further (2 depth)^-0.5
    for the layers that write to the residual stream.

    Attributes:
        width: of the tokens; the MLPs are four times as wide.
        depth: number of blocks.
        heads: number of attention heads.
        length: maximum number of tokens of a sequence.
        vocab_size: number of tokens, padding included; by default 256 bytes and two marks.
        remat: see `encoder.Encoder`.
        attention: see `attention.attend`.
        target: device that it is compiled for; None for JAX's default device.
        dtype: of the computation; parameters are float32.
    """

    width: int
    depth: int
    heads: int
    length: int
    vocab_size: int = 258
    remat: bool = False
    attention: Implementation = "auto"
    target: Target | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Int32[Array, "batch tokens"]
    ) -> Float32[Array, "batch {self.width}"]:
        """Encode sequences of tokens.

        Args:
            tokens: token ids, at most `length` per row. 0 is padding and stands at the end. A token
                outside the vocabulary gives NaN.

        Returns:
            The mean over the tokens that are not padding, then the final norm. A row of padding
            alone gives the norm of zeros.

        Raises:
            ValueError: tokens are not (batch, tokens), or there are more than `length`.

        Example:
            >>> from satmip_jax.models.text_transformer import TextTransformer
            >>> model = TextTransformer(width=64, depth=2, heads=2, length=32)
            >>> tokens = jnp.array([[256, 72, 105, 257, 0]], jnp.int32)
            >>> model.apply(model.init(jax.random.key(0), tokens), tokens).shape
            (1, 64)
        """
        if tokens.ndim != 2 or tokens.shape[1] > self.length:
            raise ValueError(
                f"tokens must be (batch, at most {self.length}), not {tokens.shape}: "
                "give the model a larger `length`, or cut the captions"
            )
        normal = nn.initializers.normal
        embedding = self.param(
            "token_embedding", normal(0.02), (self.vocab_size, self.width), jnp.float32
        )
        position = self.param("position", normal(0.01), (self.length, self.width), jnp.float32)
        x = jnp.take(embedding, tokens, axis=0) + position[None, : tokens.shape[1]]  # (b, L, width)
        real = tokens != PADDING
        lengths = jnp.sum(real, axis=1, dtype=jnp.int32)
        x = Encoder(
            self.depth,
            self.heads,
            4 * self.width,
            remat=self.remat,
            attention=self.attention,
            target=self.target,
            qkv_init=normal(self.width**-0.5),
            hidden_init=normal((2 * self.width) ** -0.5),
            output_init=normal(self.width**-0.5 * (2 * self.depth) ** -0.5),
            dtype=self.dtype,
            name="encoder",
        )(x, lengths)
        total = jnp.sum(jnp.where(real[:, :, None], x.astype(jnp.float32), 0.0), axis=1)
        mean = total / jnp.maximum(lengths, 1).astype(jnp.float32)[:, None]
        return LayerNorm(name="norm")(mean)
