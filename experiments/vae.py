"""The variational autoencoder (Kingma & Welling, ICLR 2014, arXiv:1312.6114).

python -m experiments.vae                                               # digits, about a minute
python -m experiments.vae --data.name binarized_mnist
python -m experiments.vae --data.name toy:two_moons                     # points: a normal decoder
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import VAEConfig

CONFIG = VAEConfig(
    train=TrainConfig(
        steps=12_000, batch_size=100, steps_per_call=50, checkpoint_every=1_000, ema_decay=0.999, patience=4
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
)

if __name__ == "__main__":
    runner.main(CONFIG)
