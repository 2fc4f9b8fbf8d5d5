from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import diffusion_process, predictions
from gm_jax.samplers import ddim, ddpm
from gm_jax.samplers import diffusion as samplers
from tests.samplers.gaussian_data import SCHEDULE, VARIANCES, T, always, factors, gaussian, normal

KEY = jax.random.key(0)
IRREGULAR = (50, 49, 31, 20, 19, 6, 2)
STEPS = {
    "ddim": partial(ddim.ddim_step, eta=0.0),
    "ddim_half": partial(ddim.ddim_step, eta=0.5),
    "beta": partial(ddpm.ancestral_step, variance_fn=VARIANCES["beta"]),
    "beta~": partial(ddpm.ancestral_step, variance_fn=VARIANCES["beta~"]),
}
each_step = pytest.mark.parametrize("step_fn", STEPS.values(), ids=STEPS)


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


# The times of a trajectory.


def test_the_next_time_is_read_from_the_given_times():
    # Data at one point: eps never changes, and x_t is where the marginal has it, at exactly these times.
    x_0, eps = normal(3, 2), normal(3, 2)
    x_T = predictions.diffuse(x_0, eps, *factors(SCHEDULE.at(T)))
    way = samplers.sample_trajectory(STEPS["ddim"], always(x_0), SCHEDULE, KEY, x_T, IRREGULAR, clip=None)
    for x_t, t in zip(way.x_t, IRREGULAR, strict=True):
        np.testing.assert_allclose(x_t, predictions.diffuse(x_0, eps, *factors(SCHEDULE.at(t))), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(way.x_0, x_0, rtol=1e-6)


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
