"""log Z of restricted Boltzmann machines: by either side, in chunks, and the path that anneals to it."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gm_jax.evaluation.partition import log_partition
from gm_jax.losses import energy as losses
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


PUBLISHED = os.environ.get("GM_JAX_PUBLISHED_RBM", "")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not PUBLISHED, reason="GM_JAX_PUBLISHED_RBM does not name the folder of the published machine")
def test_the_published_machine_has_its_published_likelihood():
    # Salakhutdinov & Murray (2008): CD25(500), log Z 451.28, on their own binarisation of MNIST. Their weights and data
    # are in github.com/gpapamak/distilling_intractable_generative_models: weights [784, 500] and biases in one npz,
    # and packed bits in another.
    weights = np.load(Path(PUBLISHED) / "published_rbm_cd25_500.npz")
    bits = np.load(Path(PUBLISHED) / "salakhutdinov_murray_mnist.npz")
    network = RBM(784, 500)
    params = {
        "kernel": jnp.asarray(weights["weights"], jnp.float32),
        "visible_bias": jnp.asarray(weights["visible_bias"], jnp.float32),
        "hidden_bias": jnp.asarray(weights["hidden_bias"], jnp.float32),
    }
    free_energy = jax.jit(lambda v: losses.rbm_free_energy(*rbm_partition.apply(network, params, v)))
    splits = {name: np.unpackbits(bits[name], axis=1)[:, :784].astype(np.float32) for name in ("train", "test")}
    for name, expected in (("test", -86.354), ("train", -83.108)):
        parts = [np.asarray(free_energy(part), np.float64) for part in splits[name].reshape(-1, 10_000, 784)]
        np.testing.assert_allclose(-np.mean(parts) - 451.28, expected, atol=1e-3)
    ones = splits["train"].sum(axis=0)
    base = jnp.asarray(np.log(ones + 3_000.0) - np.log(len(splits["train"]) - ones + 3_000.0), jnp.float32)
    kernel_fn = rbm_partition.path(network, params, base).kernel_fn

    def sweep(i, v):
        return kernel_fn(jax.random.fold_in(jax.random.key(1), i), v, 1.0)

    ends = jax.jit(lambda v: jax.lax.fori_loop(0, 2_900, sweep, v))(jnp.asarray(splits["train"][:100]))
    how = rbm_partition.AnnealedPartition(summarize=log_partition, num_temperatures=14_500, num_runs=100)
    found = jax.jit(how.estimate, static_argnums=1)(jax.random.key(0), network, params, base, ends)
    assert 451.0 < float(found.log_z) < 451.6
    assert float(found.low) < 451.28 < float(found.high)
    assert float(found.high - found.low) < 1.0
    assert bool(found.converged)
