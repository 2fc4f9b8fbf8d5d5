"""Diffusion models: the noise-prediction loss, and the variational bound on log p(x_0) term by term.

Notation as in `ops.diffusion_process`: x_0 data, x_t = a_t x_0 + sigma_t eps, times t = 1 ... T counted from 1, s < t
an earlier time, abar_t, beta_ts, beta~_ts and mu_ts. x0_hat, eps_hat and v_hat are predictions from x_t; |.| is the
Euclidean norm over the event axes.

    noise prediction:  |eps - eps_hat|^2                                                                    (1)
    data prediction:   |x_0 - x0_hat|^2                                                                     (2)
    v prediction:      |v - v_hat|^2,    v = a_t eps - sigma_t x_0                                          (3)
    equivalence:       |eps - eps_hat|^2 = snr_t |x_0 - x0_hat|^2 = abar_t |v - v_hat|^2                    (4)

    reverse process:   p(x_s | x_t) = N(mu_ts(x_t, x0_hat), var_t),    p(x_T) = N(0, I)                     (5)
    bound:             -log p(x_0) <= L_T + sum_(t=2..T) L_(t-1) + L_0, in expectation over q               (6)
    prior:             L_T = KL(q(x_T | x_0) || N(0, I))                                                    (7)
    denoising:         L_s = KL(q(x_s | x_t, x_0) || p(x_s | x_t)),    s >= 1                               (8)
                           = w_t |eps - eps_hat|^2 + a term independent of the prediction,
                         w_t = beta_ts^2 / (2 var_t (abar_t / abar_s) (1 - abar_t))                         (9)
    decoder:           L_0 = -log p(x_0 | x_1), a density of points or a mass of integer levels             (10)

(1) with t uniform on 1 ... T is the paper's simple loss, which leaves out w_t. All losses are summed over the event;
from (6) on they are in nats. No weight is hidden inside a loss, it stands at the call site:

    loss = jnp.mean(bound_weight(...) * noise_prediction_loss(eps, eps_hat))

If times are drawn instead of summed over, `variational_bound` needs to know how many terms the sum has.

The KLs do not depend on the scale of the data, but L_0 does: the mass of a level is a probability of the data as
shipped, and the density of scaled points still lacks the scaling's log-determinant.

Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239.
"""

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import checks, diffusion_process, distributions, reductions
from gm_jax.ops.predictions import diffuse, per_example, v_target
from gm_jax.types import Array


def noise_prediction_loss(eps: Array, eps_hat: Array) -> Array:
    """Computes the squared error of the predicted noise, eq. (1): the paper's simple loss, before its mean.

    Args:
        eps: [B, ...] the noise in x_t.
        eps_hat: [B, ...] the network's prediction of it.
    Returns:
        [B] loss, summed over the event; smaller is better. A network that always predicts 0 has a mean loss equal to
        the number of dimensions.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, section 3.4.
    Example:
        >>> losses.noise_prediction_loss(jnp.array([[1.0, -1.0]]), jnp.array([[0.5, 1.0]]))
        Array([4.25], dtype=float32)
    """
    return _squared_error(eps, eps_hat)


def x0_prediction_loss(x_0: Array, x0_hat: Array) -> Array:
    """Computes the squared error of the predicted data, eq. (2); times snr_t it is the noise-prediction loss.

    Args:
        x_0: [B, ...] data.
        x0_hat: [B, ...] the network's prediction from x_t.
    Returns:
        [B] loss, summed over the event; smaller is better.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, section 3.2.
    Example:
        >>> losses.x0_prediction_loss(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]]))
        Array([5.], dtype=float32)
    """
    return _squared_error(x_0, x0_hat)


def v_prediction_loss(x_0: Array, eps: Array, v_hat: Array, a_t: Array, sigma_t: Array) -> Array:
    """Computes the squared error of the predicted v, eq. (3); times abar_t it is the noise-prediction loss.

    Args:
        x_0: [B, ...] data.
        eps: [B, ...] the noise in x_t.
        v_hat: [B, ...] the network's prediction from x_t.
        a_t: [B], or a scalar for all.
        sigma_t: [B], or a scalar for all.
    Returns:
        [B] loss, summed over the event; smaller is better.
    Source: Salimans & Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022,
        arXiv:2202.00512.
    Example:
        >>> x_0, eps, v_hat = jnp.array([[1.0]]), jnp.array([[0.0]]), jnp.array([[0.0]])
        >>> losses.v_prediction_loss(x_0, eps, v_hat, jnp.array(0.8), jnp.array(0.6))
        Array([0.36], dtype=float32)
    """
    return _squared_error(v_target(x_0, eps, a_t, sigma_t), v_hat)


