"""Grids of times against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import gaussian_path
from gm_jax.samplers import time_grids
from tests.gaussian_mixture import PATHS, log_snr

each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
GRIDS = {
    "uniform": time_grids.uniform,
    "trailing": time_grids.trailing,
    "uniform_log_snr": time_grids.uniform_log_snr,
    "karras": time_grids.karras,
}


@each_path
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_falls_from_the_last_time(path, name):
    times = np.asarray(GRIDS[name](path, 12))
    assert times.shape == (12,)
    assert np.all(np.diff(times) < 0)
    first, last = path.range
    np.testing.assert_allclose(times[0], last, rtol=1e-7)
    end = last - (last - first) * 11 / 12 if name == "trailing" else first
    np.testing.assert_allclose(times[-1], end, rtol=1e-5)


@each_path
def test_steps_are_equal_in_what_the_name_says(path, x64):
    np.testing.assert_allclose(np.diff(time_grids.uniform(path, 9), n=2), np.zeros(7), atol=1e-12)
    np.testing.assert_allclose(np.diff(time_grids.trailing(path, 9), n=2), np.zeros(7), atol=1e-12)
    found = log_snr(path, time_grids.uniform_log_snr(path, 9))
    np.testing.assert_allclose(np.diff(found, n=2), np.zeros(7), atol=1e-8)


@each_path
def test_roots_of_sigma_have_equal_steps_on_every_path(path, x64):
    for rho in (3.0, 7.0):
        sigma = np.exp(-0.5 * log_snr(path, time_grids.karras(path, 9, rho=rho)))
        np.testing.assert_allclose(np.diff(sigma ** (1 / rho), n=2), np.zeros(7), atol=1e-9)


def test_the_grid_of_edm_is_the_papers(x64):
    # Karras et al., eq. 5, with N = 18, rho = 7, sigma from 80 to 0.002.
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(time_grids.karras(gaussian_path.edm(), 18), expected, rtol=1e-10)


def test_grids_are_numbers_also_inside_a_compiled_function():
    path = gaussian_path.variance_preserving()
    inside = jax.jit(lambda scale: scale * time_grids.karras(path, 7))(1.0)
    np.testing.assert_allclose(inside, time_grids.karras(path, 7), rtol=1e-6)


def test_a_path_without_signal_or_noise_has_no_grid_in_log_snr():
    for make in (time_grids.uniform_log_snr, time_grids.karras):
        with pytest.raises(ValueError, match="narrow its range"):
            make(gaussian_path.linear(), 10)
    assert np.all(np.isfinite(time_grids.uniform(gaussian_path.linear(), 10)))


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_without_steps_is_refused(name):
    with pytest.raises(ValueError, match="at least"):
        GRIDS[name](gaussian_path.edm(), 0 if name == "trailing" else 1)
    assert jnp.shape(time_grids.trailing(gaussian_path.edm(), 1)) == (1,)
