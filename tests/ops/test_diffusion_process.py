from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import diffusion_process, predictions

RNG = np.random.default_rng(0)
T = 50
SCHEDULES = {
    "linear": diffusion_process.linear_schedule,
    "quadratic": diffusion_process.quadratic_schedule,
    "cosine": diffusion_process.cosine_schedule,
}
each_schedule = pytest.mark.parametrize("make_schedule", SCHEDULES.values(), ids=SCHEDULES)
# Next to each other and not, the first and the last.
PAIRS = [(1, 2), (4, 5), (3, 17), (1, T), (T - 1, T)]


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def betas_of(schedule):
    return -np.expm1(np.diff(np.asarray(schedule.log_alpha_bar, np.float64)))


# Schedules.


def test_the_linear_schedule_of_1000_steps_is_that_of_the_paper():
    schedule = diffusion_process.linear_schedule(1000, dtype=np.float64)
    np.testing.assert_allclose(betas_of(schedule), np.linspace(1e-4, 0.02, 1000), rtol=1e-10)


def test_the_quadratic_schedule_is_that_of_latent_diffusion():
    schedule = diffusion_process.quadratic_schedule(1000, beta_min=1.5, beta_max=15.5, dtype=np.float64)
    # CompVis/latent-diffusion, make_beta_schedule with linear_start=0.0015 and linear_end=0.0155.
    roots = [0.0015**0.5 + i / 999 * (0.0155**0.5 - 0.0015**0.5) for i in range(1000)]
    np.testing.assert_allclose(betas_of(schedule), np.square(roots), rtol=1e-10)


def test_the_cosine_schedule_is_its_formula_up_to_the_last_step():
    schedule = diffusion_process.cosine_schedule(T, dtype=np.float64)
    f = np.cos(np.pi / 2 * (np.arange(T + 1) / T + 0.008) / 1.008) ** 2
    np.testing.assert_allclose(np.exp(schedule.log_alpha_bar[:-1]), f[:-1] / f[0], rtol=1e-12)
    assert betas_of(schedule)[-1] == pytest.approx(0.999, rel=1e-12)


def test_a_schedule_is_the_product_of_what_each_step_leaves():
    betas = RNG.uniform(0.01, 0.99, size=T)
    schedule = diffusion_process.schedule_from_betas(betas, dtype=np.float64)
    np.testing.assert_allclose(np.exp(schedule.log_alpha_bar), np.concatenate([[1.0], np.cumprod(1.0 - betas)]))
    np.testing.assert_allclose(betas_of(schedule), betas, rtol=1e-10)


@each_schedule
@pytest.mark.parametrize("num_steps", [25, 1000, 4000])
def test_a_schedule_falls_from_one_and_stays_above_zero(make_schedule, num_steps):
    schedule = make_schedule(num_steps)
    alpha_bar = np.exp(schedule.log_alpha_bar.astype(np.float64))
    assert schedule.num_steps == num_steps
    assert schedule.log_alpha_bar.dtype == np.float32
    assert alpha_bar[0] == 1.0
    assert np.all(np.diff(alpha_bar) < 0)
    # The sum of quadratic betas is (b_min + sqrt(b_min b_max) + b_max) / 3 = 7.2, of linear ones 10.05.
    assert 0 < alpha_bar[-1] < (1e-3 if make_schedule is diffusion_process.quadratic_schedule else 5e-5)


@each_schedule
def test_the_number_of_steps_does_not_change_the_process(make_schedule):
    fine = make_schedule(4000).log_alpha_bar[::40]
    coarse = make_schedule(100).log_alpha_bar
    np.testing.assert_allclose(np.exp(0.5 * coarse), np.exp(0.5 * fine), atol=0.02)


@each_schedule
def test_float32_keeps_the_digits_of_small_variances(make_schedule):
    exact = np.asarray(make_schedule(1000, dtype=np.float64).log_alpha_bar)
    schedule = make_schedule(1000)
    log_alpha_bar = schedule.at(jnp.arange(1001))
    _, sigma = diffusion_process.signal_and_noise(log_alpha_bar)
    np.testing.assert_allclose(sigma[1:] ** 2, -np.expm1(exact[1:]), rtol=1e-6)
    beta = diffusion_process.transition_variance(log_alpha_bar[:-1], log_alpha_bar[1:])
    np.testing.assert_allclose(beta, -np.expm1(np.diff(exact)), rtol=1e-4)


def test_a_time_outside_of_the_schedule_is_nan():
    schedule = diffusion_process.linear_schedule(T)
    looked_up = jax.jit(type(schedule).at)(schedule, jnp.array([-1, 0, 1, T, T + 1]))
    np.testing.assert_array_equal(looked_up[1:4], schedule.log_alpha_bar[[0, 1, T]])
    assert np.isnan(looked_up).tolist() == [True, False, False, False, True]


def test_a_time_must_be_an_integer():
    with pytest.raises(AssertionError):
        diffusion_process.linear_schedule(T).at(jnp.array([0.5]))


