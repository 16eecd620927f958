"""cuDNN's attention.

Without a GPU a kernel in plain JAX replaces cuDNN's. Everything around it is JAX's code: the checks
of its inputs, sharding over devices, batching under `vmap`, and the call that it is lowered to.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.bench.step import noise
from satmip_jax.config.loading import load_config
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.distributed.target import Target
from satmip_jax.models.attention import Attention, attend, resolve_attention
from satmip_jax.models.encoder import Encoder
from satmip_jax.models.text_transformer import TextTransformer
from satmip_jax.planning import memory
from satmip_jax.training.step import build_program
from tests.conftest import REPOSITORY, TINY

GPU = jax.default_backend() == "gpu"
KEY = jax.random.key(0)
TOLERANCE = (
    0.03 if GPU else 0.02
)  # of the largest value; bfloat16 alone gives 0.013, one key too many 0.037


def kernel(query, key, value, query_lengths, key_lengths, scale, mask_type):
    """Compute what cuDNN computes for one device's rows; operands must hold these rows alone."""
    logits = jnp.einsum("btnh,bsnh->bnts", query, key, preferred_element_type=jnp.float32)
    logits = logits * np.float32(scale)
    if mask_type.name == "PADDING":
        assert query_lengths.shape == key_lengths.shape == query.shape[:1], (
            "lengths of other devices' rows"
        )
        hidden = jnp.arange(key.shape[1], dtype=jnp.int32)[None] >= key_lengths[:, None]
        logits = jnp.where(hidden[:, None, None], jnp.finfo(jnp.float32).min, logits)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    out = jnp.einsum("bnts,bsnh->btnh", weights, value)
    if mask_type.name == "PADDING":
        is_query = jnp.arange(query.shape[1], dtype=jnp.int32)[None] < query_lengths[:, None]
        out = jnp.where(is_query[..., None, None], out, jnp.zeros((), out.dtype))
    return out, jax.nn.logsumexp(logits, axis=-1)


@pytest.fixture
def calls(monkeypatch):
    """Return the shapes of the queries that reach cuDNN; on a GPU they cannot be recorded.

    cuDNN counts as supported for bfloat16.
    """
    seen: list[tuple[str, tuple[int, ...]]] = []
    if GPU:
        return seen
    from jax._src.cudnn import fused_attention_stablehlo as fused
    from jax.interpreters import mlir

    def forward(q, k, v, bias, query_lengths, key_lengths, *_, scale, mask_type, is_training, **__):
        seen.append(("forward", q.shape))
        outputs = kernel(q, k, v, query_lengths, key_lengths, scale, mask_type)
        return outputs if is_training else outputs[:1]

    def backward(q, k, v, bias, query_lengths, key_lengths, *rest, scale, mask_type, **_):
        statistics, out, gradient = rest[-3:]
        seen.append(("backward", q.shape))
        assert len(statistics) == len(out) == len(gradient) == len(q)
        run = functools.partial(kernel, scale=scale, mask_type=mask_type)
        _, back = jax.vjp(lambda *qkv: run(*qkv, query_lengths, key_lengths)[0], q, k, v)
        return back(gradient)

    for primitive, function in (
        (fused._dot_product_attention_fwd_p, forward),
        (fused._dot_product_attention_bwd_p, backward),
    ):
        lowering = mlir.lower_fun(function, multiple_results=True)
        mlir.register_lowering(primitive, lowering, platform="cpu")
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(Target, "of", lambda *_: Target("gpu", has_cudnn_attention=True))
    return seen


@pytest.mark.parametrize("masked", [False, True])
def test_attention_agrees_with_einsum(calls, masked):
    q, k, v, g = jax.random.normal(KEY, (4, 8, 66, 6, 64), jnp.bfloat16)
    lengths = jnp.arange(59, 67, dtype=jnp.int32) if masked else None

    def run(implementation):
        out, back = jax.vjp(
            lambda *a: attend(*a, lengths=lengths, implementation=implementation), q, k, v
        )
        return jax.tree.map(lambda a: np.asarray(a, np.float32), (out, *back(g)))

    assert resolve_attention("auto", jnp.bfloat16, 64) == "cudnn"
    for ours, reference in zip(run("cudnn"), run("einsum"), strict=True):
        np.testing.assert_allclose(ours, reference, atol=TOLERANCE * np.abs(reference).max())


