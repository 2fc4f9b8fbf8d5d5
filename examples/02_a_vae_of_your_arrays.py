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
# # A VAE of your own arrays
#
# `gm_jax.train` is the whole loop in one call: batches, checkpoints, resuming, evaluation, pictures. You bring
# arrays and networks.

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
import tempfile
from pathlib import Path

import flax.linen as nn
import numpy as np
import optax
from PIL import Image
from sklearn import datasets

import gm_jax
from gm_jax.models import decoder_likelihoods, vae
from gm_jax.ops import binarization
from gm_jax.plotting import images

folder = Path(tempfile.mkdtemp())  # on Colab: a folder of your drive, so that the run survives the session

# %% [markdown]
# ## Arrays
#
# Images are uint8, `[N, H, W]` or `[N, H, W, C]`; labels are optional, and so is the number of levels (256 if it is not
# given). Scikit-learn's digits stand for your own images. Splits that are missing are cut by a fixed rule.

# %%
digits = datasets.load_digits()
arrays = {"x": digits.images.astype(np.uint8), "label": digits.target, "levels": np.array(17)}
Image.fromarray(images.grid_image(arrays["x"][:20, :, :, None].reshape(2, 10, 8, 8, 1), levels=17))

# %% [markdown]
# ## Networks
#
# The likelihood says how many outputs a pixel needs: one, the logit, for binary pixels. It also says how the images
# become binary: here by a threshold at half.


# %%
class Encoder(nn.Module):
    """Maps x [B, 8, 8, 1] to the moments of q(z|x), [B, 8] each."""

    @nn.compact
    def __call__(self, x):
        h = nn.silu(nn.Dense(128)(x.reshape(len(x), -1)))
        return nn.Dense(8)(h), nn.Dense(8)(h)


class Decoder(nn.Module):
    """Maps z [B, 8] to logits [B, 8, 8, 1]."""

    @nn.compact
    def __call__(self, z):
        return nn.Dense(64)(nn.silu(nn.Dense(128)(z))).reshape(-1, 8, 8, 1)


family = vae.VAE(
    encoder=Encoder(),
    decoder=Decoder(),
    likelihood=decoder_likelihoods.bernoulli(lambda key, x: binarization.threshold(x, levels=17), levels=17),
    latent_dim=8,
    objective=vae.elbo_objective(),
    num_importance_samples=50,
)

# %% [markdown]
# ## Train
#
# The same call again resumes a run that was stopped; with more steps it goes on.

# %%
train = {"steps": 2_000, "steps_per_call": 50, "checkpoint_every": 1_000, "ema_decay": 0.99}
run = gm_jax.train(family, arrays, folder / "digits", optimizer=optax.adam(2e-3), train=train, evaluate=False)
run.spec.shape, run.step

# %% [markdown]
# ## Use it

# %%
test = run.data["test"]["x"]
bound = run.log_prob(test)
print(f"test -log p <= {-bound.log_prob.mean():.2f} nats, {bound.measure}, {dict(bound.settings)}")

# %% [markdown]
# Rows: test images, their reconstructions, and the means of ten samples.

# %%
z = np.random.default_rng(0).normal(size=(10, 8))
rows = np.stack([test[:10], run.reconstruct(test[:10]), run.decode(z)])
Image.fromarray(images.grid_image(rows, levels=17))

# %% [markdown]
# Lines between pairs of images, in latent space.

# %%
Image.fromarray(images.grid_image(np.asarray(run.interpolate(test[:4], test[4:8], num=10)), levels=17))

# %% [markdown]
# A run of your own networks opens with the same networks, from any directory. A configuration of
# `gm_jax.recipes.configs` in place of `family` needs nothing but the folder.

# %%
again = gm_jax.open_run(folder / "digits", model=family)
assert (again.sample(3, seed=1) == run.sample(3, seed=1)).all()
