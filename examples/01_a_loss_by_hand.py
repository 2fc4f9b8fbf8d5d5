# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A loss by hand
#
# A loss of `gm_jax` is a function of arrays. Here a variational autoencoder is put together from two plain Flax
# networks, one loss and one optimiser of optax. No base class, no framework: the training loop is yours.

# %%
# On Colab, or in another fresh environment: installs gm_jax from the address of its repository.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("gm_jax") is None:
    ADDRESS = ""  # such as https://HOST/NAME/gm_jax.git
    if not ADDRESS:
        sys.exit("gm_jax is not installed: write its address above, as ADDRESS, and run this cell again.")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", f"git+{ADDRESS}"], check=True)

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from gm_jax.data import sources
from gm_jax.losses import combine, vae
from gm_jax.plotting import images

digits = sources.load("binarized_digits")  # 8x8 digits of scikit-learn, as zeros and ones
train, test = (digits.splits[split]["x"].astype(np.float32) for split in ("train", "test"))
train.shape, test.shape

# %% [markdown]
# ## Two networks
#
# Any Flax modules. The encoder returns the moments of q(z|x), the decoder the logits of p(x|z).


# %%
class Encoder(nn.Module):
    """Maps x [B, 8, 8, 1] to the mean and the log-variance of q(z|x), [B, 8] each."""

    @nn.compact
    def __call__(self, x):
        h = nn.silu(nn.Dense(128)(x.reshape(len(x), -1)))
        return nn.Dense(8)(h), nn.Dense(8)(h)


class Decoder(nn.Module):
    """Maps z [B, 8] to logits [B, 8, 8, 1]."""

    @nn.compact
    def __call__(self, z):
        return nn.Dense(64)(nn.silu(nn.Dense(128)(z))).reshape(-1, 8, 8, 1)


encoder, decoder = Encoder(), Decoder()
params = {
    "encoder": encoder.init(jax.random.key(0), train[:1]),
    "decoder": decoder.init(jax.random.key(1), jnp.zeros((1, 8))),
}

# %% [markdown]
# ## The loss
#
# Every loss takes `[B, ...]` and returns `[B]` nats. Noise is an argument. The composition is visible: `beta`
# weighs one term, and 1 gives minus the evidence lower bound.


# %%
def negative_elbo(params, x, eps, beta=1.0):
    """Returns [B] nats."""
    mean, log_var = encoder.apply(params["encoder"], x)
    logits = decoder.apply(params["decoder"], vae.reparameterize(mean, log_var, eps=eps))
    terms = {"nll": vae.bernoulli_nll(x, logits), "kl": vae.normal_kl_to_standard(mean, log_var)}
    return combine.weighted_sum(terms, kl=beta)


# %% [markdown]
# ## The loop

# %%
optimizer = optax.adam(2e-3)


@jax.jit
def update(params, moments, x, key):
    """Takes a step of Adam."""
    eps = jax.random.normal(key, (len(x), 8))
    loss, gradients = jax.value_and_grad(lambda p: negative_elbo(p, x, eps).mean())(params)
    updates, moments = optimizer.update(gradients, moments, params)
    return optax.apply_updates(params, updates), moments, loss


rng, moments = np.random.default_rng(0), optimizer.init(params)
for step in range(2_000):
    batch = train[rng.integers(0, len(train), 128)]
    params, moments, loss = update(params, moments, batch, jax.random.key(step))
    if step % 500 == 499:
        print(f"step {step + 1}: {loss:.2f} nats")

# %% [markdown]
# ## What it learned
#
# Above each other: eight digits of the test split, their reconstructions, and eight samples (the mean of every
# pixel).

# %%
mean, _ = encoder.apply(params["encoder"], test[:8])
reconstructions = jax.nn.sigmoid(decoder.apply(params["decoder"], mean))
samples = jax.nn.sigmoid(decoder.apply(params["decoder"], jax.random.normal(jax.random.key(5), (8, 8))))
rows = np.stack([test[:8], reconstructions, samples])
Image.fromarray(images.grid_image(rows, levels=2))

# %% [markdown]
# ## A tighter bound from the same networks
#
# The importance-weighted bound of K samples is another function of the same arrays: the log-weights `log p(x,
# z) - log q(z|x)`.

# %%
K = 100


def importance_weighted(params, x, eps):
    """Returns the bound of K samples, [B] nats; eps is [K, B, 8]."""
    mean, log_var = encoder.apply(params["encoder"], x)

    def terms(eps_k):
        z = vae.reparameterize(mean, log_var, eps=eps_k)
        log_p_x = -vae.bernoulli_nll(x, decoder.apply(params["decoder"], z))
        return log_p_x, vae.prior_log_prob(z), vae.encoder_log_prob(z, mean, log_var)

    return vae.importance_weighted_bound(vae.log_importance_weights(*jax.lax.map(terms, eps)))


eps = jax.random.normal(jax.random.key(9), (K, len(test), 8))
bound = jax.jit(importance_weighted)(params, test, eps).mean()
elbo = -negative_elbo(params, test, eps[0]).mean()
print(f"test -log p <= {-bound:.2f} nats (K = {K}),  <= {-elbo:.2f} nats (the ELBO)")

# %% [markdown]
# `python -c "from gm_jax import losses; help(losses)"` lists all losses, with their formulas and papers.
