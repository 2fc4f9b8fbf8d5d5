"""Densities by the ODE of a mixture with its exact score, and what the normal prior costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import path_likelihoods
from tests.gaussian_mixture import PATHS, Mixture

MIXTURE = Mixture([[-1.0, 0.3], [0.6, -0.5]], [0.4, 0.6], 0.4)
X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), jnp.float32)
SIGNS = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def test_each_probe_has_a_density_and_their_mean_is_the_exact_one():
    path = PATHS["edm"]
    run = jax.jit(
        lambda probes: path_likelihoods.ode_log_densities(MIXTURE.predict_fn(path), path, X, probes, tolerance=1e-5)
    )
    exact, each = run(None), run(jnp.broadcast_to(SIGNS[:, None], (4, *X.shape)))
    assert (exact.shape, each.shape) == ((1, 5), (4, 5))
    first = jnp.asarray(path.range[0])
    np.testing.assert_allclose(exact[0], MIXTURE.log_prob(X, path.signal(first), path.noise(first)), atol=2e-2)
    np.testing.assert_allclose(jnp.mean(each, axis=0), exact[0], atol=1e-2)
    assert float(jnp.std(each, axis=0).max()) > 0.05


@pytest.mark.parametrize("name", PATHS)
def test_the_cost_of_the_prior_is_that_of_data_at_the_largest_value(name):
    path = PATHS[name]
    last = jnp.asarray(path.range[1])
    snr = float((path.signal(last) / path.noise(last)) ** 2)
    np.testing.assert_allclose(path_likelihoods.prior_kl(path, (3, 2), largest=0.7), 0.5 * 6 * 0.49 * snr, rtol=0.05)
