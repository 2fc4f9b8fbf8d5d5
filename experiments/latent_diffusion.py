"""Latent diffusion (Rombach et al., CVPR 2022, arXiv:2112.10752): a VAE, then a diffusion model of its latents.

python -m experiments.latent_diffusion                                   # digits, both stages
python -m experiments.latent_diffusion --autoencoder.beta 1              # a VAE whose prior is learned afterwards
python -m experiments.latent_diffusion --autoencoder spatial --network unet --data.name cifar10   # latents are images
python -m benchmarks.latent_sampling                                     # compared with diffusion of pixels
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import AutoencoderConfig, LatentDiffusionConfig, MLPConfig

CONFIG = LatentDiffusionConfig(
    train=TrainConfig(steps=12_000, batch_size=64, checkpoint_every=2_000, steps_per_call=20, ema_decay=0.999),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
    autoencoder=AutoencoderConfig(latent_dim=16, beta=0.3),
    network=MLPConfig(hidden=256, blocks=3, dropout=0.1),
)

if __name__ == "__main__":
    runner.main(CONFIG)