def bound_weight(log_alpha_bar_s: Array, log_alpha_bar_t: Array, *, log_var: Array) -> Array:
    """Computes the weight w_t of the noise-prediction loss in the bound, eq. (9).

    With the posterior's variance it is (snr_s / snr_t - 1) / 2.

    Args:
        log_alpha_bar_s: [...] at the earlier time.
        log_alpha_bar_t: [...] at the later time, at least 1.
        log_var: [...] log var_t of the reverse process (5), finite: log of `transition_variance` or, from s = 1 on, of
            `posterior_variance`.
    Returns:
        [...] w_t.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, section 3.2.
    Example:
        >>> log_alpha_bar = jnp.log(jnp.array([0.9, 0.8]))
        >>> losses.bound_weight(*log_alpha_bar, log_var=jnp.log(1 - 8 / 9))
        Array(0.3125, dtype=float32)
    """
    chex.assert_equal_shape([log_alpha_bar_s, log_alpha_bar_t, log_var])
    chex.assert_type(log_var, float)
    beta = diffusion_process.transition_variance(log_alpha_bar_s, log_alpha_bar_t)
    log_rest = log_var + log_alpha_bar_t - log_alpha_bar_s
    return 0.5 * jnp.square(beta) * jnp.exp(-log_rest) / -jnp.expm1(log_alpha_bar_t)


def prior_kl(x_0: Array, log_alpha_bar_T: Array) -> Array:
    """Computes the prior term L_T of the bound, eq. (7): the data's information that is left at t = T.

    Args:
        x_0: [B, ...] data, on the scale on which they are diffused.
        log_alpha_bar_T: scalar, log abar_T.
    Returns:
        [B] KL, nats; smaller is better. It has no parameters, but without it the sum is not a bound.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, section 3.1.
    Example:
        >>> losses.prior_kl(jnp.array([[1.0, -1.0]]), jnp.log(0.01))
        Array([0.0101], dtype=float32)
    """
    checks.assert_batch_of_events(x_0)
    mean = diffuse(x_0, jnp.zeros_like(x_0), *diffusion_process.signal_and_noise(log_alpha_bar_T))
    log_var = _like(jax.nn.log1mexp(-log_alpha_bar_T), mean)
    return reductions.sum_except_batch(distributions.normal_kl_to_standard(mean, log_var))


def denoising_kl(x_0: Array, x0_hat: Array, log_alpha_bar_s: Array, log_alpha_bar_t: Array, *, log_var: Array) -> Array:
    """Computes the denoising term L_s of the bound, eq. (8): from q(x_s | x_t, x_0) to p(x_s | x_t), for 1 <= s < t.

    The two means differ only in x_0 and x0_hat, so x_t is not needed.

    Args:
        x_0: [B, ...] data.
        x0_hat: [B, ...] the model's prediction from x_t.
        log_alpha_bar_s: [B], or a scalar for all.
        log_alpha_bar_t: [B], or a scalar for all.
        log_var: log var_t of the reverse process (5), finite: [B], a scalar for all, or [B, ...]. A fixed one is the
            log of `transition_variance` or of `posterior_variance`.
    Returns:
        [B] KL, nats; smaller is better. Infinite at s = 0, where the posterior is a point and the decoder's term (10)
        takes its place; the gradient in x0_hat is finite there too, so `jnp.where(s == 0, decoder, kl)` is sound.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, sections 2 and 3.2.
    Example:
        >>> log_alpha_bar = jnp.log(jnp.array([0.9, 0.8]))
        >>> losses.denoising_kl(jnp.ones((1, 2)), jnp.zeros((1, 2)), *log_alpha_bar, log_var=jnp.log(0.05))
        Array([5.5613], dtype=float32)
    """
    checks.assert_batch_of_events(x_0)
    chex.assert_equal_shape([x_0, x0_hat])
    chex.assert_type([x_0, x0_hat, log_var], float)
    # The mean is linear in x_0 and in x_t: the mean of a difference loses no digits, a difference of means does.
    mean = diffusion_process.posterior_mean(x_0 - x0_hat, jnp.zeros_like(x_0), log_alpha_bar_s, log_alpha_bar_t)
    log_var_q = jnp.log(diffusion_process.posterior_variance(log_alpha_bar_s, log_alpha_bar_t))
    kl = distributions.normal_kl(mean, _like(log_var_q, mean), jnp.zeros_like(mean), _like(log_var, mean))
    return reductions.sum_except_batch(kl)


