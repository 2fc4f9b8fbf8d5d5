"""Trains a diffusion model with labels, and samples it by 20 steps of DDIM with classifier-free guidance.

python examples/guided_diffusion.py        # writes runs/guided_diffusion, with guided.png and chain.gif
"""

from pathlib import Path

import numpy as np

import gm_jax
from gm_jax.models import diffusion, diffusion_space
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.ops import diffusion_process
from gm_jax.plotting import animation, images
from gm_jax.samplers.ddim import ddim

schedule = diffusion_process.cosine_schedule(100)
family = diffusion.Diffusion(
    network=DiffusionMLP(128, blocks=2, num_classes=11),  # or UNet((64, 128), num_classes=11); the 11th is "no class"
    space=diffusion_space.pixels(levels=17),
    schedule=schedule,
    shape=(8, 8, 1),
    parameterization=diffusion.v_prediction(),
    sampler=ddim(schedule, 20),
    variance_fn=diffusion_process.posterior_variance,
    num_bound_terms=10,
    num_classes=10,
)
folder = Path("runs/guided_diffusion")
settings = {"train": {"steps": 250, "ema_decay": 0.98, "log_every": 50}, "optimizer": {"learning_rate": 2e-3}}
run = gm_jax.train(family, "digits", folder, evaluate=False, **settings)

label = np.arange(10)
weights = (0.0, 2.0, 4.0)  # w of the paper; other libraries call 1 + w the guidance scale
rows = [run.sample(10, seed=1, label=label, guidance=weight) for weight in weights]
images.draw_grid(folder / "guided.png", np.stack(rows), levels=17)

chain = run.trajectory(10, seed=1, label=label, guidance=2.0)  # x_t and the predicted x_0 at all 20 times
frames = [run.family.space.to_data(x) for x in (*chain.x_t, chain.x_0)]
animation.write(folder / "chain.gif", frames, levels=17)
print(f"{len(frames)} states of {len(label)} chains; look at {folder}/guided.png and chain.gif")
