import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.masked_transformer import MaskedTransformer

SHAPE = (2, 3, 1)


def network(**settings):
    return MaskedTransformer(SHAPE, 5, 2, features=8, heads=2, layers=2, **settings)


@pytest.fixture(scope="module")
def params():
    fresh = network().init(jax.random.key(0), jnp.zeros((1, 6), jnp.int32), jnp.ones((1, 6), bool))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), fresh)


def test_an_output_reads_exactly_the_visible_levels(params):
    masked = np.array([True, False, False, True, False, True])
    x = jnp.array([[0, 1, 2, 3, 4, 0]])
    before = network().apply(params, x, masked[None])
    for i in range(6):
        other = x.at[0, i].set((x[0, i] + 1) % 5)
        changed = np.abs(network().apply(params, other, masked[None]) - before).max(axis=(0, 2)) > 1e-6
        np.testing.assert_array_equal(changed, np.full(6, not masked[i]), err_msg=str(i))


def test_a_masked_dimension_is_not_one_of_a_level(params):
    masked = network().apply(params, jnp.zeros((1, 6), jnp.int32), jnp.arange(6)[None] < 2)
    for level in range(5):
        x = jnp.zeros((1, 6), jnp.int32).at[0, 0].set(level)
        assert np.abs(network().apply(params, x, jnp.arange(6)[None] == 1) - masked).max() > 1e-3


def test_which_dimensions_are_masked_matters(params):
    x = jnp.zeros((1, 6), jnp.int32)
    outputs = [network().apply(params, x, jnp.arange(6)[None] == i) for i in range(6)]
    for i in range(6):
        for j in range(i):
            assert np.abs(outputs[i] - outputs[j]).max() > 1e-3


def test_places_that_are_equal_but_for_their_place_differ(params):
    outputs = network().apply(params, jnp.zeros((1, 6), jnp.int32), jnp.ones((1, 6), bool))[0]
    distances = np.abs(outputs[:, None] - outputs[None]).max(axis=2) + np.eye(6)
    assert distances.min() > 1e-3


def test_dropout_needs_a_key(params):
    x, masked = jnp.zeros((1, 6), jnp.int32), jnp.ones((1, 6), bool)
    dropped = network(dropout=0.5)
    plain = dropped.apply(params, x, masked)
    np.testing.assert_array_equal(plain, network().apply(params, x, masked))
    assert (dropped.apply(params, x, masked, rngs={"dropout": jax.random.key(0)}) != plain).any()


def test_another_number_of_dimensions_is_refused(params):
    with pytest.raises(ValueError, match=r"made for 6 dimensions, not \[4\]"):
        network().apply(params, jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool))
