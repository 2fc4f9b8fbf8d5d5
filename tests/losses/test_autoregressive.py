import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.losses import autoregressive
from gm_jax.ops import reductions

RNG = np.random.default_rng(0)
D = 3
STATES = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=D)))  # [8, D]


def conditionals(seed):
    """Weights of a model whose logits_i depend on x_<i alone: strictly lower triangular, and a bias."""
    rng = np.random.default_rng(seed)
    return np.tril(rng.normal(scale=2.0, size=(D, D)), -1), rng.normal(size=D)


def log_prob(seed):
    """[8] log p of every state."""
    weights, bias = conditionals(seed)
    logits = jnp.asarray(np.asarray(STATES) @ weights.T + bias, jnp.float32)
    return -autoregressive.bernoulli_nll(STATES, logits)


def test_the_chain_rule_is_the_product_of_the_conditionals():
    weights, bias = conditionals(0)
    for x, log_p in zip(np.asarray(STATES), log_prob(0), strict=True):
        expected = sum(stats.bernoulli.logpmf(x[i], special.expit(weights[i, :i] @ x[:i] + bias[i])) for i in range(D))
        assert float(log_p) == pytest.approx(expected, rel=1e-5)


def test_the_probabilities_of_all_states_sum_to_one():
    assert float(jnp.exp(log_prob(0)).sum()) == pytest.approx(1.0, abs=1e-6)


def test_an_ensemble_is_a_mixture_and_the_mean_of_log_p_is_smaller():
    each = jnp.stack([log_prob(seed) for seed in range(4)])
    mixture = reductions.log_mean_exp(each, axis=0)
    assert float(jnp.exp(mixture).sum()) == pytest.approx(1.0, abs=1e-6)
    assert np.all(each.mean(axis=0) < mixture)
