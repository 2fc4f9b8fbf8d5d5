"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499) on sequences: waveforms, or images in raster order.

python -m experiments.wavenet                                            # digits as 64 levels in a row, a minute
python -m experiments.wavenet --data.name wave:tones --dilations 1 2 4 8 16 32 64 128
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import WaveNetConfig

CONFIG = WaveNetConfig(
    train=TrainConfig(steps=2_000, batch_size=50, steps_per_call=10, checkpoint_every=200, ema_decay=0.995, patience=4),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
)

if __name__ == "__main__":
    runner.main(CONFIG)
