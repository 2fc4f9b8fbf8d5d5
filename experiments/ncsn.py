"""NCSN (Song & Ermon, NeurIPS 2019, arXiv:1907.05600): noise levels in geometric steps, annealed Langevin dynamics.

python -m experiments.ncsn                                               # digits
python -m experiments.ncsn --data.name toy:eight_gaussians               # points
python -m experiments.ncsn sample --sampler.steps 40 --sampler.langevin-steps 10

The noise levels of training are continuous, uniform in log sigma; those of sampling are `--sampler.steps` of them.
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import PathSamplerConfig, ScoreConfig

CONFIG = ScoreConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
    path="ve",
    sigma_max=20.0,
    prediction="noise",
    times="log_snr",
    sampler=PathSamplerConfig(method="annealed_langevin", steps=40, grid="log_snr", langevin_steps=5),
)

if __name__ == "__main__":
    runner.main(CONFIG)
