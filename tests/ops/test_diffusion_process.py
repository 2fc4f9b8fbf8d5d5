from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import diffusion_process, distributions

RNG = np.random.default_rng(0)
T = 50
SCHEDULES = {"linear": diffusion_process.linear_schedule, "cosine": diffusion_process.cosine_schedule}
each_schedule = pytest.mark.parametrize("make_schedule", SCHEDULES.values(), ids=SCHEDULES)
# Next to each other and not, the first and the last.
PAIRS = [(1, 2), (4, 5), (3, 17), (1, T), (T - 1, T)]
CONVERSIONS = {
    "x0": diffusion_process.prediction_from_x0,
    "eps": diffusion_process.prediction_from_eps,
    "v": diffusion_process.prediction_from_v,
    "score": diffusion_process.prediction_from_score,
}


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def betas_of(schedule):
    return -np.expm1(np.diff(np.asarray(schedule.log_alpha_bar, np.float64)))


# Schedules.


def test_the_linear_schedule_of_a_thousand_steps_is_the_paper_s():
    schedule = diffusion_process.linear_schedule(1000, dtype=np.float64)
    np.testing.assert_allclose(betas_of(schedule), np.linspace(1e-4, 0.02, 1000), rtol=1e-10)


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
def test_a_schedule_starts_at_one_and_falls_within_zero_and_one(make_schedule, num_steps):
    schedule = make_schedule(num_steps)
    alpha_bar = np.exp(schedule.log_alpha_bar.astype(np.float64))
    assert schedule.num_steps == num_steps
    assert schedule.log_alpha_bar.dtype == np.float32
    assert alpha_bar[0] == 1.0
    assert np.all(np.diff(alpha_bar) < 0)
    assert 0 < alpha_bar[-1] < 5e-5


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
def test_the_posterior_at_the_first_time_is_the_data_themselves(make_schedule, t):
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
def test_the_posterior_mean_of_predicted_noise_is_the_paper_s(make_schedule, x64):
    # Ho et al., eq. 11: (x_t - beta_t / sigma_t eps) / sqrt(alpha_t).
    schedule = make_schedule(T, dtype=np.float64)
    x_t, eps = normal(3, 2), normal(3, 2)
    for t in (2, 20, T - 1):
        beta, (_, sigma_t) = betas_of(schedule)[t - 1], diffusion_process.signal_and_noise(schedule.at(t))
        expected = (x_t - beta / sigma_t * eps) / np.sqrt(1 - beta)
        x_0 = diffusion_process.prediction_from_eps(x_t, eps, schedule.at(t)).x_0
        mean = diffusion_process.posterior_mean(x_0, x_t, schedule.at(t - 1), schedule.at(t))
        np.testing.assert_allclose(mean, expected, rtol=1e-10, atol=1e-12)


def test_diffused_data_are_signal_and_noise_by_their_variances():
    x_0, eps, alpha_bar = normal(3, 2), normal(3, 2), np.array([1.0, 0.36, 0.0])
    x_t = diffusion_process.diffuse(x_0, eps, jnp.asarray([0.0, np.log(0.36), -np.inf]))
    for b in range(3):
        expected = np.sqrt(alpha_bar[b]) * x_0[b] + np.sqrt(1 - alpha_bar[b]) * eps[b]
        np.testing.assert_allclose(x_t[b], expected, rtol=1e-6)


# Conversions.


