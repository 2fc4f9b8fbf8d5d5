"""Samplers with new noise, on data whose score is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import diffusion_process
from gm_jax.samplers import ddpm, sde, time_grids
from tests.gaussian_mixture import PATHS, Mixture

each_path = pytest.mark.parametrize("name", PATHS)
NORMAL = Mixture([[0.0]], [1.0], 1.0)
COUNT = 40_000
STANDARD_ERROR = 1 / np.sqrt(2 * COUNT)


def start(path, count=COUNT, seed=1):
    """Exact draws of the last marginal of N(0, 1) data."""
    last = jnp.asarray(path.range[1])
    scale = jnp.sqrt(path.signal(last) ** 2 + path.noise(last) ** 2)
    return scale * jax.random.normal(jax.random.key(seed), (count, 1))


@each_path
def test_the_reverse_sde_with_the_exact_score_returns_the_data(name):
    path = PATHS[name]
    grid = time_grids.uniform if name in ("vp", "sub_vp") else time_grids.uniform_log_snr
    run = jax.jit(lambda key, x: sde.euler_maruyama(key, NORMAL.predict_fn(path), path, x, grid(path, 1001)))
    found = run(jax.random.key(0, impl="rbg"), start(path))
    assert abs(float(jnp.std(found)) - 1.0) < 0.01
    assert abs(float(jnp.mean(found))) < 4 / np.sqrt(COUNT)


@each_path
def test_ancestral_steps_are_exact_for_a_point(name):
    # Data at one point: q(x_s | x_t, x_0) is the reverse process itself, whatever the step.
    path = PATHS[name]
    point = Mixture([[0.7]], [1.0], 1e-4)
    times = path.time_at_log_snr(jnp.array([-4.0, -1.0, 3.0]))
    x = path.signal(times[0]) * 0.7 + path.noise(times[0]) * jax.random.normal(jax.random.key(1), (COUNT, 1))
    found = sde.ancestral(jax.random.key(0), point.predict_fn(path), path, x, times)
    a, s = float(path.signal(times[-1])), float(path.noise(times[-1]))
    assert abs(float(jnp.std(found)) / s - 1.0) < 4 * STANDARD_ERROR
    assert abs(float(jnp.mean(found)) - 0.7 * a) < 4 * s / np.sqrt(COUNT)


def test_on_a_preserving_path_ancestral_steps_are_those_of_ddpm(x64):
    schedule = diffusion_process.linear_schedule(100, dtype=np.float64)
    path = schedule.path()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 1)))
    t, s = jnp.array(80.0), jnp.array(55.0)
    mixture = Mixture([[-1.0], [0.6]], [0.4, 0.6], 0.3)
    found = sde.ancestral(jax.random.key(3), mixture.predict_fn(path), path, x, jnp.stack([t, s]))
    expected = ddpm.ancestral_step(
        jax.random.fold_in(jax.random.key(3), 0),
        x,
        mixture.predict_fn(path)(x, jnp.full(5, t)),
        schedule.at(55),
        schedule.at(80),
        variance_fn=diffusion_process.posterior_variance,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_predictor_corrector_returns_the_data(name):
    path = PATHS[name]
    grid = time_grids.uniform if name == "vp" else time_grids.uniform_log_snr
    wide = Mixture([np.zeros(8)], [1.0], 1.0)
    last = jnp.asarray(path.range[1])
    scale = jnp.sqrt(path.signal(last) ** 2 + path.noise(last) ** 2)
    x = scale * jax.random.normal(jax.random.key(1), (3000, 8))
    run = jax.jit(lambda key, x: sde.predictor_corrector(key, wide.predict_fn(path), path, x, grid(path, 301)))
    # Both steps leave the variance a little too large.
    assert abs(float(jnp.std(run(jax.random.key(0, impl="rbg"), x))) - 1.0) < 0.05


def test_a_corrector_moves_the_variance_towards_that_of_a_wrong_score():
    # A score 1.3 times too large is the score of a variance 1.3 times too small.
    path = PATHS["ve"]
    exact = Mixture([np.zeros(8)], [1.0], 1.0).predict_fn(path)

    def wrong(x, t):
        pair = exact(x, t)
        return pair._replace(eps=1.3 * pair.eps)

    times = time_grids.uniform_log_snr(path, 61)
    x = 50.0 * jax.random.normal(jax.random.key(1), (1500, 8))

    def end_std(predict_fn, steps):
        key = jax.random.key(0, impl="rbg")
        return float(jnp.std(sde.predictor_corrector(key, predict_fn, path, x, times, corrector_steps=steps)))

    right, uncorrected, corrected = end_std(exact, 4), end_std(wrong, 1), end_std(wrong, 4)
    assert abs(right - 1.0) < 0.1
    assert corrected < 0.97 * right
    assert uncorrected < right


def test_a_sample_does_not_depend_on_its_neighbours():
    path = PATHS["ve"]
    mixture, times = Mixture([[-1.0, 0.0], [0.6, 1.0]], [0.4, 0.6], 0.3), time_grids.uniform_log_snr(PATHS["ve"], 21)
    x = 50.0 * jax.random.normal(jax.random.key(1), (6, 2))
    # The noise is drawn for the batch, so the neighbours are replaced, not removed.
    other = x.at[3:].multiply(7.0)
    for method in (
        functools.partial(sde.predictor_corrector, corrector_steps=2),
        sde.euler_maruyama,
        functools.partial(sde.annealed_langevin, steps_per_time=3),
    ):
        one, two = (method(jax.random.key(0), mixture.predict_fn(path), path, start, times) for start in (x, other))
        np.testing.assert_allclose(one[:3], two[:3], rtol=1e-6)
        assert np.any(one[3:] != two[3:])


@pytest.mark.parametrize("step_size", [0.2, 1.0])
def test_langevin_at_one_time_has_the_variance_of_its_step(step_size):
    # Data at a point: p_s is N(0, s^2), and a step of k s^2 leaves the variance s^2 / (1 - k / 4).
    path, point = PATHS["ve"], Mixture([[0.0]], [1.0], 1e-5)
    t = path.time_at_log_snr(jnp.array([0.0]))
    x = float(path.noise(t[0])) * jax.random.normal(jax.random.key(1), (COUNT, 1))
    run = jax.jit(
        lambda key, x: sde.annealed_langevin(
            key, point.predict_fn(path), path, x, t, steps_per_time=100, step_size=step_size
        )
    )
    variance = float(jnp.var(run(jax.random.key(0, impl="rbg"), x)) / path.noise(t[0]) ** 2)
    expected = 1 / (1 - step_size / 4)
    assert abs(variance - expected) < 4 * expected * np.sqrt(2 / COUNT)


def test_annealed_langevin_finds_both_modes_of_a_mixture():
    path, mixture = PATHS["ve"], Mixture([[-2.0], [1.5]], [0.3, 0.7], 0.2)
    x = 50.0 * jax.random.normal(jax.random.key(1), (4000, 1))
    run = jax.jit(
        lambda key, x: sde.annealed_langevin(
            key, mixture.predict_fn(path), path, x, time_grids.uniform_log_snr(path, 60), steps_per_time=20
        )
    )
    found = np.asarray(run(jax.random.key(0, impl="rbg"), x))[:, 0]
    assert abs(np.mean(found < -0.2) - 0.3) < 4 * np.sqrt(0.21 / 4000) + 0.02
    assert abs(np.std(found[found > -0.2]) - 0.2) < 0.02


def test_settings_out_of_range_are_refused():
    path, x = PATHS["ve"], jnp.ones((2, 1))
    call = (jax.random.key(0), NORMAL.predict_fn(path), path, x, time_grids.uniform(path, 3))
    for settings in ({"snr": 0.0}, {"corrector_steps": 0}):
        with pytest.raises(ValueError, match="corrector"):
            sde.predictor_corrector(*call, **settings)
    for step_size in (0.0, 4.0):
        with pytest.raises(ValueError, match="Langevin step"):
            sde.annealed_langevin(*call, step_size=step_size)
