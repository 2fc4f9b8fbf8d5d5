"""The beta-VAE (Higgins et al., ICLR 2017): a VAE whose KL term is weighted by beta, so that latents disentangle.

    python -m experiments.beta_vae                              # digits, beta 4
    python -m experiments.beta_vae evaluate                     # its bounds on log p are those of beta 1

The picture traversal.png shows what each latent does.
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import VAEConfig

CONFIG = VAEConfig(
    train=TrainConfig(
        steps=20_000, batch_size=100, steps_per_call=50, checkpoint_every=1_000, ema_decay=0.999, patience=4
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
    latent_dim=10,
    beta=4.0,
)

if __name__ == "__main__":
    runner.main(CONFIG)
