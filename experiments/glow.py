r"""Glow (Kingma & Dhariwal, NeurIPS 2018, arXiv:1807.03039): actnorm, invertible 1x1 convolutions, affine couplings.

    python -m experiments.glow                                               # digits, about a minute
    python -m experiments.glow --data.name mnist --features 32 --steps 4 --train.steps 1500 \
        --train.checkpoint-every 250 --train.patience 0
    python -m experiments.glow --preset cifar10                              # as published, for an accelerator
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import GlowConfig

CONFIG = GlowConfig(
    train=TrainConfig(steps=1_000, batch_size=64, steps_per_call=10, checkpoint_every=100, ema_decay=0.995, patience=4),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=100.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
