"""Classifier-free guidance (Ho & Salimans, arXiv:2207.12598): one diffusion model with and without class labels.

python -m experiments.ddpm_conditional                                   # digits, about two minutes
python -m experiments.ddpm_conditional evaluate --guidance 0             # draw the pictures without guidance
python -m experiments.ddpm_conditional sample --label 3 --guidance 4     # threes
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import ConditionalDDPMConfig

CONFIG = ConditionalDDPMConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
