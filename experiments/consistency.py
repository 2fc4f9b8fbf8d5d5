"""Consistency distillation (Song et al., ICML 2023, arXiv:2303.01469): an EDM, then a copy that needs one step.

python -m experiments.consistency                                        # digits
python -m experiments.consistency --data.name toy:eight_gaussians        # points
python -m experiments.consistency sample --sampling-steps 2
"""

import dataclasses

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import ConsistencyConfig, MLPConfig

CONFIG = ConsistencyConfig(
    train=TrainConfig(steps=3_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
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
