"""The Transformer encoder: pre-norm blocks, stacked on a leading axis of length `depth`."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from satmip_jax.models.attention import Attention, Implementation
from satmip_jax.models.layers import MLP, XAVIER, XAVIER_QKV, Initializer, LayerNorm


class Block(nn.Module):
    """A pre-norm Transformer block: `x + attention(norm1(x))`, then `x + mlp(norm2(x))`.

    Attributes are those of `Encoder`.
    """

    heads: int
    mlp_dim: int
    attention: Implementation = "auto"
    epsilon: float = 1e-6
    qkv_init: Initializer = XAVIER_QKV
    hidden_init: Initializer = XAVIER
    output_init: Initializer = XAVIER
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch tokens width"]:
        """Apply the block; see `Encoder.__call__`."""
        y = LayerNorm(self.epsilon, self.dtype, name="norm1")(x)
        x = x + Attention(
            self.heads,
            implementation=self.attention,
            qkv_init=self.qkv_init,
            output_init=self.output_init,
            dtype=self.dtype,
            name="attention",
        )(y, lengths)
        y = LayerNorm(self.epsilon, self.dtype, name="norm2")(x)
        mlp = MLP(self.mlp_dim, self.hidden_init, self.output_init, self.dtype, name="mlp")
        return x + mlp(y)


class Encoder(nn.Module):
    """`depth` blocks under one `nn.scan`: compiled once, parameters stacked on a leading axis.

    Attributes:
        depth: number of blocks.
        heads: number of attention heads.
        mlp_dim: hidden width of the MLPs.
        remat: keep only the input of each block for the backward pass and recompute the rest:
            the memory of one block instead of `depth`, for about a third more time.
        unroll: blocks per iteration of the compiled loop; `depth` leaves no loop. None chooses one
            block, except on CPU without `remat`, where no loop is faster. It changes neither the
            parameters nor the result.
        attention: see `attend`.
        epsilon: of the layer norms.
        qkv_init: initializer of the projections to queries, keys and values.
        hidden_init: initializer of the first layer of the MLPs.
        output_init: initializer of the layers that write to the residual stream.
        dtype: of the computation; parameters are float32.
    """

    depth: int
    heads: int
    mlp_dim: int
    remat: bool = False
    unroll: int | None = None
    attention: Implementation = "auto"
    epsilon: float = 1e-6
    qkv_init: Initializer = XAVIER_QKV
    hidden_init: Initializer = XAVIER
    output_init: Initializer = XAVIER
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch tokens width"]:
        """Apply the blocks.

        Args:
            x: the tokens.
            lengths: for each row, the number of leading tokens that are not padding; None for all.

        Returns:
            The encoded tokens, in `dtype`.

        Raises:
            ValueError: `depth` is below 1, or the width is not a multiple of `heads`.
        """
        if self.depth < 1:
            raise ValueError(f"an encoder needs a depth of at least 1, not {self.depth}")
        unroll = self.unroll
        if unroll is None:
            unroll = self.depth if jax.default_backend() == "cpu" and not self.remat else 1
        # XLA cannot merge the recomputation with the forward pass across a loop: no barrier needed.
        block = nn.remat(Block, prevent_cse=unroll > 1) if self.remat else Block
        layers = nn.scan(
            lambda layer, carry, lengths: (layer(carry, lengths), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
            unroll=unroll,
        )
        blocks = block(
            self.heads,
            self.mlp_dim,
            self.attention,
            self.epsilon,
            self.qkv_init,
            self.hidden_init,
            self.output_init,
            self.dtype,
            name="blocks",
        )
        x, _ = layers(blocks, x.astype(self.dtype), lengths)
        return x
