"""Pictures of models of classes: the same latents in every class."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import adversarial_objectives, decoder_likelihoods, gan, vae
from gm_jax.models.conditional_gan import ConditionalGAN
from gm_jax.models.conditional_vae import ConditionalVAE
from gm_jax.networks.class_conditional import LabelledInput, ProjectionDiscriminator
from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
from gm_jax.networks.mlp import MLPDecoder, MLPEncoder
from gm_jax.ops import binarization
from gm_jax.plotting import class_conditional

RNG = np.random.default_rng(0)
BATCH = {"x": jnp.asarray(RNG.integers(0, 2, (6, 4, 4, 1)), jnp.uint8), "label": jnp.arange(6) % 3}


def random_variables(family):
    shapes = jax.eval_shape(family.init, jax.random.key(0), BATCH)
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), shapes)


def test_classes_of_a_gan_have_the_same_latents():
    inner = gan.GAN(
        generator=LabelledInput(MLPGenerator((5,), (4, 4, 1), output_activation=jnp.tanh), 3),
        discriminator=ProjectionDiscriminator(MLPDiscriminator((5,)), 3),
        losses=adversarial_objectives.hinge(),
        scaling=gan.images(levels=17),
        latent_dim=6,
    )
    family = ConditionalGAN(gan=inner, num_classes=3)
    params, state = random_variables(family)
    grids = class_conditional.grids_of_gan(family, (4, 4, 1))
    found = grids["classes"](params, state, jax.random.key(0), BATCH["x"])
    z = jax.random.normal(jax.random.key(0), (10, 6))
    for y in range(3):
        np.testing.assert_array_equal(found.examples[y], family.generate(params, state, z, jnp.full(10, y)))
    assert found.rows == ("y = 0", "y = 1", "y = 2")
    lines = grids["interpolations"](params, state, jax.random.key(0), BATCH["x"])
    assert lines.examples.shape == (3, 10, 4, 4, 1)
    assert class_conditional.grids_of_gan(family, (2,)) == {}


def test_classes_of_a_vae_have_the_same_latents():
    inner = vae.VAE(
        encoder=LabelledInput(MLPEncoder((5,), 2), 3, flat=True),
        decoder=LabelledInput(MLPDecoder((5,), (4, 4, 1)), 3),
        likelihood=decoder_likelihoods.bernoulli(lambda key, x: binarization.static(x), levels=2),
        latent_dim=2,
        objective=vae.elbo_objective(),
    )
    family = ConditionalVAE(vae=inner, num_classes=3)
    params, state = random_variables(family)
    found = class_conditional.grids_of_vae(family, (4, 4, 1))["classes"](params, state, jax.random.key(0), BATCH["x"])
    z = jax.random.normal(jax.random.key(0), (10, 2))
    for y in range(3):
        np.testing.assert_allclose(found.examples[y], family.decode(params, z, jnp.full(10, y)), rtol=1e-5)
    assert class_conditional.grids_of_vae(family, (2,)) == {}
