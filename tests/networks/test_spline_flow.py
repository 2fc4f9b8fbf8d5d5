import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.spline_flow import SplineFlow


# Without and with linear maps in the blocks.
@pytest.mark.parametrize("dim", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_log_determinants_equal_autodiff_and_both_directions_are_inverse(check_flow, dim):
    found = check_flow(SplineFlow((dim,), (6,), 2, num_bins=5), (dim,))
    assert ("fixed" in found.variables) == (dim > 2)
    assert np.ptp(found.log_det) > 1e-3


def test_a_deep_chain_is_invertible_in_float32(check_deep_chain):
    check_deep_chain(SplineFlow((2,), (8,), 16), (2,), scale=0.1)


def test_a_pixel_black_in_the_first_batch_may_be_lit_later(distance_of_a_lit_pixel):
    assert 1.0 < distance_of_a_lit_pixel(SplineFlow((4, 4, 1), (4,), 3, num_bins=5)) < 5.0


def test_couplings_are_the_identity_outside_the_interval_of_the_splines(random_variables, x64):
    x = np.array([[40.0, -50.0], [-45.0, 60.0]])
    module = SplineFlow((2,), (6,), 1, num_bins=5)
    variables = random_variables(module, x)
    z, log_det = module.apply(variables, x, method="forward")
    actnorm = variables["params"]["layers"]["layer"]["layers_0"]
    log_scale, shift = actnorm["log_scale"][0], actnorm["shift"][0]
    np.testing.assert_allclose(z, x * np.exp(log_scale)[None] + shift[None], rtol=1e-12)
    np.testing.assert_allclose(log_det, np.full(2, log_scale.sum()), rtol=1e-12)


def test_init_standardises_its_batch():
    x = 5.0 * jax.random.normal(jax.random.key(0), (64, 3)) + jnp.array([[1.0, -20.0, 300.0]])
    module = SplineFlow((3,), (6,), 3, num_bins=5)
    variables = jax.jit(lambda x: module.init(jax.random.key(1), x, method="forward"))(x)
    z, _ = jax.jit(lambda x: module.apply(variables, x, method="forward"))(x)
    # The couplings start as the identity, and the last linear map as a rotation, which keeps the total variance.
    np.testing.assert_allclose(jnp.mean(z, axis=0), np.zeros(3), atol=1e-4)
    np.testing.assert_allclose(jnp.sum(jnp.var(z, axis=0)), 3.0, rtol=1e-3)
