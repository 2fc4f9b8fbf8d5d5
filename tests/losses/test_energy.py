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


def test_the_minimax_value_of_a_belief_network_over_all_states(x64):
    # q is a fully visible sigmoid belief network over 16 bits, p an energy of 65,536 states.
    rng = np.random.default_rng(3)
    x = states(16)
    logits = x @ np.triu(rng.normal(size=(16, 16)), 1) + rng.normal(size=16)  # bit i sees the bits before it
    log_q = np.sum(x * logits - np.logaddexp(0.0, logits), axis=1)
    assert abs(special.logsumexp(log_q)) < 1e-9
    energies = np.tanh(x @ rng.normal(size=(16, 8))) @ rng.normal(size=8)
    log_p, q = special.log_softmax(-energies), np.exp(log_q)
    data = rng.integers(0, 2**16, 50)
    generated = jnp.asarray(len(q) * q * energies)  # its mean is the expectation under q
    value = energy.minimax_energy_value(jnp.asarray(energies[data]), generated, jnp.asarray(-np.sum(q * log_q)))
    np.testing.assert_allclose(value, -np.mean(log_p[data]) - np.sum(q * (log_q - log_p)), rtol=1e-9)
    # So -E - (E_q[-E] + H(q)) bounds log p of every state from above.
    bound = -energies - (np.sum(-q * energies) - np.sum(q * log_q))
    assert np.all(bound > log_p)


K, D, STD = 2, 3, 0.7
LATENT_W = np.random.default_rng(4).normal(size=(D, K))


def entropy_of_linear_generator(w):
    covariance = w @ w.T + STD**2 * jnp.eye(D)
    return 0.5 * jnp.linalg.slogdet(2 * jnp.pi * jnp.e * covariance)[1]


def test_the_entropy_gradient_of_a_linear_generator_is_the_closed_form(x64):
    n = 40_000
    z, noise, eps = (np.random.default_rng(k).normal(size=(n, d)) for k, d in ((5, K), (6, K), (7, D)))
    posterior = np.linalg.inv(LATENT_W.T @ LATENT_W / STD**2 + np.eye(K))  # covariance of z given x
    x = z @ LATENT_W.T + STD * eps
    draws = x @ LATENT_W @ posterior / STD**2 + noise @ np.linalg.cholesky(posterior).T
    score = energy.latent_generator_score(
        jnp.asarray(x), jnp.asarray(draws @ LATENT_W.T)[None], jnp.zeros((1, n)), std=STD
    )

    def per_example(w):
        return jax.vmap(lambda z, e, s: energy.entropy_surrogate((w @ z + STD * e)[None], s[None]))(z, eps, score)

    gradients = np.asarray(jax.jacfwd(per_example)(jnp.asarray(LATENT_W)))
    error = gradients.std(axis=0) / np.sqrt(n)
    expected = jax.grad(entropy_of_linear_generator)(jnp.asarray(LATENT_W))
    assert np.all(np.abs(gradients.mean(axis=0) - expected) < 3.5 * error)
    assert error.max() < 0.02


def test_importance_weights_of_a_wide_proposal_give_the_score_of_the_density(x64):
    n, width = 200_000, 1.5
    rng = np.random.default_rng(8)
    x = rng.normal(size=(2, D))
    z = width * rng.normal(size=(n, 2, K))
    means = z @ LATENT_W.T
    log_joint = -0.5 * np.sum(z**2, axis=2) - np.sum((x - means) ** 2, axis=2) / (2 * STD**2)
    log_weights = log_joint + np.sum(z**2, axis=2) / (2 * width**2)
    found = energy.latent_generator_score(*map(jnp.asarray, (x, means, log_weights)), std=STD)
    expected = -x @ np.linalg.inv(LATENT_W @ LATENT_W.T + STD**2 * np.eye(D))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_information_bound_is_greatest_at_the_log_ratio_of_joint_and_margins(x64):
    joint = special.softmax(np.random.default_rng(9).normal(size=(4, 5)) * 2).ravel()
    joint = joint / joint.sum()
    margins = np.outer(joint.reshape(4, 5).sum(axis=1), joint.reshape(4, 5).sum(axis=0)).ravel()

    def bound(scores):
        """The bound in expectation: each of the 20 cells with its probability."""
        one = lambda s: energy.mutual_information_bound(s, jnp.full(1, -1e3))  # noqa: E731
        other = lambda s: energy.mutual_information_bound(jnp.full(1, 1e3), s)  # noqa: E731
        return sum(joint[i] * one(scores[i : i + 1]) + margins[i] * other(scores[i : i + 1]) for i in range(20))

    best = jnp.asarray(np.log(joint / margins))
    np.testing.assert_allclose(jax.grad(bound)(best), np.zeros(20), atol=1e-12)
    middle = 0.5 * (joint + margins)
    jensen_shannon = 0.5 * np.sum(joint * np.log(joint / middle)) + 0.5 * np.sum(margins * np.log(margins / middle))
    np.testing.assert_allclose(bound(best), 2 * jensen_shannon - np.log(4), rtol=1e-10)
    assert float(bound(best)) > float(bound(best + 0.1))
