"""Improved techniques for training GANs (Salimans et al., 2016, arXiv:1606.03498): five techniques, each a switch.

    python -m experiments.improved_gan                                      # digits, all except feature matching
    python -m experiments.improved_gan --data.name toy:eight_gaussians      # points: fully connected
    python -m experiments.improved_gan --feature-matching --no-virtual-batch-norm --historical-averaging 0
    python -m tools.gan_ablation                                            # an ablation over several seeds

Label smoothing changes the game; minibatch discrimination and virtual batch norm change the networks; the others change
the loss. The techniques help a game that loses part of the data, such as a fully connected one on digits; the default,
a DCGAN on digits, is better without them (`experiments.gan`).
"""

from gm_jax import runner
from gm_jax.config import AdamConfig, TrainConfig
from gm_jax.recipes.configs import ImprovedGANConfig

CONFIG = ImprovedGANConfig(
    train=TrainConfig(steps=6_000, batch_size=128, checkpoint_every=1_000, ema_decay=0.995),
    generator=AdamConfig(learning_rate=1e-3, b1=0.5),
    discriminator=AdamConfig(learning_rate=1e-3, b1=0.5),
)

if __name__ == "__main__":
    runner.main(CONFIG)
