"""Both ends of log p(x) for a model's own draws hold the exact value: by quadrature, and by a product of integrals."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.evaluation import enumeration
from gm_jax.models import bidirectional, decoder_likelihoods, flow, vae
from gm_jax.networks.mlp import MLPDecoder, MLPEncoder

BITS, LEVELS = 6, 3


def small_vae(likelihood=None):
    likelihood = likelihood or decoder_likelihoods.bernoulli(lambda key, x: x.astype(jnp.float32), levels=2)
    family = vae.VAE(
        encoder=MLPEncoder((8,), 2),
        decoder=MLPDecoder((8,), (BITS,), likelihood.outputs_per_dim),
        likelihood=likelihood,
        latent_dim=2,
        objective=vae.elbo_objective(),
    )
    params, _ = family.init(jax.random.key(0), {"x": jnp.zeros((1, BITS), jnp.uint8)})
    params["vae"]["decoder"] = jax.tree.map(lambda leaf: 2.5 * leaf, params["vae"]["decoder"])
    return family, params


class Identity(nn.Module):
    """The identity as a network of 4 dimensions."""

    event_shape: tuple[int, ...] = (2, 2, 1)

    def forward(self, h):
        return h.reshape(h.shape[0], -1), jnp.zeros(h.shape[0])

    def inverse(self, z):
        return z.reshape(-1, *self.event_shape), jnp.zeros(z.shape[0])


def small_flow(alpha, scale):
    prior = flow.Prior(
        sample=lambda key, shape: scale * jax.random.normal(key, shape),
        log_prob=lambda z: jnp.sum(jax.scipy.stats.norm.logpdf(z, scale=scale), axis=1),
    )
    dequantization = flow.uniform_dequantization(levels=LEVELS, alpha=alpha)
    return flow.Flow(network=Identity(), prior=prior, dequantization=dequantization)


def truth_of_flow(alpha, scale, x):
    """Log P of levels: each dimension's normal density, integrated over the level's cell."""
    edges = np.arange(LEVELS + 1) / LEVELS
    at = edges - 0.5 if alpha is None else np.log(s := alpha + (1 - 2 * alpha) * edges) - np.log(1 - s)
    return np.log(np.diff(stats.norm.cdf(at, scale=scale)))[np.asarray(x)].sum(axis=(1, 2, 3))


def check(found, truth):
    """The ends hold the truth in the mean; exp of each is unbiased in the law of its draws."""
    counted = np.asarray(found.is_counted)
    low, high, truth = (
        np.asarray(one, np.float64)[counted] for one in (found.low.log_prob, found.high.log_prob, truth)
    )
    assert (found.low.kind, found.high.kind) == ("lower_bound", "upper_bound")
    for ratio in (np.exp(low - truth), np.exp(truth - high)):
        assert abs(ratio.mean() - 1.0) < 4 * ratio.std() / np.sqrt(len(ratio))
    return low - truth, high - truth


@pytest.mark.parametrize("num_samples", [2, 50])
def test_the_ends_of_a_vae_hold_the_exact_value(num_samples):
    family, params = small_vae()
    found = jax.jit(lambda key: bidirectional.ends(family, params, {}, key, 8_000, num_samples=num_samples))(
        jax.random.key(1)
    )
    logits = jax.jit(lambda z: family.decoder_outputs(params, z))
    log_q = enumeration.latent_log_prob(logits, num_bits=BITS)
    low, high = check(found, log_q[enumeration.state_index(found.x)])
    error = 1 / np.sqrt(len(low))
    # The true latent makes the difference: draws of q alone are below the truth.
    assert low.mean() < -3 * low.std() * error
    assert high.mean() > 3 * high.std() * error
    assert high.mean() - low.mean() < (4.0 if num_samples == 2 else 0.5)
    assert dict(found.high.settings) == {"by": "importance weights with the true latent", "K": num_samples}


@pytest.mark.parametrize(("alpha", "scale"), [(None, 0.25), (0.05, 1.0)])
def test_the_ends_of_a_flow_hold_the_exact_value(alpha, scale):
    family = small_flow(alpha, scale)
    found = bidirectional.ends(family, {"flow": {}}, {}, jax.random.key(1), 20_000, num_samples=4)
    low, high = check(found, truth_of_flow(alpha, scale, found.x))
    assert low.mean() < -3 * low.std() / np.sqrt(len(low))
    assert high.mean() > 3 * high.std() / np.sqrt(len(high))
    assert high.mean() - low.mean() < 0.2
    # Draws outside of all levels are not counted: their x is that of the nearest level, and they are none of its noise.
    outside = 1.0 - np.diff(stats.norm.cdf([-0.5, 0.5] if alpha is None else np.log([0.05 / 0.95, 19.0]), scale=scale))
    share = 1.0 - float(jnp.mean(found.is_counted))
    np.testing.assert_allclose(share, 1.0 - (1.0 - outside[0]) ** 4, atol=0.015)


def test_families_without_a_latent_of_their_draws_are_refused():
    of_levels, params = small_vae(decoder_likelihoods.normal(levels=17))
    of_points = small_vae(decoder_likelihoods.normal(levels=None))[0]
    exact = dataclasses.replace(small_flow(None, 1.0), dequantization=flow.no_dequantization())
    found = [bidirectional.has_ends(family) for family in (of_points, of_levels, exact, small_flow(None, 1.0), None)]
    assert found == [True, False, False, True, False]
    with pytest.raises(ValueError, match="no latent"):
        bidirectional.ends(of_levels, params, {}, jax.random.key(0), 3)
