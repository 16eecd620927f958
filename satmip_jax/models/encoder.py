"""The Transformer encoder: pre-norm blocks, their parameters stacked on a leading axis."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from satmip_jax.distributed.target import Target
from satmip_jax.models.attention import (
    Attention,
    Implementation,
    repeat_per_row,
    resolve_attention,
)
from satmip_jax.models.layers import MLP, XAVIER, XAVIER_QKV, Initializer, LayerNorm


class Block(nn.Module):
    """A pre-norm Transformer block: `x + attention(norm1(x))`, then `x + mlp(norm2(x))`.

    Attributes are those of `Encoder`.
    """

    heads: int
    mlp_dim: int
    attention: Implementation = "auto"
    target: Target | None = None
    epsilon: float = 1e-6
    qkv_init: Initializer = XAVIER_QKV
    hidden_init: Initializer = XAVIER
    output_init: Initializer = XAVIER
    activation: str = "gelu"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows width"],
        lengths: Int[Array, " batch"] | None,
        tokens: int,
        outputs: int,
    ) -> Float[Array, "outputs width"]:
        """Apply the block.

        Args:
            x: the tokens of all sequences, one per row.
            lengths: see `Encoder.__call__`.
            tokens: number of tokens of a sequence.
            outputs: number of leading tokens of each sequence to compute.
        """
        y = LayerNorm(self.epsilon, self.dtype, name="norm1")(x)
        y = Attention(
            self.heads,
            implementation=self.attention,
            target=self.target,
            qkv_init=self.qkv_init,
            output_init=self.output_init,
            dtype=self.dtype,
            name="attention",
        )(y.reshape(-1, tokens, x.shape[1]), lengths, queries=outputs)
        if outputs < tokens:
            x = x.reshape(-1, tokens, x.shape[1])[:, :outputs]
        x = x.reshape(-1, x.shape[-1]) + y.reshape(-1, x.shape[-1])
        y = LayerNorm(self.epsilon, self.dtype, name="norm2")(x)
        dtype = (self.target or Target.of()).gradient_dtype
        return x + MLP(
            self.mlp_dim,
            self.hidden_init,
            self.output_init,
            self.activation,
            dtype,
            self.dtype,
            name="mlp",
        )(y)


class Encoder(nn.Module):
    """`depth` blocks; their parameters are stacked on a leading axis.

    Attributes:
        depth: number of blocks.
        heads: number of attention heads.
        mlp_dim: hidden width of the MLPs.
        remat: keep only the input of each block for the backward pass and recompute the rest:
            the memory of one block instead of `depth`, for about a third more time. The blocks are
            then a compiled loop; without it, a loop would copy all that blocks keep.
        attention: see `attention.attend`.
        target: device that it is compiled for; None for JAX's default device.
        epsilon: of the layer norms.
        qkv_init: initializer of the projections to queries, keys and values.
        hidden_init: initializer of the first layer of the MLPs.
        output_init: initializer of the layers that write to the residual stream.
        activation: of the MLPs, a key of `layers.ACTIVATIONS`.
        dtype: of the computation; parameters are float32.
    """

    depth: int
    heads: int
    mlp_dim: int
    remat: bool = False
    attention: Implementation = "auto"
    target: Target | None = None
    epsilon: float = 1e-6
    qkv_init: Initializer = XAVIER_QKV
    hidden_init: Initializer = XAVIER
    output_init: Initializer = XAVIER
    activation: str = "gelu"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        lengths: Int[Array, " batch"] | None = None,
        outputs: int | None = None,
    ) -> Float[Array, "batch outputs width"]:
        """Apply the blocks.

        Args:
            x: the tokens.
            lengths: for each row, the number of leading tokens that are not padding; None for all.
            outputs: number of leading tokens to return, such as 1 for a class token, which saves
                most of the last block; None for all of them.

        Returns:
            The encoded tokens, in `dtype`.

        Raises:
            ValueError: `depth` is below 1, or the width is not a multiple of `heads`.
        """
        if self.depth < 1:
            raise ValueError(f"an encoder needs a depth of at least 1, not {self.depth}")
        batch, tokens, width = x.shape
        outputs = outputs or tokens
        if width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}")
        chosen = resolve_attention(self.attention, self.dtype, width // self.heads, self.target)
        if chosen == "cudnn" and tokens % 2:  # JAX rejects an odd number of tokens in training
            x = jnp.pad(x, ((0, 0), (0, 1), (0, 0)))
            lengths = repeat_per_row(x, tokens) if lengths is None else lengths
        padded = x.shape[1]
        block = Block(
            self.heads,
            self.mlp_dim,
            chosen,
            self.target,
            self.epsilon,
            self.qkv_init,
            self.hidden_init,
            self.output_init,
            self.activation,
            self.dtype,
            parent=None,
        )
        blocks = self.param("blocks", self._init_blocks, block, width)

        def apply(params: Any, rows: Array, outputs: int = padded) -> Any:
            def run(params: Any, rows: Array, lengths: Array | None) -> Any:
                return block.apply({"params": params}, rows, lengths, padded, outputs)

            return (jax.checkpoint(run) if self.remat else run)(params, rows, lengths)

        def layer(index: int) -> Any:
            return jax.tree.map(lambda x: x[index], blocks)

        # Rows keep XLA from moving the batch to the last axis, with copies around every product.
        rows = x.astype(self.dtype).reshape(batch * padded, width)
        if self.remat:
            first = jax.tree.map(lambda x: x[:-1], blocks)
            rows, _ = jax.lax.scan(lambda rows, params: (apply(params, rows), None), rows, first)
        else:
            for index in range(self.depth - 1):
                rows = apply(layer(index), rows)
        rows = apply(layer(-1), rows, outputs if outputs < tokens else padded)
        return rows.reshape(batch, -1, width)[:, :outputs]

    def _init_blocks(self, key: PRNGKeyArray, block: Block, width: int) -> Any:
        """Return the parameters of all blocks, each with a key of its own."""
        block = block.clone(attention="einsum")  # any will do; cuDNN's cannot be mapped over keys

        def one(key: PRNGKeyArray) -> Any:
            return block.init(key, jnp.zeros((1, width), self.dtype), None, 1, 1)["params"]

        return jax.vmap(one)(jax.random.split(key, self.depth))
