import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.group_norm import GroupNorm

RNG = np.random.default_rng(0)
PARAMS = {"scale": jnp.asarray(RNG.normal(size=6), jnp.float32), "bias": jnp.asarray(RNG.normal(size=6), jnp.float32)}


def by_hand(h, groups):
    """Equation (1) in float64."""
    h = np.asarray(h, np.float64)
    split = h.reshape(len(h), -1, groups, h.shape[-1] // groups)
    mean, var = split.mean(axis=(1, 3), keepdims=True), split.var(axis=(1, 3), keepdims=True)
    normalized = ((split - mean) / np.sqrt(var + 1e-5)).reshape(h.shape)
    return normalized * np.asarray(PARAMS["scale"], np.float64) + np.asarray(PARAMS["bias"], np.float64)


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 6), (3, 7, 6)])
def test_each_group_is_normalised_over_all_places(shape):
    h = jnp.asarray(3.0 + 2.0 * RNG.normal(size=shape), jnp.float32)
    np.testing.assert_allclose(GroupNorm(3).apply({"params": PARAMS}, h), by_hand(h, 3), rtol=1e-4, atol=1e-5)


def test_a_large_mean_cancels_nothing():
    h = jnp.asarray(1e4 + RNG.normal(size=(2, 8, 8, 6)), jnp.float32)
    np.testing.assert_allclose(GroupNorm(2).apply({"params": PARAMS}, h), by_hand(h, 2), atol=1e-2)


def test_a_constant_image_has_finite_values_and_gradients():
    apply = lambda h: GroupNorm(2).apply({"params": PARAMS}, h)  # noqa: E731
    h = jnp.full((1, 4, 4, 6), 3.0)
    np.testing.assert_allclose(apply(h), jnp.broadcast_to(PARAMS["bias"], h.shape), atol=1e-3)
    assert np.isfinite(jax.grad(lambda h: jnp.sum(jnp.square(apply(h))))(h)).all()


def test_statistics_of_half_precision_are_float32():
    # 300 squared is more than float16 holds.
    h = jnp.asarray(300.0 * RNG.normal(size=(2, 4, 4, 6)), jnp.float16)
    y = GroupNorm(3, dtype=jnp.float16).apply({"params": PARAMS}, h)
    assert y.dtype == jnp.float16
    np.testing.assert_allclose(np.asarray(y, np.float64), by_hand(h, 3), atol=1e-2)


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="4 groups do not divide 6"):
        GroupNorm(4).init(jax.random.key(0), jnp.ones((1, 2, 2, 6)))
