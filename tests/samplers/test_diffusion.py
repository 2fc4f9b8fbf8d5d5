from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import diffusion_process, predictions
from gm_jax.samplers import diffusion as samplers

RNG = np.random.default_rng(0)
factors = diffusion_process.signal_and_noise
T = 50
KEY = jax.random.key(0)
IRREGULAR = (50, 49, 31, 20, 19, 6, 2)
VARIANCES = {"beta": diffusion_process.transition_variance, "beta~": diffusion_process.posterior_variance}
STEPS = {
    "ddim": partial(samplers.ddim_step, eta=0.0),
    "ddim_half": partial(samplers.ddim_step, eta=0.5),
    "beta": partial(samplers.ancestral_step, variance_fn=VARIANCES["beta"]),
    "beta~": partial(samplers.ancestral_step, variance_fn=VARIANCES["beta~"]),
}
each_variance = pytest.mark.parametrize("variance_fn", VARIANCES.values(), ids=VARIANCES)
each_step = pytest.mark.parametrize("step_fn", STEPS.values(), ids=STEPS)
SCHEDULE = diffusion_process.linear_schedule(T)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def gaussian(schedule, m, s):
    """The best predictions of data N(m, s^2)."""

    def predict_fn(x_t, t):
        a_t, sigma_t = (factor[:, None] for factor in diffusion_process.signal_and_noise(schedule.at(t)))
        x_0 = m + a_t * s**2 / (a_t**2 * s**2 + sigma_t**2) * (x_t - a_t * m)
        return predictions.prediction_from_x0(x_t, x_0, *factors(schedule.at(t)))

    return predict_fn


def always(x_0, schedule=SCHEDULE):
    """Predicts the same x_0 for every x_t."""
    return lambda x_t, t: predictions.prediction_from_x0(x_t, 0 * x_t + x_0, *factors(schedule.at(t)))


# Times.


def test_trailing_times_by_hand():
    assert samplers.trailing_times(1000, 5).tolist() == [1000, 800, 600, 400, 200]


