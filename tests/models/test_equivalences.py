"""Families that are one family: the same number, computed by the formulas of both.

Masked diffusion and autoregressive models: see also tests/losses/test_masked_diffusion.py, where the bound over times,
over masks and over orders is one number. The ODE of every Gaussian path: tests/losses/test_continuous_flow.py.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.losses import autoregressive, continuous_flow, diffusion, flow, masked_diffusion, vae
from gm_jax.ops import diffusion_process
from gm_jax.samplers import ode
from tests.gaussian_mixture import PATHS, Mixture

# A diffusion model is a VAE with T latents, whose encoder has no parameters.

T, B, D = 12, 5, 3
RNG = np.random.default_rng(0)
BETAS = np.linspace(0.05, 0.4, T)
X_0 = RNG.normal(size=(B, D))
WEIGHTS = 0.5 * RNG.normal(size=(D, D))


def predicted(x_t, t):
    """x0_hat of a network without a training."""
    return jnp.tanh(x_t @ WEIGHTS) + 0.1 * t


def chain(x_0, eps):
    """The latents x_1 ... x_T of the encoder q(x_t | x_(t-1)) on the draws eps [T, B, D]."""
    states = [x_0]
    for beta, noise in zip(BETAS, eps, strict=True):
        states.append(np.sqrt(1 - beta) * states[-1] + np.sqrt(beta) * noise)
    return states


def posterior(x_0, x_t, t):
    """Mean and variance of q(x_(t-1) | x_t, x_0) for t >= 2, by Bayes' rule: two precisions add up."""
    abar, beta = np.prod(1 - BETAS[: t - 1]), BETAS[t - 1]
    precision = 1 / (1 - abar) + (1 - beta) / beta
    mean = (np.sqrt(abar) * x_0 / (1 - abar) + np.sqrt(1 - beta) * x_t / beta) / precision
    return jnp.asarray(mean), jnp.full_like(jnp.asarray(mean), 1 / precision)


def decoder(x_t, t):
    """Mean and log-variance of p(x_(t-1) | x_t)."""
    mean = predicted(x_t, t) if t == 1 else posterior(predicted(x_t, t), x_t, t)[0]
    return mean, jnp.full_like(mean, np.log(BETAS[t - 1]))


def by_diffusion(x_0, states):
    schedule = diffusion_process.schedule_from_betas(BETAS, dtype=np.float64)
    each, x_0 = jnp.ones(len(x_0), int), jnp.asarray(x_0)
    kls = []
    for t in range(T, 1, -1):
        log_var = jnp.full(len(x_0), np.log(BETAS[t - 1]))
        x0_hat = predicted(jnp.asarray(states[t]), t)
        kls.append(
            diffusion.denoising_kl(x_0, x0_hat, schedule.at((t - 1) * each), schedule.at(t * each), log_var=log_var)
        )
    first = diffusion.decoder_normal_nll(
        x_0, predicted(jnp.asarray(states[1]), 1), log_var=jnp.full(len(x_0), np.log(BETAS[0]))
    )
    prior = diffusion.prior_kl(x_0, schedule.at(T * each))
    return diffusion.variational_bound(prior, jnp.stack(kls), first, num_steps=T)


def by_vae(x_0, states):
    abar = np.prod(1 - BETAS)
    x_0, states = jnp.asarray(x_0), [jnp.asarray(state) for state in states]
    kl = vae.normal_kl_to_standard(np.sqrt(abar) * x_0, jnp.full_like(x_0, np.log(1 - abar)))
    for t in range(2, T + 1):
        mean, variance = posterior(x_0, states[t], t)
        kl += vae.normal_kl(mean, jnp.log(variance), *decoder(states[t], t))
    return vae.elbo(vae.normal_nll(x_0, *decoder(states[1], 1)), kl)


def test_the_bound_of_diffusion_is_the_elbo_of_a_vae_with_a_latent_for_each_step(x64):
    states = chain(X_0, RNG.normal(size=(T, B, D)))
    np.testing.assert_allclose(by_diffusion(X_0, states), by_vae(X_0, states), rtol=1e-11)


