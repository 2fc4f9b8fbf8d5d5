"""Text to image: a spatial autoencoder, a text encoder and a U-Net of latents, in one run.

python -m experiments.text_to_image                                      # both stages
python -m experiments.text_to_image sample --prompt "a red seven left of a small blue two" --guidance 4
python -m experiments.text_to_image sample --prompt "a green two" --negative-prompt "a green two on white"
python -m experiments.text_to_image sample --prompt "a red three" --image picture.png --strength 0.6

The method is that of Rombach et al., CVPR 2022, arXiv:2112.10752, at a small size: an autoencoder with a KL term of
little weight, without perceptual and adversarial losses, and a U-Net with cross-attention, which here predicts v.
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import TextToImageConfig

# Small batches: in the same time, the autoencoder learns to keep more details with them.
# Divided by its expected size, the error is about ten times as large, and so is the norm that clips gradients.
CONFIG = TextToImageConfig(
    train=TrainConfig(steps=60_000, batch_size=8, checkpoint_every=5_000, steps_per_call=50, ema_decay=0.9995),
    optimizer=OptimizerConfig(learning_rate=5e-4, schedule="cosine", warmup_steps=None, b2=0.99, clip_norm=10.0),
)

if __name__ == "__main__":
    runner.main(CONFIG)
