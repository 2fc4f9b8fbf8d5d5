"""The masked autoregressive flow (Papamakarios, Pavlakou & Murray, NeurIPS 2017, arXiv:1705.07057).

python -m experiments.maf                                # digits
python -m experiments.maf --data.name toy:two_moons      # points
"""

import dataclasses

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import AutoregressiveFlowConfig

CONFIG = AutoregressiveFlowConfig(
    train=TrainConfig(
        steps=1_000, batch_size=100, steps_per_call=50, checkpoint_every=100, ema_decay=0.995, patience=4
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=100.0),
    hidden=(256, 256),
)

POINTS = dataclasses.replace(
    CONFIG,
    data=DataConfig(name="toy:two_moons"),
    train=dataclasses.replace(CONFIG.train, steps=6_000, batch_size=256, checkpoint_every=500),
    hidden=(64, 64),
)

if __name__ == "__main__":
    runner.main(CONFIG)
