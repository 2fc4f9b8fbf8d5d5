"""Every path against closed forms by hand, its SDE against the moments, and the schedules against their path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from gm_jax.ops import diffusion_process, gaussian_path, predictions

RNG = np.random.default_rng(0)
O = 0.008  # noqa: E741
PATHS = {
    "vp": gaussian_path.variance_preserving(),
    "sub_vp": gaussian_path.sub_variance_preserving(),
    "ve": gaussian_path.variance_exploding(),
    "cosine": gaussian_path.cosine(),
    "edm": gaussian_path.edm(),
    "linear": gaussian_path.linear(),
    "lipman": gaussian_path.linear(sigma_min=0.1),
    "trigonometric": gaussian_path.trigonometric(),
}
WITHOUT_SIGNAL_AT_THE_END = ("cosine", "linear", "lipman", "trigonometric")
VARIANCE_PRESERVING = ("vp", "cosine", "trigonometric")
each_path = pytest.mark.parametrize("name", PATHS)


def rate(t):
    return 0.1 + 19.9 * t


def integral(t):
    return 0.1 * t + 0.5 * 19.9 * t**2


def angle(t):
    return np.pi / 2 * (t + O) / (1 + O)


ANGLE_0, ANGLE_SLOPE = angle(0.0), np.pi / 2 / (1 + O)


def cosine_noise(t):
    return np.sqrt(1 - (np.cos(angle(t)) / np.cos(ANGLE_0)) ** 2)


# a, s, a', s' and g^2 by hand, from the papers or by differentiating on paper.
BY_HAND = {
    "vp": (
        lambda t: np.exp(-integral(t) / 2),
        lambda t: np.sqrt(1 - np.exp(-integral(t))),
        lambda t: -rate(t) / 2 * np.exp(-integral(t) / 2),
        lambda t: rate(t) * np.exp(-integral(t)) / (2 * np.sqrt(1 - np.exp(-integral(t)))),
        lambda t: rate(t),
    ),
    "sub_vp": (
        lambda t: np.exp(-integral(t) / 2),
        lambda t: 1 - np.exp(-integral(t)),
        lambda t: -rate(t) / 2 * np.exp(-integral(t) / 2),
        lambda t: rate(t) * np.exp(-integral(t)),
        lambda t: rate(t) * (1 - np.exp(-2 * integral(t))),
    ),
    "ve": (
        lambda t: np.ones_like(t),
        lambda t: 0.01 * 5000.0**t,
        lambda t: np.zeros_like(t),
        lambda t: np.log(5000.0) * 0.01 * 5000.0**t,
        lambda t: 2 * np.log(5000.0) * (0.01 * 5000.0**t) ** 2,
    ),
    "cosine": (
        lambda t: np.cos(angle(t)) / np.cos(ANGLE_0),
        cosine_noise,
        lambda t: -ANGLE_SLOPE * np.sin(angle(t)) / np.cos(ANGLE_0),
        lambda t: ANGLE_SLOPE * np.sin(angle(t)) * np.cos(angle(t)) / np.cos(ANGLE_0) ** 2 / cosine_noise(t),
        lambda t: 2 * ANGLE_SLOPE * np.tan(angle(t)),
    ),
    "edm": (np.ones_like, lambda t: t, np.zeros_like, np.ones_like, lambda t: 2 * t),
    "linear": (
        lambda t: 1 - t,
        lambda t: t,
        lambda t: -np.ones_like(t),
        np.ones_like,
        lambda t: 2 * t / (1 - t),
    ),
    "lipman": (
        lambda t: 1 - t,
        lambda t: 0.1 + 0.9 * t,
        lambda t: -np.ones_like(t),
        lambda t: 0.9 * np.ones_like(t),
        lambda t: 2 * (0.1 + 0.9 * t) * (0.9 + (0.1 + 0.9 * t) / (1 - t)),
    ),
    "trigonometric": (np.cos, np.sin, lambda t: -np.sin(t), np.cos, lambda t: 2 * np.tan(t)),
}


def times_within(name, num=23):
    """Times between the ends of a path's range, float64."""
    first, last = PATHS[name].range
    return first + (last - first) * np.linspace(0.02, 0.98, num)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


# Closed forms.


@each_path
def test_signal_and_noise_are_the_papers(name, x64):
    path, (a, s, *_), t = PATHS[name], BY_HAND[name], times_within(name)
    np.testing.assert_allclose(path.signal(jnp.asarray(t)), a(t), rtol=1e-10)
    np.testing.assert_allclose(path.noise(jnp.asarray(t)), s(t), rtol=1e-10)