def test_betas_outside_of_zero_and_one_are_refused():
    for betas in ([], [0.0, 0.1], [0.1, 1.0], [[0.1]]):
        with pytest.raises(ValueError, match="betas"):
            diffusion_process.schedule_from_betas(np.asarray(betas))
    with pytest.raises(ValueError, match="20 steps"):
        diffusion_process.linear_schedule(20)
    with pytest.raises(ValueError, match="below 20 steps"):
        diffusion_process.quadratic_schedule(20)
    with pytest.raises(ValueError, match="at least one step"):
        diffusion_process.cosine_schedule(0)


# The conditionals.


def test_a_posterior_by_hand():
    # Two steps of variance 1/2: abar = 1, 1/2, 1/4; then beta~_2 = (1/2) / (3/4) / 2 = 1/3.
    log_alpha_bar_s, log_alpha_bar_t = jnp.log(jnp.array([0.5])), jnp.log(jnp.array([0.25]))
    variance = diffusion_process.posterior_variance(log_alpha_bar_s, log_alpha_bar_t)
    np.testing.assert_allclose(variance, [1 / 3], rtol=1e-6)
    mean = diffusion_process.posterior_mean(
        jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 6.0]]), log_alpha_bar_s, log_alpha_bar_t
    )
    np.testing.assert_allclose(mean, [[np.sqrt(2), 2 * np.sqrt(2)]], rtol=1e-6)


@each_schedule
def test_the_chain_of_one_step_kernels_gives_the_marginal(make_schedule, x64):
    schedule = make_schedule(T, dtype=np.float64)
    x_0 = normal(3, 2)
    mean, variance = x_0, jnp.zeros(())
    for t in range(1, T + 1):
        s_and_t = schedule.at(t - 1), schedule.at(t)
        mean = diffusion_process.transition_mean(mean, *s_and_t)
        kept = diffusion_process.transition_mean(jnp.ones((1, 1)), *s_and_t)[0, 0]
        variance = kept**2 * variance + diffusion_process.transition_variance(*s_and_t)
        a_t, sigma_t = diffusion_process.signal_and_noise(schedule.at(t))
        np.testing.assert_allclose(mean, a_t * x_0, rtol=1e-12)
        np.testing.assert_allclose(variance, sigma_t**2, rtol=1e-12)


@each_schedule
@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_the_posterior_is_bayes_rule(make_schedule, s, t, x64):
    # Completing the square in x_s of log q(x_t | x_s) + log q(x_s | x_0).
    alpha_bar = np.exp(make_schedule(T, dtype=np.float64).log_alpha_bar)
    x_0, x_t = normal(3, 2), normal(3, 2)
    shrink, beta = np.sqrt(alpha_bar[t] / alpha_bar[s]), 1 - alpha_bar[t] / alpha_bar[s]
    precision = 1 / (1 - alpha_bar[s]) + shrink**2 / beta
    mean = (np.sqrt(alpha_bar[s]) * x_0 / (1 - alpha_bar[s]) + shrink * x_t / beta) / precision
    s_and_t = jnp.log(alpha_bar[s]), jnp.log(alpha_bar[t])
    np.testing.assert_allclose(diffusion_process.posterior_variance(*s_and_t), 1 / precision, rtol=1e-11)
    np.testing.assert_allclose(diffusion_process.posterior_mean(x_0, x_t, *s_and_t), mean, rtol=1e-11, atol=1e-13)


@each_schedule
@pytest.mark.parametrize("t", [1, 5, T])
def test_the_posterior_at_time_0_is_the_data(make_schedule, t):
    schedule = make_schedule(T)
    x_0, x_t = normal(3, 2), normal(3, 2)
    s_and_t = schedule.at(0), schedule.at(t)
    assert diffusion_process.posterior_variance(*s_and_t) == 0.0
    np.testing.assert_array_equal(diffusion_process.posterior_mean(x_0, x_t, *s_and_t), x_0)


@each_schedule
def test_the_posterior_is_narrower_than_the_step(make_schedule, x64):
    log_alpha_bar = jnp.asarray(make_schedule(T, dtype=np.float64).log_alpha_bar)
    beta = diffusion_process.transition_variance(log_alpha_bar[:-1], log_alpha_bar[1:])
    posterior = diffusion_process.posterior_variance(log_alpha_bar[:-1], log_alpha_bar[1:])
    np.testing.assert_allclose(beta, betas_of(make_schedule(T, dtype=np.float64)), rtol=1e-12)
    assert np.all(posterior < beta)
    assert np.all(posterior[1:] > 0)


@each_schedule
def test_the_posterior_mean_of_predicted_noise_is_equation_11(make_schedule, x64):
    # Ho et al., eq. 11: (x_t - beta_t / sigma_t eps) / sqrt(alpha_t).
    schedule = make_schedule(T, dtype=np.float64)
    x_t, eps = normal(3, 2), normal(3, 2)
    for t in (2, 20, T - 1):
        beta, (_, sigma_t) = betas_of(schedule)[t - 1], diffusion_process.signal_and_noise(schedule.at(t))
        expected = (x_t - beta / sigma_t * eps) / np.sqrt(1 - beta)
        x_0 = predictions.prediction_from_eps(x_t, eps, *diffusion_process.signal_and_noise(schedule.at(t))).x_0
        mean = diffusion_process.posterior_mean(x_0, x_t, schedule.at(t - 1), schedule.at(t))
        np.testing.assert_allclose(mean, expected, rtol=1e-10, atol=1e-12)


