"""The linear-Gaussian oracle: x = W z + b + noise, W of orthogonal columns, so that the posterior is diagonal."""

import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from gm_jax.models import decoder_likelihoods, vae


def log_prob_of(bound, params, x, key):
    return jax.jit(bound.model.log_prob)(params, {}, key, x).log_prob


def elbo_of(bound, params, x, key):
    return jax.jit(bound.elbo)(params, {}, key, x).log_prob


class LinearEncoder(nn.Module):
    """mean = x A + c; log_var is the same for every x."""

    latent_dim: int

    @nn.compact
    def __call__(self, x):
        log_var = self.param("log_var", nn.initializers.zeros, (self.latent_dim,))
        return nn.Dense(self.latent_dim)(x), jnp.broadcast_to(log_var, (x.shape[0], self.latent_dim))


class Oracle(NamedTuple):
    params: dict
    x: np.ndarray
    log_p: np.ndarray
    posterior_log_var: np.ndarray
    log_noise_var: float


def linear_gaussian(num=64, data_dim=5, latent_dim=2, noise_var=0.3):
    """Exact posterior: mean = W^T (x - b) / (|w|^2 + s2), variance = s2 / (|w|^2 + s2)."""
    rng = np.random.default_rng(0)
    w = np.linalg.qr(rng.normal(size=(data_dim, latent_dim)))[0] * rng.uniform(0.5, 2.0, size=(1, latent_dim))
    b = rng.normal(size=data_dim)
    precision = (w**2).sum(0) + noise_var
    to_latent = w / precision[None]
    x = rng.normal(size=(num, data_dim)) * 1.5
    log_p = np.atleast_1d(stats.multivariate_normal(b, w @ w.T + noise_var * np.eye(data_dim)).logpdf(x))
    log_var = np.log(noise_var / precision)
    encoder = {"log_var": log_var, "Dense_0": {"kernel": to_latent, "bias": -b @ to_latent}}
    decoder = {"kernel": w.T, "bias": b}
    params = jax.tree.map(jnp.asarray, {"vae": {"encoder": encoder, "decoder": decoder}})
    return Oracle(params, jnp.asarray(x), log_p, log_var, float(np.log(noise_var)))


def linear_vae(oracle, num_samples, **settings):
    return vae.VAE(
        encoder=LinearEncoder(2),
        decoder=nn.Dense(5),
        likelihood=decoder_likelihoods.normal(levels=None, log_var=oracle.log_noise_var),
        latent_dim=2,
        objective=vae.elbo_objective(),
        num_importance_samples=num_samples,
        num_elbo_samples=num_samples,
        **settings,
    )


def assert_every_weight_is_the_evidence(tolerance):
    oracle = linear_gaussian()
    for seed in range(3):
        single = log_prob_of(linear_vae(oracle, 1), oracle.params, oracle.x, jax.random.key(seed))
        np.testing.assert_allclose(single, oracle.log_p, rtol=tolerance, atol=tolerance)
    several = log_prob_of(linear_vae(oracle, 7, chunk_size=3), oracle.params, oracle.x, jax.random.key(9))
    np.testing.assert_allclose(several, oracle.log_p, rtol=tolerance, atol=tolerance)


def test_with_the_exact_posterior_every_weight_is_the_evidence():
    assert_every_weight_is_the_evidence(1e-5)


def test_with_the_exact_posterior_every_weight_is_the_evidence_in_float64(x64):
    assert_every_weight_is_the_evidence(1e-10)


def test_with_the_exact_posterior_the_elbo_is_the_evidence_on_average(x64):
    # Its KL is in closed form, so one sample of the nll still varies: only the mean over q is log p(x).
    oracle = linear_gaussian(num=8)
    elbo = elbo_of(linear_vae(oracle, 20_000, chunk_size=5000), oracle.params, oracle.x, jax.random.key(0))
    np.testing.assert_allclose(elbo, oracle.log_p, atol=0.06)


def test_with_a_perturbed_posterior_the_bounds_lie_in_order_below_the_evidence(x64):
    oracle = linear_gaussian(num=1)
    shift, log_var_shift = jnp.asarray([0.6, -0.4]), jnp.asarray([0.8, -0.7])
    encoder = oracle.params["vae"]["encoder"]
    perturbed = {
        "log_var": encoder["log_var"] + log_var_shift,
        "Dense_0": {**encoder["Dense_0"], "bias": encoder["Dense_0"]["bias"] + shift},
    }
    params = {"vae": {**oracle.params["vae"], "encoder": perturbed}}
    x = jnp.tile(oracle.x, (4000, 1))  # one example many times: the mean over the batch is the mean over draws
    elbo = elbo_of(linear_vae(oracle, 1), params, x, jax.random.key(0))
    bound = {k: log_prob_of(linear_vae(oracle, k), params, x, jax.random.key(k)) for k in (1, 5, 50)}

    def standard_error(values):
        return values.std() / np.sqrt(values.size)

    # log p(x) - ELBO = KL(q(z|x) || p(z|x)), in closed form.
    var_p = np.exp(oracle.posterior_log_var)
    ratio = np.exp(log_var_shift)
    gap = 0.5 * np.sum(ratio + shift**2 / var_p - 1.0 - log_var_shift)
    for single in (elbo, bound[1]):
        assert abs(single.mean() - (oracle.log_p[0] - gap)) < 4 * standard_error(single)
    ordered = [bound[1], bound[5], bound[50]]
    for looser, tighter in itertools.pairwise(ordered):
        assert looser.mean() + 4 * (standard_error(looser) + standard_error(tighter)) < tighter.mean()
    assert elbo.mean() + 4 * (standard_error(elbo) + standard_error(bound[5])) < bound[5].mean()
    assert bound[50].mean() + 4 * standard_error(bound[50]) < oracle.log_p[0]
    # And each estimates p(x) without bias: the mean of exp is the evidence itself.
    ratios = np.exp(np.asarray(bound[50]) - oracle.log_p[0])
    assert abs(ratios.mean() - 1.0) < 5 * standard_error(ratios)
