"""A classifier that is an energy-based model (JEM; Grathwohl et al., ICLR 2020, arXiv:1912.03263).

    python -m experiments.jem                       # digits, about a minute
    python -m experiments.jem sample --label 3      # threes

It reports accuracy and calibration, and draws samples of each class.
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import ChainsConfig, JEMConfig

CONFIG = JEMConfig(
    train=TrainConfig(steps=1_500, batch_size=100, steps_per_call=50, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=10.0),
    network="mlp",
    hidden=(256, 256, 256),
    chains=ChainsConfig(steps=20, step_size=0.005, persistent=1_000),
)

if __name__ == "__main__":
    runner.main(CONFIG)
