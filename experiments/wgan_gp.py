"""Wasserstein GAN with gradient penalty (Gulrajani et al., 2017, arXiv:1704.00028).

    python -m experiments.wgan_gp                                           # digits
    python -m experiments.wgan_gp --data.name toy:eight_gaussians           # points: fully connected
    python -m experiments.wgan_gp --preset cifar10                          # as published, for an accelerator

The critic's scores have no unit and no offset; they are logged unchanged.
"""

from gm_jax import runner
from gm_jax.config import AdamConfig, TrainConfig
from gm_jax.recipes.configs import WGANGPConfig

CONFIG = WGANGPConfig(
    train=TrainConfig(steps=6_000, batch_size=128, checkpoint_every=1_000, ema_decay=0.995),
    generator=AdamConfig(learning_rate=1e-3, b1=0.0, b2=0.9),
    discriminator=AdamConfig(learning_rate=1e-3, b1=0.0, b2=0.9),
)

if __name__ == "__main__":
    runner.main(CONFIG)
