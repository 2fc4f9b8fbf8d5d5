"""The deep energy-based model (Du & Mordatch, NeurIPS 2019, arXiv:1903.08689), with persistent Langevin chains.

    python -m experiments.ebm                                                     # digits, as vectors
    python -m experiments.ebm --network conv --train.steps-per-call 1             # sharper, and several times slower
    python -m experiments.ebm --chains.persistent 0                               # short runs from noise
    python -m experiments.ebm --data.name toy:eight_gaussians --chains.step-size 0.02 --chains.persistent 10000
    python -m experiments.ebm --objective nce --data.name toy:eight_gaussians     # noise-contrastive, learns log Z

log Z of points is a quadrature. For images it comes from annealed importance sampling, with a bracket.
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import ChainsConfig, EBMConfig

CONFIG = EBMConfig(
    train=TrainConfig(steps=1_500, batch_size=100, steps_per_call=50, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=10.0),
    network="mlp",
    hidden=(256, 256, 256),
    chains=ChainsConfig(steps=20, step_size=0.005, persistent=1_000),
)

if __name__ == "__main__":
    runner.main(CONFIG)
