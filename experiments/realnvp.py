r"""RealNVP (Dinh, Sohl-Dickstein & Bengio, ICLR 2017, arXiv:1605.08803): affine couplings.

    python -m experiments.realnvp                                            # digits, two minutes
    python -m experiments.realnvp --data.name mnist --features 16 --blocks 1 --train.steps 1500 \
        --train.checkpoint-every 250 --train.patience 0
    python -m experiments.realnvp --data.name toy:two_moons                  # points, about two minutes
    python -m experiments.realnvp --preset cifar10                           # as published, for an accelerator
"""

import dataclasses

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import RealNVPConfig

CONFIG = RealNVPConfig(
    train=TrainConfig(steps=1_000, batch_size=64, steps_per_call=10, checkpoint_every=100, ema_decay=0.995, patience=4),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=100.0),
)

# Points need more and larger batches than 1,437 digits, and their steps are short.
POINTS = dataclasses.replace(
    CONFIG,
    data=DataConfig(name="toy:two_moons"),
    train=dataclasses.replace(CONFIG.train, steps=6_000, batch_size=256, steps_per_call=50, checkpoint_every=500),
)

if __name__ == "__main__":
    runner.main(CONFIG)
