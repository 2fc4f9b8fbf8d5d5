r"""PixelCNN++ (Salimans, Karpathy, Chen & Kingma, ICLR 2017, arXiv:1701.05517).

python -m experiments.pixelcnn_pp                                        # digits, a few minutes
python -m experiments.pixelcnn_pp --data.name cifar10 --scales 3         # colours, each given the earlier ones
python -m experiments.pixelcnn_pp --output bernoulli                     # binary pixels
python -m experiments.pixelcnn_pp --preset cifar10                       # as published, for an accelerator

Sampling keeps no features: each pixel takes a pass through the whole network.
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import PixelCNNPlusPlusConfig

CONFIG = PixelCNNPlusPlusConfig(
    train=TrainConfig(steps=2_000, batch_size=50, steps_per_call=10, checkpoint_every=200, ema_decay=0.995, patience=4),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
)

if __name__ == "__main__":
    runner.main(CONFIG)
