"""MeanFlow (Geng et al., NeurIPS 2025, arXiv:2505.13447): one network evaluation a sample, without a teacher.

python -m experiments.meanflow                                           # digits
python -m experiments.meanflow --data.name toy:two_moons                 # points
python -m experiments.meanflow sample --sampling-steps 2
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import MeanFlowConfig

CONFIG = MeanFlowConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
