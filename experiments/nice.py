r"""NICE (Dinh, Krueger & Bengio, ICLR 2015 workshop, arXiv:1410.8516): additive couplings and one scaling.

    python -m experiments.nice                                               # digits, half a minute
    python -m experiments.nice --data.name mnist --hidden 1000 1000 1000 1000 1000 --train.steps 8000 \
        --train.checkpoint-every 500
    python -m experiments.nice --data.name toy:pinwheel --prior normal
    python -m experiments.nice --preset mnist                                # as published, for an accelerator
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import NICEConfig

CONFIG = NICEConfig(
    train=TrainConfig(
        steps=2_000, batch_size=100, steps_per_call=10, checkpoint_every=200, ema_decay=0.995, patience=4
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=100.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
