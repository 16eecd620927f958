"""Position embeddings on another grid of patches."""

import jax.numpy as jnp
import numpy as np
import pytest

from satmip_jax.models.position_resize import resize_positions
from tests.conftest import import_torchvision


def random_positions(tokens: int, width: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(tokens, width)).astype(np.float32)


@pytest.mark.oracle
@pytest.mark.parametrize("new", [(4, 4), (7, 5), (3, 9), (28, 28), (16, 2), (1, 1)])
@pytest.mark.parametrize(("old", "prefix"), [((14, 14), 1), ((4, 4), 0), ((6, 9), 5)])
def test_equals_timm(old: tuple[int, int], new: tuple[int, int], prefix: int) -> None:
    torch = pytest.importorskip("torch")
    import_torchvision()
    layers = pytest.importorskip("timm.layers")
    positions = random_positions(prefix + old[0] * old[1])
    expected = layers.resample_abs_pos_embed(
        torch.from_numpy(positions)[None], [*new], [*old], num_prefix_tokens=prefix
    )
    ours = resize_positions(jnp.asarray(positions), old, new, prefix)
    np.testing.assert_allclose(ours, expected[0].numpy(), atol=1e-5)


def test_same_grid_changes_nothing() -> None:
    positions = random_positions(1 + 6)
    np.testing.assert_array_equal(
        resize_positions(jnp.asarray(positions), (2, 3), (2, 3), 1), positions
    )


def test_rows_of_no_patch_are_kept_in_front() -> None:
    positions = random_positions(3 + 16)
    resized = resize_positions(jnp.asarray(positions), (4, 4), (6, 2), 3)
    np.testing.assert_array_equal(resized[:3], positions[:3])
    alone = resize_positions(jnp.asarray(positions[3:]), (4, 4), (6, 2))
    np.testing.assert_array_equal(resized[3:], alone)


def test_a_smaller_grid_averages() -> None:
    stripes = (np.arange(16) % 4 == 0).repeat(16).reshape(256, 1).astype(np.float32)
    resized = resize_positions(jnp.asarray(stripes), (16, 16), (4, 4)).reshape(4, 4)
    np.testing.assert_allclose(resized[1:-1], 0.25, atol=0.05)


def test_a_linear_ramp_stays_linear_inside() -> None:
    """Rows and columns are not exchanged, and cubic interpolation reproduces a ramp."""
    y, x = np.mgrid[:8, :6].astype(np.float32) + 0.5
    ramp = np.stack([y / 8, x / 6], axis=-1).reshape(48, 2)
    resized = resize_positions(jnp.asarray(ramp), (8, 6), (16, 24)).reshape(16, 24, 2)
    y, x = np.mgrid[:16, :24].astype(np.float32) + 0.5
    inside = np.s_[4:-4, 8:-8]
    np.testing.assert_allclose(resized[inside][..., 0], (y / 16)[inside], atol=1e-6)
    np.testing.assert_allclose(resized[inside][..., 1], (x / 24)[inside], atol=1e-6)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="10 position embeddings are not those of 3 x 3"):
        resize_positions(jnp.zeros((10, 4)), (3, 3), (4, 4))
    with pytest.raises(ValueError, match="positive sides"):
        resize_positions(jnp.zeros((9, 4)), (3, 3), (0, 4))
