"""Discrete diffusion by transition matrices, D3PM (Austin et al., NeurIPS 2021, arXiv:2107.03006).

python -m experiments.d3pm                                               # the levels of digits, a few minutes
python -m experiments.d3pm --transitions uniform                         # to all levels alike
python -m experiments.d3pm --cross-entropy 0                             # the bound alone
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import D3PMConfig

CONFIG = D3PMConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
