import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.attention import SelfAttention

RNG = np.random.default_rng(0)


def test_a_block_does_not_know_the_order_of_places(randomized):
    block, x = SelfAttention(head_dim=4, groups=2), jnp.asarray(RNG.normal(size=(2, 2, 3, 8)), jnp.float32)
    params, order = randomized(block, x), RNG.permutation(6)
    apply = jax.jit(block.apply)
    shuffled = x.reshape(2, 6, 8)[:, order].reshape(x.shape)
    found = apply(params, x).reshape(2, 6, 8)[:, order].reshape(x.shape)
    np.testing.assert_allclose(apply(params, shuffled), found, atol=1e-5)
    assert np.abs(apply(params, x) - x).max() > 0.1


def test_a_block_starts_as_the_identity():
    block, x = SelfAttention(head_dim=None, groups=2), jnp.asarray(RNG.normal(size=(1, 2, 2, 4)), jnp.float32)
    np.testing.assert_array_equal(block.init_with_output(jax.random.key(0), x)[0], x)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="heads of 3"):
        SelfAttention(head_dim=3, groups=2).init(jax.random.key(0), jnp.ones((1, 2, 2, 4)))
