import jax
import numpy as np
import pytest

from gm_jax.networks.nice import NICE


@pytest.mark.parametrize("shape", [(5,), (2, 3, 1)])  # odd number of dimensions; image
def test_log_determinants_equal_autodiff_and_both_directions_are_inverse(check_flow, shape):
    found = check_flow(NICE(shape, (7,)), shape)
    log_scale = found.variables["params"]["scaling"]["log_scale"]
    assert found.z.shape == (3, log_scale.size)
    # Only the scaling changes the volume, by the same factor everywhere.
    np.testing.assert_allclose(found.log_det, np.full(3, log_scale.sum()), rtol=1e-12)


def test_without_the_scaling_the_volume_is_preserved(random_variables, x64):
    x, module = np.random.default_rng(1).normal(size=(4, 6)), NICE((6,), (7,))
    variables = random_variables(module, x)
    variables["params"]["scaling"]["log_scale"] *= 0.0
    np.testing.assert_array_equal(module.apply(variables, x, method="forward")[1], np.zeros(4))


def test_three_couplings_but_not_two_connect_all_dimensions(check_flow):
    assert np.all(check_flow(NICE((4,), (16,), couplings=3), (4,)).jacobian.any(axis=0))
    assert not np.all(check_flow(NICE((4,), (16,), couplings=2), (4,)).jacobian.any(axis=0))


def test_init_scales_each_dimension_of_the_two_halves_to_variance_1():
    x = 3.0 * np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    x[:, 3] = 7.0  # constant, but its scale stays finite
    module = NICE((6,), (4,))
    variables = module.init(jax.random.key(0), x, method="forward")
    # Conditioners end in zeros, so z starts as the scaled x.
    expected = (x / np.maximum(x.std(axis=0), 0.03)[None])[:, [1, 3, 5, 0, 2, 4]]
    np.testing.assert_allclose(module.apply(variables, x, method="forward")[0], expected, rtol=1e-5)


def test_init_scales_by_the_deviation_also_far_from_zero_in_float32():
    x = (1e4 + np.random.default_rng(0).normal(size=(32, 6))).astype(np.float32)
    log_scale = NICE((6,), (4,)).init(jax.random.key(0), x, method="forward")["params"]["scaling"]["log_scale"]
    expected = -np.log(x.astype(np.float64).std(axis=0))[[1, 3, 5, 0, 2, 4]]
    np.testing.assert_allclose(log_scale, expected, atol=1e-3)
