"""D3PM on a world of two dimensions with three levels, held to sums over all its states."""

import dataclasses
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.models.d3pm import D3PM
from gm_jax.ops import transitions

LEVELS, D, T = 3, 2, 4
BETAS = np.array([0.2, 0.3, 0.4, 0.9])
PROCESSES = {
    "uniform": lambda: transitions.uniform(BETAS, num_states=LEVELS),
    "gaussian": lambda: transitions.gaussian(BETAS, num_states=LEVELS),
    "absorbing": lambda: transitions.absorbing(transitions.masking_betas(T), num_levels=LEVELS),
}
each_process = pytest.mark.parametrize("name", PROCESSES)
DATA = np.array(list(itertools.product(range(LEVELS), repeat=D)))
KEY = jax.random.key(0)


class Small(nn.Module):
    """A perceptron of the noisy values and of the time."""

    @nn.compact
    def __call__(self, x_t, t, *, train=False):
        seen = jnp.concatenate([x_t.reshape(-1, D), jax.nn.one_hot(t, T + 1)], axis=1)
        h = nn.Dropout(0.5, deterministic=not train)(jnp.tanh(nn.Dense(12)(seen)))
        return nn.Dense(D * LEVELS)(h).reshape(-1, 1, D, LEVELS)


def family(name, **settings):
    return D3PM(network=Small(), transitions=PROCESSES[name](), levels=LEVELS, shape=(1, D, 1), **settings)


def images(x=DATA):
    return jnp.asarray(x, jnp.uint8).reshape(-1, 1, D, 1)


@pytest.fixture(scope="module")
def params():
    fresh = jax.eval_shape(family("uniform").init, KEY, {"x": images()})[0]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), fresh)


def in_float64(params):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), params)


def reverse_table(model, params, t):
    """p(x_(t-1) | x_t) [K^D, K^D] over all states, which are in the order of `itertools.product`."""
    num_states = model.transitions.num_states
    states = np.array(list(itertools.product(range(num_states), repeat=D)))
    times = jnp.full(len(states), t)
    logits = model.logits(params, jnp.asarray(states), times)
    each = transitions.reverse_log_prob(model.transitions, logits, jnp.asarray(states), times)
    each = np.exp(np.asarray(each, np.float64))
    return np.einsum("xi,xj->xij", each[:, 0], each[:, 1]).reshape(len(states), -1)


def states_of_data(model):
    num_states = model.transitions.num_states
    return DATA @ num_states ** np.arange(D)[::-1]


def log_prob_by_enumeration(model, params):
    """Log p(x_0) [9], by the chain from p(x_T) over all states."""
    start = np.exp(np.asarray(model.transitions.log_stationary, np.float64))
    p = np.einsum("i,j->ij", start, start).reshape(-1)
    for t in range(T, 0, -1):
        p = p @ reverse_table(model, params, t)
    assert p[states_of_data(model)].sum() == pytest.approx(1.0, abs=1e-5)  # the others are masks
    return np.log(p[states_of_data(model)])


def bound_by_enumeration(model, params):
    """The bound [9], by expectations over all noisy states, from explicit matrix products."""
    steps = np.exp(np.asarray(model.transitions.log_steps, np.float64))
    one = [np.eye(steps.shape[1])]
    for step in steps:
        one.append(one[-1] @ step)
    both = [np.einsum("ai,bj->abij", table, table).reshape(len(table) ** D, -1) for table in one]
    transition = [np.einsum("ai,bj->abij", step, step).reshape(len(step) ** D, -1) for step in steps]
    bound, start = [], np.exp(model.transitions.log_stationary)
    start = np.einsum("i,j->ij", start, start).reshape(-1)

    def divergence(q, p):
        return float(np.sum(q[q > 1e-14] * np.log(q[q > 1e-14] / p[q > 1e-14])))

    reverse = [None, *(reverse_table(model, params, t) for t in range(1, T + 1))]
    for x_0 in states_of_data(model):
        total = -divergence(both[T][x_0], start)
        for t in range(1, T + 1):
            joint = both[t - 1][x_0][:, None] * transition[t - 1]  # [x_(t-1), x_t]
            for x_t in np.flatnonzero(joint.sum(axis=0) > 1e-14):
                posterior = joint[:, x_t] / joint[:, x_t].sum()
                total -= joint[:, x_t].sum() * divergence(posterior, reverse[t][x_t])
        bound.append(total)
    return np.array(bound)


@each_process
def test_the_bound_is_its_expectation_and_below_the_likelihood(x64, params, name):
    model, params = family(name), in_float64(params)
    expected, truth = bound_by_enumeration(model, params), log_prob_by_enumeration(model, params)
    assert np.exp(truth).sum() == pytest.approx(1.0, abs=1e-10)
    assert np.all(expected < truth)
    draw = jax.jit(jax.vmap(lambda key: model.log_prob(params, {}, key, images()).log_prob))
    draws = np.asarray(draw(jax.random.split(jax.random.key(1), 2_000)))
    error = draws.std(axis=0) / math.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - expected) < 5 * error + 1e-4)
    found = model.log_prob(params, {}, KEY, images())
    assert (found.kind, found.measure) == ("lower_bound", "3 levels")
    assert found.settings == (("T", T), ("bound_terms", T))


