"""No key draws twice: two draws from one key are equal or correlated, and no test of means notices it.

JAX's own checker follows every key through a function, while the function is traced: a key that is drawn from, or
split, must not be used again. Numbers folded into a key give new keys, which it does not compare.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import (
    adversarial_objectives,
    autoregressive,
    autoregressive_networks,
    decoder_likelihoods,
    diffusion,
    diffusion_space,
    flow,
    gan,
    latent_diffusion,
    quantizers,
    vae,
    vq_vae,
)
from gm_jax.networks import made, wavenet
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
from gm_jax.networks.mlp import MLP, MLPDecoder, MLPEncoder
from gm_jax.networks.nice import NICE
from gm_jax.networks.normalization import WithReferenceBatch
from gm_jax.ops import binarization, diffusion_process
from gm_jax.samplers.ddpm import ancestral

B, CLASSES = 4, 3
KEY = jax.random.key(0)


def binarize(key, x):
    return binarization.dynamic(x, jax.random.uniform(key, x.shape), levels=17)


def vae_of(objective):
    return vae.VAE(
        encoder=MLPEncoder((6,), 2),
        decoder=MLPDecoder((6,), (4, 4, 1)),
        likelihood=decoder_likelihoods.bernoulli(binarize, levels=17),
        latent_dim=2,
        objective=objective,
        num_importance_samples=3,
    )


class DrawnAtOnce(autoregressive.Autoregressive):
    """Draws all dimensions at once: the vmapped loop over dimensions transposes its keys, which looks like a use."""

    def generate(self, params, key, n, label, k, *, prefix=None, temperature=None):
        return jax.random.bernoulli(key, 0.5, (n, self.num_dims)).astype(jnp.int32)


def made_with_labels():
    orders = np.stack([np.arange(16), np.arange(16)[::-1]])
    module = made.MADE(16, (8,), CLASSES)
    return DrawnAtOnce(
        network=autoregressive_networks.masked_network(module, made.mask_sets(orders, (8,)), orders),
        likelihood=autoregressive_networks.bernoulli(binarize, levels=17),
        shape=(4, 4, 1),
        num_classes=CLASSES,
    )


def wavenet_of_logistics():
    network = wavenet.WaveNet(levels=17, outputs_per_dim=6, features=4, skip=4, dilations=(1,), num_classes=CLASSES)
    return autoregressive.Autoregressive(
        network=autoregressive_networks.sequence_network(network, length=16),
        likelihood=autoregressive_networks.discretized_logistic_mixture(levels=17),
        shape=(4, 4, 1),
        num_classes=CLASSES,
    )


def nice():
    dequantization = flow.uniform_dequantization(levels=17)
    return flow.Flow(network=NICE((4, 4, 1), (6,)), prior=flow.standard_logistic(), dequantization=dequantization)


def diffusion_of(shape, space, *, num_classes):
    schedule, variance_fn = diffusion_process.cosine_schedule(20), diffusion_process.posterior_variance
    return diffusion.Diffusion(
        network=DiffusionMLP(8, 1, None if num_classes is None else num_classes + 1, dropout=0.1),
        space=space,
        schedule=schedule,
        shape=shape,
        parameterization=diffusion.v_prediction(),
        sampler=ancestral(schedule, 5, variance_fn=variance_fn),
        variance_fn=variance_fn,
        num_bound_terms=3,
        num_classes=num_classes,
    )


def wgan():
    return gan.GAN(
        generator=WithReferenceBatch(functools.partial(MLPGenerator, (6,), (4, 4, 1), output_activation=jnp.tanh)),
        discriminator=MLPDiscriminator((6,)),
        losses=adversarial_objectives.wasserstein(),
        scaling=gan.images(levels=17),
        latent_dim=2,
        penalties={
            "gradient_penalty": adversarial_objectives.gradient_penalty(weight=1.0),
            "r1": adversarial_objectives.r1_penalty(weight=1.0),
        },
    )


def latent():
    prior = diffusion_of((2,), diffusion_space.points(), num_classes=None)
    return latent_diffusion.LatentDiffusion(
        autoencoder=vae_of(vae.elbo_objective()), prior=prior, levels=17, vae_steps=2
    )


class FlatEncoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return MLP((6,), 4)(x.reshape(len(x), -1))


def vector_quantized():
    module = wavenet.WaveNet(levels=6, outputs_per_dim=6, features=4, skip=4, dilations=(1,), num_classes=CLASSES)
    prior = autoregressive.Autoregressive(
        network=autoregressive_networks.sequence_network(module, length=2),
        likelihood=autoregressive_networks.codes(num_codes=6),
        shape=(2,),
        num_classes=CLASSES,
    )
    return vq_vae.VQVAE(
        encoder=FlatEncoder(),
        decoder=MLPDecoder((6,), (4, 4, 1)),
        likelihood=decoder_likelihoods.bernoulli(binarize, levels=17),
        quantizer=quantizers.EMACodebook(num_codes=6, dim=2),
        prior=prior,
        vae_steps=2,
    )


FAMILIES = {
    "vae": lambda: vae_of(vae.elbo_objective(num_samples=2)),
    "iwae": lambda: vae_of(vae.iwae_objective(num_samples=3)),
    "resampled iwae": lambda: vae_of(vae.resampled_iwae_objective(num_samples=3)),
    "made": made_with_labels,
    "wavenet": wavenet_of_logistics,
    "nice": nice,
    "diffusion": lambda: diffusion_of((4, 4, 1), diffusion_space.pixels(levels=17), num_classes=CLASSES),
    "wgan": wgan,
    "latent diffusion": latent,
    "vq-vae": vector_quantized,
}


def trace(function, *args):
    with jax.debug_key_reuse(True):
        return jax.eval_shape(jax.jit(function), *args)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_key_draws_twice(name):
    model = FAMILIES[name]().model
    batch = {"x": jax.ShapeDtypeStruct((B, 4, 4, 1), np.uint8), "label": jax.ShapeDtypeStruct((B,), np.int32)}
    params, model_state = trace(model.init, KEY, batch)
    for objective in model.objectives:
        # Latent diffusion prepares an example twice with one key, so that both preparations are the same.
        if (name, objective.wrt) != ("latent diffusion", "vae"):
            trace(objective.loss, params, model_state, KEY, batch)
    trace(lambda *args: model.sample(*args, B), params, model_state, KEY)
    if model.log_prob is not None and name != "latent diffusion":
        trace(model.log_prob, params, model_state, KEY, batch["x"])


def test_the_checker_finds_a_key_that_draws_twice():
    def twice(key):
        prepare_key, noise_key = jax.random.split(key)
        return jax.random.normal(noise_key, (2,)) + jax.random.uniform(key, (2,)) + jax.random.normal(prepare_key, (2,))

    with pytest.raises(jax.errors.KeyReuseError):
        trace(twice, KEY)
