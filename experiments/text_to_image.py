"""Text to image: a spatial autoencoder, a text encoder and a diffusion transformer of latents, in one run.

python -m experiments.text_to_image                                      # both stages
python -m experiments.text_to_image sample --prompt "a red seven left of a small blue two" --guidance 4
python -m experiments.text_to_image sample --prompt "a green two" --negative-prompt "a green two on white"
python -m experiments.text_to_image sample --prompt "a red three" --image picture.png --strength 0.6

The method is that of Rombach et al., CVPR 2022, arXiv:2112.10752, with a DiT for the U-Net.
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import TextToImageConfig

CONFIG = TextToImageConfig(
    train=TrainConfig(steps=4_000, batch_size=64, checkpoint_every=1_000, steps_per_call=10, ema_decay=0.999),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None, clip_norm=1.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
