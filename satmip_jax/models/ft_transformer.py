"""FT-Transformer: a Transformer over the fields of a record, one token per field.

Equal to `rtdl_revisiting_models` on the same weights when nothing is missing: pre-norm blocks
whose very first norm is skipped, ReGLU, the class token first, and a last block that only the
class token goes through.

Source: Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from satmip_jax.models.layers import (
    TORCH_LINEAR,
    Array,
    Attention,
    DType,
    Implementation,
    LayerNorm,
    dense,
    uniform,
)

RTDL_EPSILON = 1e-5  # PyTorch's default


class NumericToken(nn.Module):
    """`x @ kernel + bias`; with one number this is rtdl's `x * weight + bias`.

    NOTE[DIFF]: FT-Transformer has a token per number. Here a field of several numbers (an angle is
    a sine and a cosine) is one token, the sum of theirs, each drawn smaller by the root of their
    count so that no field starts out louder than another.
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """float32 (b, n) -> float32 (b, width)."""
        bound = self.width**-0.5
        shape = (x.shape[-1], self.width)
        kernel = self.param("kernel", uniform(bound * x.shape[-1] ** -0.5), shape, jnp.float32)
        bias = self.param("bias", uniform(bound), (self.width,), jnp.float32)
        return x @ kernel + bias[None]  # (b, n) . (n, width) -> (b, width)


class CategoryToken(nn.Module):
    """A row of an embedding table plus a bias; NaN for an id that the table does not have."""

    vocabulary_size: int
    width: int

    @nn.compact
    def __call__(self, ids: Array) -> Array:
        """int32 (b,) -> float32 (b, width)."""
        init = uniform(self.width**-0.5)
        # A field that no training record has an entry for still gets a row, which none reads.
        shape = (max(self.vocabulary_size, 1), self.width)
        embedding = self.param("embedding", init, shape, jnp.float32)
        bias = self.param("bias", init, (self.width,), jnp.float32)
        return jnp.take(embedding, ids, axis=0) + bias[None]


class FieldTokenizer(nn.Module):
    """Records -> one token per field, float32.

    NOTE[DIFF]: FT-Transformer has no rule for missing values. Here every field has a learned
    token that stands in for it where it is missing.
    """

    fields: tuple[str, ...]
    vocabulary_sizes: Mapping[str, int]
    width: int

    @nn.compact
    def __call__(self, features: Mapping[str, Array], categories: Array, present: Array) -> Array:
        """See `FTTransformer.__call__`; returns float32 (b, F, width)."""
        init = uniform(self.width**-0.5)
        missing = self.param("missing", init, (len(self.fields), self.width), jnp.float32)
        tokens = []
        columns = iter(range(categories.shape[1]))
        for position, name in enumerate(self.fields):
            here = present[:, position]
            if name in self.vocabulary_sizes:
                ids = jnp.where(here, categories[:, next(columns)], jnp.int32(0))
                tokens.append(
                    CategoryToken(self.vocabulary_sizes[name], self.width, name=name)(ids)
                )
            else:
                # Zeroed first: a NaN behind a mask would still reach the gradient of the kernel.
                x = jnp.where(here[:, None], features[name].astype(jnp.float32), jnp.float32(0))
                tokens.append(NumericToken(self.width, name=name)(x))
        return jnp.where(present[:, :, None], jnp.stack(tokens, axis=1), missing[None])


class ReGLU(nn.Module):
    """`linear2(a * relu(b))` with `a, b = split(linear1(x))`: (..., width) -> (..., width)."""

    hidden: int
    dropout: float
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        width = x.shape[-1]
        gates = dense(
            2 * self.hidden,
            kernel_init=TORCH_LINEAR,
            bias_init=uniform(width**-0.5),
            dtype=self.dtype,
            name="linear1",
        )(x)
        a, b = jnp.split(gates, 2, axis=-1)
        y = nn.Dropout(self.dropout, deterministic=not train)(a * nn.relu(b))
        return dense(
            width,
            kernel_init=TORCH_LINEAR,
            bias_init=uniform(self.hidden**-0.5),
            dtype=self.dtype,
            name="linear2",
        )(y)


class FTBlock(nn.Module):
    """A pre-norm block; `first` skips the first norm, `queries` keeps only the first tokens."""

    heads: int
    hidden: int
    first: bool
    queries: int | None
    attention_dropout: float
    ffn_dropout: float
    residual_dropout: float
    attention: Implementation
    dtype: DType

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = x if self.first else LayerNorm(RTDL_EPSILON, self.dtype, name="attention_norm")(x)
        y = Attention(
            self.heads,
            dropout=self.attention_dropout,
            implementation=self.attention,
            qkv_init=TORCH_LINEAR,
            output_init=TORCH_LINEAR,
            dtype=self.dtype,
            name="attention",
        )(y, queries=self.queries, train=train)
        x = x[:, : self.queries] + self._drop(y, train)
        y = LayerNorm(RTDL_EPSILON, self.dtype, name="ffn_norm")(x)
        y = ReGLU(self.hidden, self.ffn_dropout, self.dtype, name="ffn")(y, train)
        return x + self._drop(y, train)

    def _drop(self, x: Array, train: bool) -> Array:
        return nn.Dropout(self.residual_dropout, deterministic=not train)(x)


