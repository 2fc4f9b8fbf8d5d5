"""log Z of restricted Boltzmann machines: by either side, in chunks, and the path that anneals to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gm_jax.models import rbm_partition
from gm_jax.networks.rbm import RBM

V, H = 8, 6
RNG = np.random.default_rng(0)
PARAMS = {
    "kernel": RNG.normal(scale=0.7, size=(V, H)),
    "visible_bias": RNG.normal(size=V),
    "hidden_bias": RNG.normal(size=H),
}


def states(num_bits):
    return ((np.arange(2**num_bits)[:, None] >> np.arange(num_bits)) & 1).astype(np.float64)


def params():
    return {"rbm": jax.tree.map(jnp.asarray, PARAMS)}


def log_joint(weight=1.0):
    v, h = states(V), states(H)
    return (v @ PARAMS["visible_bias"])[:, None] + h @ PARAMS["hidden_bias"] + weight * v @ PARAMS["kernel"] @ h.T


def log_f():
    return special.logsumexp(log_joint(), axis=1)


def test_log_z_is_the_sum_over_either_side(x64):
    truth = special.logsumexp(log_f())
    by_hidden = rbm_partition.exact_log_z(RBM(V, H), params()["rbm"])
    flipped = {
        "kernel": jnp.asarray(PARAMS["kernel"].T),
        "visible_bias": jnp.asarray(PARAMS["hidden_bias"]),
        "hidden_bias": jnp.asarray(PARAMS["visible_bias"]),
    }
    by_visible = rbm_partition.exact_log_z(RBM(H, V), flipped)
    np.testing.assert_allclose([by_hidden, by_visible], truth, atol=1e-10)


def test_log_z_in_chunks_is_that_of_independent_units():
    # 14 hidden units take four chunks. Without weights, Z is a product.
    a, b = RNG.normal(size=30), RNG.normal(size=14)
    weights = {"kernel": np.zeros((30, 14)), "visible_bias": a, "hidden_bias": b}
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)
    expected = np.logaddexp(0, a).sum() + np.logaddexp(0, b).sum()
    np.testing.assert_allclose(rbm_partition.exact_log_z(RBM(30, 14), weights), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="at most 20 units"):
        rbm_partition.exact_log_z(RBM(30, 21), weights)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_path_sums_the_hidden_units_out_at_every_temperature(beta, x64):
    base = jnp.asarray(RNG.normal(size=V))
    path = rbm_partition.path(RBM(V, H), params()["rbm"], base)
    expected = special.logsumexp(beta * log_joint(), axis=1) + (1 - beta) * states(V) @ np.asarray(base)
    np.testing.assert_allclose(path.log_density_fn(jnp.asarray(states(V)), beta), expected, atol=1e-12)
    if beta == 0.0:
        np.testing.assert_allclose(path.log_z_0, special.logsumexp(expected), atol=1e-12)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_sweeps_of_the_path_have_its_temperature(beta):
    # At another temperature than that of the density the weights are biased: a published mistake.
    base = jnp.asarray(RNG.normal(size=V), jnp.float32)
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params()["rbm"])
    path = rbm_partition.path(RBM(V, H), weights, base)
    n = 40_000
    p = np.asarray(jax.nn.softmax(path.log_density_fn(jnp.asarray(states(V), jnp.float32), beta)), np.float64)
    p /= p.sum()
    start = np.random.default_rng(1).choice(2**V, size=n, p=p)
    end = path.kernel_fn(jax.random.key(0), jnp.asarray(states(V)[start], jnp.float32), beta)
    counts = np.bincount(np.asarray(end).astype(int) @ (1 << np.arange(V)), minlength=2**V)
    assert np.abs(np.asarray(end).mean(axis=0) - p @ states(V)).max() < 4 * 0.5 / np.sqrt(n)
    large = p > 10 / n
    chi_squared = np.sum((counts - n * p)[large] ** 2 / (n * p)[large])
    assert chi_squared < large.sum() + 5 * np.sqrt(2 * large.sum())
