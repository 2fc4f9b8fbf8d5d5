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
# # Open a run and guide a diffusion model
#
# A run is a folder. `gm_jax.open_run` turns it into functions, without the data and without the module that
# trained it.

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
from PIL import Image

import gm_jax
from gm_jax.models import diffusion, diffusion_space
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.ops import diffusion_process
from gm_jax.plotting import animation, images
from gm_jax.samplers.ddim import ddim

folder = Path(tempfile.mkdtemp()) / "ddpm"

# %% [markdown]
# ## A run
#
# A diffusion model of 8x8 digits with labels. Its network is a perceptron, which trains within seconds; for larger
# images take `gm_jax.networks.unet.UNet`. On the command line such a run is `python -m experiments.ddpm_conditional`.

# %%
schedule = diffusion_process.cosine_schedule(100)
family = diffusion.Diffusion(
    network=DiffusionMLP(256, blocks=2, num_classes=11),  # ten digits and "no class"
    space=diffusion_space.pixels(levels=17),
    schedule=schedule,
    shape=(8, 8, 1),
    parameterization=diffusion.v_prediction(),
    sampler=ddim(schedule, 20),
    variance_fn=diffusion_process.posterior_variance,
    num_bound_terms=20,
    num_classes=10,
)
settings = {
    "optimizer": {"learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 100},
    "train": {"steps": 1_500, "steps_per_call": 50, "ema_decay": 0.995, "checkpoint_every": 1_500},
}
gm_jax.train(family, "digits", folder, evaluate=False, **settings)
sorted(path.name for path in folder.iterdir())

# %% [markdown]
# ## Open it
#
# The folder of a run of your own networks holds their parameters, and needs the networks again. A run of an experiment
# needs nothing but its folder.

# %%
run = gm_jax.open_run(folder, model=family)
print(run.spec.name, run.spec.shape, f"{run.spec.num_classes} classes, step {run.step}")

# %% [markdown]
# ## Guidance
#
# Rows: weights `w` of classifier-free guidance, -1 (no label), 0 (the conditional model), 1 and 4. Columns: the classes
# 0 to 9, from the same noise in every row. Other libraries call `1 + w` the guidance scale. The sampler is DDIM with 20
# of the 100 steps that the model was trained on.

# %%
label = np.arange(10)
rows = [run.sample(10, seed=3, label=label, guidance=w) for w in (-1.0, 0.0, 1.0, 4.0)]
Image.fromarray(images.grid_image(np.stack(rows), levels=17))

# %% [markdown]
# ## Few steps or many
#
# Rows: 4, 20 and 100 steps of DDIM from the same noise.

# %%
rows = [run.sample(10, seed=3, label=label, guidance=1.0, sampler=ddim(schedule, n)) for n in (4, 20, 100)]
Image.fromarray(images.grid_image(np.stack(rows), levels=17))

# %% [markdown]
# ## The chain
#
# `trajectory` keeps every state: above x_t, below the x_0 that the network predicts from it. `chain.gif` has all of
# them.

# %%
chain = run.trajectory(1, seed=3, label=[3], guidance=1.0)
to_data = run.family.space.to_data
rows = np.stack([to_data(chain.x_t[::2, 0]), to_data(chain.x0_hat[::2, 0])])
animation.write(folder / "chain.gif", [to_data(x) for x in (*chain.x_t, chain.x_0)], levels=17)
Image.fromarray(images.grid_image(rows, levels=17))

# %% [markdown]
# ## The bound
#
# The likelihood is of the unconditional model, and a lower bound of log p. `num_bound_terms` says how many of its terms
# are drawn.

# %%
found = run.log_prob(run.data["test"]["x"])
bits = -found.log_prob.mean() / (64 * np.log(2))
print(f"test -log p <= {bits:.3f} bits/dim ({found.measure}, {dict(found.settings)})")
