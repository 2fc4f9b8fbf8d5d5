"""Flow matching on the straight path (Lipman et al., arXiv:2210.02747; Liu et al., arXiv:2209.03003): rectified flow.

python -m experiments.flow_matching                                      # digits
python -m experiments.flow_matching --data.name toy:two_moons            # points: the exact density by the ODE
python -m experiments.flow_matching --coupling optimal                   # OT-CFM: pairs of least cost in each batch
python -m experiments.flow_matching sample --sampler.method adaptive
"""

import dataclasses

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import MLPConfig, PathSamplerConfig, ScoreConfig

CONFIG = ScoreConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
    path="linear",
    prediction="velocity",
    times="uniform",
    sampler=PathSamplerConfig(method="euler", steps=20, grid="uniform"),
)

# Points need more and larger batches than 1,437 digits, and their steps are short.
POINTS = dataclasses.replace(
    CONFIG,
    data=DataConfig(name="toy:two_moons"),
    network=MLPConfig(blocks=2),
    train=dataclasses.replace(CONFIG.train, steps=6_000, batch_size=256, steps_per_call=20, checkpoint_every=2_000),
)

if __name__ == "__main__":
    runner.main(CONFIG)
