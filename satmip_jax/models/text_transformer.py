"""A bidirectional Transformer encoder over tokens: the caption of a record -> one vector.

NOTE[DIFF]: CLIP's text encoder is causal, and read at its last token. Captions are short lists
of fields in any order: here every token sees every other, and their mean is read.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021, for the initialisation.
"""

import jax.numpy as jnp
from flax import linen as nn

from satmip_jax.models.layers import Array, DType, Encoder, Implementation, LayerNorm

PADDING = 0


class TextTransformer(nn.Module):
    """Pre-norm Transformer encoder with learned positions and mean pooling.

    Attributes:
      width, depth, heads: of the Transformer; the MLP is four times as wide.
      length: the longest sequence of tokens.
      vocab_size: number of tokens, padding included; 256 bytes and two marks by default.
      remat, unroll, attention: see `layers.Encoder`.
      dtype: of the computation; parameters are float32 always.

    Initialisation is CLIP's: tokens normal(0.02), positions normal(0.01), and normal with
    deviations width^-0.5 for attention, (2 width)^-0.5 for the MLP, and a further
    (2 depth)^-0.5 for what is added to the residual stream.
    """

    width: int
    depth: int
    heads: int
    length: int
    vocab_size: int = 258
    remat: bool = False
    unroll: int | None = None
    attention: Implementation = "auto"
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array, train: bool = False) -> Array:
        """Encode sequences of tokens.

        Args:
          tokens: int32 (b, L), L at most `length`; 0 is padding and stands at the end. A
            token that the vocabulary does not have gives NaN.
          train: the same for every encoder; this one has nothing that only training does.

        Returns:
          float32 (b, width): the mean over the real tokens, then the final norm. A row of
          padding alone gives what a mean of zero gives.

        Raises:
          ValueError: tokens are not (b, L), or L is more than `length`.

        Example:
          >>> model = TextTransformer(width=64, depth=2, heads=2, length=32)
          >>> tokens = jnp.array([[256, 72, 105, 257, 0]], jnp.int32)
          >>> model.apply(model.init(jax.random.key(0), tokens), tokens).shape
          (1, 64)
        """
        del train
        if tokens.ndim != 2 or tokens.shape[1] > self.length:
            raise ValueError(
                f"tokens must be (batch, at most {self.length}), not {tokens.shape}; "
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
            unroll=self.unroll,
            attention=self.attention,
            qkv_init=normal(self.width**-0.5),
            hidden_init=normal((2 * self.width) ** -0.5),
            output_init=normal(self.width**-0.5 * (2 * self.depth) ** -0.5),
            dtype=self.dtype,
            name="encoder",
        )(x, lengths)
        total = jnp.sum(jnp.where(real[:, :, None], x.astype(jnp.float32), 0.0), axis=1)
        mean = total / jnp.maximum(lengths, 1).astype(jnp.float32)[:, None]
        return LayerNorm(name="norm")(mean)
