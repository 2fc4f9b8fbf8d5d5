"""NCSN (Song & Ermon, NeurIPS 2019, arXiv:1907.05600): noise levels in geometric steps, annealed Langevin dynamics.

python -m experiments.ncsn                                               # digits
python -m experiments.ncsn --data.name toy:eight_gaussians               # points
python -m experiments.ncsn sample --sampler.steps 40 --sampler.langevin-steps 10

The noise levels of training are continuous, uniform in log sigma; those of sampling are `--sampler.steps` of them.
"""

import dataclasses

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import MLPConfig, PathSamplerConfig, ScoreConfig

CONFIG = ScoreConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
    path="ve",
    sigma_max=20.0,
    prediction="noise",
    times="log_snr",
    sampler=PathSamplerConfig(method="annealed_langevin", steps=40, grid="log_snr", langevin_steps=5),
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
