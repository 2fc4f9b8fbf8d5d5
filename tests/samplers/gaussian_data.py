"""Predictions whose samples are known: for Gaussian data, and for data at one point."""

import jax.numpy as jnp
import numpy as np

from gm_jax.ops import diffusion_process, predictions

RNG = np.random.default_rng(0)
T = 50
SCHEDULE = diffusion_process.linear_schedule(T)
VARIANCES = {"beta": diffusion_process.transition_variance, "beta~": diffusion_process.posterior_variance}
factors = diffusion_process.signal_and_noise


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def gaussian(schedule, m, s):
    """The best predictions of data N(m, s^2)."""

    def predict_fn(x_t, t):
        a_t, sigma_t = (factor[:, None] for factor in factors(schedule.at(t)))
        x_0 = m + a_t * s**2 / (a_t**2 * s**2 + sigma_t**2) * (x_t - a_t * m)
        return predictions.prediction_from_x0(x_t, x_0, *factors(schedule.at(t)))

    return predict_fn


def always(x_0, schedule=SCHEDULE):
    """Predicts the same x_0 for every x_t."""
    return lambda x_t, t: predictions.prediction_from_x0(x_t, 0 * x_t + x_0, *factors(schedule.at(t)))
