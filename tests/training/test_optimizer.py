"""Weight decay applies to matrices, for every method and encoder."""

import jax
import pytest

from satmip_jax.models import build_towers, example_batch
from satmip_jax.objectives import METHODS, build_method
from satmip_jax.training.optimizer import decays


def decayed_by_name(path):
    """The rule of version 0.1, with which published runs were trained."""
    names = [str(key.key) for key in path]
    return names[-1] == "kernel" and not any("token" in name for name in names)


@pytest.mark.parametrize("encoder", ["tabular", "text"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_weight_decay_applies_to_the_same_parameters_as_ever(
    method, encoder, pool, tiny_config, tiny_shards
):
    config = tiny_config(
        method,
        f"--config.metadata.encoder={encoder}",
        f"--config.image.pool={pool}",
        "--config.metadata.fields=all",
        "--config.metadata.depth=3",
        "--config.method.loss=sigmoid",
    )
    towers = build_towers(config, tiny_shards.schema, build_method(config))

    def init():
        inputs = example_batch(config, tiny_shards.schema)
        return towers.init(jax.random.key(0), *inputs)["params"]

    params = jax.eval_shape(init)
    mask = decays(params)
    assert any(jax.tree.leaves(mask))
    expected = jax.tree_util.tree_map_with_path(lambda path, _: decayed_by_name(path), params)
    assert mask == expected
