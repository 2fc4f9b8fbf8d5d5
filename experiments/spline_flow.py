"""Neural spline flows (Durkan, Bekasov, Murray & Papamakarios, NeurIPS 2019, arXiv:1906.04032), with couplings.

python -m experiments.spline_flow                                        # toy:two_moons, about a minute
python -m experiments.spline_flow --data.name toy:checkerboard
"""

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import SplineFlowConfig

CONFIG = SplineFlowConfig(
    data=DataConfig(name="toy:two_moons"),
    train=TrainConfig(
        steps=6_000, batch_size=256, steps_per_call=50, checkpoint_every=500, ema_decay=0.995, patience=4
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=100.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