def decoder_normal_nll(x_0: Array, x0_hat: Array, *, log_var: Array) -> Array:
    """Computes the decoder term L_0 of continuous data, eq. (10): points and latents.

    Args:
        x_0: [B, ...] data, floating.
        x0_hat: [B, ...] the model's prediction from x_1: the mean of p(x_0 | x_1).
        log_var: log-variance of p(x_0 | x_1): [B], a scalar for all, or [B, ...].
    Returns:
        [B] negative log-density, nats; smaller is better, and it may be negative.
    Example:
        >>> losses.decoder_normal_nll(jnp.array([[1.0, 3.0]]), jnp.ones((1, 2)), log_var=jnp.array(0.0))
        Array([3.8379], dtype=float32)
    """
    checks.assert_batch_of_events(x_0)
    return -reductions.sum_except_batch(distributions.normal_log_prob(x_0, x0_hat, _like(log_var, x0_hat)))


def discretized_normal_nll(x: Array, x0_hat: Array, *, log_var: Array, levels: int) -> Array:
    """Computes the decoder term L_0 of integer levels, eq. (10): the mass of a normal in the level's bin.

    The end bins are open. It applies to images as shipped and to nothing else: latents have no levels.

    Args:
        x: [B, ...] integer levels 0..levels-1.
        x0_hat: [B, ...] the model's prediction from x_1, on the scale where the levels span [-1, 1]: the mean of
            p(x_0 | x_1).
        log_var: log-variance of p(x_0 | x_1) on the same scale: [B], a scalar for all, or [B, ...].
        levels: number of levels, at least 2.
    Returns:
        [B] negative log-likelihood, nats; smaller is better, at least 0.
    Raises:
        ValueError: `levels` is smaller than 2.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, eq. 13.
    Example:
        >>> x, x0_hat = jnp.array([[0, 128]]), jnp.array([[-1.0, 0.0]])
        >>> losses.discretized_normal_nll(x, x0_hat, log_var=jnp.log(1e-3), levels=256)
        Array([2.9224], dtype=float32)
    """
    checks.assert_batch_of_events(x)
    log_prob = distributions.discretized_normal_log_prob(x, x0_hat, _like(log_var, x0_hat), levels=levels)
    return -reductions.sum_except_batch(log_prob)


def variational_bound(prior_kl: Array, denoising_kl: Array, decoder_nll: Array, *, num_steps: int) -> Array:
    """Adds up the bound on log p(x_0) from its terms, eq. (6).

        log p(x_0) >= -L_T - (T - 1) mean_k L_(t_k - 1) - L_0,    t_k in 2 ... T

    With all T - 1 denoising terms the middle part is their sum; with K of them, at times drawn uniformly from 2 ... T,
    it estimates that sum without bias.

    Args:
        prior_kl: [B] L_T, nats.
        denoising_kl: [K, B] the L_(t_k - 1), nats.
        decoder_nll: [B] L_0, nats.
        num_steps: T, the steps of the reverse process, at least 2.
    Returns:
        [B] bound, nats; larger is better.
    Raises:
        ValueError: `num_steps` is smaller than 2, or there are no denoising terms.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, eq. 5.
    Example:
        >>> losses.variational_bound(jnp.array([0.5]), jnp.array([[2.0], [4.0]]), jnp.array([10.0]), num_steps=101)
        Array([-310.5], dtype=float32)
    """
    chex.assert_rank([prior_kl, denoising_kl, decoder_nll], [1, 2, 1])
    chex.assert_type([prior_kl, denoising_kl, decoder_nll], float)
    chex.assert_equal_shape_suffix([prior_kl, denoising_kl, decoder_nll], 1)
    if num_steps < 2 or denoising_kl.shape[0] == 0:
        raise ValueError(
            f"the bound needs at least 1 denoising term and 2 steps: got {denoising_kl.shape[0]} and {num_steps}."
        )
    return -prior_kl - (num_steps - 1) * jnp.mean(denoising_kl, axis=0) - decoder_nll


def _squared_error(target: Array, prediction: Array) -> Array:
    checks.assert_batch_of_events(target)
    chex.assert_equal_shape([target, prediction])
    chex.assert_type([target, prediction], float)
    return reductions.sum_except_batch(jnp.square(target - prediction))


def _like(value: Array, x: Array) -> Array:
    """`value`, [B], a scalar or [B, ...], in the shape of `x`."""
    return jnp.broadcast_to(per_example(value, x), x.shape)
