"""Consistency distillation (Song et al., ICML 2023, arXiv:2303.01469): an EDM, then a copy that needs one step.

python -m experiments.consistency                                        # digits
python -m experiments.consistency --data.name toy:eight_gaussians        # points
python -m experiments.consistency sample --sampling-steps 2
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import ConsistencyConfig

CONFIG = ConsistencyConfig(
    train=TrainConfig(steps=3_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
