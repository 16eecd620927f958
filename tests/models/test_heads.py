"""Descriptions of heads that cannot be built are refused."""

import jax
import jax.numpy as jnp
import pytest

from satmip_jax.models import Head
from satmip_jax.models.heads import build_head


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"input": "label", "kind": "linear", "out": 2}, "'label'; choose one of image, metadata"),
        ({"input": "image", "kind": "conv", "out": 2}, "'conv'; choose one of mlp, predictor,"),
        ({"input": "image", "kind": "mlp", "out": 2}, "hidden is 0; it must be above 0"),
        ({"input": "image", "kind": "linear", "out": 2, "hidden": 3}, "hidden is 3"),
        ({"input": "image", "kind": "affine", "out": 0}, "must be at least 1"),
        ({"input": "image", "kind": "affine", "out": 1, "views": 0}, "must be at least 1"),
    ],
)
def test_impossible_heads_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Head(**values)


@pytest.mark.parametrize(
    ("head", "names"),
    [
        (Head("image", "linear", out=3), {"linear/kernel"}),
        (Head("image", "affine", out=3), {"linear1/kernel", "linear1/bias"}),
        (
            Head("image", "predictor", hidden=4, out=3),
            {f"linear{i}/{name}" for i in (1, 2, 3) for name in ("kernel", "bias")},
        ),
    ],
)
def test_parameters_of_a_head_have_the_names_of_checkpoints(head, names):
    variables = build_head(head, jnp.float32).init(jax.random.key(0), jnp.zeros((2, 5)))
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    assert {"/".join(key.key for key in path) for path, _ in leaves} == names