@each_path
def test_drift_and_diffusion_are_their_closed_forms(name, x64):
    path, (a, _, a_slope, _, g2), t = PATHS[name], BY_HAND[name], times_within(name)
    np.testing.assert_allclose(path.drift(jnp.asarray(t)), a_slope(t) / a(t), rtol=1e-10)
    np.testing.assert_allclose(path.squared_diffusion(jnp.asarray(t)), g2(t), rtol=1e-10)


@each_path
def test_the_velocity_is_its_closed_form(name, x64):
    path, (_, _, a_slope, s_slope, _), t = PATHS[name], BY_HAND[name], times_within(name)
    x_0, eps = normal(len(t), 2), normal(len(t), 2)
    expected = a_slope(t)[:, None] * x_0 + s_slope(t)[:, None] * eps
    np.testing.assert_allclose(path.velocity(x_0, eps, jnp.asarray(t)), expected, rtol=1e-10, atol=1e-10)


@each_path
def test_the_velocity_is_the_derivative_of_x_t(name, x64):
    # Central differences of the numpy forms: nothing here is differentiated by jax.
    path, (a, s, *_), t = PATHS[name], BY_HAND[name], times_within(name)
    x_0, eps, step = normal(len(t), 2), normal(len(t), 2), 1e-6 * path.range[1]
    ahead, behind = (a(at)[:, None] * x_0 + s(at)[:, None] * eps for at in (t + step, t - step))
    np.testing.assert_allclose(
        path.velocity(x_0, eps, jnp.asarray(t)), (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_variance_preserving_paths_keep_the_variance(name, x64):
    path, t = PATHS[name], jnp.asarray(times_within(name))
    np.testing.assert_allclose(path.signal(t) ** 2 + path.noise(t) ** 2, np.ones(len(t)), rtol=1e-12)


def test_the_velocity_of_the_arc_is_v(x64):
    path, t = PATHS["trigonometric"], jnp.asarray(times_within("trigonometric"))
    x_0, eps = normal(len(t), 3), normal(len(t), 3)
    v = predictions.v_target(x_0, eps, path.signal(t), path.noise(t))
    np.testing.assert_allclose(path.velocity(x_0, eps, t), v, rtol=1e-12, atol=1e-12)


# The SDE, the velocity and the score are of one process.


@each_path
def test_the_moments_of_the_sde_are_the_marginals(name, x64):
    # dm/dt = f m and dV/dt = 2 f V + g^2, from q(x | x_0 = 1) at the first time to nearly the last.
    path, (first, last) = PATHS[name], PATHS[name].range
    last = first + 0.99 * (last - first)

    @jax.jit
    def slopes(t, moments):
        f, g2 = path.drift(t), path.squared_diffusion(t)
        return jnp.stack([f * moments[0], 2 * f * moments[1] + g2])

    start = [float(path.signal(jnp.asarray(first))), float(path.noise(jnp.asarray(first))) ** 2]
    first = first or 1e-12  # s^2 = 0 at the first time of two paths, whose slope there is 0
    solved = integrate.solve_ivp(
        lambda t, y: np.asarray(slopes(jnp.asarray(t), jnp.asarray(y))), (first, last), start, rtol=1e-9, atol=1e-12
    )
    mean, variance = solved.y[:, -1]
    np.testing.assert_allclose(mean, path.signal(jnp.asarray(last)), rtol=1e-6)
    np.testing.assert_allclose(variance, path.noise(jnp.asarray(last)) ** 2, rtol=1e-6)


@each_path
def test_the_mean_velocity_is_drift_less_half_the_squared_diffusion_times_score(name, x64):
    # Data N(m, c^2), for which E[x_0 | x_t] and the score of q(x_t) are known.
    path, m, c = PATHS[name], 0.7, 0.4
    t, x = jnp.asarray(times_within(name)), normal(23)
    a, s = path.signal(t), path.noise(t)
    variance = a**2 * c**2 + s**2
    eps = s * (x - a * m) / variance
    x_0 = m + a * c**2 * (x - a * m) / variance
    flow = path.drift(t) * x - 0.5 * path.squared_diffusion(t) * -(x - a * m) / variance
    np.testing.assert_allclose(path.velocity(x_0[:, None], eps[:, None], t)[:, 0], flow, rtol=1e-9, atol=1e-9)


@each_path
def test_the_snr_falls_all_the_way(name, x64):
    path, (first, last) = PATHS[name], PATHS[name].range
    t = jnp.linspace(first, last, 1001)
    log_snr = predictions.log_snr(path.signal(t), path.noise(t))
    assert np.all(np.diff(log_snr) < 0)


@each_path
def test_the_slope_of_the_log_snr_is_minus_g2_over_the_variance(name, x64):
    path, t = PATHS[name], jnp.asarray(times_within(name))
    np.testing.assert_allclose(path.log_snr_slope(t), -path.squared_diffusion(t) / path.noise(t) ** 2, rtol=1e-10)


@each_path
def test_a_time_is_found_again_by_its_log_snr(name, x64):
    path, t = PATHS[name], jnp.asarray(times_within(name))
    found = path.time_at_log_snr(predictions.log_snr(path.signal(t), path.noise(t)))
    np.testing.assert_allclose(found, t, rtol=1e-10)
    np.testing.assert_allclose(path.time_at_log_snr(jnp.array([200.0, -200.0])), path.range, atol=1e-12)


# Conversions.


@each_path
def test_data_and_noise_are_recovered_from_the_velocity(name, x64):
    path, t = PATHS[name], jnp.asarray(times_within(name))
    x_0, eps = normal(len(t), 2), normal(len(t), 2)
    x_t = predictions.diffuse(x_0, eps, path.signal(t), path.noise(t))
    pair = path.prediction_from_velocity(x_t, path.velocity(x_0, eps, t), t)
    np.testing.assert_allclose(pair.x_0, x_0, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(pair.eps, eps, rtol=1e-8, atol=1e-8)


@each_path
@pytest.mark.parametrize("part", ["x_0", "eps", "score"])
def test_data_and_noise_are_recovered_from_any_part(name, part, x64):
    path, t = PATHS[name], jnp.asarray(times_within(name))
    a_t, s_t = path.signal(t), path.noise(t)
    x_0, eps = normal(len(t), 2), normal(len(t), 2)
    x_t = predictions.diffuse(x_0, eps, a_t, s_t)
    pair = {
        "x_0": lambda: predictions.prediction_from_x0(x_t, x_0, a_t, s_t),
        "eps": lambda: predictions.prediction_from_eps(x_t, eps, a_t, s_t),
        "score": lambda: predictions.prediction_from_score(x_t, predictions.score(eps, s_t), a_t, s_t),
    }[part]()
    # Relative to the largest term of x_t: at sigma = 80 a part of it is 80 times its own size.
    scale = float(jnp.max(jnp.maximum(a_t, s_t) / jnp.minimum(a_t, s_t)))
    np.testing.assert_allclose(pair.x_0, x_0, rtol=1e-14 * scale, atol=1e-14 * scale)
    np.testing.assert_allclose(pair.eps, eps, rtol=1e-14 * scale, atol=1e-14 * scale)


def test_a_wrong_velocity_still_makes_up_x_t_and_itself(x64):
    path, t = PATHS["sub_vp"], jnp.asarray(times_within("sub_vp"))
    x_t, u = normal(len(t), 2), normal(len(t), 2)
    pair = path.prediction_from_velocity(x_t, u, t)
    again = predictions.diffuse(*pair, path.signal(t), path.noise(t))
    np.testing.assert_allclose(again, x_t, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(path.velocity(*pair, t), u, rtol=1e-9, atol=1e-9)


# The schedules of DDPM are paths on a grid.


def test_the_cosine_schedule_is_the_cosine_path_on_a_grid(x64):
    schedule = diffusion_process.cosine_schedule(1000, dtype=np.float64)
    t = np.arange(1, 1000)  # beta_1000 is cut to 0.999, where the path has no signal left
    log_alpha_bar = 2 * jnp.log(PATHS["cosine"].signal(jnp.asarray(t / 1000)))
    np.testing.assert_allclose(schedule.log_alpha_bar[1:1000], log_alpha_bar, atol=1e-6, rtol=0)
    np.testing.assert_allclose(schedule.signal(t), PATHS["cosine"].signal(jnp.asarray(t / 1000)), rtol=1e-9)
    np.testing.assert_allclose(schedule.noise(t), PATHS["cosine"].noise(jnp.asarray(t / 1000)), rtol=1e-9)


def test_the_linear_schedule_approaches_the_variance_preserving_path_as_one_over_t(x64):
    # log abar_k = sum_(i<=k) log(1 - beta(t_i) / T) and log a^2 = -B(k / T): a Riemann sum of order one.
    errors = []
    for num_steps in (100, 1000, 10_000):
        schedule = diffusion_process.linear_schedule(num_steps, dtype=np.float64)
        grid = jnp.arange(1, num_steps + 1) / num_steps
        errors.append(float(jnp.abs(schedule.log_alpha_bar[1:] - 2 * jnp.log(PATHS["vp"].signal(grid))).max()))
    np.testing.assert_allclose(-np.diff(np.log10(errors)), [1.0, 1.0], atol=0.05)
    assert errors[1] < 0.1


def test_the_linear_schedule_is_the_path_up_to_its_own_discretisation(x64):
    # Exactly: log abar_k = -B(t) - (what the sum of rates has more than its integral) - sum (beta/T)^2 / 2 - ...
    num_steps = 1000
    schedule = diffusion_process.linear_schedule(num_steps, dtype=np.float64)
    t = np.arange(1, num_steps + 1) / num_steps
    betas = np.linspace(0.1, 20.0, num_steps) / num_steps
    excess = np.cumsum(betas) - integral(t)
    higher_orders = np.cumsum(betas + np.log1p(-betas))
    log_alpha_bar = 2 * jnp.log(PATHS["vp"].signal(jnp.asarray(t))) - excess + higher_orders
    np.testing.assert_allclose(schedule.log_alpha_bar[1:], log_alpha_bar, rtol=0, atol=1e-10)


# Extremes, in float32.


@each_path
def test_both_ends_of_the_range_are_finite(name):
    path = PATHS[name]
    ends = jnp.asarray(path.range, jnp.float32)
    a_t, s_t = path.signal(ends), path.noise(ends)
    velocity = path.velocity(jnp.ones((2, 1)), jnp.ones((2, 1)), ends)
    assert np.all(np.isfinite([*a_t, *s_t, *velocity[:, 0]]))
    assert np.all(a_t >= 0)
    assert np.all(s_t >= 0)
    assert s_t[1] > 0.99
    drift, g2 = np.asarray(path.drift(ends)), np.asarray(path.squared_diffusion(ends))
    assert np.isfinite(drift[0])
    assert np.isfinite(g2[0])
    assert g2[0] >= 0
    without_signal = name in WITHOUT_SIGNAL_AT_THE_END
    assert (drift[1], g2[1]) == (-np.inf, np.inf) if without_signal else np.all(np.isfinite([drift[1], g2[1]]))
    assert (float(a_t[1]) == 0.0) == without_signal


@each_path
def test_float32_keeps_the_digits_of_small_noise(name):
    path, first = PATHS[name], PATHS[name].range[0] or 1e-5
    with jax.enable_x64(True):
        t = jnp.asarray(np.float64(np.float32(first)))
        exact = np.asarray([path.noise(t), path.squared_diffusion(t)])
    found = path.noise(jnp.float32(first)), path.squared_diffusion(jnp.float32(first))
    np.testing.assert_allclose(found, exact, rtol=1e-5)


@each_path
def test_velocity_predictions_are_finite_at_both_ends(name):
    path = PATHS[name]
    pair = path.prediction_from_velocity(jnp.ones((2, 1)), jnp.ones((2, 1)), jnp.asarray(path.range, jnp.float32))
    assert np.all(np.isfinite(pair))


# Settings and shapes.


def test_settings_without_a_path_are_refused():
    for make in (gaussian_path.variance_exploding, gaussian_path.edm):
        for sigmas in ((0.0, 1.0), (2.0, 1.0)):
            with pytest.raises(ValueError, match="sigma_min"):
                make(sigma_min=sigmas[0], sigma_max=sigmas[1])
    for make in (gaussian_path.variance_preserving, gaussian_path.sub_variance_preserving):
        with pytest.raises(ValueError, match="beta_min"):
            make(beta_min=-0.1)
    with pytest.raises(ValueError, match="sigma_min"):
        gaussian_path.linear(sigma_min=1.0)
    with pytest.raises(ValueError, match="offset"):
        gaussian_path.cosine(offset=0.0)


@each_path
def test_jit_vmap_and_one_time_for_all_agree(name):
    path, t = PATHS[name], jnp.asarray(times_within(name, 3), jnp.float32)
    x_0, eps = (jnp.asarray(RNG.normal(size=(3, 2, 2, 1)), jnp.float32) for _ in range(2))
    plain = path.velocity(x_0, eps, t)
    np.testing.assert_allclose(jax.jit(path.velocity)(x_0, eps, t), plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(path.velocity)(x_0, eps, t), plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(path.velocity(x_0, eps, t[1])[1], plain[1], rtol=1e-5, atol=1e-5)
    assert path.drift(t).shape == path.squared_diffusion(t).shape == (3,)


def test_integer_times_and_times_of_another_batch_are_refused():
    path, x = PATHS["vp"], jnp.ones((3, 2))
    for t in (jnp.array([0, 1, 1]), jnp.ones(2)):
        with pytest.raises(AssertionError):
            path.velocity(x, x, t)
        with pytest.raises(AssertionError):
            path.prediction_from_velocity(x, x, t)
