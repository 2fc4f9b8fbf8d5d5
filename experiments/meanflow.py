"""MeanFlow (Geng et al., arXiv:2505.13447, 2512.02012): one network evaluation a sample, without a teacher.

python -m experiments.meanflow                                           # digits
python -m experiments.meanflow --data.name toy:two_moons                 # points
python -m experiments.meanflow --labels --guidance 1                     # with labels; guidance is trained
python -m experiments.meanflow --no-own-direction                        # with the loss of the first paper
python -m experiments.meanflow sample --sampling-steps 2
"""

import dataclasses

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import MeanFlowConfig, MLPConfig

# The times and the share of r = t are those of the paper for CIFAR-10 (its power is not): r differs from t in three
# examples of four, which helps samples in one step.
CONFIG = MeanFlowConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
    log_normal_mean=-2.0,
    log_normal_std=2.0,
    same_time=0.25,
    own_direction=True,
)

# Points need more and larger batches than 1,437 digits, and their steps are short.
POINTS = dataclasses.replace(
    CONFIG,
    data=DataConfig(name="toy:two_moons"),
    network=MLPConfig(blocks=2),
    train=dataclasses.replace(
        CONFIG.train, steps=6_000, batch_size=256, steps_per_call=20, checkpoint_every=2_000, ema_decay=0.999
    ),
    log_normal_mean=-0.4,
    log_normal_std=1.0,
    same_time=0.75,
)

if __name__ == "__main__":
    runner.main(CONFIG)
