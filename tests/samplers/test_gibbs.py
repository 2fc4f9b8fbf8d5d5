"""Block Gibbs sampling compared with the transition matrix over all states of a small machine."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from gm_jax.samplers import gibbs

RNG = np.random.default_rng(0)
V, H = 4, 3
A, B, W = RNG.normal(size=V), RNG.normal(size=H), RNG.normal(size=(V, H))


def states(num_bits):
    return ((np.arange(2**num_bits)[:, None] >> np.arange(num_bits)) & 1).astype(np.float64)


def bernoulli_matrix(logits, outcomes):
    """[N, S]: the probability of each outcome [S, M] under independent units with logits [N, M]."""
    return np.exp(outcomes @ -np.logaddexp(0, -logits).T + (1 - outcomes) @ -np.logaddexp(0, logits).T).T


def transition():
    v, h = states(V), states(H)
    return bernoulli_matrix(B + v @ W, h) @ bernoulli_matrix(A + h @ W.T, v)


def density():
    v = states(V)
    return special.softmax(v @ A + np.logaddexp(0, B + v @ W).sum(axis=1))


def test_the_sweep_leaves_the_model_invariant_and_is_reversible():
    matrix, p = transition(), density()
    np.testing.assert_allclose(p @ matrix, p, atol=1e-15)
    flow = p[:, None] * matrix
    np.testing.assert_allclose(flow, flow.T, atol=1e-15)


def test_sweeps_follow_the_transition_matrix():
    n = 40_000
    hidden, visible = (
        lambda u: (u @ W + B[None]).astype(jnp.float32),
        lambda u: (u @ W.T + A[None]).astype(jnp.float32),
    )
    start = np.tile(states(V)[9], (n, 1)).astype(np.float32)
    for sweeps in (1, 2, 5):
        end = gibbs.block_gibbs(jax.random.key(sweeps), jnp.asarray(start), hidden, visible, num_sweeps=sweeps)
        counts = np.bincount(np.asarray(end).astype(int) @ (1 << np.arange(V)), minlength=2**V) / n
        expected = np.linalg.matrix_power(transition(), sweeps)[9]
        errors = (counts - expected) / np.sqrt(expected / n)
        assert np.abs(errors).max() < 4.5
        assert np.sum(errors**2) < 45  # chi-squared with 15 degrees of freedom: 1e-4 above 44


def test_units_and_sides_have_noise_of_their_own():
    draws = gibbs.draw_units(jax.random.key(0), jnp.zeros((500, 8)))
    correlations = np.corrcoef(np.asarray(draws).T) - np.eye(8)
    assert np.abs(correlations).max() < 0.2
    # Both sides see fair coins: equal keys for the two draws would make h equal v.
    seen = {}

    def hidden(v):
        return jnp.zeros((v.shape[0], 8))

    def visible(h):
        seen["h"] = h
        return jnp.zeros((h.shape[0], 8))

    v = gibbs.block_gibbs_sweep(jax.random.key(1), jnp.zeros((500, 8)), hidden, visible)
    assert 0.4 < float(jnp.mean(v == seen["h"])) < 0.6