@each_schedule
@pytest.mark.parametrize("kind", CONVERSIONS)
def test_what_is_true_of_x_t_is_recovered_from_any_one_of_its_parts(make_schedule, kind, x64):
    schedule = make_schedule(T, dtype=np.float64)
    t = jnp.arange(1, T)
    x_0, eps = normal(T - 1, 2), normal(T - 1, 2)
    x_t = diffusion_process.diffuse(x_0, eps, schedule.at(t))
    part = {
        "x0": x_0,
        "eps": eps,
        "v": diffusion_process.velocity(x_0, eps, schedule.at(t)),
        "score": diffusion_process.score(eps, schedule.at(t)),
    }[kind]
    prediction = CONVERSIONS[kind](x_t, part, schedule.at(t))
    np.testing.assert_allclose(prediction.x_0, x_0, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(prediction.eps, eps, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_a_prediction_s_parts_make_up_x_t_and_its_other_forms_however_wrong_it_is(kind, x64):
    schedule = diffusion_process.linear_schedule(T, dtype=np.float64)
    log_alpha_bar_t = schedule.at(jnp.array([1, 20, T]))
    x_t, said = normal(3, 2), normal(3, 2)
    prediction = CONVERSIONS[kind](x_t, said, log_alpha_bar_t)
    np.testing.assert_allclose(diffusion_process.diffuse(*prediction, log_alpha_bar_t), x_t, rtol=1e-12, atol=1e-12)
    forms = {
        "x0": prediction.x_0,
        "eps": prediction.eps,
        "v": diffusion_process.velocity(*prediction, log_alpha_bar_t),
        "score": diffusion_process.score(prediction.eps, log_alpha_bar_t),
    }
    np.testing.assert_allclose(forms[kind], said, rtol=1e-10, atol=1e-10)
    for other, form in forms.items():
        again = CONVERSIONS[other](x_t, form, log_alpha_bar_t)
        np.testing.assert_allclose(again, prediction, rtol=1e-9, atol=1e-9)


def test_the_score_is_the_gradient_of_the_marginal_s_log_density(x64):
    x_0, eps, log_alpha_bar_t = normal(4, 2), normal(4, 2), -jnp.exp(normal(4))
    a_t, sigma_t = (factor[:, None] for factor in diffusion_process.signal_and_noise(log_alpha_bar_t))
    x_t = diffusion_process.diffuse(x_0, eps, log_alpha_bar_t)
    log_var = jnp.broadcast_to(2 * jnp.log(sigma_t), x_t.shape)
    gradient = jax.grad(lambda x_t: distributions.normal_log_prob(x_t, a_t * x_0, log_var).sum())(x_t)
    np.testing.assert_allclose(diffusion_process.score(eps, log_alpha_bar_t), gradient, rtol=1e-10)


def test_the_velocity_is_the_derivative_along_the_arc_from_data_to_noise(x64):
    x_0, eps, angle = normal(4, 2), normal(4, 2), jnp.asarray(RNG.uniform(0.1, 1.4, size=4))
    x_of = lambda angle: diffusion_process.diffuse(x_0, eps, 2 * jnp.log(jnp.cos(angle)))  # noqa: E731
    _, derivative = jax.jvp(x_of, (angle,), (jnp.ones(4),))
    v = diffusion_process.velocity(x_0, eps, 2 * jnp.log(jnp.cos(angle)))
    np.testing.assert_allclose(v, derivative, rtol=1e-10)


def test_the_snr_is_the_ratio_of_the_variances(x64):
    alpha_bar = np.array([1e-9, 0.2, 0.999999])
    expected = np.log(alpha_bar / (1 - alpha_bar))
    np.testing.assert_allclose(diffusion_process.log_snr(jnp.log(alpha_bar)), expected, rtol=1e-9)


# Extremes.


@pytest.mark.parametrize("kind", CONVERSIONS)
@pytest.mark.parametrize("log_alpha_bar", [0.0, -1e-9, -60.0, -np.inf])
def test_a_conversion_is_finite_without_noise_and_without_signal(kind, log_alpha_bar):
    x_t, said = jnp.full((1, 1), 1.5), jnp.full((1, 1), -0.5)
    prediction, vjp_fn = jax.vjp(lambda *a: CONVERSIONS[kind](*a, jnp.float32(log_alpha_bar)), x_t, said)
    assert np.all(np.isfinite(prediction))
    assert np.all(np.isfinite(vjp_fn(prediction)))
    assert np.isfinite(diffusion_process.score(said, jnp.float32(log_alpha_bar)))


def test_the_velocity_tells_data_without_signal_and_noise_without_noise():
    x_t, v = normal(2, 3), normal(2, 3)
    prediction = diffusion_process.prediction_from_v(x_t, v, jnp.array([0.0, -np.inf]))
    np.testing.assert_array_equal(prediction.x_0, [x_t[0], -v[1]])
    np.testing.assert_array_equal(prediction.eps, [v[0], x_t[1]])


def test_data_that_are_their_own_x_0_have_no_noise():
    x_0 = normal(2, 3)
    np.testing.assert_array_equal(diffusion_process.prediction_from_x0(x_0, x_0, jnp.float32(0.0)).eps, 0 * x_0)


def test_a_step_from_no_signal_at_all_is_finite():
    s_and_t = jnp.float32(-5.0), jnp.float32(-np.inf)
    x_0, x_t = normal(2, 3), normal(2, 3)
    assert diffusion_process.transition_variance(*s_and_t) == 1.0
    np.testing.assert_allclose(diffusion_process.posterior_variance(*s_and_t), -np.expm1(-5.0), rtol=1e-6)
    np.testing.assert_allclose(diffusion_process.posterior_mean(x_0, x_t, *s_and_t), np.exp(-2.5) * x_0, rtol=1e-6)


def test_the_snr_is_infinite_at_the_data_and_finite_from_the_first_step_on():
    for make_schedule in SCHEDULES.values():
        log_snr = diffusion_process.log_snr(jnp.asarray(make_schedule(T).log_alpha_bar))
        assert log_snr[0] == np.inf
        assert np.all(np.isfinite(log_snr[1:]))


# Shapes.

LOG_S, LOG_T = jnp.float32([-0.1, -0.3, 0.0]), jnp.float32([-0.2, -3.0, -0.1])
SHAPE = (3, 2, 2, 1)
ARRAYS = [jnp.asarray(RNG.normal(size=SHAPE), jnp.float32) for _ in range(2)]
CASES = {
    "diffuse": (diffusion_process.diffuse, (*ARRAYS, LOG_T)),
    "transition_mean": (diffusion_process.transition_mean, (ARRAYS[0], LOG_S, LOG_T)),
    "posterior_mean": (diffusion_process.posterior_mean, (*ARRAYS, LOG_S, LOG_T)),
    "velocity": (diffusion_process.velocity, (*ARRAYS, LOG_T)),
    "score": (diffusion_process.score, (ARRAYS[0], LOG_T)),
    **{name: (function, (*ARRAYS, LOG_T)) for name, function in CONVERSIONS.items()},
}
each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_jit_vmap_and_one_time_for_all_agree_with_a_time_for_each_example(name):
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


def test_a_value_for_each_element_stays_as_it_is():
    np.testing.assert_array_equal(diffusion_process.per_example(ARRAYS[0], ARRAYS[1]), ARRAYS[0])
    assert diffusion_process.per_example(LOG_T, ARRAYS[0]).shape == (3, 1, 1, 1)
    assert diffusion_process.per_example(2.0, ARRAYS[0]).shape == ()
