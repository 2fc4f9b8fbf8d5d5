"""Flow matching on the straight path (Lipman et al., arXiv:2210.02747; Liu et al., arXiv:2209.03003): rectified flow.

python -m experiments.flow_matching                                      # digits
python -m experiments.flow_matching --data.name toy:two_moons            # points: the exact density by the ODE
python -m experiments.flow_matching sample --sampler.method adaptive
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import PathSamplerConfig, ScoreConfig

CONFIG = ScoreConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
    path="linear",
    prediction="velocity",
    times="uniform",
    sampler=PathSamplerConfig(method="euler", steps=20, grid="uniform"),
)

if __name__ == "__main__":
    runner.main(CONFIG)