def test_its_importance_weights_have_the_bound_as_their_mean(x64):
    # log p(x_0, x_1 ... x_T) - log q(x_1 ... x_T | x_0), with nothing in closed form.
    x_0 = np.repeat(X_0[:1], 40_000, axis=0)
    states = chain(x_0, np.random.default_rng(1).normal(size=(T, *x_0.shape)))
    log_q = log_p = jnp.zeros(len(x_0))
    for t in range(1, T + 1):
        mean = jnp.asarray(np.sqrt(1 - BETAS[t - 1]) * states[t - 1])
        log_q += vae.encoder_log_prob(jnp.asarray(states[t]), mean, jnp.full_like(mean, np.log(BETAS[t - 1])))
        log_p -= vae.normal_nll(jnp.asarray(states[t - 1]), *decoder(jnp.asarray(states[t]), t))
    log_prior = vae.prior_log_prob(jnp.asarray(states[T]))
    weights = np.asarray(vae.log_importance_weights(log_p[None], log_prior[None], log_q[None])[0])
    bound = np.asarray(by_diffusion(x_0, states))
    error = np.std(weights - bound) / math.sqrt(len(x_0))
    assert error < 0.05
    assert abs(np.mean(weights - bound)) < 4 * error


# The ODE of a diffusion model is a continuous flow, and a continuous flow is a flow.

MIXTURE = Mixture([[-1.0, 0.3], [0.6, -0.5]], [0.4, 0.6], 0.4)
POINTS = jnp.asarray(RNG.normal(size=(6, 2)), jnp.float32)


@pytest.mark.parametrize("name", ["vp", "edm"])
def test_with_the_exact_score_the_ode_is_a_flow_with_the_exact_density(name, x64):
    path, x = PATHS[name], jnp.asarray(POINTS, float)
    first, last = (float(t) for t in path.range)
    a, s = path.signal(jnp.asarray(last)), path.noise(jnp.asarray(last))
    velocity = ode.flow_fn(MIXTURE.predict_fn(path), path)

    def log_prior(z):
        return MIXTURE.log_prob(z, a, s)

    def carried(x):  # one example, through 500 layers
        times = jnp.geomspace(first, last, 501) if first > 0 else jnp.linspace(first, last, 501)
        step = lambda x, ends: (ode.heun_step(velocity, x, *ends), None)  # noqa: E731
        return jax.lax.scan(step, x[None], (times[:-1], times[1:]))[0][0]

    exact = MIXTURE.log_prob(x, path.signal(jnp.asarray(first)), path.noise(jnp.asarray(first)))
    by_divergence = continuous_flow.continuous_flow_log_prob(
        velocity, log_prior, x, None, times=path.range, rtol=1e-8, atol=1e-8
    )
    jacobians = jax.jit(jax.vmap(jax.jacfwd(carried)))(x)
    by_layers = -flow.change_of_variables_nll(
        log_prior(jax.jit(jax.vmap(carried))(x)), jnp.linalg.slogdet(jacobians).logabsdet
    )
    np.testing.assert_allclose(by_divergence, exact, atol=1e-6)
    np.testing.assert_allclose(by_layers, exact, atol=5e-3)


# Masked diffusion is an autoregressive model averaged over all orders.


def test_masked_diffusion_is_the_mean_of_the_chain_rules_of_all_orders(x64):
    dims, x = 4, jnp.asarray(list(itertools.product([0.0, 1.0], repeat=4)))
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(2 * dims + 1, dims)))

    def logits(x, is_masked):
        seen = jnp.where(is_masked, 0.0, 2 * x - 1)
        return jnp.concatenate([seen, 1.0 * is_masked, jnp.ones((len(x), 1))], axis=1) @ weights

    def in_order(order):
        chosen = jnp.zeros_like(x)
        for place, i in enumerate(order):
            is_masked = jnp.zeros(x.shape, bool).at[:, jnp.asarray(order[place:])].set(True)
            chosen = chosen.at[:, i].set(logits(x, is_masked)[:, i])
        return autoregressive.bernoulli_nll(x, chosen)

    def of_masks():
        total = 0.0
        for k in range(1, dims + 1):
            sets = list(itertools.combinations(range(dims), k))
            for masked in sets:
                is_masked = jnp.zeros(x.shape, bool).at[:, jnp.asarray(masked)].set(True)
                each = -jax.nn.log_sigmoid((2 * x - 1) * logits(x, is_masked))
                total += masked_diffusion.any_order_loss(each, is_masked) / (dims * len(sets))
        return total

    orders = [in_order(order) for order in itertools.permutations(range(dims))]
    np.testing.assert_allclose(of_masks(), jnp.mean(jnp.stack(orders), axis=0), rtol=1e-12)
