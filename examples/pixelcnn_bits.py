"""Trains a PixelCNN, and prints its exact bits per dimension.

python examples/pixelcnn_bits.py        # writes runs/pixelcnn_bits
"""

import numpy as np

import gm_jax
from gm_jax.models import autoregressive
from gm_jax.models import autoregressive_networks as ordered
from gm_jax.networks.pixelcnn import GatedPixelCNN

shape, levels = (8, 8, 1), 17
network = GatedPixelCNN(shape, levels=levels, outputs_per_dim=levels, features=16, layers=2, first_size=5)
family = autoregressive.Autoregressive(
    network=ordered.image_network(network), likelihood=ordered.categorical(levels=levels), shape=shape
)
settings = {"train": {"steps": 60}, "optimizer": {"learning_rate": 3e-3}}
run = gm_jax.train(family, "digits", "runs/pixelcnn_bits", evaluate=False, **settings)

test = run.data["test"]["x"]
found = run.log_prob(test)
bits = -np.asarray(found.log_prob, np.float64) / (np.prod(shape) * np.log(2))
print(f"{bits.mean():.3f} +- {bits.std() / np.sqrt(len(bits)):.3f} bits/dim ({found.kind}, {found.measure})")

completed = run.complete(test[:8], num_kept=32, temperature=0.9)  # the upper half is kept, the lower half is drawn
print(f"{len(completed)} completed digits of shape {completed.shape[1:]}")
