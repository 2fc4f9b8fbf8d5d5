"""The summary of annealed weights compared with numpy in float64."""

import jax.numpy as jnp
import numpy as np
from scipy import special

from gm_jax.evaluation.partition import log_partition

RNG = np.random.default_rng(0)


def test_the_summary_is_that_of_numpy():
    forward, reverse = RNG.normal(400.0, 1.0, 50), RNG.normal(-402.0, 1.0, 30)
    found = log_partition(jnp.float32(7.0), jnp.asarray(forward, jnp.float32), jnp.asarray(reverse, jnp.float32))
    w = np.exp(forward - forward.max())
    np.testing.assert_allclose(found.log_z, 7.0 + special.logsumexp(forward) - np.log(50), atol=1e-4)
    np.testing.assert_allclose(found.low, 7.0 + forward.mean(), atol=1e-4)
    np.testing.assert_allclose(found.high, 7.0 - reverse.mean(), atol=1e-4)
    np.testing.assert_allclose(found.effective_sample_size, w.sum() ** 2 / (w**2).sum(), rtol=1e-4)
    np.testing.assert_allclose(found.standard_error, w.std(ddof=1) / w.mean() / np.sqrt(50), rtol=1e-4)
    assert bool(found.converged)


def test_one_weight_that_outweighs_all_others_is_not_converged():
    forward = np.zeros(50, np.float32)
    forward[0] = 30.0
    found = log_partition(jnp.float32(0.0), jnp.asarray(forward), jnp.zeros(10))
    np.testing.assert_allclose(found.effective_sample_size, 1.0, rtol=1e-4)
    assert not bool(found.converged)


def test_equal_weights_know_log_z():
    found = log_partition(jnp.float32(1.0), jnp.full(20, 2.0), jnp.full(20, -2.0))
    assert [float(value) for value in found[:5]] == [3.0, 3.0, 3.0, 0.0, 20.0]


def test_ends_that_cross_are_not_converged():
    forward = jnp.asarray(RNG.normal(10.0, 0.1, 100), jnp.float32)
    same, far = jnp.asarray(RNG.normal(-10.0, 0.1, 100), jnp.float32), jnp.full(100, -7.0)
    assert bool(log_partition(jnp.float32(0.0), forward, same).converged)
    assert not bool(log_partition(jnp.float32(0.0), forward, far).converged)
