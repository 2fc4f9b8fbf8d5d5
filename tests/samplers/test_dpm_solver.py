"""DPM-Solver++(2M) against the paper's algorithm written out, DDIM, and the local order on unequal steps."""

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import diffusion_process, gaussian_path
from gm_jax.ops.predictions import prediction_from_x0
from gm_jax.samplers import dpm_solver, time_grids
from gm_jax.samplers.ddim import ddim_step
from tests.gaussian_mixture import PATHS, Mixture, log_snr

each_path = pytest.mark.parametrize("name", PATHS)
MIXTURE = Mixture([[-1.0], [0.6]], [0.4, 0.6], 0.3)
X = np.array([-1.3, -0.4, 0.2, 0.9])


@each_path
def test_the_loop_is_the_papers_algorithm_on_unequal_steps(name, x64):
    path, predict_fn = PATHS[name], MIXTURE.predict_fn(PATHS[name])
    first, last = log_snr(path, path.range)
    # Steps in log snr in the ratios 1 : 3 : 1 : 2.
    cuts = np.array([0.3, 0.37, 0.58, 0.65, 0.79])
    times = path.time_at_log_snr(jnp.asarray(last + (first - last) * cuts))
    x = float(path.noise(times[0])) * X
    found = dpm_solver.dpm_solver_2m(predict_fn, path, jnp.asarray(x)[:, None], times)[:, 0]
    # Lu et al. 2022, algorithm 2: h_i = l_i - l_(i-1), r_i = h_(i-1) / h_i,
    # D_i = (1 + 1 / (2 r_i)) x(t_(i-1)) - 1 / (2 r_i) x(t_(i-2)).
    lam = 0.5 * log_snr(path, times)
    a, s = np.asarray(path.signal(times)), np.asarray(path.noise(times))
    before = None
    for i in range(1, len(times)):
        x_0 = np.asarray(predict_fn(jnp.asarray(x)[:, None], jnp.full(len(x), times[i - 1])).x_0)[:, 0]
        h = lam[i] - lam[i - 1]
        if before is None:
            combined = x_0
        else:
            r = (lam[i - 1] - lam[i - 2]) / h
            combined = (1 + 1 / (2 * r)) * x_0 - 1 / (2 * r) * before
        x = s[i] / s[i - 1] * x - a[i] * (np.exp(-h) - 1) * combined
        before = x_0
    np.testing.assert_allclose(found, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("right", "order"), [(True, 3.0), (False, 2.0)])
def test_the_local_order_with_a_ratio_of_three_is_three_and_two_if_it_is_inverted(right, order, x64):
    path = PATHS["edm"]
    predict_fn, errors = MIXTURE.predict_fn(path), []

    def predict(x, t):
        return predict_fn(jnp.asarray(x)[:, None], jnp.full(len(x), t))

    for h in (0.04, 0.02, 0.01):
        # On the EDM path l = -log t: from t_before over 3 h to t, then over h to s.
        t_before, t, s = np.exp(3 * h), 1.0, np.exp(-h)
        x = MIXTURE.carry(path, X, t_before, t)
        ratio = 3.0 if right else 1 / 3.0
        found = dpm_solver.dpm_solver_step(
            predict(x, t), predict(X, t_before).x_0, 1 / (2 * ratio), path, jnp.asarray(t), jnp.asarray(s)
        )
        errors.append(np.sqrt(np.mean((found[:, 0] - MIXTURE.carry(path, X, t_before, s)) ** 2)))
    np.testing.assert_allclose(-np.diff(np.log2(errors)), np.full(2, order), atol=0.15)


def test_the_first_order_is_ddim_bit_for_bit():
    schedule = diffusion_process.linear_schedule(1000)
    path, t, s = schedule.path(), 700, 620
    rng = np.random.default_rng(0)
    x, x_0 = (jnp.asarray(rng.normal(size=(5, 3)), jnp.float32) for _ in range(2))
    prediction = prediction_from_x0(x, x_0, schedule.signal(t), schedule.noise(t))
    found = dpm_solver.dpm_solver_step(
        prediction, jnp.zeros_like(x), jnp.float32(0.0), path, jnp.float32(t), jnp.float32(s)
    )
    # The schedule at float times is interpolated; at its own times it is itself to the last bit.
    expected = ddim_step(None, x, prediction, schedule.at(s), schedule.at(t), eta=0.0)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_matched_signal_to_noise_ratios_give_the_same_samples_on_two_paths(x64):
    # The straight path and the VP path, at equal log snr: x / sqrt(a^2 + s^2) is the same process.
    vp = gaussian_path.variance_preserving()
    grid = np.linspace(-8.0, 8.0, 60)
    found = []
    for path in (vp, PATHS["linear"]):
        times = path.time_at_log_snr(jnp.asarray(grid))
        x_T = jnp.asarray(X)[:, None] * jnp.sqrt(path.signal(times[0]) ** 2 + path.noise(times[0]) ** 2)
        x = dpm_solver.dpm_solver_2m(MIXTURE.predict_fn(path), path, x_T, times)
        found.append(x / jnp.sqrt(path.signal(times[-1]) ** 2 + path.noise(times[-1]) ** 2))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-8)


def test_steps_from_no_signal_and_to_no_noise_are_finite():
    path = gaussian_path.linear()
    x = dpm_solver.dpm_solver_2m(
        MIXTURE.predict_fn(path), path, jnp.asarray(X, jnp.float32)[:, None], time_grids.uniform(path, 30)
    )
    assert np.all(np.isfinite(x))
    exact = MIXTURE.carry(PATHS["linear"], X, 1 - 1e-3, 1e-3)
    np.testing.assert_allclose(x[:, 0], exact, atol=0.02)
