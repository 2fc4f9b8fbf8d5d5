"""Families that are one family, shown as equal numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.losses import autoregressive, continuous_flow, diffusion, flow, masked_diffusion, vae
from gm_jax.ops import diffusion_process, gaussian_path
from gm_jax.samplers import ode
from gm_jax.types import Array
from tools.lecture import worlds
from tools.lecture.page import Number, Page


def equivalences() -> Page:
    """Three equivalences, as equal numbers."""
    with jax.enable_x64(True):
        of_diffusion, of_vae = _diffusion_and_vae()
        exact, of_ode, of_flow = _densities()
        of_masks, of_orders = _masks_and_orders()
    return Page(
        """
        1.  L_T + sum_t L_(t-1) + L_0 = -log p(x | z_1) + sum_t KL(q(z_(t-1) | z_t, x) || p(z_(t-1) | z_t)) + KL_T
        2.  log p_0(x) = log p_1(z) + int div u dt = log p_1(z) + sum over layers of log |det J|
        3.  sum_k 1/k E_(|M| = k)[sum_(i in M) l_i] = E_order[-sum_j log p(x_o(j) | x_o(1) ... x_o(j-1))]
        """,
        (
            diffusion.variational_bound,
            vae.elbo,
            continuous_flow.continuous_flow_log_prob,
            flow.change_of_variables_nll,
            masked_diffusion.any_order_loss,
            autoregressive.bernoulli_nll,
        ),
        """
        A diffusion model is a VAE whose latents are the noisy data x_1 ... x_T and whose encoder is fixed. On the
        same draws, the bound of diffusion and the ELBO are one number.

        The ODE of a diffusion model is a flow in continuous time. With the exact score, the density by the divergence
        along the ODE, the density by the Jacobians of many small layers, and the exact density agree. The layers have
        the error of their steps.

        Masked diffusion is an autoregressive model of every order at once. Its bound, a sum over masks, is the mean
        over all orders of exact chain rules. The numbers are in float64; `tests/models/test_equivalences.py` has more
        of them.
        """,
        (
            Number("1. bound by diffusion, nats", of_diffusion, -40, -30, ".10f"),
            Number("1. bound by the VAE, nats", of_vae, -40, -30, ".10f"),
            Number("1. difference, nats", of_vae - of_diffusion, -1e-9, 1e-9, ".0e"),
            Number("2. exact log p, nats", exact, -4, -3, ".6f"),
            Number("2. log p by the ODE's divergence, nats", of_ode, -4, -3, ".6f"),
            Number("2. its difference from the exact one, nats", of_ode - exact, -1e-5, 1e-5, ".0e"),
            Number("2. log p by 400 layers, nats", of_flow, -4, -3, ".6f"),
            Number(
                "2. its difference from the exact one, the error of the steps, nats",
                of_flow - exact,
                -0.01,
                0.01,
                ".0e",
            ),
            Number("3. bound by masks, nats", of_masks, -5, -4, ".12f"),
            Number("3. mean over 24 orders, nats", of_orders, -5, -4, ".12f"),
            Number("3. difference, nats", of_orders - of_masks, -1e-12, 1e-12, ".0e"),
        ),
    )


def _predicted(x: Array, weights: Array) -> Array:
    """A network without a training."""
    return jnp.tanh(x @ weights)


def _diffusion_and_vae() -> tuple[float, float]:
    """The bound on log p of four points, by the losses of both families on the same draws."""
    rng, steps = np.random.default_rng(0), 8
    betas = np.linspace(0.05, 0.4, steps)
    weights, x_0 = jnp.asarray(0.5 * rng.normal(size=(3, 3))), jnp.asarray(rng.normal(size=(4, 3)))
    schedule = diffusion_process.schedule_from_betas(betas, dtype=np.float64)
    chain = [x_0]
    for beta in betas:
        chain.append(np.sqrt(1 - beta) * chain[-1] + np.sqrt(beta) * rng.normal(size=x_0.shape))
    at = [schedule.at(np.full(4, t)) for t in range(steps + 1)]
    log_vars = [jnp.full(4, np.log(beta)) for beta in betas]
    denoising, kl = (
        [],
        vae.normal_kl_to_standard(
            jnp.exp(0.5 * at[-1])[:, None] * x_0, jnp.broadcast_to(jnp.log1p(-jnp.exp(at[-1]))[:, None], x_0.shape)
        ),
    )
    for t in range(steps, 1, -1):
        x0_hat = _predicted(chain[t], weights)
        denoising.append(diffusion.denoising_kl(x_0, x0_hat, at[t - 1], at[t], log_var=log_vars[t - 1]))
        means = [diffusion_process.posterior_mean(x, chain[t], at[t - 1], at[t]) for x in (x_0, x0_hat)]
        variance = diffusion_process.posterior_variance(at[t - 1], at[t])[:, None]
        log_q, log_p = (jnp.broadcast_to(value, x_0.shape) for value in (jnp.log(variance), log_vars[t - 1][:, None]))
        kl += vae.normal_kl(means[0], log_q, means[1], log_p)
    first = _predicted(chain[1], weights)
    nll = diffusion.decoder_normal_nll(x_0, first, log_var=log_vars[0])
    bound = diffusion.variational_bound(diffusion.prior_kl(x_0, at[-1]), jnp.stack(denoising), nll, num_steps=steps)
    elbo = vae.elbo(vae.normal_nll(x_0, first, jnp.broadcast_to(log_vars[0][:, None], x_0.shape)), kl)
    return float(jnp.mean(bound)), float(jnp.mean(elbo))


def _densities() -> tuple[float, float, float]:
    """The mean log-density of five points: exact, by the ODE's divergence, and by the Jacobians of its steps."""
    mixture, path = worlds.Mixture([[-1.0, 0.3], [0.6, -0.5]], [0.4, 0.6], 0.4), gaussian_path.variance_preserving()
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)))
    velocity = ode.flow_fn(mixture.predict_fn(path), path)
    ends = [tuple(factor(jnp.asarray(t)) for factor in (path.signal, path.noise)) for t in path.range]

    def log_prior(z: Array) -> Array:
        return mixture.log_prob(z, *ends[1])

    def layers(x: Array) -> Array:
        times = jnp.linspace(*path.range, 401)
        move = lambda x, pair: (ode.heun_step(velocity, x, *pair), None)  # noqa: E731
        return jax.lax.scan(move, x[None], (times[:-1], times[1:]))[0][0]

    by_ode = continuous_flow.continuous_flow_log_prob(
        velocity, log_prior, x, None, times=path.range, rtol=1e-8, atol=1e-8
    )
    jacobians = jax.jit(jax.vmap(jax.jacfwd(layers)))(x)
    nll = flow.change_of_variables_nll(log_prior(jax.jit(jax.vmap(layers))(x)), jnp.linalg.slogdet(jacobians).logabsdet)
    exact = mixture.log_prob(x, *ends[0])
    return float(jnp.mean(exact)), float(jnp.mean(by_ode)), float(-jnp.mean(nll))


