import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.ops import distributions
from gm_jax.samplers import autoregressive as samplers

N, D, LEVELS = 16, 6, 5
DRAWS = {
    "bernoulli": (samplers.draw_bernoulli, 1, 2),
    "categorical": (samplers.draw_categorical, LEVELS, LEVELS),
    "mixture": (partial(samplers.draw_discretized_logistic_mixture, levels=LEVELS), 6, LEVELS),
}
each_draw = pytest.mark.parametrize("name", DRAWS)


def linear(num_outputs, num_dims=D):
    """A linear autoregressive model: its full pass, and its conditionals by a running sum."""
    rng = np.random.default_rng(1)
    kernel = np.zeros((num_dims, num_dims, num_outputs), np.float32)
    for j, i in itertools.combinations(range(num_dims), 2):
        kernel[j, i] = rng.normal(size=num_outputs)
    kernel = jnp.asarray(kernel)
    bias = jnp.asarray(rng.normal(size=(num_dims, num_outputs)), jnp.float32)

    def outputs_fn(x):
        return bias[None] + jnp.einsum("nj,jip->nip", x.astype(jnp.float32), kernel)

    def step(sums, i, previous):
        sums = sums + previous[:, None, None].astype(jnp.float32) * kernel[i - 1][None]
        return sums, sums[:, i]

    init = lambda n: jnp.broadcast_to(bias[None], (n, *bias.shape))  # noqa: E731
    return outputs_fn, samplers.Conditionals(init, step)


# The protocol.


@each_draw
@pytest.mark.parametrize("num_given", [None, 0, 2, D])
def test_the_cached_sampler_equals_the_naive_one_bit_for_bit(name, num_given):
    draw, num_outputs, levels = DRAWS[name]
    outputs_fn, conditionals = linear(num_outputs)
    prefix = None
    if num_given is not None:
        prefix = jnp.asarray(np.random.default_rng(2).integers(0, levels, (N, num_given)), jnp.int32)

    key, settings = jax.random.key(3), {"prefix": prefix}
    cached_fn = jax.jit(lambda t: samplers.sample(conditionals, draw, key, N, D, **settings, temperature=t))
    naive_fn = jax.jit(lambda t: samplers.sample_naive(outputs_fn, draw, key, N, D, **settings, temperature=t))
    for temperature in (1.0, 0.6):
        cached, naive = cached_fn(temperature), naive_fn(temperature)
        assert cached.shape == (N, D)
        assert cached.dtype == naive.dtype == jnp.int32
        np.testing.assert_array_equal(cached, naive)
        if prefix is not None:
            np.testing.assert_array_equal(cached[:, :num_given], prefix)


def test_a_prefix_of_own_draws_leaves_the_sample_unchanged():
    draw, num_outputs, _ = DRAWS["categorical"]
    _, conditionals = linear(num_outputs)
    whole = samplers.sample(conditionals, draw, jax.random.key(0), N, D)
    again = samplers.sample(conditionals, draw, jax.random.key(0), N, D, prefix=whole[:, :3])
    np.testing.assert_array_equal(whole, again)


def test_begin_row_sees_every_row_and_gives_the_same_sample():
    draw, num_outputs, _ = DRAWS["categorical"]
    _, flat = linear(num_outputs)

    def begin_row(cache, row, previous):
        sums, count, last = cache
        return sums, count + 1, jnp.where(row == 0, last, previous)

    def step(cache, i, previous):
        sums, outputs = flat.step(cache[0], i, previous)
        return (sums, *cache[1:]), outputs + 0.0 * cache[1]

    conditionals = samplers.Conditionals(
        lambda n: (flat.init(n), jnp.zeros(()), jnp.zeros(n, jnp.int32)), step, begin_row, row_length=3
    )
    in_rows = samplers.sample(conditionals, draw, jax.random.key(0), N, D)
    np.testing.assert_array_equal(in_rows, samplers.sample(flat, draw, jax.random.key(0), N, D))

    def row_outputs(cache, i, previous):
        """Outputs that tell what `begin_row` was given: level `last` of the row above, with certainty."""
        return cache, jnp.where(i < 3, 0.0, 100.0) * jax.nn.one_hot(cache[2], LEVELS)

    copies = samplers.sample(conditionals._replace(step=row_outputs), draw, jax.random.key(0), N, D)
    np.testing.assert_array_equal(copies[:, 3:], jnp.broadcast_to(copies[:, 2:3], (N, 3)))


def test_frequencies_are_the_enumerated_probabilities():
    num_dims, count = 4, 100_000
    outputs_fn, conditionals = linear(1, num_dims)
    x = np.asarray(list(itertools.product([0, 1], repeat=num_dims)))
    logits = outputs_fn(jnp.asarray(x))[..., 0]
    p = np.exp(distributions.bernoulli_log_prob(jnp.asarray(x, jnp.float32), logits).sum(axis=1), dtype=np.float64)
    draws = samplers.sample(conditionals, samplers.draw_bernoulli, jax.random.key(0), count, num_dims)
    observed = np.bincount(np.asarray(draws) @ [8, 4, 2, 1], minlength=16)
    assert stats.chisquare(observed, count * p / p.sum()).pvalue > 1e-3