def test_some_times_have_the_same_mean_as_all(params):
    model = family("gaussian")
    few = dataclasses.replace(model, bound_terms=2)
    means = []
    for each in (model, few):
        draw = jax.jit(jax.vmap(lambda key, each=each: jnp.mean(each.log_prob(params, {}, key, images()).log_prob)))
        draws = np.asarray(draw(jax.random.split(jax.random.key(1), 2_000)))
        means.append((draws.mean(), draws.std() / math.sqrt(len(draws))))
    (all_times, error), (some, other) = [tuple(map(float, mean)) for mean in means]
    assert some == pytest.approx(all_times, abs=5 * math.hypot(error, other))
    assert few.log_prob(params, {}, KEY, images()).settings == (("T", T), ("bound_terms", 2))


def cross_entropy_by_enumeration(model, params):
    """The sum over times of E -log p~(x_0 | x_t), averaged over the data."""
    states, total = np.array(list(itertools.product(range(model.transitions.num_states), repeat=D))), 0.0
    for t in range(1, T + 1):
        table = np.exp(np.asarray(model.transitions.log_cumulative[t], np.float64))
        q = table[DATA[:, None, 0], states[:, 0]] * table[DATA[:, None, 1], states[:, 1]]  # [9, S]
        logits = np.asarray(model.logits(params, jnp.asarray(states), jnp.full(len(states), t)), np.float64)
        log_p = special.log_softmax(logits, axis=-1)
        log_p = log_p[:, 0, DATA[:, 0]] + log_p[:, 1, DATA[:, 1]]  # [S, 9]
        total -= np.mean(np.sum(q * log_p.T, axis=1))
    return total


@each_process
def test_samples_are_as_frequent_as_they_are_probable(params, name):
    model, n = family(name), 20_000
    x = jax.jit(lambda key: model.sample(params, {}, key, n))(KEY)
    assert (x.shape, x.dtype) == ((n, 1, D, 1), jnp.uint8)
    counts = np.bincount(np.asarray(x).reshape(n, D) @ [LEVELS, 1], minlength=LEVELS**D)
    expected = n * np.exp(log_prob_by_enumeration(model, params))
    assert stats.chisquare(counts, expected * n / expected.sum()).pvalue > 1e-3


def test_the_loss_is_minus_the_bound_without_the_prior_and_the_hybrid_adds_the_cross_entropy(params):
    model = dataclasses.replace(family("uniform"), network=WithoutDropout())
    x = jnp.tile(images(), (8, 1, 1, 1))

    def means(model):
        loss = jax.jit(jax.vmap(lambda key: model.loss(params, {}, key, {"x": x})))
        value, (_, metrics) = loss(jax.random.split(jax.random.key(2), 500))
        return np.asarray(value), np.asarray(metrics["bound"])

    value, bound = means(model)
    np.testing.assert_allclose(value, bound, rtol=1e-6)
    table = np.exp(np.asarray(model.transitions.log_cumulative[T], np.float64))
    prior = D * np.mean(np.sum(table * np.log(table * LEVELS), axis=1))
    expected = -bound_by_enumeration(model, params).mean() - prior
    assert value.mean() == pytest.approx(expected, abs=5 * float(value.std()) / math.sqrt(500) + 1e-4)
    hybrid, same = means(dataclasses.replace(model, cross_entropy=0.1))
    np.testing.assert_allclose(same, bound, rtol=1e-6)
    added = (hybrid - value) / 0.1  # of the same draws
    expected = cross_entropy_by_enumeration(model, params)
    assert added.mean() == pytest.approx(expected, abs=5 * float(added.std()) / math.sqrt(500) + 1e-4)


class WithoutDropout:
    """The network in evaluation."""

    def apply(self, variables, x_t, t, *, train=False, rngs=None):
        return Small().apply(variables, x_t, t)


def test_the_blocks_of_the_output_are_levels_of_all_channels():
    class Blocks:
        def apply(self, variables, x_t, t):
            return jnp.broadcast_to(jnp.arange(4.0 * 3), (*x_t.shape[:3], 12))

    model = D3PM(network=Blocks(), transitions=transitions.uniform(BETAS, num_states=4), levels=4, shape=(2, 1, 3))
    logits = model.logits({"d3pm": {}}, jnp.zeros((1, 6), jnp.int32), jnp.ones(1, jnp.int32))
    expected = np.array([[level * 3 + channel for level in range(4)] for channel in range(3)])
    expected[:, 0] += 1  # the level that x_t is
    np.testing.assert_array_equal(logits[0].reshape(2, 3, 4), np.stack([expected, expected]))


def test_a_network_of_another_output_is_refused():
    model = dataclasses.replace(family("uniform"), levels=4)
    with pytest.raises(Exception, match=r"the network must return \[1, 1, 2, 4\]"):
        model.init(KEY, {"x": images()})