class FTTransformer(nn.Module):
    """Feature-Tokenizer Transformer: the fields of a record -> one vector.

    Attributes:
      fields: names of the fields, in the order of `present`.
      vocabulary_sizes: for each field that is a category, its number of values; the others are
        numeric.
      width, depth, heads: of the Transformer; rtdl's default for 3 blocks is width 192, 8 heads.
      ffn_factor: hidden width of the feed-forward layer over `width`.
      attention_dropout, ffn_dropout, residual_dropout: in training only; rng "dropout".
      field_dropout: chance that a present field is turned into a missing one, drawn for each
        record and field, in training only; rng "fields". All fields of a record may go.
      attention: see `layers.attend`; there are too few tokens for a fused kernel to pay.
      dtype: of the computation; parameters, and the tokens before the first block, are float32.

    Initialisation is rtdl's: uniform in +-1/sqrt(width) for tokens, PyTorch's default for linear
    layers, zero biases in attention.

    The blocks differ (the first has no norm, the last has one query), so they are not scanned:
    `block0`, `block1`, ...
    """

    fields: tuple[str, ...]
    vocabulary_sizes: Mapping[str, int]
    width: int = 192
    depth: int = 3
    heads: int = 8
    ffn_factor: float = 4 / 3
    attention_dropout: float = 0.2
    ffn_dropout: float = 0.1
    residual_dropout: float = 0.0
    field_dropout: float = 0.0
    attention: Implementation = "einsum"
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, Array],
        categories: Array,
        present: Array,
        train: bool = False,
    ) -> Array:
        """Encode records.

        Args:
          features: for each numeric field, float32 (b, n): its n numbers, standardised. What
            stands where a field is missing has no effect, be it NaN.
          categories: int32 (b, C), ids below the vocabulary size, for the fields in
            `vocabulary_sizes` in the order of `fields`.
          present: bool (b, F), for each of `fields`.
          train: whether to drop.

        Returns:
          float32 (b, width): the class token after the final norm. rtdl's output head goes on
          with a ReLU and a linear layer, which are the projector's business here.

        Raises:
          ValueError: no fields, fields without features, or arrays of another width.

        Example:
          >>> model = FTTransformer(fields=("gsd", "country"), vocabulary_sizes={"country": 9})
          >>> gsd, country = jnp.ones((2, 1)), jnp.zeros((2, 1), jnp.int32)
          >>> present = jnp.array([[True, True], [False, True]])
          >>> inputs = {"gsd": gsd}, country, present
          >>> model.apply(model.init(jax.random.key(0), *inputs), *inputs).shape
          (2, 192)
        """
        self._check(features, categories, present)
        if train and self.field_dropout:
            keep = 1 - self.field_dropout
            present = present & jax.random.bernoulli(self.make_rng("fields"), keep, present.shape)
        tokenizer = FieldTokenizer(self.fields, self.vocabulary_sizes, self.width, name="tokenizer")
        x = tokenizer(features, categories, present).astype(self.dtype)
        cls = self.param("cls_token", uniform(self.width**-0.5), (self.width,), jnp.float32)
        cls = jnp.broadcast_to(cls.astype(self.dtype), (x.shape[0], 1, self.width))
        x = jnp.concatenate([cls, x], axis=1)
        for i in range(self.depth):
            x = FTBlock(
                self.heads,
                int(self.width * self.ffn_factor),
                first=i == 0,
                queries=1 if i == self.depth - 1 else None,
                attention_dropout=self.attention_dropout,
                ffn_dropout=self.ffn_dropout,
                residual_dropout=self.residual_dropout,
                attention=self.attention,
                dtype=self.dtype,
                name=f"block{i}",
            )(x, train)
        return LayerNorm(RTDL_EPSILON, name="norm")(x[:, 0])

    def _check(self, features: Mapping[str, Array], categories: Array, present: Array) -> None:
        if not self.fields or self.depth < 1:
            raise ValueError(f"nothing to encode: {self.fields=}, {self.depth=}")
        unknown = [name for name in self.vocabulary_sizes if name not in self.fields]
        if unknown:
            raise ValueError(f"vocabulary_sizes has {unknown}, which are not among {self.fields}")
        numeric = [name for name in self.fields if name not in self.vocabulary_sizes]
        absent = [name for name in numeric if name not in features]
        if absent:
            raise ValueError(f"no features for {absent}; there are features for {list(features)}")
        for what, array, columns in (
            ("present", present, len(self.fields)),
            ("categories", categories, len(self.vocabulary_sizes)),
        ):
            if array.ndim != 2 or array.shape[1] != columns:
                raise ValueError(f"{what} must be (batch, {columns}), not {array.shape}")