def test_times_fall_from_the_last_one_and_are_as_many_as_requested():
    for num_steps in (1, 2, 7, 50, 1000):
        for num_times in {1, 2, 3, 6, 10, 49, 50, 333, 999, num_steps // 2, num_steps}:
            if 1 <= num_times <= num_steps:
                times = samplers.trailing_times(num_steps, num_times)
                assert times.dtype == np.int32
                assert times.shape == (num_times,)
                assert times[0] == num_steps
                assert times[-1] >= 1
                assert np.all(np.diff(times) < 0)
        assert samplers.trailing_times(num_steps, num_steps).tolist() == list(range(num_steps, 0, -1))


def test_more_times_than_steps_or_none_are_refused():
    for num_times in (0, 11):
        with pytest.raises(ValueError, match=r"1 \.\.\. 10"):
            samplers.trailing_times(10, num_times)


@pytest.mark.parametrize("times", [(), (3, 3, 1), (1, 2), (51, 1), (5, 0), (5.0, 1.0), ((5, 1),)])
def test_times_that_do_not_fall_or_leave_the_schedule_are_refused(times):
    with pytest.raises(ValueError, match="times must"):
        samplers.sample(STEPS["ddim"], always(0.0), SCHEDULE, KEY, jnp.ones((2, 1)), times, clip=None)


@each_step
def test_the_model_is_called_at_the_given_times_in_order(step_fn):
    def predict_fn(x_t, t):
        assert t.shape == (3,)
        assert t.dtype == jnp.int32
        return predictions.Prediction(0 * x_t + t[:, None], x_t)

    way = samplers.sample_trajectory(step_fn, predict_fn, SCHEDULE, KEY, jnp.ones((3, 2)), IRREGULAR, clip=None)
    expected = np.broadcast_to(np.reshape(IRREGULAR, (-1, 1, 1)), (len(IRREGULAR), 3, 2))
    np.testing.assert_array_equal(way.x0_hat, expected)


# Ancestral sampling.


@each_variance
@pytest.mark.parametrize("times", [range(T, 0, -1), IRREGULAR], ids=["all", "skipped"])
def test_the_moments_of_ancestral_samples_follow_their_recursion(variance_fn, times):
    # With Gaussian data every step is linear: x_s = mean_fn(x_t) + noise.
    m, s, draws = 0.7, 0.4, 20_000
    step_fn, predict_fn = partial(samplers.ancestral_step, variance_fn=variance_fn), gaussian(SCHEDULE, m, s)
    x_T = jax.random.normal(jax.random.key(1), (draws, 1))
    run = partial(samplers.sample_trajectory, step_fn, predict_fn, SCHEDULE, times=times, clip=None)
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
    x_0 = samplers.ancestral_step(KEY, x_t, prediction, *s_and_t, variance_fn=variance_fn)
    np.testing.assert_array_equal(x_0, prediction.x_0)


@each_variance
def test_the_noise_of_a_step_has_the_given_variance(variance_fn, x64):
    schedule = diffusion_process.linear_schedule(T, dtype=np.float64)
    x_t, s_and_t = normal(3, 2), (schedule.at(4), schedule.at(9))
    prediction = predictions.Prediction(normal(3, 2), normal(3, 2))
    x_s = samplers.ancestral_step(KEY, x_t, prediction, *s_and_t, variance_fn=variance_fn)
    mean = diffusion_process.posterior_mean(prediction.x_0, x_t, *s_and_t)
    z = jax.random.normal(KEY, x_t.shape, x_t.dtype)
    np.testing.assert_allclose((x_s - mean) / z, jnp.sqrt(variance_fn(*s_and_t)) * jnp.ones_like(z), rtol=1e-10)


# DDIM.


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("s", "t"), [(0, 1), (1, 2), (4, 31), (0, T)])
def test_a_ddim_step_is_equations_12_and_16(eta, s, t, x64):
    # Song et al., eqs. 12 and 16.
    schedule = diffusion_process.linear_schedule(T, dtype=np.float64)
    alpha_bar = np.exp(schedule.log_alpha_bar)
    x_t, eps = normal(3, 2), normal(3, 2)
    prediction = predictions.prediction_from_eps(x_t, eps, *factors(schedule.at(t)))
    x_s = samplers.ddim_step(KEY, x_t, prediction, schedule.at(s), schedule.at(t), eta=eta)
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
    ddim = samplers.ddim_step(KEY, x_t, prediction, *s_and_t, eta=1.0)
    ancestral = samplers.ancestral_step(KEY, x_t, prediction, *s_and_t, variance_fn=VARIANCES["beta~"])
    np.testing.assert_allclose(ddim, ancestral, rtol=1e-12, atol=1e-12)