def _masks_and_orders() -> tuple[float, float]:
    """The mean over the 16 states of four bits: of the bound over masks, and of the chain rules of all orders."""
    dims, x = 4, jnp.asarray(list(itertools.product([0.0, 1.0], repeat=4)))
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(2 * dims, dims)))

    def logits(masked: tuple[int, ...]) -> tuple[Array, Array]:
        hidden = jnp.zeros(x.shape, bool).at[:, jnp.asarray(masked)].set(True)
        return jnp.concatenate([jnp.where(hidden, 0.0, 2 * x - 1), 1.0 * hidden], axis=1) @ weights, hidden

    bound = jnp.zeros(())
    for size in range(1, dims + 1):
        sets = list(itertools.combinations(range(dims), size))
        for masked in sets:
            outputs, hidden = logits(masked)
            loss = masked_diffusion.any_order_loss(-jax.nn.log_sigmoid((2 * x - 1) * outputs), hidden)
            bound -= jnp.mean(loss) / (dims * len(sets))
    chains = []
    for order in itertools.permutations(range(dims)):
        chosen = jnp.stack([logits(order[place:])[0][:, i] for place, i in enumerate(order)], axis=1)
        chains.append(-autoregressive.bernoulli_nll(x[:, jnp.asarray(order)], chosen))
    return float(bound), float(jnp.mean(jnp.stack(chains)))
