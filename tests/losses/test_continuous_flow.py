"""Densities by the ODE against a mixture whose marginals are known on every path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.losses import continuous_flow
from tests.gaussian_mixture import PATHS, Mixture

RNG = np.random.default_rng(0)
MIXTURE = Mixture([[-1.0, 0.3], [0.6, -0.5]], [0.4, 0.6], 0.4)
X = np.array([[-1.3, 0.2], [0.0, 0.0], [0.5, -0.4], [1.5, 1.0], [0.7, -1.6], [-0.6, -0.3], [-1.0, 1.2]])


def ends(path):
    """(a, s) at both ends of a path."""
    return [(path.signal(jnp.asarray(t)), path.noise(jnp.asarray(t))) for t in path.range]


def by_ode(path, x, *, probe=None, tolerance=1e-8):
    predict_fn = MIXTURE.predict_fn(path)
    return continuous_flow.continuous_flow_log_prob(
        lambda x, t: path.velocity(*predict_fn(x, jnp.full(x.shape[:1], t)), t),
        lambda z: MIXTURE.log_prob(z, *ends(path)[1]),
        x,
        probe,
        times=path.range,
        rtol=tolerance,
        atol=tolerance,
    )


@pytest.mark.parametrize("name", PATHS)
def test_the_density_by_the_ode_is_that_of_the_mixture_on_every_path(name, x64):
    # The exact density at the last time: a standard normal in its place is off by up to 0.02 nats.
    path = PATHS[name]
    found = jax.jit(by_ode, static_argnums=0)(path, jnp.asarray(X))
    np.testing.assert_allclose(found, MIXTURE.log_prob(jnp.asarray(X), *ends(path)[0]), atol=1e-5)


def test_the_density_integrates_to_one():
    path = PATHS["edm"]._replace(range=(0.01, 20.0))
    side = jnp.linspace(-4.0, 4.0, 41)
    grid = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density = jnp.exp(jax.jit(lambda x: by_ode(path, x, tolerance=1e-5))(grid))
    assert abs(float(jnp.sum(density)) * 0.2**2 - 1.0) < 1e-3


def test_a_density_does_not_depend_on_its_neighbours(x64):
    path, x = PATHS["vp"], jnp.asarray(X)
    together = by_ode(path, x, tolerance=1e-4)
    np.testing.assert_allclose(together[2:3], by_ode(path, x[2:3], tolerance=1e-4), rtol=1e-9)


def test_the_mean_over_all_sign_probes_is_the_exact_divergence(x64):
    # In two dimensions there are four: for each of them the path of x is the same.
    path, x = PATHS["linear"], jnp.asarray(X)
    signs = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    probes = jnp.broadcast_to(signs[:, None], (4, *x.shape))
    found = jax.vmap(lambda probe: by_ode(path, x, probe=probe))(probes)
    np.testing.assert_allclose(jnp.mean(found, axis=0), by_ode(path, x), atol=1e-6)
    assert float(jnp.abs(found[0] - by_ode(path, x)).max()) > 1e-3


def test_the_standard_error_is_that_of_the_mean_over_the_probes(x64):
    # u = M x is linear: v' M v is constant along the flow, so that the errors are known.
    matrix, x = jnp.asarray(RNG.normal(size=(3, 3))), jnp.asarray(RNG.normal(size=(4, 3)))
    probes = jnp.asarray(np.sign(RNG.normal(size=(5, 4, 3))))

    def log_prob(probe):
        return continuous_flow.continuous_flow_log_prob(
            lambda x, t: x @ matrix.T, lambda z: 0.0 * z[:, 0], x, probe, times=(0.0, 2.0)
        )

    found = continuous_flow.standard_error_of_probes(jax.vmap(log_prob)(probes))
    each = 2.0 * np.einsum("kbi,ij,kbj->kb", probes, matrix, probes)
    np.testing.assert_allclose(found, np.std(each, axis=0, ddof=1) / np.sqrt(5), rtol=1e-6)


def test_one_probe_and_other_shapes_have_no_standard_error():
    with pytest.raises(ValueError, match="one probe has no standard error"):
        continuous_flow.standard_error_of_probes(jnp.ones((1, 4)))
    for bad in (jnp.ones(4), jnp.ones((2, 4), jnp.int32)):
        with pytest.raises(AssertionError):
            continuous_flow.standard_error_of_probes(bad)


def test_an_exact_divergence_of_images_and_probes_of_another_shape_are_refused():
    call = (lambda x, t: x, lambda z: z[:, 0, 0])
    with pytest.raises(ValueError, match="784 dimensions"):
        continuous_flow.continuous_flow_log_prob(*call, jnp.ones((2, 28, 28)), None, times=(0.0, 1.0))
    with pytest.raises(AssertionError):
        continuous_flow.continuous_flow_log_prob(*call, jnp.ones((2, 3, 3)), jnp.ones((2, 9)), times=(0.0, 1.0))
