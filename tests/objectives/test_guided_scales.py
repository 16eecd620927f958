"""The scales of the guides' losses are constants to the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.test_guided import losses_of, make, schema  # noqa: F401  # fixtures


@pytest.mark.slow
def test_the_scale_of_a_guide_is_a_constant(make, schema):  # noqa: F811
    """Its loss does not fall by making its gradient small: no gradient of the norms."""
    s = make("method.guide_adversarial=", "method.guide_auxiliary=sub_region,gsd")

    def both(params):
        losses, metrics = losses_of(s, schema, params)
        return jnp.stack([losses["guide_gsd"], metrics["gsd_loss"]])

    scaled, plain = jax.jit(both)(s.params)
    gradients = jax.jit(jax.jacrev(both))(s.params)
    for part in ("image_encoder", "heads_guide_gsd", "heads_guide_sub_region"):
        rows = [np.asarray(x, np.float64).reshape(2, -1) for x in jax.tree.leaves(gradients[part])]
        weighted, own = np.concatenate(rows, axis=1)
        np.testing.assert_allclose(weighted, scaled / plain * own, rtol=1e-4, atol=1e-7)
