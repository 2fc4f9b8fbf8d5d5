from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import diffusion_process, predictions
from gm_jax.samplers import ddim, ddpm, diffusion
from tests.samplers.gaussian_data import SCHEDULE, VARIANCES, T, factors, gaussian, normal

KEY = jax.random.key(0)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("s", "t"), [(0, 1), (1, 2), (4, 31), (0, T)])
def test_a_ddim_step_is_equations_12_and_16(eta, s, t, x64):
    # Song et al., eqs. 12 and 16.
    schedule = diffusion_process.linear_schedule(T, dtype=np.float64)
    alpha_bar = np.exp(schedule.log_alpha_bar)
    x_t, eps = normal(3, 2), normal(3, 2)
    prediction = predictions.prediction_from_eps(x_t, eps, *factors(schedule.at(t)))
    x_s = ddim.ddim_step(KEY, x_t, prediction, schedule.at(s), schedule.at(t), eta=eta)
    sigma = eta * np.sqrt((1 - alpha_bar[s]) / (1 - alpha_bar[t]) * (1 - alpha_bar[t] / alpha_bar[s]))
    x_0 = (x_t - np.sqrt(1 - alpha_bar[t]) * eps) / np.sqrt(alpha_bar[t])
    direction = np.sqrt(max(1 - alpha_bar[s] - sigma**2, 0.0)) * eps
    z = jax.random.normal(KEY, x_t.shape, x_t.dtype)
    np.testing.assert_allclose(x_s, np.sqrt(alpha_bar[s]) * x_0 + direction + sigma * z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("s", "t"), [(0, 1), (1, 2), (4, 31), (0, T)])
def test_ddim_with_eta_1_is_the_posterior(s, t, x64):
    schedule = diffusion_process.linear_schedule(T, dtype=np.float64)
    x_t, s_and_t = normal(3, 2), (schedule.at(s), schedule.at(t))
    prediction = predictions.prediction_from_x0(x_t, normal(3, 2), *factors(s_and_t[1]))
    by_ddim = ddim.ddim_step(KEY, x_t, prediction, *s_and_t, eta=1.0)
    ancestral = ddpm.ancestral_step(KEY, x_t, prediction, *s_and_t, variance_fn=VARIANCES["beta~"])
    np.testing.assert_allclose(by_ddim, ancestral, rtol=1e-12, atol=1e-12)


def test_ddim_has_order_one_in_the_number_of_steps(x64):
    # On the probability flow of Gaussian data, (x_t - a_t m) / sqrt(a_t^2 s^2 + sigma_t^2) is constant.
    m, s, num_steps = 0.7, 0.5, 1024
    schedule = diffusion_process.linear_schedule(num_steps, dtype=np.float64)
    a_T, sigma_T = diffusion_process.signal_and_noise(schedule.at(num_steps))
    x_T = jnp.array([[-1.5], [0.3], [2.0]])
    exact = m + s * (x_T - a_T * m) / jnp.sqrt(a_T**2 * s**2 + sigma_T**2)
    predict_fn, num_times = gaussian(schedule, m, s), np.array([32, 128])
    run = partial(diffusion.sample, partial(ddim.ddim_step, eta=0.0), predict_fn, schedule, KEY, x_T, clip=None)
    samples = [run(times=diffusion.trailing_times(num_steps, n)) for n in num_times]
    errors = [float(jnp.abs(x_0 - exact).max()) for x_0 in samples]
    slope = np.diff(np.log(errors))[0] / np.diff(np.log(num_times))[0]
    assert slope == pytest.approx(-1.0, abs=0.15)
    assert errors[-1] < 0.05


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_an_eta_outside_of_0_and_1_is_refused(eta):
    prediction = predictions.Prediction(jnp.ones((1, 1)), jnp.ones((1, 1)))
    with pytest.raises(ValueError, match="eta"):
        ddim.ddim_step(KEY, jnp.ones((1, 1)), prediction, SCHEDULE.at(1), SCHEDULE.at(2), eta=eta)
