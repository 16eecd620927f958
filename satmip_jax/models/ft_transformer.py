"""FT-Transformer: a Transformer over the fields of a record, one token per field.

Equal to `rtdl_revisiting_models` on the same weights if nothing is missing: pre-norm blocks whose
very first norm is skipped, ReGLU, the class token first, and a last block that computes only the
class token.

Source: Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32, Int32, Key

from satmip_jax.models.attention import Attention, Implementation
from satmip_jax.models.layers import (
    TORCH_LINEAR,
    Dense,
    LayerNorm,
    draw_kept,
    drop,
    fold_in,
    uniform,
)

RTDL_EPSILON = 1e-5  # PyTorch's default


class NumericToken(nn.Module):
    """`x @ kernel + bias`; for a single number this is rtdl's `x * weight + bias`.

    NOTE[DIFF]: FT-Transformer has one token per number. Here a field of several numbers (an angle
    is a sine and a cosine) is one token, the sum of theirs. Each summand is initialized smaller by
    the root of their count, so that all fields start at the same scale.

    Attributes:
        width: of the token.
    """

    width: int

    @nn.compact
    def __call__(self, x: Float32[Array, "batch numbers"]) -> Float32[Array, "batch {self.width}"]:
        """Return the token of one numeric field."""
        bound = self.width**-0.5
        shape = (x.shape[-1], self.width)
        kernel = self.param("kernel", uniform(bound * x.shape[-1] ** -0.5), shape, jnp.float32)
        bias = self.param("bias", uniform(bound), (self.width,), jnp.float32)
        return x @ kernel + bias[None]  # (b, n) . (n, width) -> (b, width)


class CategoryToken(nn.Module):
    """A row of an embedding table plus a bias; NaN for an id beyond the table.

    Attributes:
        vocabulary_size: number of ids.
        width: of the token.
    """

    vocabulary_size: int
    width: int

    @nn.compact
    def __call__(self, ids: Int32[Array, " batch"]) -> Float32[Array, "batch {self.width}"]:
        """Return the token of one categorical field."""
        init = uniform(self.width**-0.5)
        # A field without values in the train split still needs a table; nothing reads its row.
        shape = (max(self.vocabulary_size, 1), self.width)
        embedding = self.param("embedding", init, shape, jnp.float32)
        bias = self.param("bias", init, (self.width,), jnp.float32)
        return jnp.take(embedding, ids, axis=0) + bias[None]


class FieldTokenizer(nn.Module):
    """Records -> one token per field.

    NOTE[DIFF]: FT-Transformer has no rule for missing values. Here every field has a learned token
    that replaces it where it is missing.

    Attributes are those of `FTTransformer`.
    """

    fields: tuple[str, ...]
    vocabulary_sizes: Mapping[str, int]
    width: int

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, Float[Array, "batch _"]],
        categories: Int32[Array, "batch categories"],
        present: Bool[Array, "batch fields"],
    ) -> Float32[Array, "batch fields {self.width}"]:
        """Return the tokens of all fields; arguments as in `FTTransformer.__call__`."""
        init = uniform(self.width**-0.5)
        missing = self.param("missing", init, (len(self.fields), self.width), jnp.float32)
        tokens = []
        columns = iter(range(categories.shape[1]))
        for position, name in enumerate(self.fields):
            is_present = present[:, position]
            if name in self.vocabulary_sizes:
                ids = jnp.where(is_present, categories[:, next(columns)], jnp.int32(0))
                tokens.append(
                    CategoryToken(self.vocabulary_sizes[name], self.width, name=name)(ids)
                )
            else:
                # Zeroed first: a NaN behind a mask would still reach the gradient of the kernel.
                numbers = features[name].astype(jnp.float32)
                x = jnp.where(is_present[:, None], numbers, jnp.float32(0))
                tokens.append(NumericToken(self.width, name=name)(x))
        return jnp.where(present[:, :, None], jnp.stack(tokens, axis=1), missing[None])


class ReGLU(nn.Module):
    """`linear2(a * relu(b))` with `a, b = split(linear1(x))`.

    Attributes:
        hidden: width of `a` and of `b`.
        dropout: rate for `a * relu(b)`, in training only.
        dtype: of the computation; parameters are float32.
    """

    hidden: int
    dropout: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], keys: Key[Array, " batch"] | None = None
    ) -> Float[Array, "batch tokens width"]:
        """Apply the layers to the last axis; `keys` as in `FTTransformer.__call__`."""
        width = x.shape[-1]
        gates = Dense(
            2 * self.hidden,
            kernel_init=TORCH_LINEAR,
            bias_init=uniform(width**-0.5),
            dtype=self.dtype,
            name="linear1",
        )(x)
        a, b = jnp.split(gates, 2, axis=-1)
        y = a * nn.relu(b)
        if keys is not None and self.dropout:
            y = drop(y, keys, self.dropout)
        return Dense(
            width,
            kernel_init=TORCH_LINEAR,
            bias_init=uniform(self.hidden**-0.5),
            dtype=self.dtype,
            name="linear2",
        )(y)


class FTBlock(nn.Module):
    """A pre-norm block of the FT-Transformer.

    Attributes:
        heads: number of attention heads.
        hidden: hidden width of the feed-forward layer.
        first: whether to skip the first norm.
        queries: number of leading tokens to compute; None for all of them.
        attention_dropout: see `FTTransformer`.
        ffn_dropout: see `FTTransformer`.
        attention: see `attention.attend`.
        dtype: of the computation; parameters are float32.
    """

    heads: int
    hidden: int
    first: bool
    queries: int | None
    attention_dropout: float
    ffn_dropout: float
    attention: Implementation
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], keys: Key[Array, " batch"] | None = None
    ) -> Float[Array, "batch queries width"]:
        """Return the first `queries` tokens; `keys` as in `FTTransformer.__call__`."""
        by_attention, by_ffn = (None if keys is None else fold_in(keys, i) for i in range(2))
        y = x if self.first else LayerNorm(RTDL_EPSILON, self.dtype, name="attention_norm")(x)
        y = Attention(
            self.heads,
            dropout=self.attention_dropout,
            implementation=self.attention,
            qkv_init=TORCH_LINEAR,
            output_init=TORCH_LINEAR,
            dtype=self.dtype,
            name="attention",
        )(y, queries=self.queries, keys=by_attention)
        x = x[:, : self.queries] + y
        y = LayerNorm(RTDL_EPSILON, self.dtype, name="ffn_norm")(x)
        return x + ReGLU(self.hidden, self.ffn_dropout, self.dtype, name="ffn")(y, by_ffn)


class FTTransformer(nn.Module):
    """Feature-Tokenizer Transformer: the fields of a record -> one vector.

    Initialization is rtdl's: uniform in +-1/sqrt(width) for tokens, PyTorch's default for linear
    layers, zero biases in attention.

    The blocks differ (the first has no norm, the last has one query), so they are not scanned; they
    are named `block0`, `block1`, ...

    Attributes:
        fields: names of the fields, in the order of `present`.
        vocabulary_sizes: number of values of each categorical field; the other fields are numeric.
        width: of the tokens. rtdl's default for 3 blocks is width 192 with 8 heads.
        depth: number of blocks.
        heads: number of attention heads.
        ffn_factor: hidden width of the feed-forward layer, as a multiple of `width`.
        attention_dropout: rate for attention weights, in training only.
        ffn_dropout: rate within the feed-forward layer, in training only.
        field_dropout: probability that a present field is treated as missing, drawn for each
            record and field, in training only. All fields of a record may be dropped.
        attention: see `attention.attend`; there are too few tokens for a fused kernel to pay off.
        dtype: of the blocks; parameters, tokens and output are float32.
    """

    fields: tuple[str, ...]
    vocabulary_sizes: Mapping[str, int]
    width: int = 192
    depth: int = 3
    heads: int = 8
    ffn_factor: float = 4 / 3
    attention_dropout: float = 0.2
    ffn_dropout: float = 0.1
    field_dropout: float = 0.0
    attention: Implementation = "einsum"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, Float[Array, "batch _"]],
        categories: Int32[Array, "batch categories"],
        present: Bool[Array, "batch fields"],
        keys: Key[Array, " batch"] | None = None,
    ) -> Float32[Array, "batch {self.width}"]:
        """Encode records.

        Args:
            features: for each numeric field, its standardized numbers, (batch, numbers). Values at
                missing fields have no effect, not even NaN.
            categories: ids below the vocabulary size, one column for each field in
                `vocabulary_sizes`, in the order of `fields`.
            present: whether a record has a field, one column for each of `fields`.
            keys: in training one per record, for its dropout; None for none.

        Returns:
            The class token after the final norm. rtdl's output head, a ReLU and a linear layer, is
            left to the projector.

        Raises:
            ValueError: no fields, fields without features, or arrays of the wrong width.

        Example:
            >>> from satmip_jax.models.ft_transformer import FTTransformer
            >>> model = FTTransformer(fields=("gsd", "country"), vocabulary_sizes={"country": 9})
            >>> gsd, country = jnp.ones((2, 1)), jnp.zeros((2, 1), jnp.int32)
            >>> present = jnp.array([[True, True], [False, True]])
            >>> inputs = {"gsd": gsd}, country, present
            >>> model.apply(model.init(jax.random.key(0), *inputs), *inputs).shape
            (2, 192)
        """
        self._check(features, categories, present)
        if keys is not None and self.field_dropout:
            present &= draw_kept(fold_in(keys, 0), self.field_dropout, present.shape[1:])
        tokenizer = FieldTokenizer(self.fields, self.vocabulary_sizes, self.width, name="tokenizer")
        x = tokenizer(features, categories, present)
        cls = self.param("cls_token", uniform(self.width**-0.5), (self.width,), jnp.float32)
        cls = jnp.broadcast_to(cls, (x.shape[0], 1, self.width))
        x = jnp.concatenate([cls, x], axis=1).astype(self.dtype)
        for i in range(self.depth):
            x = FTBlock(
                self.heads,
                int(self.width * self.ffn_factor),
                first=i == 0,
                queries=1 if i == self.depth - 1 else None,
                attention_dropout=self.attention_dropout,
                ffn_dropout=self.ffn_dropout,
                attention=self.attention,
                dtype=self.dtype,
                name=f"block{i}",
            )(x, None if keys is None else fold_in(keys, 1 + i))
        return LayerNorm(RTDL_EPSILON, name="norm")(x[:, 0])

    def _check(self, features: Mapping[str, Array], categories: Array, present: Array) -> None:
        """Raise a ValueError for inputs that do not match the attributes."""
        if not self.fields or self.depth < 1:
            raise ValueError(f"nothing to encode: {self.fields=}, {self.depth=}")
        unknown = [name for name in self.vocabulary_sizes if name not in self.fields]
        if unknown:
            raise ValueError(f"vocabulary_sizes has {unknown}, which are not among {self.fields}")
        numeric = [name for name in self.fields if name not in self.vocabulary_sizes]
        absent = [name for name in numeric if name not in features]
        if absent:
            raise ValueError(f"no features for {absent}; there are features for {list(features)}")
        for name, array, columns in (
            ("present", present, len(self.fields)),
            ("categories", categories, len(self.vocabulary_sizes)),
        ):
            if array.ndim != 2 or array.shape[1] != columns:
                raise ValueError(f"{name} must be (batch, {columns}), not {array.shape}")
