import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.models import decoder_likelihoods
from gm_jax.ops import binarization

LIKELIHOODS = {
    "bernoulli": decoder_likelihoods.bernoulli(lambda key, x: binarization.threshold(x, levels=17), levels=17),
    "normal_fixed": decoder_likelihoods.normal(levels=17, log_var=-2.0),
    "normal_learned": decoder_likelihoods.normal(levels=17),
    "discretized_logistic": decoder_likelihoods.discretized_logistic(levels=17),
}
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS.keys())


def images(num=6, shape=(8, 8, 1), levels=17):
    return jnp.asarray(np.random.default_rng(3).integers(0, levels, (num, *shape)), jnp.uint8)


@each_likelihood
def test_the_nll_keeps_the_batch(likelihood):
    x = likelihood.prepare(jax.random.key(0), images())
    outputs = jax.random.normal(jax.random.key(1), (6, 8, 8, likelihood.outputs_per_dim))
    assert likelihood.nll(x, outputs).shape == (6,)
    assert likelihood.encoder_input(x).dtype == jnp.float32
    assert np.abs(likelihood.encoder_input(x)).max() <= 1.0


@each_likelihood
def test_extreme_outputs_give_finite_nll_and_gradient(likelihood):
    x = likelihood.prepare(jax.random.key(0), images())
    nll_and_grad = jax.jit(jax.value_and_grad(lambda outputs: likelihood.nll(x, outputs).sum()))
    for value in (-80.0, 80.0):  # a logistic of log-scale 100 has bins that float32 cannot hold
        nll, grad = nll_and_grad(jnp.full((6, 8, 8, likelihood.outputs_per_dim), value))
        assert np.isfinite(nll)
        assert np.isfinite(grad).all()


@each_likelihood
def test_samples_are_levels_with_the_mean_of_the_likelihood(likelihood):
    # Outputs that keep the normal clear of the ends of the scale, where its draws are cut off.
    outputs = jnp.asarray([0.4, -1.5])[: likelihood.outputs_per_dim]
    if likelihood is LIKELIHOODS["normal_learned"]:
        outputs = jnp.asarray([0.4, -5.0])
    if likelihood is LIKELIHOODS["normal_fixed"]:
        likelihood, outputs = decoder_likelihoods.normal(levels=17, log_var=-5.0), jnp.asarray([0.4])
    outputs = jnp.broadcast_to(outputs[None, None, None], (4, 100, 100, likelihood.outputs_per_dim))
    draws = np.asarray(likelihood.sample(jax.random.key(0), outputs))
    mean = np.asarray(likelihood.mean(outputs))
    assert draws.shape == mean.shape == (4, 100, 100, 1)
    assert draws.dtype == np.uint8
    assert mean.dtype == np.float32
    assert draws.max() <= 16
    assert len(np.unique(draws)) >= 2
    assert abs(draws.mean() - mean.mean()) < 5 * draws.std() / np.sqrt(draws.size)


def test_discretized_logistic_samples_have_the_probabilities_of_its_nll():
    likelihood = decoder_likelihoods.discretized_logistic(levels=5)
    outputs = jnp.asarray([0.3, -1.0])
    levels = jnp.arange(5, dtype=jnp.uint8).reshape(5, 1)
    p = np.exp(-likelihood.nll(levels, jnp.broadcast_to(outputs[None], (5, 2))))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    draws = likelihood.sample(jax.random.key(0), jnp.broadcast_to(outputs[None], (50_000, 2)))
    observed = np.bincount(np.asarray(draws).ravel(), minlength=5)
    assert stats.chisquare(observed, 50_000 * p / p.sum()).pvalue > 1e-4
    np.testing.assert_allclose(likelihood.mean(outputs[None])[0, 0], (p * np.arange(5)).sum(), rtol=1e-5)


def test_the_normal_for_images_is_a_density_in_level_units():
    likelihood = decoder_likelihoods.normal(levels=256, log_var=-4.0)
    raw = images(3, levels=256)
    outputs = jax.random.uniform(jax.random.key(0), raw.shape)
    nll = likelihood.nll(likelihood.prepare(jax.random.key(1), raw), outputs)
    by_hand = -stats.norm(255 * np.asarray(outputs), 255 * np.exp(-2.0)).logpdf(np.asarray(raw)).sum((1, 2, 3))
    np.testing.assert_allclose(nll, by_hand, rtol=1e-5)


@pytest.mark.parametrize("location", [8.0, 7.75, 7.5])
def test_the_narrowest_learned_normal_still_sums_to_one_over_the_levels(x64, location):
    likelihood = decoder_likelihoods.normal(levels=17)
    x = likelihood.prepare(jax.random.key(0), jnp.arange(17, dtype=jnp.uint8)[:, None])
    outputs = jnp.broadcast_to(jnp.asarray([location / 16, -1000.0])[None], (17, 2))
    total = np.exp(-likelihood.nll(x, outputs)).sum()
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
