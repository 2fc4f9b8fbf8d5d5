"""Ancestral sampling, the sampler of DDPM: each step draws from p(x_s | x_t).

    x_s = mu_ts(x_t, x0_hat) + sqrt(var_ts) z,    var_ts = beta_ts or beta~_ts;  z = 0 if s = 0                   (1)

Notation and loop as in `samplers.diffusion`; z is standard normal noise.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.ops import diffusion_process
from gm_jax.ops.diffusion_process import Schedule
from gm_jax.ops.predictions import Prediction, per_example
from gm_jax.samplers.diffusion import Sampler, trailing_times
from gm_jax.types import Array, Key


def ancestral_step(
    key: Key,
    x_t: Array,
    prediction: Prediction,
    log_alpha_bar_s: Array,
    log_alpha_bar_t: Array,
    *,
    variance_fn: Callable[[Array, Array], Array],
) -> Array:
    """Draws a sample of p(x_s | x_t), eq. (1); returns the mean itself if s = 0.

    Args:
        key: noise.
        x_t: [B, ...].
        prediction: the model's, from `x_t`.
        log_alpha_bar_s: [B], or a scalar for all; at the next time.
        log_alpha_bar_t: [B], or a scalar for all.
        variance_fn: (log abar_s, log abar_t) -> var_ts: `diffusion_process.transition_variance` is beta,
            `diffusion_process.posterior_variance` is beta~.
    Returns:
        [B, ...] x_s.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239, algorithm 2.
    """
    mean = diffusion_process.posterior_mean(prediction.x_0, x_t, log_alpha_bar_s, log_alpha_bar_t)
    variance = variance_fn(log_alpha_bar_s, log_alpha_bar_t)
    std = jnp.sqrt(jnp.where(log_alpha_bar_s < 0, variance, 0.0))
    return mean + per_example(std, x_t) * jax.random.normal(key, x_t.shape, x_t.dtype)


def ancestral(schedule: Schedule, num_steps: int, *, variance_fn: Callable[[Array, Array], Array]) -> Sampler:
    """Makes the sampler of DDPM, at `num_steps` of the T times, evenly spaced; `variance_fn` as in `ancestral_step`."""
    step_fn = partial(ancestral_step, variance_fn=variance_fn)
    return Sampler(step_fn, trailing_times(schedule.num_steps, num_steps))


def sample_with_variance(
    reverse_fn: Callable[[Array, Array], tuple[Array, Array]],
    schedule: Schedule,
    key: Key,
    x_T: Array,
    times: Sequence[int] | np.ndarray,
) -> Array:
    """Samples x_0 from x_T by steps (1) whose variance is the model's own.

    Args:
        reverse_fn: (x_t [B, ...], t [B] int32) -> x0_hat [B, ...] and v [B, ...] of
            `diffusion_process.interpolated_log_variance`.
        schedule: of T steps.
        key: the step from t draws with `fold_in(key, t)`.
        x_T: [B, ...] standard normal noise.
        times: t_1 > t_2 > ... > t_N, each in 1 ... T. After t_N comes 0.
    Returns:
        [B, ...] x_0.
    Source: Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021, arXiv:2102.09672.
    """
    now = jnp.asarray(times, jnp.int32)
    after = jnp.append(now[1:], 0)

    def step(x_t: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        t, s = at
        x_0, share = reverse_fn(x_t, jnp.full(x_t.shape[:1], t, jnp.int32))
        log_alpha_bar_s, log_alpha_bar_t = schedule.at(s), schedule.at(t)
        mean = diffusion_process.posterior_mean(x_0, x_t, log_alpha_bar_s, log_alpha_bar_t)
        log_var = diffusion_process.interpolated_log_variance(share, log_alpha_bar_s, log_alpha_bar_t)
        z = jax.random.normal(jax.random.fold_in(key, t), x_t.shape, x_t.dtype)
        return (mean + jnp.where(s > 0, jnp.exp(0.5 * log_var) * z, 0.0)).astype(x_t.dtype), None

    return jax.lax.scan(step, x_T, (now, after))[0]
