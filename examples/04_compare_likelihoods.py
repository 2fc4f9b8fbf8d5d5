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
# # Compare two models by their likelihoods
#
# A likelihood is a number with a kind, a measure and settings. Two numbers can be ranked if they are of the
# same data in the same measure, and if their kinds allow it: an exact number that is below another model's
# upper bound of -log p proves nothing about the other model's true value.

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

import numpy as np

import gm_jax
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.errors import UserError
from gm_jax.recipes.configs import MADEConfig, VAEConfig

folder = Path(tempfile.mkdtemp())
optimizer = OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=100)
train = TrainConfig(steps=3_000, batch_size=100, steps_per_call=50, ema_decay=0.998, checkpoint_every=1_000)

# %% [markdown]
# ## Two models of the same binary images
#
# MADE computes log p(x) itself. A VAE computes lower bounds of it.

# %%
made = gm_jax.train(
    MADEConfig(train=train, optimizer=optimizer, hidden=(256,)), "binarized_digits", folder / "made", evaluate=False
)
config = VAEConfig(train=train, optimizer=optimizer, hidden=(128,), latent_dim=16)
vae = gm_jax.train(config, "binarized_digits", folder / "vae", evaluate=False)

# %% [markdown]
# ## Their likelihoods
#
# The sign in front of a number is that of -log p: `=` exact, `<=` the true value is at most this. The bound of
# the VAE depends on K, the number of importance samples: with more of them it approaches the true value from
# above.

# %%
x = made.data["test"]["x"]
signs = {"exact": "=", "lower_bound": "<=", "upper_bound": ">=", "estimate": "~"}


def show(name, found):
    """Prints the mean of -log p with its standard error over the examples."""
    nll = -np.asarray(found.log_prob, np.float64)
    error = nll.std(ddof=1) / np.sqrt(len(nll))
    number = f"{signs[found.kind]:2} {nll.mean():.2f} +- {error:.2f} nats"
    print(f"{name:5} -log p {number}, {found.measure}, {dict(found.settings)}")
    return nll


exact = show("MADE", made.log_prob(x))
bounds = {K: show("VAE", vae.log_prob(x, importance_samples=K)) for K in (1, 10, 100, 1_000)}

# %% [markdown]
# ## Is one better?
#
# The same test images were given to both, so the difference of each image counts, and its standard error is
# smaller than that of the means. If the VAE's bound is below MADE's exact number, the VAE is better on these
# images. If it is above, nothing is proven: the VAE's true value may be lower.

# %%
difference = bounds[1_000] - exact
error = difference.std(ddof=1) / np.sqrt(len(difference))
print(f"VAE's bound - MADE's exact value: {difference.mean():.2f} +- {error:.2f} nats")
if difference.mean() < -2 * error:
    print("The VAE is better: even its bound is below.")
else:
    print("Not decided by these numbers: the VAE's true -log p is below its bound.")

# %% [markdown]
# ## What cannot be compared
#
# The same VAE on grey digits has another measure: a probability of 17 levels. Its number cannot be compared with
# the two above, neither in nats nor in bits per dimension. `log_prob` refuses data of another form.

# %%
try:
    made.log_prob(np.full((2, 8, 8, 1), 16, np.uint8))
except UserError as error:
    print(error)

# %% [markdown]
# [Concepts](../docs/concepts.md#kinds-of-likelihood) lists all kinds. Every number in a run's `results.json`
# carries its kind, measure, data, split and settings.