def test_the_next_time_is_read_from_the_given_times():
    # Data at one point: eps never changes, and x_t is where the marginal has it, at exactly these times.
    x_0, eps = normal(3, 2), normal(3, 2)
    x_T = predictions.diffuse(x_0, eps, *factors(SCHEDULE.at(T)))
    way = samplers.sample_trajectory(STEPS["ddim"], always(x_0), SCHEDULE, KEY, x_T, IRREGULAR, clip=None)
    for x_t, t in zip(way.x_t, IRREGULAR, strict=True):
        np.testing.assert_allclose(x_t, predictions.diffuse(x_0, eps, *factors(SCHEDULE.at(t))), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(way.x_0, x_0, rtol=1e-6)


def test_ddim_has_order_one_in_the_number_of_steps(x64):
    # On the probability flow of Gaussian data, (x_t - a_t m) / sqrt(a_t^2 s^2 + sigma_t^2) is constant.
    m, s, num_steps = 0.7, 0.5, 1024
    schedule = diffusion_process.linear_schedule(num_steps, dtype=np.float64)
    a_T, sigma_T = diffusion_process.signal_and_noise(schedule.at(num_steps))
    x_T = jnp.array([[-1.5], [0.3], [2.0]])
    exact = m + s * (x_T - a_T * m) / jnp.sqrt(a_T**2 * s**2 + sigma_T**2)
    predict_fn, num_times = gaussian(schedule, m, s), np.array([32, 128])
    samples = [
        samplers.sample(STEPS["ddim"], predict_fn, schedule, KEY, x_T, samplers.trailing_times(num_steps, n), clip=None)
        for n in num_times
    ]
    errors = [float(jnp.abs(x_0 - exact).max()) for x_0 in samples]
    slope = np.diff(np.log(errors))[0] / np.diff(np.log(num_times))[0]
    assert slope == pytest.approx(-1.0, abs=0.15)
    assert errors[-1] < 0.05


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_an_eta_outside_of_0_and_1_is_refused(eta):
    prediction = predictions.Prediction(jnp.ones((1, 1)), jnp.ones((1, 1)))
    with pytest.raises(ValueError, match="eta"):
        samplers.ddim_step(KEY, jnp.ones((1, 1)), prediction, SCHEDULE.at(1), SCHEDULE.at(2), eta=eta)


# The loop.


@pytest.fixture(scope="module")
def runs():
    """Each sampler, compiled once: (key, x_T) -> Trajectory."""
    predict_fn = gaussian(SCHEDULE, 0.7, 0.4)
    return {
        name: jax.jit(partial(samplers.sample_trajectory, step_fn, predict_fn, SCHEDULE, times=IRREGULAR, clip=None))
        for name, step_fn in STEPS.items()
    }


@pytest.mark.parametrize("name", STEPS)
def test_samples_depend_on_the_key_alone(runs, name):
    x_T = jax.random.normal(jax.random.key(1), (4, 1))
    first, again, other = (runs[name](jax.random.key(seed), x_T).x_0 for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.all(first == other) == (name == "ddim")
    assert first.dtype == jnp.float32
    assert np.unique(first).size == 4


@pytest.mark.parametrize("name", STEPS)
def test_a_trajectory_continued_from_its_middle_ends_in_the_same_sample(runs, name):
    way = runs[name](KEY, jax.random.normal(jax.random.key(1), (4, 1)))
    predict_fn = gaussian(SCHEDULE, 0.7, 0.4)
    x_0 = samplers.sample(STEPS[name], predict_fn, SCHEDULE, KEY, way.x_t[4], IRREGULAR[4:], clip=None)
    np.testing.assert_allclose(x_0, way.x_0, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STEPS)
def test_samples_are_the_end_of_their_trajectory(runs, name):
    x_T = jax.random.normal(jax.random.key(1), (4, 1))
    way = runs[name](KEY, x_T)
    x_0 = samplers.sample(STEPS[name], gaussian(SCHEDULE, 0.7, 0.4), SCHEDULE, KEY, x_T, IRREGULAR, clip=None)
    np.testing.assert_allclose(x_0, way.x_0, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(way.x_t[0], x_T)
    np.testing.assert_allclose(way.x0_hat[-1], way.x_0, rtol=1e-5, atol=1e-6)


def test_the_noise_of_a_step_is_a_function_of_its_time():
    # Whichever steps came before and whichever time comes after.
    for times in ((50, 20, 19), (20, 7)):
        way = samplers.sample_trajectory(STEPS["beta"], always(0.0), SCHEDULE, KEY, jnp.ones((3, 1)), times, clip=None)
        i = times.index(20)
        s_and_t = SCHEDULE.at(times[i + 1]), SCHEDULE.at(20)
        mean = diffusion_process.posterior_mean(0 * way.x_t[i], way.x_t[i], *s_and_t)
        z = (way.x_t[i + 1] - mean) / jnp.sqrt(VARIANCES["beta"](*s_and_t))
        np.testing.assert_allclose(z, jax.random.normal(jax.random.fold_in(KEY, 20), (3, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("step_fn", [STEPS["ddim_half"], STEPS["beta"]], ids=["ddim_half", "beta"])
def test_clipped_predictions_are_in_range_and_their_noise_is_adapted(step_fn):
    x_T = 3 * normal(4, 2)
    way = samplers.sample_trajectory(step_fn, always(5.0), SCHEDULE, KEY, x_T, IRREGULAR, clip=(-1.0, 1.5))
    np.testing.assert_array_equal(way.x0_hat, np.full((len(IRREGULAR), 4, 2), 1.5))
    np.testing.assert_allclose(way.x_0, np.full((4, 2), 1.5), rtol=1e-6)
    # The same as of a model that predicts the edge itself, so that eps is that of the clipped x_0.
    edge = samplers.sample_trajectory(step_fn, always(1.5), SCHEDULE, KEY, x_T, IRREGULAR, clip=None)
    np.testing.assert_allclose(way.x_t, edge.x_t, rtol=1e-5, atol=1e-5)
    free = samplers.sample(step_fn, always(5.0), SCHEDULE, KEY, x_T, IRREGULAR, clip=None)
    np.testing.assert_allclose(free, np.full((4, 2), 5.0), rtol=1e-5)


@each_step
def test_a_step_takes_one_time_per_example(step_fn):
    x_t, said, key = normal(3, 2), normal(3, 2), KEY
    s, t = jnp.array([0, 4, 30]), jnp.array([1, 9, T])
    prediction = predictions.prediction_from_eps(x_t, said, *factors(SCHEDULE.at(t)))
    x_s = step_fn(key, x_t, prediction, SCHEDULE.at(s), SCHEDULE.at(t))
    for b in range(3):
        one_time = step_fn(key, x_t, prediction, SCHEDULE.at(s[b]), SCHEDULE.at(t[b]))
        np.testing.assert_allclose(x_s[b], one_time[b], rtol=1e-5, atol=1e-6)


def test_an_integer_start_and_a_prediction_of_another_shape_are_refused():
    with pytest.raises(AssertionError):
        samplers.sample(STEPS["ddim"], always(0.0), SCHEDULE, KEY, jnp.ones((2, 1), jnp.int32), (5, 1), clip=None)
    prediction = predictions.Prediction(jnp.ones((2, 2)), jnp.ones((2, 2)))
    for step_fn in STEPS.values():
        with pytest.raises(AssertionError):
            step_fn(KEY, jnp.ones((2, 1)), prediction, SCHEDULE.at(1), SCHEDULE.at(2))


# Guidance.


def test_guidance_by_hand():
    conditional, unconditional = jnp.array([[2.0, -1.0]]), jnp.array([[1.0, 1.0]])
    guided = samplers.classifier_free_guidance(conditional, unconditional, weight=2.0)
    np.testing.assert_array_equal(guided, [[4.0, -5.0]])


def test_guidance_of_weight_0_is_the_conditional_model_bit_for_bit():
    conditional, unconditional = normal(5, 3), normal(5, 3)
    guide = partial(samplers.classifier_free_guidance, conditional, unconditional)
    np.testing.assert_array_equal(guide(weight=0.0), conditional)
    np.testing.assert_allclose(guide(weight=-1.0), unconditional, rtol=1e-5, atol=1e-6)


def test_guided_noise_is_the_noise_of_guided_data(x64):
    schedule = diffusion_process.linear_schedule(T, dtype=np.float64)
    x_t, conditional, unconditional = normal(2, 3), normal(2, 3), normal(2, 3)
    to_x_0 = lambda eps: predictions.prediction_from_eps(x_t, eps, *factors(schedule.at(20))).x_0  # noqa: E731
    guided_eps = samplers.classifier_free_guidance(conditional, unconditional, weight=1.7)
    guided_x_0 = samplers.classifier_free_guidance(to_x_0(conditional), to_x_0(unconditional), weight=1.7)
    np.testing.assert_allclose(to_x_0(guided_eps), guided_x_0, rtol=1e-11)


def test_guidance_refuses_predictions_of_different_shapes():
    guide = partial(samplers.classifier_free_guidance, weight=1.0)
    with pytest.raises(AssertionError):
        guide(jnp.ones((2, 3)), jnp.ones((1, 3)))
    with pytest.raises(AssertionError):
        guide(jnp.ones((2, 3), jnp.int32), jnp.ones((2, 3), jnp.int32))