@pytest.mark.parametrize(
    ("tokens", "masked", "queries", "mapped"),
    [
        (17, False, None, False),
        (17, True, None, True),
        (17, False, 1, False),
        (17, True, 2, False),
        (16, True, 1, True),
        (16, False, None, True),
    ],
)
def test_any_number_of_tokens(calls, tokens, masked, queries, mapped):
    """JAX rejects an odd number for cuDNN in training: ViT-S/16 has 197."""
    x = jax.random.normal(KEY, (4, tokens, 32), jnp.bfloat16)
    lengths = jnp.array([tokens, 1, 5, tokens - 1], jnp.int32) if masked else None

    def run(implementation):
        model = Attention(2, implementation=implementation, dtype=jnp.bfloat16)
        variables = model.init(KEY, x)

        def one(variables, x, lengths):
            lengths = None if lengths is None else lengths[None]
            return model.apply(variables, x[None], lengths, queries=queries)[0]

        def loss(variables, x):
            if mapped:
                axes = (None, 0, None if lengths is None else 0)
                out = jax.vmap(one, axes)(variables, x, lengths)
            else:
                out = model.apply(variables, x, lengths, queries=queries)
            return jnp.sum(jnp.sin(3 * out.astype(jnp.float32))), out

        (_, out), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables, x)
        return jax.tree.map(lambda a: np.asarray(a, np.float32), (out, grads))

    ours = run("cudnn")
    assert GPU or {name for name, _ in calls} == {"forward", "backward"}
    assert ours[0].shape == (4, queries or tokens, 32)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE * np.abs(b).max()),
        ours,
        run("einsum"),
    )


@pytest.mark.parametrize("outputs", [1, None])
def test_the_token_that_pads_an_encoder_is_seen_by_none(calls, outputs):
    """The only real token would attend to it with half of its weight."""
    x = jax.random.normal(KEY, (4, 1, 32), jnp.bfloat16) / 8
    variables = Encoder(2, 2, 64, attention="einsum", dtype=jnp.bfloat16).init(KEY, x)

    def run(attention):
        encoder = Encoder(2, 2, 64, attention=attention, dtype=jnp.bfloat16)
        out = jax.jit(lambda variables, x: encoder.apply(variables, x, outputs=outputs))
        return np.asarray(out(variables, x), np.float32)

    ours, reference = run("cudnn"), run("einsum")
    assert GPU or {shape[1] for _, shape in calls} == {2}
    np.testing.assert_allclose(ours, reference, atol=TOLERANCE * np.abs(reference).max())


@pytest.mark.skipif(GPU, reason="lowers for a GPU that is absent")
def test_lowers_to_cudnn_calls(calls):
    """Attention with 197 tokens and captions under vmap become cuDNN calls for a GPU."""
    vision = Attention(2, dtype=jnp.bfloat16)
    x = jnp.ones((2, 197, 32), jnp.bfloat16)
    text = TextTransformer(width=32, depth=1, heads=2, length=17, dtype=jnp.bfloat16)
    tokens = jnp.ones((2, 17), jnp.int32)

    def vision_loss(variables):
        return jnp.sum(vision.apply(variables, x).astype(jnp.float32))

    def text_loss(variables):
        rows = jax.vmap(lambda row: text.apply(variables, row[None])[0])(tokens)
        return jnp.sum(rows.astype(jnp.float32))

    for loss, variables in (
        (vision_loss, vision.init(KEY, x)),
        (text_loss, text.init(KEY, tokens)),
    ):
        lowered = jax.jit(jax.grad(loss)).trace(variables).lower(lowering_platforms=("cuda",))
        program = lowered.as_text()
        assert program.count("__cudnn$fmhaSoftmaxBackward") == 1
        assert program.count("__cudnn$fmhaSoftmax") == 2


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_a_training_step(calls):
    """On 8 devices each call holds one device's rows; loss and gradient are as without cuDNN."""
    config = load_config(
        f"{REPOSITORY / 'configs' / 'eurosat.py'}:satmips,cpu",
        [
            *TINY,
            "--config.data.dir=",
            "--config.optimizer.batch_size=16",
            "--config.dtype=bfloat16",
            "--config.image.pool=cls",
            "--config.image.encoder=32x2x2/8",
            "--config.metadata.encoder=text",
            "--config.metadata.caption_length=51",
        ],
    )
    schema, examples = memory.schema_of(config, None)
    program = build_program(config, schema, examples, make_mesh(jax.devices()[:8]))
    batch = noise(program)
    _, ours = program.step(program.init(), batch)
    # Two rows each: 2 views of 16 patches and the class token, alone with the padding in the last
    # block, and 51 bytes of caption.
    shapes = {(4, 18, 2, 16), (4, 2, 2, 16), (2, 52, 2, 8)}
    assert GPU or {shape for _, shape in calls} == shapes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Target, "of", lambda *_: Target("gpu"))
        with jax.numpy_dtype_promotion("standard"):  # required by JAX's attention
            program = build_program(config, schema, examples, program.mesh)
            _, plain = program.step(program.init(), batch)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(ours[name], plain[name], rtol=2e-3)
