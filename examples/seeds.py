"""Trains the same model with several seeds and learning rates, and prints all runs in one table.

python examples/seeds.py        # writes runs/seeds/*; the same command resumes what is missing
"""

import numpy as np

import gm_jax
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import MADEConfig

config = MADEConfig(train=TrainConfig(steps=80), optimizer=OptimizerConfig(), hidden=(64,), orderings=1)
print("learning rate   test -log p, mean +- standard error over 2 seeds")
for rate in (1e-3, 1e-2):
    found = []
    for seed in range(2):
        folder = f"runs/seeds/{rate:g}-{seed}"
        settings = {"train": {"seed": seed}, "optimizer": {"learning_rate": rate}}
        run = gm_jax.train(config, "binarized_digits", folder, evaluate=False, **settings)
        found.append(float(run.log_prob(run.data["test"]["x"]).log_prob.mean()))
    mean, error = -np.mean(found), np.std(found, ddof=1) / np.sqrt(len(found))
    print(f"{rate:13g}   {mean:.2f} +- {error:.2f} nats")
