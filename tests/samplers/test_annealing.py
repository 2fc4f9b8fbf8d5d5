"""Annealed importance sampling on states that can be counted: unbiased weights, both ends of the bracket, RAISE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gm_jax.samplers import annealing

S = 6  # states 0 ... S - 1
RNG = np.random.default_rng(0)
LOG_F_1 = RNG.normal(scale=2.0, size=S)
LOG_Z = special.logsumexp(LOG_F_1)


def log_density(x, beta):
    """A path from the uniform distribution over S states to exp(LOG_F_1)."""
    return beta * jnp.asarray(LOG_F_1)[x.astype(int)]


def metropolis(key, x, beta):
    propose_key, accept_key = jax.random.split(key)
    proposal = jax.random.randint(propose_key, x.shape, 0, S).astype(x.dtype)
    accept = jnp.log(jax.random.uniform(accept_key, x.shape)) < log_density(proposal, beta) - log_density(x, beta)
    return jnp.where(accept, proposal, x)


def run(key, x_0, betas, kernel_fn=metropolis):
    return annealing.annealed_importance_sampling(key, x_0, betas, log_density_fn=log_density, kernel_fn=kernel_fn)


def exact_draws(key, n, log_f):
    return jax.random.categorical(key, jnp.asarray(log_f), shape=(n,)).astype(jnp.float64)


def test_weights_are_unbiased_and_their_logs_bracket_the_truth(x64):
    n, betas = 40_000, np.linspace(0.0, 1.0, 5)
    forward, ends = run(jax.random.key(0), exact_draws(jax.random.key(1), n, np.zeros(S)), betas)
    ratio = np.exp(np.asarray(forward) + np.log(S) - LOG_Z)  # Z^ / Z
    assert abs(ratio.mean() - 1.0) < 3.5 * ratio.std() / np.sqrt(n)
    reverse, _ = run(jax.random.key(2), exact_draws(jax.random.key(3), n, LOG_F_1), betas[::-1])
    inverse = np.exp(np.asarray(reverse) - np.log(S) + LOG_Z)
    assert abs(inverse.mean() - 1.0) < 3.5 * inverse.std() / np.sqrt(n)
    low, high = np.log(S) + np.mean(forward), np.log(S) - np.mean(reverse)
    error = np.std(forward) / np.sqrt(n)
    assert low < LOG_Z - 10 * error
    assert high > LOG_Z + 10 * error
    # Weighted by w, the end states are the target's.
    shares = np.bincount(np.asarray(ends).astype(int), weights=ratio, minlength=S) / n
    np.testing.assert_allclose(shares, np.exp(LOG_F_1 - LOG_Z), atol=0.02)


def test_weights_at_another_temperature_than_the_kernels_are_biased(x64):
    # The published mistake: the kernel of step k at the temperature of the step before.
    n, betas = 40_000, np.linspace(0.0, 1.0, 5)

    def late(key, x, beta):
        return metropolis(key, x, jnp.maximum(beta - 0.25, 0.0))

    forward, _ = run(jax.random.key(0), exact_draws(jax.random.key(1), n, np.zeros(S)), betas, late)
    ratio = np.exp(np.asarray(forward) + np.log(S) - LOG_Z)
    assert abs(ratio.mean() - 1.0) > 6 * ratio.std() / np.sqrt(n)


def test_without_steps_between_it_is_importance_sampling(x64):
    x_0 = exact_draws(jax.random.key(0), 50, np.zeros(S))
    log_w, _ = run(jax.random.key(1), x_0, [0.0, 1.0])
    np.testing.assert_allclose(log_w, LOG_F_1[np.asarray(x_0).astype(int)], rtol=1e-12)
    constant, _ = run(jax.random.key(1), x_0, [0.5, 0.5, 0.5])
    np.testing.assert_array_equal(constant, np.zeros(50))


def test_raise_is_unbiased_for_the_annealed_model_and_below_it_in_logs(x64):
    n, betas = 20_000, np.linspace(0.0, 1.0, 4)
    # The annealed model: the distribution of the end states of the forward chains, by the transition matrices.
    log_f = LOG_F_1[None] * betas[:, None]
    p = np.full(S, 1 / S)
    for k in range(1, len(betas)):
        accept = np.minimum(1.0, np.exp(log_f[k][None] - log_f[k][:, None])) / S
        np.fill_diagonal(accept, 0.0)
        matrix = accept + np.diag(1.0 - accept.sum(axis=1))
        p = p @ matrix
    for state in range(S):
        found = annealing.annealed_log_prob(
            jax.random.key(state),
            jnp.full(n, float(state)),
            betas,
            log_density_fn=log_density,
            kernel_fn=metropolis,
            log_z_0=jnp.log(float(S)),
        )
        weights = np.exp(np.asarray(found))
        assert abs(weights.mean() - p[state]) < 4 * weights.std() / np.sqrt(n)
        assert np.mean(found) < np.log(p[state])


def test_thousands_of_small_changes_of_a_large_number_keep_their_digits():
    changes = np.random.default_rng(0).uniform(0.0, 1e-3, 20_000).astype(np.float32)
    start = jnp.float32(1_000.0)
    add = lambda carry, change: (annealing._add(*carry, change), None)  # noqa: E731
    (total, _), _ = jax.jit(lambda: jax.lax.scan(add, (start, jnp.float32(0.0)), jnp.asarray(changes)))()
    plain, _ = jax.lax.scan(lambda carry, change: (carry + change, None), start, jnp.asarray(changes))
    expected = 1_000.0 + changes.astype(np.float64).sum()
    assert abs(float(total) - expected) < 7e-5  # the spacing of float32 there
    assert abs(float(plain) - expected) > 1e-3


def test_paths_rise_from_0_to_1_in_their_proportions():
    published, ours = annealing.published_betas(14_501), annealing.spaced_betas(1_001)
    np.testing.assert_allclose(published[[500, 4_500]], [0.5, 0.9], rtol=1e-12)
    np.testing.assert_allclose(ours[[100, 180, 300, 410, 620]], [0.2, 0.5, 0.8, 0.9, 0.96], rtol=1e-12)
    for betas in (published, ours):
        assert (betas[0], betas[-1]) == (0.0, 1.0)
        assert np.all(np.diff(betas) > 0)
    for make in (annealing.published_betas, annealing.spaced_betas):
        with pytest.raises(ValueError, match="at least 2 temperatures"):
            make(1)
    with pytest.raises(ValueError, match="at least 2 temperatures"):
        run(jax.random.key(0), jnp.zeros(1), [1.0])
