"""The deep energy-based model (Du & Mordatch, NeurIPS 2019, arXiv:1903.08689), with persistent Langevin chains.

    python -m experiments.ebm                                                     # digits, about a minute
    python -m experiments.ebm --network conv --train.steps-per-call 1             # sharper, and several times slower
    python -m experiments.ebm --chains.persistent 0                               # short runs from noise
    python -m experiments.ebm --data.name toy:eight_gaussians                     # points, and a picture of the density
    python -m experiments.ebm --objective nce --data.name toy:eight_gaussians     # noise-contrastive, learns log Z

The time goes to the chains: 40 Langevin steps for each update. log Z of points is a quadrature. For images it comes
from annealed importance sampling, with a bracket.
"""

import dataclasses

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import ChainsConfig, EBMConfig

CONFIG = EBMConfig(
    train=TrainConfig(steps=1_500, batch_size=100, steps_per_call=50, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=10.0),
    network="mlp",
    hidden=(256, 256, 256),
    base_std=0.5,
    chains=ChainsConfig(steps=40, step_size=0.005, persistent=1_000),
)

# Points spread wider than scaled levels, so that their chains take longer steps.
POINTS = dataclasses.replace(
    CONFIG,
    data=DataConfig(name="toy:eight_gaussians"),
    train=dataclasses.replace(CONFIG.train, steps=4_000, steps_per_call=1),
    hidden=(128, 128, 128),
    base_std=None,
    chains=ChainsConfig(steps=40, step_size=0.02, persistent=10_000),
)

if __name__ == "__main__":
    runner.main(CONFIG)
