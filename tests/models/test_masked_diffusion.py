"""Masked diffusion on a world of four binary dimensions, held to sums over all its states, masks and orders."""

import dataclasses
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models.autoregressive_networks import bernoulli
from gm_jax.models.masked_diffusion import MaskedDiffusion
from gm_jax.ops import binarization, reductions

D = 4
STATES = np.array(list(itertools.product([0, 1], repeat=D)), np.uint8)
ORDERS = np.array(list(itertools.permutations(range(D))))
KEY = jax.random.key(0)


class Small(nn.Module):
    """A perceptron of the visible values and of which dimensions are masked."""

    @nn.compact
    def __call__(self, x, is_masked):
        seen = jnp.where(is_masked, 0.0, 2.0 * x - 1.0)
        h = jnp.tanh(nn.Dense(12)(jnp.concatenate([seen, 1.0 * is_masked], axis=1)))
        return nn.Dense(D)(h)[..., None]


def family(**settings):
    likelihood = bernoulli(lambda key, x: binarization.static(x), levels=2)
    return MaskedDiffusion(network=Small(), likelihood=likelihood, shape=(2, 2, 1), **settings)


@pytest.fixture(scope="module")
def params():
    fresh, _ = family().init(KEY, {"x": STATES.reshape(-1, 2, 2, 1)})
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(1.2 * rng.normal(size=leaf.shape), jnp.float32), fresh)


def images():
    return jnp.asarray(STATES.reshape(-1, 2, 2, 1))


@pytest.fixture(scope="module")
def in_orders(params):
    """Log p(x | order) [24 orders, 16 states]."""
    one = jax.jit(lambda order: family().log_prob_in_order(params, KEY, images(), order).log_prob)
    return np.stack([one(jnp.asarray(order)) for order in ORDERS])


def test_in_each_order_the_probabilities_are_the_chain_rule_and_sum_to_one(params, in_orders):
    np.testing.assert_allclose(np.exp(in_orders).sum(axis=1), np.ones(24), rtol=1e-5)
    order, total, hidden = ORDERS[7], np.zeros(16), np.ones(D, bool)
    for i in order:
        logits = Small().apply({"params": params["masked_diffusion"]}, 1.0 * STATES, jnp.tile(hidden, (16, 1)))[:, i, 0]
        total += -np.logaddexp(0.0, np.where(STATES[:, i] == 1, -logits, logits))
        hidden[i] = False
    np.testing.assert_allclose(in_orders[7], total, rtol=1e-5)
    found = family().log_prob_in_order(params, KEY, images(), jnp.asarray(order))
    assert (found.kind, found.measure) == ("exact", "binary")


@pytest.mark.parametrize("terms", [None, 2])
def test_the_bound_is_the_mean_over_the_orders(params, in_orders, terms):
    model = family(bound_terms=terms)
    estimate = jax.jit(jax.vmap(lambda key: model.log_prob(params, {}, key, images()).log_prob))
    draws = np.asarray(estimate(jax.random.split(jax.random.key(1), 4_000)))
    error = draws.std(axis=0) / math.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - in_orders.mean(axis=0)) < 5 * error + 1e-5)
    found = model.log_prob(params, {}, KEY, images())
    assert (found.kind, found.settings) == ("lower_bound", (("sizes", terms or D),))


def test_the_loss_is_minus_the_bound(params, in_orders):
    batch = {"x": jnp.tile(images(), (8, 1, 1, 1))}
    losses = jax.jit(jax.vmap(lambda key: family().loss(params, {}, key, batch)[0]))
    draws = np.asarray(losses(jax.random.split(jax.random.key(2), 500)))
    assert draws.mean() == pytest.approx(-in_orders.mean(), abs=5 * float(draws.std()) / math.sqrt(500))


