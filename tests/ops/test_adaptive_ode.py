"""Adaptive solutions against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import adaptive_ode


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (2.0, 0.5)])
def test_a_linear_equation_is_solved_in_both_directions(start, end, x64):
    y = {"x": jnp.array([1.0, -2.0]), "time": jnp.array(start)}
    found = adaptive_ode.solve(
        lambda y, t: {"x": -t * y["x"], "time": jnp.ones_like(t)}, y, start=start, end=end, rtol=1e-10, atol=1e-10
    )
    np.testing.assert_allclose(found["x"], np.array([1.0, -2.0]) * np.exp((start**2 - end**2) / 2), rtol=1e-8)
    np.testing.assert_allclose(found["time"], end, rtol=1e-10)


def test_a_velocity_like_one_over_the_root_of_time_is_solved_down_to_its_pole(x64):
    found = adaptive_ode.solve(
        lambda y, t: 0.5 / jnp.sqrt(t + 1e-300), jnp.zeros(()), start=1e-9, end=1.0, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(found, 1.0 - np.sqrt(1e-9), rtol=1e-7)


def test_the_field_is_never_asked_beyond_the_two_times(x64):
    def field(y, t):
        return jnp.where((t >= 1.0) & (t <= 3.0), jnp.sin(t), jnp.nan)

    found = adaptive_ode.solve(field, jnp.zeros(()), start=3.0, end=1.0, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found, np.cos(3.0) - np.cos(1.0), rtol=1e-7)


@pytest.mark.parametrize("tolerances", [{"rtol": 0.0}, {"atol": -1.0}])
def test_a_tolerance_of_zero_is_refused(tolerances):
    with pytest.raises(ValueError, match="above 0"):
        adaptive_ode.solve(lambda y, t: y, jnp.zeros(()), start=0.0, end=1.0, **tolerances)
