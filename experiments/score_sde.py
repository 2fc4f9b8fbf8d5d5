"""Score-based models by SDEs (Song et al., ICLR 2021, arXiv:2011.13456): VP, sub-VP or VE; likelihood by the ODE.

python -m experiments.score_sde                                          # digits
python -m experiments.score_sde --path ve --sigma-max 20                 # variance exploding; also sub_vp
python -m experiments.score_sde --data.name toy:two_moons                # points: the exact density by the ODE
python -m experiments.score_sde sample --sampler.method dpmpp --sampler.steps 15
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import PathSamplerConfig, ScoreConfig

CONFIG = ScoreConfig(
    train=TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
    path="vp",
    prediction="noise",
    times="log_snr",
    sampler=PathSamplerConfig(method="predictor_corrector", steps=100, grid="log_snr"),
)

if __name__ == "__main__":
    runner.main(CONFIG)
