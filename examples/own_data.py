"""Trains an experiment on your own data: an .npz file of arrays, and a folder of pictures.

python examples/own_data.py        # writes my.npz, pictures/ and runs/own_data-*
"""

from pathlib import Path

import numpy as np
from PIL import Image

import gm_jax
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import VAEConfig

# Stripes of two directions, which are the two classes.
rng = np.random.default_rng(0)
label = rng.integers(0, 2, 200)
waves = np.sin(np.arange(16) + rng.uniform(0, 6, (200, 1)))[:, None, :] * np.ones((1, 16, 1))
images = np.uint8(127 + 100 * np.where(label[:, None, None] == 1, waves, waves.transpose(0, 2, 1)))

np.savez("my.npz", x=images, label=label)
for number, (image, direction) in enumerate(zip(images, label, strict=True)):
    file = Path("pictures", ("rows", "columns")[direction], f"{number}.png")  # a subfolder is a class
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).resize((20, 20)).save(file)

config = VAEConfig(train=TrainConfig(steps=100), optimizer=OptimizerConfig(), latent_dim=4, hidden=(64,))
for kind, name, size in (("npz", "npz:my.npz", None), ("folder", "folder:pictures", 16)):  # or (images, label) itself
    run = gm_jax.train(config, name, f"runs/own_data-{kind}", data_size=size, evaluate=False)
    found = run.log_prob(run.data["test"]["x"])
    print(f"{kind:6} {run.spec.shape}, {run.spec.num_classes} classes: -log p <= {-found.log_prob.mean():.1f} nats")
# On the command line: python -m experiments.vae --data.name folder:pictures --data.size 16
