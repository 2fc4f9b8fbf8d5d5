"""Adds an adversarial term to a VAE's ELBO, in a train step of your own: losses are functions of arrays.

python examples/vae_gan.py
"""

import jax
import jax.numpy as jnp
import optax

from gm_jax.data import pipeline, sources
from gm_jax.losses import combine, gan, vae
from gm_jax.networks.gan_mlp import MLPDiscriminator
from gm_jax.networks.mlp import MLPDecoder, MLPEncoder

digits = sources.load("binarized_digits")
encoder, decoder, discriminator = MLPEncoder((64,), 8), MLPDecoder((64,), (8, 8, 1)), MLPDiscriminator((64,))
keys, example = jax.random.split(jax.random.key(0), 3), jnp.zeros((1, 8, 8, 1))
params = {
    "vae": {"encoder": encoder.init(keys[0], example), "decoder": decoder.init(keys[1], jnp.zeros((1, 8)))},
    "discriminator": discriminator.init(keys[2], example, train=True),
}


def vae_loss(own, other, x, eps, z):
    """The negative ELBO, and a weighted non-saturating loss of decoded prior samples."""
    mean, log_var = encoder.apply(own["encoder"], x)
    logits = decoder.apply(own["decoder"], vae.reparameterize(mean, log_var, eps=eps))
    fake = jax.nn.sigmoid(decoder.apply(own["decoder"], z))
    fool = gan.non_saturating_generator_loss(discriminator.apply(other, fake, train=True)[0])
    terms = {"nll": vae.bernoulli_nll(x, logits), "kl": vae.normal_kl_to_standard(mean, log_var), "fool": fool}
    return combine.weighted_sum(terms, fool=0.5).mean()


def discriminator_loss(own, other, x, z):
    """The cross-entropy of data and decoded prior samples."""
    fake = jax.nn.sigmoid(decoder.apply(other["decoder"], z))
    real_logits, fake_logits = (discriminator.apply(own, images, train=True)[0] for images in (x, fake))
    return gan.discriminator_loss(real_logits, fake_logits).mean()


optimizer = optax.adam(1e-3)


@jax.jit
def train_step(params, moments, x, key):
    """Updates both players; each gradient is of one player's parameters alone."""
    eps, z = jax.random.normal(key, (2, len(x), 8))
    losses, gradients = {}, {}
    for player, other, loss, noise in (
        ("vae", "discriminator", vae_loss, (eps, z)),
        ("discriminator", "vae", discriminator_loss, (z,)),
    ):
        losses[player], gradients[player] = jax.value_and_grad(loss)(params[player], params[other], x, *noise)
    updates, moments = optimizer.update(gradients, moments, params)
    return optax.apply_updates(params, updates), moments, losses


moments = optimizer.init(params)
for k in range(500):
    batch = pipeline.train_batch(digits.splits["train"], 128, seed=0, step=k)
    x = jnp.asarray(batch["x"], jnp.float32)
    params, moments, losses = train_step(params, moments, x, jax.random.fold_in(jax.random.key(1), k))
print({player: round(float(loss), 3) for player, loss in losses.items()})