def test_a_schedule_gives_the_factors_of_a_path():
    schedule, t = diffusion_process.linear_schedule(T), jnp.array([0, 1, 20, T])
    a_t, sigma_t = diffusion_process.signal_and_noise(schedule.at(t))
    np.testing.assert_array_equal(schedule.signal(t), a_t)
    np.testing.assert_array_equal(schedule.noise(t), sigma_t)
    np.testing.assert_allclose(a_t**2 + sigma_t**2, np.ones(4), rtol=1e-6)
    assert np.isnan(schedule.signal(T + 1))


# Extremes.


def test_a_step_from_no_signal_at_all_is_finite():
    s_and_t = jnp.float32(-5.0), jnp.float32(-np.inf)
    x_0, x_t = normal(2, 3), normal(2, 3)
    assert diffusion_process.transition_variance(*s_and_t) == 1.0
    np.testing.assert_allclose(diffusion_process.posterior_variance(*s_and_t), -np.expm1(-5.0), rtol=1e-6)
    np.testing.assert_allclose(diffusion_process.posterior_mean(x_0, x_t, *s_and_t), np.exp(-2.5) * x_0, rtol=1e-6)


# Shapes.

LOG_S, LOG_T = jnp.float32([-0.1, -0.3, 0.0]), jnp.float32([-0.2, -3.0, -0.1])
SHAPE = (3, 2, 2, 1)
ARRAYS = [jnp.asarray(RNG.normal(size=SHAPE), jnp.float32) for _ in range(2)]
CASES = {
    "transition_mean": (diffusion_process.transition_mean, (ARRAYS[0], LOG_S, LOG_T)),
    "posterior_mean": (diffusion_process.posterior_mean, (*ARRAYS, LOG_S, LOG_T)),
}
each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_jit_vmap_and_a_scalar_time_agree_with_a_time_per_example(name):
    function, arguments = CASES[name]
    plain = function(*arguments)
    close = partial(jax.tree.map, partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6))
    assert {leaf.shape for leaf in jax.tree.leaves(plain)} == {SHAPE}
    close(jax.jit(function)(*arguments), plain)
    close(jax.vmap(function)(*arguments), plain)
    one_time = [a if a.ndim > 1 else a[1] for a in arguments]
    close(jax.tree.map(lambda leaf: leaf[1], function(*one_time)), jax.tree.map(lambda leaf: leaf[1], plain))


@each_case
def test_times_of_another_batch_are_refused(name):
    function, arguments = CASES[name]
    for wrong in (arguments[-1][:2], arguments[-1][:, None], arguments[-1].astype(jnp.int32)):
        with pytest.raises(AssertionError):
            function(*arguments[:-1], wrong)


@each_case
def test_data_of_other_shapes_and_raw_images_are_refused(name):
    function, (x, *rest) = CASES[name]
    wrong = [x.astype(jnp.uint8)]
    if rest[0].ndim == x.ndim:
        wrong += [x[:1], x[..., 0]]
    for array in wrong:
        with pytest.raises(AssertionError):
            function(array, *rest)


@pytest.mark.parametrize("make", [diffusion_process.linear_schedule, diffusion_process.cosine_schedule])
def test_the_path_of_a_schedule_passes_through_its_grid_and_never_adds_signal(make, x64):
    schedule = make(50, dtype=np.float64)
    path, t = schedule.path(), jnp.arange(1, 51)
    np.testing.assert_allclose(path.signal(t.astype(float)), schedule.signal(t), rtol=1e-12)
    np.testing.assert_allclose(path.noise(t.astype(float)), schedule.noise(t), rtol=1e-12)
    between = jnp.linspace(1.2, 49.7, 40)
    np.testing.assert_allclose(jnp.square(path.signal(between)) + jnp.square(path.noise(between)), 1.0, rtol=1e-12)
    # f = (log abar)' / 2 is a constant of each step, and a variance-preserving path has g^2 = -2 f.
    step = jnp.floor(between).astype(int)
    slope = jnp.asarray(schedule.log_alpha_bar)[step + 1] - jnp.asarray(schedule.log_alpha_bar)[step]
    np.testing.assert_allclose(path.drift(between), 0.5 * slope, rtol=1e-9)
    np.testing.assert_allclose(path.squared_diffusion(between), -slope, rtol=1e-9)


def test_an_interpolated_variance_is_a_geometric_mean_of_the_two(x64):
    schedule = diffusion_process.cosine_schedule(20)
    t = jnp.array([2, 9, 20])
    ends = schedule.at(t - 1), schedule.at(t)
    beta, posterior = diffusion_process.transition_variance(*ends), diffusion_process.posterior_variance(*ends)
    share = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 2)))
    found = jnp.exp(diffusion_process.interpolated_log_variance(share, *ends))
    np.testing.assert_allclose(found, beta[:, None] ** share * posterior[:, None] ** (1 - share), rtol=1e-6)
