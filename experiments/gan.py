"""Generative adversarial networks (Goodfellow et al., 2014, arXiv:1406.2661), deep convolutional on images (DCGAN).

python -m experiments.gan                                               # digits
python -m experiments.gan --data.name mnist
python -m experiments.gan --data.name toy:eight_gaussians               # points: fully connected
python -m experiments.gan --preset sngan-cifar10                        # as published, for an accelerator
"""

from gm_jax import runner
from gm_jax.config import AdamConfig, TrainConfig
from gm_jax.recipes.configs import GANConfig

CONFIG = GANConfig(
    train=TrainConfig(steps=6_000, batch_size=128, checkpoint_every=1_000, ema_decay=0.995),
    generator=AdamConfig(learning_rate=1e-3, b1=0.5),
    discriminator=AdamConfig(learning_rate=1e-3, b1=0.5),
)

if __name__ == "__main__":
    runner.main(CONFIG)
