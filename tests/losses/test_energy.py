"""Energy-based losses compared with sums over all states, and with second implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gm_jax.losses import energy

RNG = np.random.default_rng(0)
V, H = 5, 4
A, B, W = RNG.normal(size=V), RNG.normal(size=H), RNG.normal(size=(V, H))


def states(num_bits):
    return ((np.arange(2**num_bits)[:, None] >> np.arange(num_bits)) & 1).astype(np.float64)


def test_the_free_energy_is_minus_the_log_of_the_sum_over_the_other_side(x64):
    v, h = states(V), states(H)
    joint = (v @ A)[:, None] + (h @ B)[None] + v @ W @ h.T
    of_visible = energy.rbm_free_energy(jnp.asarray(v @ A), jnp.asarray(B + v @ W))
    of_hidden = energy.rbm_free_energy(jnp.asarray(h @ B), jnp.asarray(A + h @ W.T))
    np.testing.assert_allclose(of_visible, -special.logsumexp(joint, axis=1), rtol=1e-12)
    np.testing.assert_allclose(of_hidden, -special.logsumexp(joint, axis=0), rtol=1e-12)


def test_free_energies_of_large_logits_do_not_overflow():
    found = energy.rbm_free_energy(jnp.zeros(2), jnp.array([[500.0, -500.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found, [-500.0, -2 * np.log(2)], rtol=1e-6)


def test_the_gradient_of_the_contrastive_loss_is_that_of_the_nll_if_the_samples_are_the_model(x64):
    # Under p itself, the mean over samples is the sum over states: use a log-linear energy over S states.
    features = jnp.asarray(RNG.normal(size=(12, 3)))
    data = jnp.array([0, 3, 3, 7])

    def nll(theta):
        energies = features @ theta
        return jnp.mean(energies[data]) + jax.nn.logsumexp(-energies)

    def surrogate(theta):
        # Each state as often as p draws it: p is rational enough after repetition only in the mean, so weight by p.
        p = jax.lax.stop_gradient(jax.nn.softmax(-features @ theta))
        energies = features @ theta
        return energy.contrastive_loss(energies[data], p * len(p) * energies)

    theta = jnp.asarray(RNG.normal(size=3))
    np.testing.assert_allclose(jax.grad(surrogate)(theta), jax.grad(nll)(theta), rtol=1e-10)


def test_the_penalty_is_the_sum_of_both_mean_squares():
    data, model = RNG.normal(size=7), RNG.normal(size=3)
    expected = np.mean(data**2) + np.mean(model**2)
    found = energy.energy_penalty(jnp.asarray(data, jnp.float32), jnp.asarray(model, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_shift_of_all_logits_moves_the_energy_and_no_class_probability(x64):
    logits, shift = jnp.asarray(RNG.normal(size=(6, 4))), jnp.asarray(RNG.normal(size=6))
    moved = logits + shift[:, None]
    difference = energy.energy_from_logits(moved) - energy.energy_from_logits(logits)
    np.testing.assert_allclose(difference, -shift, rtol=1e-12)
    np.testing.assert_allclose(jax.nn.softmax(moved), jax.nn.softmax(logits), rtol=1e-12)
    np.testing.assert_allclose(energy.energy_from_logits(logits), -special.logsumexp(logits, axis=1), rtol=1e-12)


@pytest.mark.parametrize("nu", [1.0, 3.0])
def test_noise_contrastive_estimation_has_its_minimum_at_the_true_log_ratio(nu, x64):
    energies, log_q = RNG.normal(size=9), special.log_softmax(RNG.normal(size=9))
    log_p = special.log_softmax(-energies)
    log_z = special.logsumexp(-energies)

    def expected(c, scale=1.0):
        """The loss in expectation: every state with its probability under p, and under q."""
        log_ratio = -scale * jnp.asarray(energies) + c - jnp.asarray(log_q)
        # A mean over examples, of which each is one state, weighted.
        return sum(
            jnp.exp(log_p[i]) * energy.noise_contrastive_loss(log_ratio[i : i + 1], jnp.full(1, -1e3), noise_ratio=nu)
            + jnp.exp(log_q[i]) * energy.noise_contrastive_loss(jnp.full(1, 1e3), log_ratio[i : i + 1], noise_ratio=nu)
            for i in range(9)
        )

    gradients = jax.grad(expected, argnums=(0, 1))(-log_z, 1.0)
    np.testing.assert_allclose(gradients, np.zeros(2), atol=1e-12)
    assert float(expected(-log_z)) < min(float(expected(-log_z + 0.1)), float(expected(-log_z - 0.1)))
    # The minimum of the logistic loss is the entropy of the label given the state.
    posterior = np.exp(log_p) / (np.exp(log_p) + nu * np.exp(log_q))
    value = -np.sum(np.exp(log_p) * np.log(posterior)) - nu * np.sum(np.exp(log_q) * np.log1p(-posterior))
    np.testing.assert_allclose(expected(-log_z), value, rtol=1e-10)


def test_the_minimax_value_is_the_nll_minus_the_divergence_of_the_generator(x64):
    energies, log_q = RNG.normal(size=16), special.log_softmax(RNG.normal(size=16))
    log_p = special.log_softmax(-energies)
    data = np.array([0, 5, 5, 9, 2])
    q = np.exp(log_q)
    entropy = -np.sum(q * log_q)
    generated = jnp.asarray(len(q) * q * energies)  # its mean is the expectation under q
    value = energy.minimax_energy_value(jnp.asarray(energies[data]), generated, jnp.asarray(entropy))
    nll, kl = -np.mean(log_p[data]), np.sum(q * (log_q - log_p))
    np.testing.assert_allclose(value, nll - kl, rtol=1e-12)
    assert kl > 0.1
