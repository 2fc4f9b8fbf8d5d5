from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import diffusion_process, predictions
from gm_jax.samplers import ddpm, diffusion
from tests.samplers.gaussian_data import SCHEDULE, VARIANCES, T, gaussian, normal

KEY = jax.random.key(0)
IRREGULAR = (50, 49, 31, 20, 19, 6, 2)
each_variance = pytest.mark.parametrize("variance_fn", VARIANCES.values(), ids=VARIANCES)


@each_variance
@pytest.mark.parametrize("times", [range(T, 0, -1), IRREGULAR], ids=["all", "skipped"])
def test_the_moments_of_ancestral_samples_follow_their_recursion(variance_fn, times):
    # With Gaussian data every step is linear: x_s = mean_fn(x_t) + noise.
    m, s, draws = 0.7, 0.4, 20_000
    step_fn, predict_fn = partial(ddpm.ancestral_step, variance_fn=variance_fn), gaussian(SCHEDULE, m, s)
    x_T = jax.random.normal(jax.random.key(1), (draws, 1))
    run = partial(diffusion.sample_trajectory, step_fn, predict_fn, SCHEDULE, times=times, clip=None)
    way = jax.jit(run)(KEY, x_T)
    alpha_bar = np.exp(SCHEDULE.log_alpha_bar.astype(np.float64))
    mean, variance = 0.0, 1.0
    visited = np.concatenate([way.x_t, way.x_0[None]])[..., 0].astype(np.float64)
    times = [*times, 0]
    for i, t in enumerate(times):
        assert abs(visited[i].mean() - mean) < 4 * np.sqrt(variance / draws)
        assert abs(visited[i].var() / variance - 1) < 4 * np.sqrt(2 / draws)
        if t:
            abar_s, abar_t = alpha_bar[times[i + 1]], alpha_bar[t]
            beta = 1 - abar_t / abar_s
            posterior = (1 - abar_s) / (1 - abar_t) * beta
            gain = np.sqrt(abar_t) * s**2 / (abar_t * s**2 + 1 - abar_t)
            of_x_0 = np.sqrt(abar_s) * beta / (1 - abar_t)
            slope = of_x_0 * gain + np.sqrt(abar_t / abar_s) * (1 - abar_s) / (1 - abar_t)
            drawn = {"beta": beta, "beta~": posterior}[{v: k for k, v in VARIANCES.items()}[variance_fn]]
            mean = slope * mean + of_x_0 * m * (1 - gain * np.sqrt(abar_t))
            variance = slope**2 * variance + (drawn if times[i + 1] else 0.0)
    assert variance != pytest.approx(s**2, rel=1e-3)  # neither variance is exact for these data


@each_variance
def test_the_last_step_draws_no_noise(variance_fn):
    x_t, s_and_t = normal(3, 2), (SCHEDULE.at(0), SCHEDULE.at(5))
    prediction = predictions.Prediction(normal(3, 2), normal(3, 2))
    x_0 = ddpm.ancestral_step(KEY, x_t, prediction, *s_and_t, variance_fn=variance_fn)
    np.testing.assert_array_equal(x_0, prediction.x_0)


@each_variance
def test_the_noise_of_a_step_has_the_given_variance(variance_fn, x64):
    schedule = diffusion_process.linear_schedule(T, dtype=np.float64)
    x_t, s_and_t = normal(3, 2), (schedule.at(4), schedule.at(9))
    prediction = predictions.Prediction(normal(3, 2), normal(3, 2))
    x_s = ddpm.ancestral_step(KEY, x_t, prediction, *s_and_t, variance_fn=variance_fn)
    mean = diffusion_process.posterior_mean(prediction.x_0, x_t, *s_and_t)
    z = jax.random.normal(KEY, x_t.shape, x_t.dtype)
    np.testing.assert_allclose((x_s - mean) / z, jnp.sqrt(variance_fn(*s_and_t)) * jnp.ones_like(z), rtol=1e-10)
