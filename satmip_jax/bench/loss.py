"""Memory and time of contrastive losses with gradients: exchanges and the naive formula.

The naive formula computes the full matrix of scores on one device; it runs if that fits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from satmip_jax.bench.timing import Measurement, over_rounds, time_in_turn
from satmip_jax.distributed.sharding import batch_sharding, make_mesh
from satmip_jax.losses.contrastive import EXCHANGES, info_nce, normalize, nt_xent, sigmoid_loss
from satmip_jax.planning import memory

SCALE, BIAS = 10.0, -10.0


def bench(
    rows: Sequence[int], *, width: int, rounds: int, limit: int, losses: Sequence[str] = ()
) -> Iterator[Measurement]:
    """Measure the value and gradient of losses between pairs of embeddings.

    Args:
        rows: global batch sizes, pairs.
        width: width of the embeddings.
        rounds: rounds of timing; 0 measures memory only.
        limit: memory per device, bytes; programs that need more are compiled but not run.
        losses: keys of `LOSSES`; all by default.
    """
    mesh = make_mesh()
    for n in rows:
        shape = jax.ShapeDtypeStruct((n, width), jnp.float32, sharding=batch_sharding(mesh))
        for loss in losses or LOSSES:
            compiled = {}
            for variant in ("naive", *EXCHANGES):
                function = functools.partial(LOSSES[loss], mesh=mesh, exchange=variant)
                step: Any = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))
                compiled[variant] = step.lower(shape, shape).compile()
            fitting = {}
            for variant, program in compiled.items():
                needed = memory.compiled_bytes(program) or 0
                temporary = program.memory_analysis().temp_size_in_bytes / 2**20
                facts = {"rows": n, "width": width}
                name, metric = f"{loss} {variant}", "temporary memory"
                yield Measurement("loss", name, metric, temporary, "MiB/device", facts=facts)
                if needed < limit:
                    fitting[variant] = program
            if rounds:
                yield from _time(fitting, loss, n, width, rounds, mesh)


def _time(
    programs: dict[str, Any], loss: str, n: int, width: int, rounds: int, mesh: Any
) -> list[Measurement]:
    keys = jax.random.split(jax.random.key(0))
    sharding = batch_sharding(mesh)
    a, b = (jax.device_put(jax.random.normal(key, (n, width)), sharding) for key in keys)
    functions = {name: functools.partial(program, a, b) for name, program in programs.items()}
    pairs = n * n * (4 if loss == "nt_xent" else 1)
    return [
        Measurement(
            "loss",
            f"{loss} {name}",
            "time per pair",
            unit="ns",
            facts={"rows": n, "width": width},
            **over_rounds([1e9 * second / pairs for second in seconds]),
        )
        for name, seconds in time_in_turn(functions, rounds).items()
    ]


def _scores(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(normalize(a), normalize(b).T, precision="highest")


def _info_nce(a: jax.Array, b: jax.Array, mesh: Any, exchange: str) -> jax.Array:
    if exchange != "naive":
        return info_nce(a, b, jnp.float32(SCALE), mesh, exchange)[0]
    logits = SCALE * _scores(a, b)
    normalizers = jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)
    return jnp.mean(normalizers / 2 - jnp.diagonal(logits))


def _nt_xent(a: jax.Array, b: jax.Array, mesh: Any, exchange: str) -> jax.Array:
    if exchange != "naive":
        return nt_xent(a, b, 1 / SCALE, mesh, exchange)[0]
    n, views = a.shape[0], jnp.concatenate([a, b])
    logits = SCALE * _scores(views, views)
    positives = jnp.concatenate([jnp.diagonal(logits, n), jnp.diagonal(logits, -n)])
    others = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, logits)
    return jnp.mean(jax.nn.logsumexp(others, axis=1) - positives)


def _sigmoid(a: jax.Array, b: jax.Array, mesh: Any, exchange: str) -> jax.Array:
    if exchange != "naive":
        return sigmoid_loss(a, b, jnp.float32(SCALE), jnp.float32(BIAS), mesh, exchange)[0]
    n = a.shape[0]
    logits = SCALE * _scores(a, b) + BIAS
    signs = 2 * jnp.eye(n) - 1
    return -jnp.sum(jax.nn.log_sigmoid(signs * logits)) / n


LOSSES: dict[str, Callable[..., jax.Array]] = {
    "info_nce": _info_nce,
    "nt_xent": _nt_xent,
    "sigmoid": _sigmoid,
}
