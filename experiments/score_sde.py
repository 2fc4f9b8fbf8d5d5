"""Score-based models by SDEs (Song et al., ICLR 2021, arXiv:2011.13456): VP, sub-VP or VE; likelihood by the ODE.

python -m experiments.score_sde                                          # digits
python -m experiments.score_sde --path ve --sigma-max 20                 # variance exploding; also sub_vp
python -m experiments.score_sde --data.name toy:two_moons                # points: the exact density by the ODE
python -m experiments.score_sde sample --sampler.method dpmpp --sampler.steps 15
"""

import dataclasses

from gm_jax import runner
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import MLPConfig, PathSamplerConfig, ScoreConfig

CONFIG = ScoreConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
    path="vp",
    prediction="noise",
    times="log_snr",
    sampler=PathSamplerConfig(method="predictor_corrector", steps=100, grid="log_snr"),
)

# Points need more and larger batches than 1,437 digits, and their steps are short.
POINTS = dataclasses.replace(
    CONFIG,
    data=DataConfig(name="toy:two_moons"),
    network=MLPConfig(blocks=2),
    train=dataclasses.replace(
        CONFIG.train, steps=6_000, batch_size=256, steps_per_call=20, checkpoint_every=2_000, ema_decay=0.999
    ),
    prediction="preconditioned",
)

if __name__ == "__main__":
    runner.main(CONFIG)
