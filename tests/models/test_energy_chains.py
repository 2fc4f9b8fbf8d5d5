"""The chains of an energy follow their settings; energies that run apart are not a number."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models.energy_chains import Chains, divergence_alarm
from gm_jax.samplers import langevin


def energy_fn(h):
    return 50.0 * jnp.sum(jnp.square(h), axis=1)


def test_chains_run_with_their_step_size_temperature_and_largest_gradient():
    start, key = jax.random.normal(jax.random.key(0), (4, 2)), jax.random.key(1)
    found = Chains(step_size=0.03, temperature=0.5, clip_gradient=2.0).run(key, start, energy_fn, num_steps=3)
    settings = {"num_steps": 3, "step_size": 0.03, "temperature": 0.5}
    expected = langevin.langevin(key, start, energy_fn, clip_gradient=2.0, **settings)
    np.testing.assert_array_equal(found, expected)
    assert np.any(np.asarray(found) != langevin.langevin(key, start, energy_fn, **settings))


def test_the_difference_of_mean_energies_is_reported_until_it_is_too_large():
    near, far = jnp.array([1.0, 3.0]), jnp.array([-3e4, -3e4])
    np.testing.assert_allclose(divergence_alarm(near, jnp.array([5.0])), -3.0)
    assert np.isnan(divergence_alarm(near, far))
    assert np.isnan(divergence_alarm(far, near))
    assert np.isnan(divergence_alarm(near, jnp.array([jnp.nan])))
