"""The bound of discrete diffusion, held to masked diffusion's; sums over all states: `tests/models/test_d3pm.py`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import losses
from gm_jax.ops import masking, transitions

D, LEVELS, MASK = 3, 2, 2
STATES = np.array(list(itertools.product(range(LEVELS), repeat=D)))
MASKS = np.array(list(itertools.product([False, True], repeat=D)))


def test_the_divergence_is_scipys_and_zero_of_itself(x64):
    p, q = (np.random.default_rng(seed).dirichlet(np.ones(4), size=(3, 2)) for seed in (0, 1))
    expected = stats.entropy(q, p, axis=-1).sum(axis=1)
    np.testing.assert_allclose(losses.categorical_kl(jnp.log(q), jnp.log(p)), expected, rtol=1e-12)
    np.testing.assert_allclose(losses.categorical_kl(jnp.log(q), jnp.log(q)), np.zeros(3), atol=1e-15)


def test_a_certain_q_leaves_the_likelihood_and_impossible_states_cost_nothing():
    log_q = jnp.array([[[0.0, -1e4, -1e4]]])
    log_p = jnp.log(jnp.array([[[0.25, 0.5, 0.25]]]))
    value, gradient = jax.value_and_grad(lambda log_p: losses.categorical_kl(log_q, log_p)[0])(log_p)
    assert value == pytest.approx(-np.log(0.25), rel=1e-6)
    np.testing.assert_allclose(gradient, [[[-1.0, 0.0, 0.0]]], atol=1e-7)


def logits_of(seen):
    """Logits [N, D, LEVELS] of a network of what it sees [N, D], 0, 1 or the mask; they do not depend on the time."""
    weights = np.random.default_rng(0).normal(size=(D, 3, D, LEVELS))
    return weights[np.arange(D), seen].sum(axis=1)


def absorbing_terms(num_steps):
    """Computes the terms (2) [T, 8 states, 8 masks] and those of masked diffusion with the discrete weight."""
    process = transitions.absorbing(transitions.masking_betas(num_steps), num_levels=LEVELS)
    x_0 = np.repeat(STATES, len(MASKS), axis=0)
    hidden = np.tile(MASKS, (len(STATES), 1))
    seen = np.where(hidden, MASK, x_0)
    logits = jnp.asarray(logits_of(seen))
    nll = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), x_0[..., None], axis=2)[..., 0]

    @jax.jit
    def at(time):
        t = jnp.broadcast_to(time, len(x_0))
        ours = losses.categorical_kl(
            transitions.posterior_log_prob(process, x_0, seen, t),
            transitions.reverse_log_prob(process, logits, seen, t),
        )
        # (alpha_(t-1) - alpha_t) / (1 - alpha_t) with alpha_t = 1 - t / T
        theirs = losses.masked_diffusion_loss(jnp.asarray(nll), jnp.asarray(hidden), 1.0 / t)
        return ours, theirs

    ours, theirs = (np.stack(parts) for parts in zip(*map(at, range(1, num_steps + 1)), strict=True))
    shape = (num_steps, len(STATES), len(MASKS))
    return ours.reshape(shape), theirs.reshape(shape), nll.reshape(*shape[1:], D)


def test_with_the_absorbing_process_each_term_is_that_of_masked_diffusion(x64):
    ours, theirs, _ = absorbing_terms(5)
    # At the last time all is masked with certainty: other masks have no posterior.
    np.testing.assert_allclose(ours[:-1], theirs[:-1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ours[-1, :, -1], theirs[-1, :, -1], rtol=1e-10)
    assert theirs[:, :, 1:].min() > 1e-3


def test_with_many_steps_the_absorbing_bound_is_the_bound_of_masked_diffusion(x64):
    sizes = MASKS.sum(axis=1)

    def bound(num_steps):
        terms, _, _ = absorbing_terms(num_steps)
        share = np.arange(1, num_steps + 1)[:, None] / num_steps
        of_mask = share**sizes * (1 - share) ** (D - sizes)
        terms = np.where(of_mask[:, None] > 0, terms, 0.0)
        denoising = np.einsum("tsm,tm->ts", terms, of_mask)
        return -np.asarray(
            losses.discrete_variational_bound(jnp.zeros(len(STATES)), jnp.asarray(denoising), num_steps=num_steps)
        )

    _, _, nll = absorbing_terms(1)
    each = [losses.any_order_loss(jnp.asarray(row[1:]), jnp.asarray(MASKS[1:])) for row in nll]
    weights = [1.0 / (D * np.sum(sizes == k)) for k in sizes[1:]]
    expected = np.asarray(each) @ weights
    coarse, fine = bound(20), bound(40)
    assert np.all(np.abs(fine - expected) < 0.6 * np.abs(coarse - expected))  # the error falls as 1 / T
    np.testing.assert_allclose(2 * fine - coarse, expected, rtol=2e-3)
    assert float(masking.loss_weight(masking.linear, jnp.float64(0.25))) == pytest.approx(4.0)


def test_the_hybrid_loss_adds_the_cross_entropy():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 4))
    x_0 = jnp.array([[0, 1, 2], [3, 3, 3]])
    kl = jnp.array([0.1, 0.2])
    nll = losses.categorical_nll(x_0, logits)
    found = losses.hybrid_loss(kl, x_0, logits, num_steps=7, weight=0.5)
    np.testing.assert_allclose(found, 7 * (kl + 0.5 * nll), rtol=1e-6)
    np.testing.assert_allclose(losses.hybrid_loss(kl, x_0, logits, num_steps=7, weight=0.0), 7 * kl, rtol=1e-6)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(AssertionError):
        losses.categorical_kl(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3, 5)))
    with pytest.raises(AssertionError):
        losses.discrete_variational_bound(jnp.zeros(3), jnp.zeros((2, 4)), num_steps=2)
