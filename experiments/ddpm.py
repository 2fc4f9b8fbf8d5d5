"""Denoising diffusion (Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239); samples also by DDIM (Song et al., 2021).

python -m experiments.ddpm                                               # digits, about two minutes
python -m experiments.ddpm --data.name mnist --network unet --network.features 32 64 64 --network.blocks 2
python -m experiments.ddpm --data.name toy:two_moons                     # points: a perceptron
python -m experiments.ddpm evaluate --sampler.method ddim --sampler.steps 20
python -m experiments.ddpm sample --sampler.method dpmpp --sampler.steps 15
python -m experiments.ddpm --preset cifar10                              # as published, for an accelerator
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import DDPMConfig

CONFIG = DDPMConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
