"""The terms of VQ-VAE: what each of them moves, and what it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import losses
from gm_jax.ops import quantization

RNG = np.random.default_rng(0)
Z, E = (jnp.float32(RNG.normal(size=(4, 3, 2))) for _ in range(2))


@pytest.mark.parametrize("loss", [losses.codebook_loss, losses.commitment_loss])
def test_both_are_the_squared_distance_and_0_of_equal_vectors(loss):
    np.testing.assert_allclose(loss(Z, E), np.sum((np.asarray(Z) - np.asarray(E)) ** 2, axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(loss(Z, Z), np.zeros(4))
    np.testing.assert_allclose(loss(1e4 * Z, 0 * E), 1e8 * loss(Z, 0 * E), rtol=1e-5)


def test_the_codebook_loss_moves_the_codes_alone_and_the_commitment_the_encoder_alone():
    def gradients(loss):
        return jax.grad(lambda z, e: jnp.sum(loss(z, e)), argnums=(0, 1))(Z, E)

    at_z, at_e = gradients(losses.codebook_loss)
    np.testing.assert_array_equal(at_z, np.zeros_like(Z))
    np.testing.assert_allclose(at_e, 2 * (E - Z), rtol=1e-6)
    at_z, at_e = gradients(losses.commitment_loss)
    np.testing.assert_allclose(at_z, 2 * (Z - E), rtol=1e-6)
    np.testing.assert_array_equal(at_e, np.zeros_like(E))


def test_the_commitment_of_a_straight_through_value_is_that_of_its_code():
    def loss(z):
        return jnp.sum(losses.commitment_loss(z, quantization.straight_through(z, E)))

    np.testing.assert_allclose(jax.grad(loss)(Z), 2 * (Z - E), rtol=1e-6)


def test_shapes_that_would_broadcast_are_refused():
    for loss in (losses.codebook_loss, losses.commitment_loss):
        with pytest.raises(AssertionError):
            loss(jnp.ones((3, 2)), jnp.ones((3, 1)))
