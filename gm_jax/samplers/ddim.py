"""DDIM: steps that keep the marginals of DDPM and draw little noise, or none.

    x_s = a_s x0_hat + sqrt(sigma_s^2 - eta^2 beta~_ts) eps_hat + eta sqrt(beta~_ts) z                            (1)

Notation and loop as in `samplers.diffusion`; z is standard normal noise. With eta = 1 a step is that of `samplers.ddpm`
with the variance beta~_ts; with eta = 0 no noise is drawn, and x_T determines x_0.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import diffusion_process
from gm_jax.ops.diffusion_process import Schedule
from gm_jax.ops.predictions import Prediction, diffuse, per_example
from gm_jax.samplers.diffusion import Sampler, trailing_times
from gm_jax.types import Array, Key


def ddim_step(
    key: Key,
    x_t: Array,
    prediction: Prediction,
    log_alpha_bar_s: Array,
    log_alpha_bar_t: Array,
    *,
    eta: float,
) -> Array:
    """Takes a step of DDIM, eq. (1).

    Args:
        key: noise; unused if eta = 0.
        x_t: [B, ...]; only its shape is used, because the prediction contains the rest.
        prediction: the model's, from `x_t`.
        log_alpha_bar_s: [B], or a scalar for all; at the next time.
        log_alpha_bar_t: [B], or a scalar for all.
        eta: the share of new noise, from 0 (none) to 1 (the posterior's standard deviation).
    Returns:
        [B, ...] x_s.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
        ValueError: `eta` is not from 0 to 1.
    Source: Song, Meng & Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, arXiv:2010.02502, eqs. 12 and 16.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta must be from 0 to 1: got {eta}.")
    chex.assert_equal_shape([x_t, *prediction])
    if eta == 0.0:
        return diffuse(*prediction, *diffusion_process.signal_and_noise(log_alpha_bar_s))
    # sigma_s^2 - eta^2 beta~_ts = sigma_s^2 (1 - fresh): part of the noise at time s is new.
    beta = diffusion_process.transition_variance(log_alpha_bar_s, log_alpha_bar_t)
    fresh = eta**2 * beta / -jnp.expm1(log_alpha_bar_t)
    kept = jnp.maximum(1.0 - fresh, 0.0)
    z = jax.random.normal(key, x_t.shape, x_t.dtype)
    kept, fresh = (per_example(jnp.sqrt(part), x_t) for part in (kept, fresh))
    eps = kept * prediction.eps + fresh * z
    return diffuse(prediction.x_0, eps, *diffusion_process.signal_and_noise(log_alpha_bar_s))


def ddim(schedule: Schedule, num_steps: int, *, eta: float = 0.0) -> Sampler:
    """Makes the sampler of DDIM, at `num_steps` of the T times, evenly spaced; `eta` as in `ddim_step`."""
    return Sampler(partial(ddim_step, eta=eta), trailing_times(schedule.num_steps, num_steps))
