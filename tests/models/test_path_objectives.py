"""What a network predicts on a path: the true output has no loss, and gives the true pair."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.models import path_objectives
from gm_jax.ops import predictions
from tests.gaussian_mixture import PATHS, log_snr

RNG = np.random.default_rng(0)
each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
KINDS = {
    "noise": (path_objectives.noise_prediction(), lambda path, x_0, eps, t: eps),
    "data": (path_objectives.data_prediction(), lambda path, x_0, eps, t: x_0),
    "velocity": (path_objectives.velocity_prediction(), lambda path, x_0, eps, t: path.velocity(x_0, eps, t)),
    "preconditioned": (
        path_objectives.preconditioned_prediction(sigma_data=0.5),
        lambda path, x_0, eps, t: predictions.preconditioned_target(
            x_0, eps, path.signal(t), path.noise(t), sigma_data=0.5
        ),
    ),
}


@each_path
@pytest.mark.parametrize("kind", KINDS)
def test_the_true_output_has_no_loss_and_gives_the_true_pair(path, kind, x64):
    parameterization, target_fn = KINDS[kind]
    first, last = path.range
    t = jnp.asarray(first + (last - first) * RNG.uniform(0.1, 0.9, size=4))
    x_0, eps, other = (jnp.asarray(RNG.normal(size=(4, 3))) for _ in range(3))
    x_t = predictions.diffuse(x_0, eps, path.signal(t), path.noise(t))
    target = target_fn(path, x_0, eps, t)
    pair = parameterization.predict(path, x_t, target, t)
    np.testing.assert_allclose(pair.x_0, x_0, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(pair.eps, eps, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(parameterization.loss(path, x_0, eps, target, t), np.zeros(4), atol=1e-8)
    expected = np.sum((np.asarray(target) - np.asarray(other)) ** 2, axis=1)
    np.testing.assert_allclose(parameterization.loss(path, x_0, eps, other, t), expected, rtol=1e-6)


@each_path
def test_times_are_drawn_with_the_density_of_their_name(path, x64):
    uniform = jnp.asarray(np.linspace(0.05, 0.95, 19))
    first, last = path.range
    np.testing.assert_allclose(
        path_objectives.uniform_times(path, uniform), first + (last - first) * uniform, rtol=1e-12
    )
    found = log_snr(path, path_objectives.log_snr_times(path, uniform))
    np.testing.assert_allclose(np.diff(found, n=2), np.zeros(17), atol=1e-7)
    draw = functools.partial(path_objectives.log_normal_times, mean=-0.5, std=0.8)
    expected = -0.5 + 0.8 * stats.norm.ppf(np.asarray(uniform))
    np.testing.assert_allclose(-0.5 * log_snr(path, draw(path, uniform)), expected, rtol=1e-6, atol=1e-6)


def test_a_normal_noise_level_stays_within_the_path():
    path = PATHS["edm"]
    times = path_objectives.log_normal_times(path, jnp.array([0.0, 0.5, 1.0 - 1e-7]), mean=0.0, std=3.0)
    np.testing.assert_allclose(times, [0.002, 1.0, 80.0], rtol=1e-5)
