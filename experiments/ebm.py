"""The deep energy-based model (Du & Mordatch, NeurIPS 2019, arXiv:1903.08689), with persistent Langevin chains.

    python -m experiments.ebm                                                     # digits
    python -m experiments.ebm --data.name toy:eight_gaussians --train.steps 4000  # points: log Z by quadrature
    python -m experiments.ebm --chains.persistent 0                               # short runs from noise
    python -m experiments.ebm --objective nce --data.name toy:eight_gaussians     # noise-contrastive, learns log Z

The likelihood is an estimate: log Z of images comes from annealed importance sampling.
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import EBMConfig

CONFIG = EBMConfig(
    train=TrainConfig(steps=1_500, batch_size=100, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=10.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