def test_frequencies_given_a_prefix_are_the_conditional_probabilities():
    num_dims, count = 4, 100_000
    outputs_fn, conditionals = linear(1, num_dims)
    x = np.asarray([(1, 0, a, b) for a, b in itertools.product([0, 1], repeat=2)])
    logits = outputs_fn(jnp.asarray(x))[..., 0]
    log_p = distributions.bernoulli_log_prob(jnp.asarray(x, jnp.float32), logits)[:, 2:].sum(axis=1)
    prefix = jnp.broadcast_to(jnp.asarray([1, 0]), (count, 2))
    draws = samplers.sample(conditionals, samplers.draw_bernoulli, jax.random.key(0), count, num_dims, prefix=prefix)
    observed = np.bincount(np.asarray(draws)[:, 2:] @ [2, 1], minlength=4)
    assert stats.chisquare(observed, count * special.softmax(np.asarray(log_p, np.float64))).pvalue > 1e-3


# Draws.


@each_draw
def test_draws_follow_the_distribution_and_its_temperature(name):
    draw, num_outputs, levels = DRAWS[name]
    count, temperature = 100_000, 0.7
    outputs = np.random.default_rng(4).normal(size=num_outputs).astype(np.float32)
    if name == "mixture":
        outputs[4:] -= 1.0
    draws = draw(jax.random.key(0), jnp.broadcast_to(jnp.asarray(outputs), (count, num_outputs)), temperature)
    x = jnp.arange(levels)
    if name == "mixture":
        weights, means, log_scales = (jnp.broadcast_to(part, (levels, 2)) for part in np.split(outputs, 3))
        log_p = distributions.discretized_logistic_mixture_log_prob(
            x, weights / temperature, means, log_scales + np.log(temperature), levels=levels
        )
    else:
        logits = np.asarray([0.0, outputs[0]]) if name == "bernoulli" else outputs
        log_p = np.log(special.softmax(np.asarray(logits, np.float64) / temperature))
    p = np.exp(np.asarray(log_p, np.float64))
    assert stats.chisquare(np.bincount(draws, minlength=levels), count * p / p.sum()).pvalue > 1e-3


@each_draw
def test_extreme_outputs_are_drawn_with_certainty(name):
    draw, _, levels = DRAWS[name]
    if name == "bernoulli":
        outputs, expected = jnp.asarray([[-100.0], [100.0]]), [0, 1]
    elif name == "categorical":
        outputs, expected = 200.0 * jax.nn.one_hot(jnp.arange(levels), levels) - 100.0, range(levels)
    else:
        # Weights, means and log-scales of two components; the first is certain.
        outputs = jnp.asarray([[100.0, -100.0, mean, 0.0, -50.0, 5.0] for mean in np.linspace(-1, 1, levels)])
        expected = range(levels)
    for seed in range(20):
        np.testing.assert_array_equal(draw(jax.random.key(seed), outputs), list(expected))


def test_a_low_temperature_is_the_mode():
    outputs = jax.random.normal(jax.random.key(0), (50, LEVELS))
    draws = samplers.draw_categorical(jax.random.key(1), outputs, 1e-4)
    np.testing.assert_array_equal(draws, jnp.argmax(outputs, axis=-1))


# Shapes.


def test_a_wrong_prefix_is_refused():
    _, conditionals = linear(1)
    for prefix in (jnp.zeros((N, 2)), jnp.zeros((N + 1, 2), jnp.int32), jnp.zeros((N, D + 1), jnp.int32)):
        with pytest.raises(AssertionError):
            samplers.sample(conditionals, samplers.draw_bernoulli, jax.random.key(0), N, D, prefix=prefix)


@pytest.mark.parametrize("row_length", [None, 4])
def test_a_row_length_that_does_not_divide_the_positions_is_refused(row_length):
    _, conditionals = linear(1)
    conditionals = conditionals._replace(begin_row=lambda cache, row, previous: cache, row_length=row_length)
    with pytest.raises(ValueError, match="must divide the"):
        samplers.sample(conditionals, samplers.draw_bernoulli, jax.random.key(0), N, D)


def test_jit_agrees_and_vmap_over_keys_gives_one_sample_each():
    draw, num_outputs, _ = DRAWS["categorical"]
    _, conditionals = linear(num_outputs)
    sample = lambda key: samplers.sample(conditionals, draw, key, N, D)  # noqa: E731
    keys = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(jax.vmap(sample)(keys), [jax.jit(sample)(key) for key in keys])
