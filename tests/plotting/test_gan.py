"""Arcs between latents of a GAN, and its pictures."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import adversarial_objectives, gan
from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
from gm_jax.plotting import gan as plotting

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.integers(0, 17, (6, 4, 4, 1)), jnp.uint8)


def model():
    return gan.GAN(
        generator=MLPGenerator((5,), (4, 4, 1), output_activation=jnp.tanh),
        discriminator=MLPDiscriminator((5,)),
        losses=adversarial_objectives.hinge(),
        scaling=gan.images(levels=17),
        latent_dim=6,
    )


def random_variables(family, batch):
    shapes = jax.eval_shape(family.init, jax.random.key(0), batch)
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), shapes)


def test_arcs_have_their_ends_equal_angles_and_keep_the_length():
    z_a, z_b = jnp.asarray(RNG.normal(size=(2, 3, 6)), jnp.float32)
    z_b = z_b * (jnp.linalg.norm(z_a, axis=1) / jnp.linalg.norm(z_b, axis=1))[:, None]
    arcs = plotting.arcs(z_a, z_b, 7)
    np.testing.assert_allclose(arcs[:, 0], z_a, atol=1e-5)
    np.testing.assert_allclose(arcs[:, -1], z_b, atol=1e-5)
    lengths = np.linalg.norm(arcs, axis=-1)
    np.testing.assert_allclose(lengths, np.repeat(lengths[:, :1], 7, axis=1), rtol=1e-4)
    units = arcs / lengths[..., None]
    angles = np.arccos(np.clip(np.sum(units[:, 1:] * units[:, :-1], axis=-1), -1, 1))
    np.testing.assert_allclose(angles, np.repeat(angles[:, :1], 6, axis=1), rtol=1e-3)


def test_arcs_between_parallel_latents_are_lines():
    z = jnp.asarray(RNG.normal(size=(2, 6)), jnp.float32)
    for end in (z, -z, 2 * z, 0 * z):
        found = plotting.arcs(z, end, 3)
        np.testing.assert_allclose(found[:, 1], (z + end) / 2, atol=1e-5)


def test_pictures_of_a_gan_show_ten_arcs():
    family = model()
    params, state = random_variables(family, {"x": X})
    grid = plotting.grids(family, (4, 4, 1))["interpolations"](params, state, jax.random.key(0), X)
    assert grid.examples.shape == (10, 10, 4, 4, 1)
    z_a, z_b = jax.random.normal(jax.random.key(0), (2, 10, 6))
    np.testing.assert_array_equal(grid.examples[:, 0], family.generate(params, state, z_a))
    # The ends of arcs are exact up to rounding, which may move a level by one.
    assert (
        np.abs(grid.examples[:, -1].astype(int) - np.asarray(family.generate(params, state, z_b)).astype(int)).max()
        <= 1
    )
    assert plotting.grids(family, (2,)) == {}
