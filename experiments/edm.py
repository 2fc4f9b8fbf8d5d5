"""EDM (Karras et al., NeurIPS 2022, arXiv:2206.00364): preconditioning, log-normal noise levels, Heun's solver.

python -m experiments.edm                                                # digits
python -m experiments.edm --labels --guidance 1                          # with labels
python -m experiments.edm --data.name toy:two_moons                      # points
python -m experiments.edm sample --sampler.steps 18 --sampler.churn 10
python -m experiments.edm --augment 0.12                                 # images that are also turned and moved
python -m experiments.edm --preset cifar10                               # as published, for an accelerator
"""

import dataclasses

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import MLPConfig, PathSamplerConfig, ScoreConfig

CONFIG = ScoreConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
    path="edm",
    prediction="preconditioned",
    times="log_normal",
    sampler=PathSamplerConfig(method="heun", steps=18, grid="karras"),
)

# Points need more and larger batches than 1,437 digits, and their steps are short.
POINTS = dataclasses.replace(
    CONFIG,
    data=DataConfig(name="toy:two_moons"),
    network=MLPConfig(blocks=2),
    train=dataclasses.replace(
        CONFIG.train, steps=6_000, batch_size=256, steps_per_call=20, checkpoint_every=2_000, ema_decay=0.999
    ),
)

if __name__ == "__main__":
    runner.main(CONFIG)