def test_the_mixture_of_orders_lies_between_the_bound_and_the_likelihood(params, in_orders):
    truth, bound = np.asarray(reductions.log_mean_exp(jnp.asarray(in_orders), axis=0)), in_orders.mean(axis=0)
    model = family(mixture_orders=5)
    estimate = jax.jit(jax.vmap(lambda key: model.mixture_log_prob(params, {}, key, images()).log_prob))
    mean = np.asarray(estimate(jax.random.split(jax.random.key(1), 1_000))).mean(axis=0)
    assert bound.mean() < mean.mean() < truth.mean()
    assert model.mixture_log_prob(params, {}, KEY, images()).settings == (("orders", 5),)


def shares(x):
    return np.bincount(np.asarray(x).reshape(-1, D) @ (1 << np.arange(D)[::-1]), minlength=16) / len(x)


def test_samples_have_the_probabilities_of_the_mixture(params, in_orders):
    x = jax.jit(lambda key: family().sample(params, {}, key, 40_000))(KEY)
    assert (x.shape, x.dtype) == ((40_000, 2, 2, 1), jnp.uint8)
    expected = np.exp(in_orders).mean(axis=0)
    assert np.all(np.abs(shares(x) - expected) < 5 * np.sqrt(expected / 40_000))


def test_in_one_step_the_dimensions_are_independent(params):
    x = jax.jit(lambda key: family(sampling_steps=1).sample(params, {}, key, 40_000))(KEY)
    hidden = jnp.ones((1, D), bool)
    p = jax.nn.sigmoid(Small().apply({"params": params["masked_diffusion"]}, jnp.zeros((1, D)), hidden))[0, :, 0]
    expected = np.prod(np.where(STATES == 1, p, 1 - p), axis=1)
    assert np.all(np.abs(shares(x) - expected) < 5 * np.sqrt(expected / 40_000))


def test_holes_of_any_shape_are_filled_from_the_conditional(params):
    known, x = jnp.array([[True, False], [False, True]])[..., None], jnp.tile(images()[9:10], (40_000, 1, 1, 1))
    filled = np.asarray(jax.jit(lambda key: family().complete(params, key, x, known))(KEY)).reshape(-1, D)
    assert (filled[:, [0, 3]] == STATES[9, [0, 3]]).all()
    both = [  # log p of the two holes in both orders
        family().nll_of_masked(params, jnp.asarray(STATES, jnp.int32), jnp.tile(jnp.asarray(hidden), (16, 1)))
        for hidden in ([False, True, True, False], [False, True, False, False], [False, False, True, False])
    ]
    first, second = -both[0][:, 1] - both[2][:, 2], -both[0][:, 2] - both[1][:, 1]
    expected = 0.5 * (np.exp(first) + np.exp(second))
    expected = np.where((STATES[:, [0, 3]] == STATES[9, [0, 3]]).all(axis=1), expected, 0.0)
    assert np.all(np.abs(shares(filled) - expected) <= 5 * np.sqrt(expected / 40_000))


def test_more_steps_than_dimensions_are_refused(params):
    with pytest.raises(ValueError, match="num_steps must be between 1 and 4, got 5"):
        family(sampling_steps=5).sample(params, {}, KEY, 2)


def test_every_likelihood_of_a_key_is_of_the_same_binarised_data(params):
    def draw(key, x):
        return binarization.dynamic(x, jax.random.uniform(key, x.shape), levels=17)

    model = dataclasses.replace(family(bound_terms=1), likelihood=bernoulli(draw, levels=17))
    grey, seen = jnp.full((64, 2, 2, 1), 8, jnp.uint8), []
    model = dataclasses.replace(model, network=Recording(seen))
    model.log_prob(params, {}, KEY, grey)
    model.mixture_log_prob(params, {}, KEY, grey)
    model.log_prob_in_order(params, KEY, grey, jnp.arange(D))
    jax.effects_barrier()
    assert len({x.tobytes() for x in seen}) == 1


class Recording:
    """The network, which notes the levels that it is given."""

    def __init__(self, seen):
        self.seen = seen

    def apply(self, variables, x, is_masked, rngs):
        jax.debug.callback(lambda x: self.seen.append(np.array(x)), x)
        return Small().apply(variables, x, is_masked)
