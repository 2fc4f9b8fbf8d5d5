"""VQ-VAE (van den Oord et al., NeurIPS 2017, arXiv:1711.00937): discrete codes, then a transformer of the codes.

python -m experiments.vq_vae                                             # digits, both stages
python -m experiments.vq_vae --quantizer fsq                             # no codebook: Mentzer et al., ICLR 2024
python -m experiments.vq_vae --data.name captions                        # canvases in colour; cifar10 alike
python -m experiments.vq_vae sample --temperature 0.8
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import VQVAEConfig

CONFIG = VQVAEConfig(
    train=TrainConfig(steps=4_000, batch_size=64, checkpoint_every=250, ema_decay=0.999),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
)

if __name__ == "__main__":
    runner.main(CONFIG)
