"""The bound of masked diffusion, held to sums over all masks and all orders of a small world."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

from gm_jax import losses
from gm_jax.ops import masking

D = 4
STATES = np.array(list(itertools.product([0, 1], repeat=D)))
MASKS = np.array(list(itertools.product([False, True], repeat=D))[1:])  # all but the empty one


def consistent(seed=0):
    """Returns a random joint distribution [16] and its conditionals' l_i [16 states, 15 masks, D]."""
    p = np.random.default_rng(seed).dirichlet(np.ones(len(STATES)))
    nll = np.zeros((len(STATES), len(MASKS), D))
    for s, x in enumerate(STATES):
        for m, hidden in enumerate(MASKS):
            agrees = (x == STATES)[:, ~hidden].all(axis=1)
            for i in np.flatnonzero(hidden):
                nll[s, m, i] = -np.log(p[agrees & (STATES[:, i] == x[i])].sum() / p[agrees].sum())
    return p, nll


def inconsistent(seed=1):
    """Returns l_i of conditionals that no joint distribution has: one logit for each visible part and dimension."""
    rng, table = np.random.default_rng(seed), {}
    nll = np.zeros((len(STATES), len(MASKS), D))
    for s, x in enumerate(STATES):
        for m, hidden in enumerate(MASKS):
            visible = (m, *x[~hidden])
            logits = table.setdefault(visible, rng.normal(size=D))
            nll[s, m] = np.where(hidden, np.logaddexp(0.0, (1 - 2 * x) * logits), np.nan)
    return nll


def over_masks(nll):
    """Computes (2) [16]: the mean of `any_order_loss` over sizes and over sets of each size."""
    sizes = MASKS.sum(axis=1)
    weights = np.array([1.0 / (D * math.comb(D, k)) for k in sizes])
    each = [losses.any_order_loss(jnp.asarray(row), jnp.asarray(MASKS)) for row in nll]
    return np.asarray(each) @ weights


def over_times(nll, schedule):
    """Computes (1) [16] by a quadrature over t, with the probability of each mask at t."""
    sizes = MASKS.sum(axis=1)

    def at(t):
        alpha = float(schedule(jnp.float64(t)))
        weight = float(masking.loss_weight(schedule, jnp.float64(t)))
        of_mask = (1 - alpha) ** sizes * alpha ** (D - sizes)
        value = [losses.masked_diffusion_loss(jnp.asarray(r), jnp.asarray(MASKS), jnp.full(15, weight)) for r in nll]
        return np.asarray(value) @ of_mask

    nodes, weights = special.roots_legendre(24)
    return sum(0.5 * w * at(0.5 * (1 + node)) for node, w in zip(nodes, weights, strict=True))


def of_orders(nll):
    """Computes -log p(x) of the chain rule in each order: [24, 16]."""
    place = {tuple(mask): m for m, mask in enumerate(MASKS)}

    def one(order):
        hidden, total = np.ones(D, bool), np.zeros(len(STATES))
        for i in order:
            total += nll[:, place[tuple(hidden)], i]
            hidden[i] = False
        return total

    return np.array([one(order) for order in itertools.permutations(range(D))])


def test_with_exact_conditionals_the_bound_is_the_likelihood(x64):
    p, nll = consistent()
    np.testing.assert_allclose(over_masks(nll), -np.log(p), rtol=1e-12)


def test_time_masks_and_orders_give_one_bound(x64):
    nll = inconsistent()
    bound = over_masks(nll)
    np.testing.assert_allclose(of_orders(nll).mean(axis=0), bound, rtol=1e-12)
    np.testing.assert_allclose(over_times(nll, masking.linear), bound, rtol=1e-10)
    np.testing.assert_allclose(over_times(nll, masking.cosine), bound, rtol=1e-5)


def test_the_mixture_of_orders_is_above_the_bound_and_sums_to_one(x64):
    nll = inconsistent()
    mixture = special.logsumexp(-of_orders(nll), axis=0) - math.log(24)
    np.testing.assert_allclose(np.exp(mixture).sum(), 1.0, rtol=1e-12)
    assert np.all(-over_masks(nll) < mixture)


def test_visible_dimensions_add_nothing_to_the_value_or_the_gradient():
    nll, hidden = jnp.array([[0.5, jnp.inf, 1.0]]), jnp.array([[True, False, True]])
    assert losses.any_order_loss(nll, hidden)[0] == pytest.approx(2.25)
    gradient = jax.grad(lambda nll: losses.any_order_loss(nll, hidden).sum())(nll)
    np.testing.assert_array_equal(gradient, [[1.5, 0.0, 1.5]])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(AssertionError):
        losses.any_order_loss(jnp.zeros((2, 3)), jnp.ones((2, 2), bool))
    with pytest.raises(AssertionError):
        losses.masked_diffusion_loss(jnp.zeros((2, 3)), jnp.ones((2, 3), bool), jnp.ones((2, 1)))


def test_the_weight_integrates_the_number_of_hidden_dimensions_to_one_over_k(x64):
    for schedule in (masking.linear, masking.cosine):
        for k in (1, 2, 4):

            def integrand(t, k=k, schedule=schedule):
                t = jnp.float64(t)
                hidden = 1 - schedule(t)
                return float(masking.loss_weight(schedule, t) * hidden**k * (1 - hidden) ** (D - k))

            found, _ = integrate.quad(integrand, 1e-12, 1.0)
            assert found == pytest.approx(1 / (k * math.comb(D, k)), rel=1e-6)
