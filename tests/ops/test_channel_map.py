import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.ops import bijectors, channel_map


def test_a_channel_map_is_actnorm_and_then_the_convolution_and_its_inverse_is_theirs(x64):
    rng = np.random.default_rng(0)
    shift, log_scale = rng.normal(size=(2, 5))
    factors = bijectors.lu_factors(jnp.asarray(rng.normal(size=(5, 5))))
    x = rng.normal(size=(4, 3, 2, 5))
    z, log_det = bijectors.actnorm(x, shift, log_scale)
    z, more = bijectors.invertible_conv(z, factors)
    found, found_log_det = channel_map.apply(x, channel_map.channel_map(shift, log_scale, factors))
    np.testing.assert_allclose(found, z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found_log_det, log_det + more, rtol=1e-12)
    assert found_log_det.shape == (4,)
    assert np.abs(found_log_det).min() > 0.1
    back, back_log_det = channel_map.apply(z, channel_map.channel_map_inverse(shift, log_scale, factors))
    np.testing.assert_allclose(back, x, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(back_log_det, -found_log_det, rtol=1e-12)


def test_the_log_determinant_is_that_of_the_jacobian(x64):
    rng = np.random.default_rng(1)
    channels = channel_map.channel_map(
        *rng.normal(size=(2, 3)), bijectors.lu_factors(jnp.asarray(rng.normal(size=(3, 3))))
    )
    x = rng.normal(size=(1, 2, 3))
    jacobian = jax.jacobian(lambda x: channel_map.apply(x[None], channels)[0][0])(x[0])
    expected = np.linalg.slogdet(jacobian.reshape(6, 6))[1]
    np.testing.assert_allclose(channel_map.apply(x, channels)[1], [expected], rtol=1e-10)
